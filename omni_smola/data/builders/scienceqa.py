"""ScienceQA (Lu et al., arXiv 2209.09513): school problems with choices; those with an image."""

from collections.abc import Iterator
from pathlib import Path

from omni_smola.data.builders.official.answers import all_choices
from omni_smola.data.builders.official.builder import Example, OfficialBuilder
from omni_smola.data.builders.official.files import Fields, SourceFile, read_dict, read_json
from omni_smola.data.builders.official.images import Folders
from omni_smola.metrics.scienceqa import scienceqa_groups

_PAGE = "https://scienceqa.github.io/#download"
_NAMES = {"train": "train", "validation": "val", "test": "test"}
_FILES = tuple(
    SourceFile(f"scienceqa/{name}", _PAGE) for name in ("problems.json", "pid_splits.json")
)


class Scienceqa(OfficialBuilder):
    """ScienceQA: problems.json and pid_splits.json in scienceqa/, and train/, val/ and test/ with
    {pid}/image.png.

    Splits train, validation and test of the problems that have an image, as the PaLI family
    reports them; scored by the right choice, in all and by subject, context and grade. A hint
    stands before the question, "Context: ... Question: ...", because much cannot be answered
    without; lecture and solution are left out.
    """

    SPLITS = dict.fromkeys(_NAMES, _FILES)
    IMAGES = Folders(
        "scienceqa",
        tuple(
            SourceFile(f"scienceqa/{name}/", f"{name}.zip at {_PAGE}") for name in _NAMES.values()
        ),
        by_folder=True,
    )

    def records(self, folder: Path, split: str) -> Iterator[Fields]:
        problems, splits = (folder / file.path for file in _FILES)
        by_id = dict(read_dict(problems))
        for pid in Fields(read_json(splits), str(splits)).items(_NAMES[split]):
            record = by_id.get(pid)
            if record is None:
                record = Fields({"pid": pid}, f"{problems}, problem {pid!r} of {splits.name}")
            elif isinstance(record.values, dict):
                record = Fields({**record.values, "pid": pid}, record.where)
            yield record

    def example(self, record: Fields, split: str) -> Example | None:
        if record.get("image") is None:
            # The problems without an image are a test of the language model alone.
            return None
        image, hint = record.text("image"), record.text("hint", empty=True)
        question = record.text("question")
        choices = all_choices(record)
        index = record.integer("answer", most=len(choices) - 1)
        return Example(
            id=record.text("pid"),
            image=f"{_NAMES[split]}/{record.text('pid')}/{Path(image).stem}",
            question=f"Context: {hint} Question: {question}" if hint else question,
            choices=choices,
            references=(choices[index],),
            answer_index=index,
            groups=scienceqa_groups(record.text("subject"), hint, image, record.text("grade")),
        )
