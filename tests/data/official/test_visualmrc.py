"""VisualMRC in the layout of its public release."""

import json

import pytest

from omni_smola.errors import UserError


def word(text):
    return {"word": text, "confidence": 0.9, "bbox": {"x": 1, "y": 2, "width": 3, "height": 4}}


def page(name, *pairs, **changed):
    record = {
        "id": "00001",
        "url": "https://example.invalid",
        "image_filename": name,
        "bounding_boxes": [
            {
                "id": 0,
                "structure": "Heading/Title",
                "shape": {"x": 0, "y": 0, "width": 9, "height": 9},
                "ocr_info": [word("Old"), word("mills")],
            },
            {"id": 1, "structure": "Image", "shape": {"x": 0, "y": 9, "width": 9, "height": 9}},
            {"id": 2, "structure": "Caption", "shape": {}, "ocr_info": [word("")]},
        ],
        "qa_data": [
            {"question": {"text": question}, "answer": {"text": answer, "relevant": [0]}}
            for question, answer in pairs
        ],
    }
    return record | changed


def lines(*records):
    return "".join(json.dumps(record) + "\n" for record in records)


def test_questions_of_a_page_share_it_and_its_words(downloads, examples):
    two = page("images/a.png", ("What is it?", "It is a mill."), ("How old?", "Very old."))
    one = page("images/b.png", ("Where?", "In the north."))
    downloads.write("visualmrc/data/dev.jsonl", lines(two, one))
    downloads.images("visualmrc/images/a.png", "visualmrc/images/b.png", "visualmrc/images/c.png")
    found = examples("visualmrc", "validation")
    assert [r["id"] for r in found] == ["images/a.png#0", "images/a.png#1", "images/b.png#0"]
    assert found[1]["question"] == "How old?" and found[1]["references"] == ["Very old."]
    assert found[0]["ocr"] == ["Old", "mills"]
    assert found[0]["image"] == found[1]["image"] != found[2]["image"]


def test_bad_pages_and_questions_are_told(downloads, examples):
    good = page("images/a.png", ("What?", "A mill."), ("Who?", " "))
    one = page("images/a.png", ("What?", "A mill."))
    outside = page("../a.png", ("What?", "A mill."))
    broken = page("images/a.png", qa_data={})
    downloads.write("visualmrc/data/test.jsonl", lines(good, outside, broken))
    with pytest.raises(UserError, match=r"Of the 1 screenshots .* 'images/a.png', none is below"):
        examples("visualmrc", "test")
    downloads.images("visualmrc/images/a.png")
    expected = {
        "line 1, question 1, 'answer': 'text' is empty": (good, outside, broken),
        "line 2, question 0: 'image_filename' .* leads out of": (one, outside),
        "line 2: 'qa_data' must be a list": (one, broken),
    }
    for sentence, pages in reversed(expected.items()):
        downloads.write("visualmrc/data/test.jsonl", lines(*pages))
        with pytest.raises(UserError, match=sentence):
            examples("visualmrc", "test")
    assert [r["id"] for r in examples("visualmrc", "test", "skip")] == ["images/a.png#0"]
