"""TextVQA (Singh et al., arXiv 1904.08920): questions on photos that ask for reading."""

from collections.abc import Iterator
from pathlib import Path

from omni_smola.data.builders.official.answers import ten_answers
from omni_smola.data.builders.official.builder import Example, OfficialBuilder
from omni_smola.data.builders.official.files import BadRecord, Fields, SourceFile, read_list
from omni_smola.data.builders.official.image_sets import TEXTVQA

_PAGE = "https://textvqa.org/dataset/"
_OCR = ("TextVQA_0.5.1_", "TextVQA_Rosetta_OCR_v0.2_")


def _split(name: str) -> tuple[SourceFile, ...]:
    return (SourceFile(f"textvqa/TextVQA_0.5.1_{name}.json", _PAGE),)


class Textvqa(OfficialBuilder):
    """TextVQA: TextVQA_0.5.1_train.json, _val.json and _test.json in textvqa/.

    Splits train, validation and test, whose answers are hidden; scored by the ten answers. The
    words on the images are read from TextVQA_Rosetta_OCR_v0.2_train.json and its like where they
    lie beside; without them there are none.
    """

    SPLITS = {"train": _split("train"), "validation": _split("val"), "test": _split("test")}
    HIDDEN = ("test",)
    IMAGES = TEXTVQA

    def records(self, folder: Path, split: str) -> Iterator[Fields]:
        path = folder / self.SPLITS[split][0].path
        words = _words(path.with_name(path.name.replace(*_OCR)))
        for record in read_list(path, "data"):
            try:
                found = words.get(record.label("image_id"))
            except BadRecord:  # told when the record is read
                found = None
            yield Fields({**record.values, "ocr_tokens": found}, record.where) if found else record

    def example(self, record: Fields, split: str) -> Example:
        hidden = split in self.HIDDEN
        return Example(
            id=record.label("question_id"),
            image=record.label("image_id"),
            question=record.text("question"),
            references=() if hidden else ten_answers(record),
            ocr=tuple(record.texts("ocr_tokens", 0)) if "ocr_tokens" in record else (),
        )


def _words(path: Path) -> dict[str, list]:
    """Image -> its words by Rosetta; nothing where the file is not there."""
    if not path.is_file():
        return {}
    return {
        record.label("image_id"): record.items("ocr_tokens") for record in read_list(path, "data")
    }
