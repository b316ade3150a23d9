"""VizWiz-VQA (Gurari et al., arXiv 1802.08218): questions of blind people on their own photos."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from omni_smola.data.builders.official.answers import ten_answers
from omni_smola.data.builders.official.builder import Example, OfficialBuilder
from omni_smola.data.builders.official.files import Fields, SourceFile, read_list
from omni_smola.data.builders.official.image_sets import VIZWIZ

_PAGE = "https://vizwiz.org/tasks-and-datasets/vqa/"


def _split(name: str) -> tuple[SourceFile, ...]:
    return (SourceFile(f"vizwiz_vqa/annotations/{name}.json", f"Annotations.zip at {_PAGE}"),)


class VizwizVqa(OfficialBuilder):
    """VizWiz-VQA: train.json, val.json and test.json in vizwiz_vqa/annotations/.

    Splits train, validation and test, whose answers are hidden; scored by the ten answers, in all
    and by answer_type (yes/no, number, other, unanswerable). There is one question an image and no
    identifier of it: the name of the image file is the one that the server wants back.
    """

    SPLITS = {"train": _split("train"), "validation": _split("val"), "test": _split("test")}
    HIDDEN = ("test",)
    IMAGES = VIZWIZ

    def records(self, folder: Path, split: str) -> Iterator[Fields]:
        return read_list(folder / self.SPLITS[split][0].path)

    def example(self, record: Fields, split: str) -> Example:
        name = record.text("image")
        references, groups = (), ""
        if split not in self.HIDDEN:
            # "unanswerable" is an answer like any other: most annotators' where answerable is 0.
            references = ten_answers(record)
            if "answer_type" in record:
                groups = record.text("answer_type", empty=True).replace(" ", "_")
        return Example(
            id=name,
            image=PurePosixPath(name).stem,
            question=record.text("question"),
            references=references,
            groups=groups,
        )
