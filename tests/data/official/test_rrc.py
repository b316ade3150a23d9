"""DocVQA and InfographicVQA in the layout of the Robust Reading Competition."""

import pytest

from omni_smola.errors import UserError


def file(name, split, records):
    return {
        "dataset_name": name,
        "dataset_version": "1.0",
        "dataset_split": split,
        "data": records,
    }


def page_question(number, **changed):
    record = {
        "questionId": number,
        "question": "What is the date? ",
        "question_types": ["handwritten", "free text"],
        "image": "documents/xnbl0037_1.png",
        "docId": 279,
        "ucsf_document_id": "xnbl0037",
        "ucsf_document_page_no": "1",
        "answers": ["1/8/93", "1/8/1993"],
        "data_split": "val",
    }
    return record | changed


def hidden(record):
    return {k: v for k, v in record.items() if k not in ("answers", "question_types")}


@pytest.fixture
def docvqa(downloads):
    downloads.images("docvqa/documents/xnbl0037_1.png")
    return downloads


def test_docvqa_has_types_and_hides_the_test_answers(docvqa, examples):
    val = [page_question(337), page_question(338, question_types=[], answers=["yes"])]
    docvqa.write("docvqa/val_v1.0_withQT.json", file("docvqa", "val", val))
    docvqa.write("docvqa/test_v1.0.json", file("docvqa", "test", [hidden(page_question(57344))]))
    first, second = examples("docvqa", "validation")
    assert first["id"] == "337" and first["question"] == "What is the date?"
    assert first["references"] == ["1/8/93", "1/8/1993"]
    assert first["groups"] == "handwritten free_text" and second["groups"] == ""
    assert first["image"] == [(docvqa.folder / "docvqa/documents/xnbl0037_1.png").read_bytes()]
    (asked,) = examples("docvqa", "test")
    assert asked["id"] == "57344" and asked["references"] == [] and asked["image"]


@pytest.mark.parametrize("name", ["train_v1.0.json", "spdocvqa_qas/train_v1.0_withQT.json"])
def test_docvqa_comes_by_older_and_newer_names(docvqa, examples, name):
    docvqa.write(f"docvqa/{name}", file("docvqa", "train", [page_question(7)]))
    assert [record["id"] for record in examples("docvqa", "train")] == ["7"]


def test_the_file_with_question_types_goes_first(docvqa, examples):
    older = file("docvqa", "val", [page_question(1)])
    docvqa.write("docvqa/val_v1.0.json", older)
    docvqa.write("docvqa/val_v1.0_withQT.json", file("docvqa", "val", [page_question(2)]))
    assert [record["id"] for record in examples("docvqa", "validation")] == ["2"]


def test_a_question_without_an_answer_is_told(docvqa, examples):
    bad = [page_question(1), page_question(2, answers=[" "])]
    docvqa.write("docvqa/val_v1.0_withQT.json", file("docvqa", "val", bad))
    with pytest.raises(UserError, match="record 1: 'answers' must hold 1 or more texts"):
        examples("docvqa", "validation")
    assert [r["id"] for r in examples("docvqa", "validation", "skip")] == ["1"]


def test_real_pages(real, examples):
    real("docvqa/documents", "docvqa/documents")
    real("docvqa/val_v1.0.json", "docvqa/more/val_v1.0.json")
    found = examples("docvqa", "validation")
    assert len(found) > 10 and all(record["image"] and record["references"] for record in found)
    assert {record["id"]: record["references"] for record in found}["22505"] == ["March 2, 1951"]


def test_infographics_keep_the_orders_of_several_spans(downloads, examples):
    record = {
        "questionId": 98314,
        "question": "Which two?",
        "image_local_name": "37313.jpeg",
        "image_url": "https://example.invalid/37313.jpeg",
        "ocr_output_file": "37313.json",
        "answers": ["linkedin, facebook", "facebook, linkedin"],
        "answer_type": ["multi span"],
        "evidence": ["Table/List", "Text"],
        "operation/reasoning": [],
        "data_split": "val",
    }
    data = [record, record | {"questionId": 98315, "answers": ["india, 39.7"]}]
    downloads.write(
        "infographicvqa/infographicsVQA_val_v1.0_withQT.json", file("infographicVQA", "val", data)
    )
    # As the training file has been called, too.
    downloads.write(
        "infographicvqa/infographicVQA_train_v1.0.json", file("infographicVQA", "train", data[1:])
    )
    downloads.images("infographicvqa/infographicsvqa_images/37313.jpeg")
    both, one = examples("infographicvqa", "validation")
    assert both["id"] == "98314" and both["groups"] == "multi_span Table/List Text"
    assert both["references"] == ["linkedin, facebook", "facebook, linkedin"]
    assert one["references"] == ["india, 39.7"], "a comma alone makes no list"
    assert [record["id"] for record in examples("infographicvqa", "train")] == ["98315"]


def test_real_infographics(real, downloads, examples):
    file = real(
        "infographicvqa/infographicsVQA_val_v1.0_withQT.json",
        "infographicvqa/infographicsVQA_val_v1.0_withQT.json",
    )
    import json

    records = json.loads(file.read_text())["data"]
    names = {record["image_local_name"] for record in records}
    downloads.images(*(f"infographicvqa/images/{name}" for name in names))
    found = examples("infographicvqa", "validation")
    assert len(found) == 297 and all(record["image"] for record in found)
    assert [len(r["references"]) for r in found] == [len(r["answers"]) for r in records]
