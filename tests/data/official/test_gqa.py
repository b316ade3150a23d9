"""GQA: the real records, and made ones for what they lack."""

import pytest

from omni_smola.errors import UserError


def question(image="n166008", structural="query", answer="picture", **more):
    record = {
        "semantic": [],
        "entailed": [],
        "equivalent": [],
        "question": "What is hanging above the chalkboard?",
        "imageId": image,
        "isBalanced": True,
        "groups": {"global": "thing", "local": "14-chalkboard_hanging above,s"},
        "answer": answer,
        "semanticStr": "",
        "annotations": {},
        "types": {"detailed": "relS", "semantic": "rel", "structural": structural},
        "fullAnswer": "The picture is.",
    }
    return record | more


def test_real_records(real, examples, downloads):
    real("gqa", "gqa")
    (record,) = examples("gqa", "testdev")
    assert record["id"] == "202218649"
    assert record["question"] == "What is hanging above the chalkboard?"
    assert record["references"] == ["picture"] and record["groups"] == "open"
    assert record["image"] == [(downloads.folder / "gqa/images/n578564.jpg").read_bytes()]
    # Two files in the folder, in the order of their names.
    found = examples("gqa", "train_all")
    assert [r["id"] for r in found] == ["202218649", "20240871"]
    assert [r["groups"] for r in found] == ["open", "binary"]


def test_binary_is_the_kind_of_question_and_submission_has_no_answers(downloads, examples):
    val = {"1": question(structural="choose", answer="left"), "2": question(answer="yes")}
    hidden = {"201": {"imageId": "n166008", "question": "Is it?", "isBalanced": False}}
    downloads.write("gqa/val_balanced_questions.json", val)
    downloads.write("gqa/submission_all_questions.json", hidden)
    downloads.images("gqa/images/n166008.jpg")
    found = examples("gqa", "validation")
    assert [(r["groups"], r["references"]) for r in found] == [
        ("binary", ["left"]),
        ("open", ["yes"]),
    ]
    (record,) = examples("gqa", "submission")
    assert record["id"] == "201" and record["references"] == [] and record["groups"] == ""


def test_a_list_is_another_file_and_types_must_say_the_structure(downloads, examples):
    path = "gqa/val_balanced_questions.json"
    downloads.images("gqa/images/n166008.jpg")
    downloads.write(path, [question()])
    with pytest.raises(UserError, match=f"{path} is not an object of records by key"):
        examples("gqa", "validation")
    downloads.write(path, {"1": question(types="query")})
    with pytest.raises(UserError, match="record '1', 'types': 'query' is no object of fields"):
        examples("gqa", "validation")
