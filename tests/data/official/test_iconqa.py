"""IconQA in the official layout."""

import pytest

from omni_smola.errors import UserError

FOLDER = "iconqa/iconqa_data/iconqa/{}/choose_txt/{}"


def problem(downloads, split, pid, **changed):
    record = {
        "question": "How likely is it?",
        "choices": ["certain", "unlikely", "impossible"],
        "answer": 2,
        "ques_type": "choose_txt",
        "grade": "grade1",
        "label": "S2",
    }
    downloads.write(FOLDER.format(split, pid) + "/data.json", record | changed)
    downloads.images(FOLDER.format(split, pid) + "/image.png")


def test_problems_lie_in_folders(downloads, examples):
    problem(downloads, "train", 1000)
    problem(downloads, "train", 9, answer=0)
    problem(downloads, "val", 4)
    downloads.write("iconqa/iconqa_data/pid2skills.json", {"9": ["time", "commonsense"]})
    first, second = examples("iconqa", "train")
    assert (first["id"], second["id"]) == ("9", "1000")
    assert first["choices"] == ["certain", "unlikely", "impossible"]
    assert (first["answer_index"], first["references"]) == (0, ["certain"])
    assert (first["groups"], second["groups"]) == ("time commonsense", "")
    assert first["image"] == [
        (downloads.folder / FOLDER.format("train", 9) / "image.png").read_bytes()
    ]
    assert [record["id"] for record in examples("iconqa", "validation")] == ["4"]


def test_an_answer_beyond_the_choices_is_told(downloads, examples):
    problem(downloads, "test", 1, answer=3)
    problem(downloads, "test", 2)
    problem(downloads, "test", 3, answer="2")
    with pytest.raises(
        UserError, match=r"1/data.json: 'answer' must be a whole number from 0 to 2"
    ):
        examples("iconqa", "test")
    assert [record["id"] for record in examples("iconqa", "test", "skip")] == ["2"]


def test_the_real_record(real, examples):
    real("iconqa", "iconqa")
    (found,) = examples("iconqa", "test")
    assert found["id"] == "0" and found["references"] == ["impossible"]
    assert found["question"] == "How likely is it that you will pick a black one?"
