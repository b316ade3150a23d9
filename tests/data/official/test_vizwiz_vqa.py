"""VizWiz-VQA in the official layout."""

import pytest

from omni_smola.errors import UserError


def record(name, answers, answer_type, answerable):
    return {
        "image": name,
        "question": "What's the name of this product?",
        "answers": [{"answer_confidence": "yes", "answer": answer} for answer in answers],
        "answer_type": answer_type,
        "answerable": answerable,
    }


VAL = [
    record("VizWiz_val_00000000.jpg", ["basil leaves"] * 9 + [""], "other", 1),
    record("VizWiz_val_00000001.jpg", ["unanswerable"] * 10, "unanswerable", 0),
]


@pytest.fixture
def vizwiz(downloads):
    downloads.write("vizwiz_vqa/annotations/val.json", VAL)
    downloads.images("vizwiz/val/VizWiz_val_00000000.jpg", "vizwiz/val/VizWiz_val_00000001.jpg")
    return downloads


def test_empty_and_unanswerable_are_answers_and_the_file_name_the_id(vizwiz, examples):
    test = [{"image": "VizWiz_test_00000007.jpg", "question": "What is this?"}]
    vizwiz.write("vizwiz_vqa/annotations/test.json", test)
    vizwiz.images("vizwiz/test/VizWiz_test_00000007.jpg", size=(5, 5))
    first, second = examples("vizwiz_vqa", "validation")
    assert first["id"] == "VizWiz_val_00000000.jpg"
    assert first["references"] == ["basil leaves"] * 9 + [""] and first["groups"] == "other"
    assert second["references"] == ["unanswerable"] * 10 and second["groups"] == "unanswerable"
    (hidden,) = examples("vizwiz_vqa", "test")
    assert hidden["id"] == "VizWiz_test_00000007.jpg" and hidden["references"] == []
    photo = vizwiz.folder / "vizwiz/test/VizWiz_test_00000007.jpg"
    assert hidden["image"] == [photo.read_bytes()]


def test_files_before_2020_do_not_say_the_type(vizwiz, examples):
    old = [{k: v for k, v in r.items() if k != "answer_type"} for r in VAL]
    vizwiz.write("vizwiz_vqa/annotations/val.json", old)
    assert [r["groups"] for r in examples("vizwiz_vqa", "validation")] == ["", ""]


def test_answers_must_be_ten_objects(vizwiz, examples):
    changed = [VAL[0], VAL[1] | {"answers": [{"answer": "no"}] * 9 + ["no"]}]
    vizwiz.write("vizwiz_vqa/annotations/val.json", changed)
    with pytest.raises(UserError, match="record 1, 'answers' 9: 'no' is no object of fields"):
        examples("vizwiz_vqa", "validation")
