"""OCR-VQA (Mishra et al., ICDAR 2019): questions on the covers of books."""

from collections.abc import Iterator
from pathlib import Path

from omni_smola.data.builders.official.builder import Example, OfficialBuilder
from omni_smola.data.builders.official.files import BadRecord, Fields, SourceFile, read_dict
from omni_smola.data.builders.official.images import Folders

_PAGE = "https://ocr-vqa.github.io/"
_FILE = SourceFile("ocrvqa/dataset.json", _PAGE)
_SPLITS = {"train": 1, "validation": 2, "test": 3}


class Ocrvqa(OfficialBuilder):
    """OCR-VQA: dataset.json in ocrvqa/, images/{id}.jpg (or .gif, .png) as loadDataset.py fetches.

    Splits train, validation and test by the field split (1, 2, 3); one example per question,
    scored by exact match. Questions have no identifier: ours is the book's and the question's
    place among those of the book, "0061020001-3". Covers that the shop has no more are missing
    images: leave them out by --config.data.on_error=skip.
    """

    SPLITS = dict.fromkeys(_SPLITS, (_FILE,))
    IMAGES = Folders(
        "ocrvqa", (SourceFile("ocrvqa/images/", f"the covers, as loadDataset.py of {_PAGE}"),)
    )

    def records(self, folder: Path, split: str) -> Iterator[Fields]:
        for book, record in read_dict(folder / _FILE.path):
            number = record.get("split") if "split" in record else None
            if number == _SPLITS[split]:
                yield from _questions(book, record)
            elif number not in _SPLITS.values() and split == "train":  # told once, not three times
                yield record

    def example(self, record: Fields, split: str) -> Example:
        if "place" not in record:
            _pairs(record)
        return Example(
            id=f"{record.get('book')}-{record.get('place')}",
            image=record.text("book"),
            question=record.text("question"),
            references=(record.text("answer", empty=True),),
        )


def _pairs(record: Fields) -> list[tuple]:
    """The questions and answers of a book; raises BadRecord where it has none that match."""
    record.integer("split", 1, 3)
    questions, answers = record.items("questions"), record.items("answers")
    if len(questions) != len(answers):
        raise record.bad(f"there are {len(questions)} 'questions' but {len(answers)} 'answers'.")
    return list(zip(questions, answers, strict=True))


def _questions(book: str, record: Fields) -> list[Fields]:
    """The questions on one book as records of their own; the book's, where it is bad."""
    try:
        pairs = _pairs(record)
    except BadRecord:  # told by `example`
        return [record]
    return [
        Fields(
            {"book": book, "place": i, "question": question, "answer": answer},
            f"{record.where}, question {i}",
        )
        for i, (question, answer) in enumerate(pairs)
    ]
