"""IconQA (Lu et al., arXiv 2110.13214): questions on abstract diagrams, with choices in words."""

from collections.abc import Iterator
from pathlib import Path

from omni_smola.data.builders.official.answers import all_choices
from omni_smola.data.builders.official.builder import Example, OfficialBuilder
from omni_smola.data.builders.official.files import Fields, SourceFile, read_json
from omni_smola.data.builders.official.images import Folders

_PAGE = "https://iconqa.github.io"
_NAMES = {"train": "train", "validation": "val", "test": "test"}
_SKILLS = "iconqa/iconqa_data/pid2skills.json"


class Iconqa(OfficialBuilder):
    """IconQA, the sub-task choose_txt: iconqa_data/iconqa/{train,val,test}/choose_txt/{pid}/ with
    data.json and image.png, in iconqa/; iconqa_data/pid2skills.json if it is there.

    Splits train, validation and test; scored by the right choice, in all and by the skills that a
    question needs where pid2skills.json says so. Choices that are images and blanks to fill in are
    the other sub-tasks, which MoME does not use.
    """

    SPLITS = {
        split: (SourceFile(f"iconqa/iconqa_data/iconqa/{name}/choose_txt/", _PAGE),)
        for split, name in _NAMES.items()
    }
    IMAGES = Folders(
        "iconqa",
        tuple(file for files in SPLITS.values() for file in files),
        pattern=r"(?P<key>[^/]+)/image\.png",  # a pid is in one split only
    )

    def records(self, folder: Path, split: str) -> Iterator[Fields]:
        skills = folder / _SKILLS
        skills_of = Fields(read_json(skills) if skills.is_file() else {}, str(skills))
        problems = (folder / self.SPLITS[split][0].path).glob("*/data.json")
        for path in sorted(problems, key=lambda path: (len(path.parent.name), path)):
            pid, values = path.parent.name, read_json(path)
            if isinstance(values, dict):
                needed = skills_of.texts(pid) if pid in skills_of else []
                values = {**values, "pid": pid, "skills": needed}
            yield Fields(values, str(path))

    def example(self, record: Fields, split: str) -> Example:
        choices = all_choices(record)
        index = record.integer("answer", most=len(choices) - 1)
        return Example(
            id=record.text("pid"),
            image=record.text("pid"),
            question=record.text("question"),
            choices=choices,
            references=(choices[index],),
            answer_index=index,
            groups=" ".join(record.texts("skills", at_least=0)),
        )
