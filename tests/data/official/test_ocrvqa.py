"""OCR-VQA in the official layout."""

import pytest

from omni_smola.errors import UserError


def book(split, **more):
    return {
        "imageURL": "http://ecx.images-amazon.com/images/I/61Y5cOdHJbL.jpg",
        "questions": ["Who wrote this book?", "Is this a games related book?"],
        "answers": ["Sandra Boynton", "No"],
        "title": "Mom's Family Wall Calendar 2016",
        "authorName": "Sandra Boynton",
        "genre": "Calendars",
        "split": split,
    } | more


BOOKS = {"761183272": book(1), "0061020001": book(3), "188": book(2)}


@pytest.fixture
def ocrvqa(downloads):
    downloads.write("ocrvqa/dataset.json", BOOKS)
    paths = ("761183272.jpg", "0061020001.gif", "188.png")
    downloads.images(*(f"ocrvqa/images/{path}" for path in paths))
    return downloads


def test_one_example_a_question_by_the_number_of_the_split(ocrvqa, examples):
    ids = {s: [r["id"] for r in examples("ocrvqa", s)] for s in ("train", "validation", "test")}
    assert ids == {
        "train": ["761183272-0", "761183272-1"],
        "validation": ["188-0", "188-1"],
        "test": ["0061020001-0", "0061020001-1"],
    }
    last = examples("ocrvqa", "test")[1]
    assert last["question"] == "Is this a games related book?" and last["references"] == ["No"]
    assert last["image"] == [(ocrvqa.folder / "ocrvqa/images/0061020001.gif").read_bytes()]


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        (book(3, answers=["No"]), "there are 2 'questions' but 1 'answers'"),
        (book(4), "'split' must be a whole number from 1 to 3, but is 4"),
        (book(3, answers=["Ann", 5]), "question 1: 'answer' must be a text, but is 5"),
        (["no book"], r"\['no book'\] is no object of fields"),
    ],
)
def test_a_bad_book_is_told_once_and_can_be_left_out(ocrvqa, examples, capsys, bad, sentence):
    ocrvqa.write("ocrvqa/dataset.json", BOOKS | {"13": bad})
    ocrvqa.images("ocrvqa/images/13.jpg")
    with pytest.raises(UserError, match=f"record '13'.*{sentence}"):
        examples("ocrvqa", "train")
    assert len(examples("ocrvqa", "train", "skip")) == 2
    assert capsys.readouterr().err.count("left out 1 bad records") == 1


def test_a_file_without_a_book_of_a_split_is_told(ocrvqa, examples):
    ocrvqa.write("ocrvqa/dataset.json", {"761183272": BOOKS["761183272"]})
    with pytest.raises(
        UserError, match=r"ocrvqa/validation has no example, and 0 bad .*dataset\.json"
    ):
        examples("ocrvqa", "train")
