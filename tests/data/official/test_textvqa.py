"""TextVQA: the real records, and the words of Rosetta beside them."""

import json

VAL = "textvqa/TextVQA_0.5.1_val.json"


def test_real_records_with_and_without_words(real, downloads, examples):
    real(VAL, "textvqa/TextVQA_0.5.1_val.json")
    data = json.loads((downloads.folder / VAL).read_text())["data"]
    photos = {record["image_id"] for record in data}
    downloads.images(*(f"textvqa/train_images/{photo}.jpg" for photo in sorted(photos)))
    words = [
        {
            "image_id": "003a8ae2ef43b901",
            "ocr_tokens": ["DAKOTA", "DIGITAL", "", "Single-Use"],
            "ocr_info": [],
        }
    ]
    envelope = {"dataset_type": "val", "dataset_name": "textvqa", "dataset_version": "0.2"}
    downloads.write("textvqa/TextVQA_Rosetta_OCR_v0.2_val.json", envelope | {"data": words})
    found = examples("textvqa", "validation")
    assert len(found) == 150 and all(len(record["references"]) == 10 for record in found)
    assert found[0]["id"] == "34602"
    assert found[0]["question"] == "what is the brand of this camera?"
    assert found[0]["references"][:3] == ["nous les gosses", "dakota", "clos culombu"]
    assert found[0]["ocr"] == ["DAKOTA", "DIGITAL", "Single-Use"]
    photo = downloads.folder / "textvqa/train_images/003a8ae2ef43b901.jpg"
    assert found[0]["image"] == [photo.read_bytes()]
    assert found[1]["ocr"] == []


def test_the_hidden_test_split(downloads, examples):
    record = {
        "question": "what does it say?",
        "image_id": "21bf14e8efc1d2cc",
        "image_classes": ["Poster"],
        "flickr_original_url": "https://example.org/o.jpg",
        "flickr_300k_url": "https://example.org/z.jpg",
        "image_width": 1024,
        "image_height": 768,
        "question_tokens": ["what", "does", "it", "say"],
        "question_id": 39602,
        "set_name": "test",
    }
    envelope = {"dataset_type": "test", "dataset_name": "textvqa", "dataset_version": "0.5.1"}
    downloads.write("textvqa/TextVQA_0.5.1_test.json", envelope | {"data": [record]})
    downloads.images("textvqa/test_images/21bf14e8efc1d2cc.jpg")
    (found,) = examples("textvqa", "test")
    assert found["id"] == "39602" and found["references"] == [] and found["ocr"] == []
    assert found["image"]
