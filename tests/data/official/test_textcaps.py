"""TextCaps: rows of captions, photos of TextVQA."""

import pytest

FILE = "textcaps/TextCaps_0.1_val.json"


def row(photo, number, text=None):
    shared = {
        "image_id": photo,
        "image_classes": ["Perfume"],
        "flickr_original_url": "https://farm5.staticflickr.com/1_o.jpg",
        "flickr_300k_url": "https://c7.staticflickr.com/1_z.jpg",
        "image_width": 1024,
        "image_height": 702,
        "set_name": "val",
        "image_name": photo,
        "image_path": f"train/{photo}.jpg",
    }
    if text is None:
        return shared | {"set_name": "test", "caption_id": number}
    tokens = ["<s>", *text.lower().split(), "</s>"]
    return shared | {
        "caption_id": number,
        "caption_str": text,
        "caption_tokens": tokens,
        "reference_strs": ["not read"],
        "reference_tokens": [tokens],
    }


ROWS = [
    row("aa", 1, "Five bottles."),
    row("bb", 6, "A sign that says Stop"),
    row("aa", 2, "Many bottles of Zero"),
    row("bb", 7, "STOP"),
]


def file(rows, split="val"):
    return {"dataset_type": split, "dataset_name": "textcaps", "dataset_version": 0.1, "data": rows}


@pytest.fixture
def textcaps(downloads):
    downloads.write(FILE, file(ROWS))
    downloads.images("textvqa/train_images/aa.jpg", "textvqa/train_images/bb.jpg")
    return downloads


def test_the_rows_of_a_photo_are_one_example(textcaps, examples):
    found = examples("textcaps", "validation")
    assert [record["id"] for record in found] == ["aa", "bb"]
    assert found[0]["references"] == ["Five bottles.", "Many bottles of Zero"]
    photo = textcaps.folder / "textvqa/train_images/bb.jpg"  # also of the validation split
    assert found[1]["image"] == [photo.read_bytes()]


def test_test_is_hidden(textcaps, read):
    textcaps.write("textcaps/TextCaps_0.1_test.json", file([row("cc", 9)], "test"))
    (example,), bad = read("textcaps", "test")
    assert (example.id, example.image, example.references, bad) == ("cc", "cc", (), [])


def test_one_bad_row_is_the_mistake_of_its_photo(textcaps, read):
    stray = {"caption_id": 8, "caption_str": "Of nothing"}
    textcaps.write(FILE, file([*ROWS[:2], ROWS[2] | {"caption_str": 5}, ROWS[3], stray]))
    (good,), bad = read("textcaps", "validation")
    assert good.id == "bb" and len(bad) == 2
    assert f"{FILE}, record 0, 'rows' 1: 'caption_str' must be a text, but is 5" in bad[0]
    assert f"{FILE}, record 4: the field 'image_id' is missing" in bad[1]


def test_real_rows(real, read):
    real("textcaps", "textcaps")
    (example,), bad = read("textcaps", "train")
    assert example.id == "011e7e629fb9ae7b" and len(example.references) == 5 and not bad
    assert example.references[1] == "Many bottles of Listerine Zero are placed together."
