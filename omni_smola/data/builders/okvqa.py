"""OK-VQA (Marino et al., arXiv 1906.00067): questions on COCO photos that need knowledge."""

from collections.abc import Iterator
from pathlib import Path

from omni_smola.data.builders.official.answers import ten_answers
from omni_smola.data.builders.official.builder import Example, OfficialBuilder
from omni_smola.data.builders.official.files import Fields, SourceFile
from omni_smola.data.builders.official.image_sets import COCO
from omni_smola.data.builders.official.vqa import joined

_PAGE = "https://okvqa.allenai.org/download.html"

# The categories by the numbers that stand in question_type; names as in the paper's tables.
_CATEGORIES = {
    "one": "VT",  # vehicles and transportation
    "two": "BCP",  # brands, companies and products
    "three": "OMC",  # objects, material and clothing
    "four": "SR",  # sports and recreation
    "five": "CF",  # cooking and food
    "six": "GHLC",  # geography, history, language and culture
    "seven": "PEL",  # people and everyday life
    "eight": "PA",  # plants and animals
    "nine": "ST",  # science and technology
    "ten": "WC",  # weather and climate
    "other": "other",
}


def _split(year: str) -> tuple[SourceFile, ...]:
    names = (f"OpenEnded_mscoco_{year}_questions.json", f"mscoco_{year}_annotations.json")
    return tuple(SourceFile(f"okvqa/{name}", _PAGE) for name in names)


class Okvqa(OfficialBuilder):
    """OK-VQA: OpenEnded_mscoco_..._questions.json and mscoco_..._annotations.json in okvqa/.

    Splits train and validation, which papers report; scored by the ten answers, in all and by the
    ten categories of question_type. The ten are those of five annotators, each twice.
    """

    SPLITS = {"train": _split("train2014"), "validation": _split("val2014")}
    IMAGES = COCO

    def records(self, folder: Path, split: str) -> Iterator[Fields]:
        return joined(*(folder / file.path for file in self.SPLITS[split]))

    def example(self, record: Fields, split: str) -> Example:
        kind = record.text("question_type", empty=True)
        return Example(
            id=record.label("question_id"),
            image=record.label("image_id"),
            question=record.text("question"),
            # "answer", the stem, is what the official script compares; "raw_answer" as it was typed
            # is never read there.
            references=ten_answers(record),
            groups=_CATEGORIES.get(kind, ""),
        )
