"""VQAv2 (Goyal et al., arXiv 1612.00837): questions on COCO photos, ten answers each."""

from collections.abc import Iterator
from pathlib import Path

from omni_smola.data.builders.official.builder import Example, OfficialBuilder
from omni_smola.data.builders.official.files import Fields, SourceFile
from omni_smola.data.builders.official.image_sets import COCO
from omni_smola.data.builders.official.vqa import joined

_PAGE = "https://visualqa.org/download.html"


def _split(questions: str, annotations: str | None = None) -> tuple[SourceFile, ...]:
    names = [f"v2_OpenEnded_mscoco_{questions}_questions.json"]
    if annotations:
        names.append(f"v2_mscoco_{annotations}_annotations.json")
    return tuple(SourceFile(f"vqav2/{name}", _PAGE) for name in names)


class Vqav2(OfficialBuilder):
    """VQAv2: v2_OpenEnded_..._questions.json and v2_mscoco_..._annotations.json in vqav2/.

    Splits train, validation, test-dev and test; scored by the ten answers, in all and by
    answer_type (yes/no, number, other).
    """

    SPLITS = {
        "train": _split("train2014", "train2014"),
        "validation": _split("val2014", "val2014"),
        "test-dev": _split("test-dev2015"),
        "test": _split("test2015"),
    }
    HIDDEN = ("test-dev", "test")
    IMAGES = COCO

    def records(self, folder: Path, split: str) -> Iterator[Fields]:
        return joined(*(folder / file.path for file in self.SPLITS[split]))

    def example(self, record: Fields, split: str) -> Example:
        references, groups = (), ""
        if split not in self.HIDDEN:
            answers = record.records("answers")
            if len(answers) != 10:
                raise record.bad(f"'answers' must be 10, but there are {len(answers)}.")
            references = tuple(answer.text("answer", empty=True) for answer in answers)
            groups = record.text("answer_type", empty=True).replace(" ", "_")
        return Example(
            id=record.label("question_id"),
            image=record.label("image_id"),
            question=record.text("question"),
            references=references,
            groups=groups,
        )
