"""VizWiz-Captions: which of its captions count."""

import copy

import pytest

from omni_smola.errors import UserError

FILE = "vizwiz_captions/annotations/val.json"
PRECANNED = "Quality issues are too severe to recognize visual content."


def image(number):
    name = f"VizWiz_val_{number:08d}.jpg"
    url = f"https://ivc.ischool.utexas.edu/VizWiz_visualization_img/{name}"
    return {"file_name": name, "id": 23431 + number, "vizwiz_url": url, "text_detected": False}


def caption(number, text, rejected=False, precanned=False):
    return {
        "caption": text,
        "image_id": 23431 + number,
        "is_precanned": precanned,
        "is_rejected": rejected,
        "id": 117155,
        "text_detected": False,
    }


ANNOTATIONS = {
    "info": {"description": "VizWiz-Captions", "version": "1.0"},
    "images": [image(0), image(1), image(2)],
    "annotations": [
        caption(0, "a shoe"),
        caption(0, "not a shoe at all", rejected=True),
        caption(0, PRECANNED, precanned=True),
        caption(0, "A brown shoe. "),
        caption(1, PRECANNED, precanned=True),
        caption(1, "spam", rejected=True),
        caption(2, "a can"),
    ],
}


@pytest.fixture
def vizwiz(downloads):
    downloads.write(FILE, ANNOTATIONS)
    downloads.images(*(f"vizwiz/val/{image(i)['file_name']}" for i in range(3)))
    return downloads


def test_rejected_and_precanned_captions_do_not_count(vizwiz, examples):
    found = examples("vizwiz_captions", "validation")
    # The second photo has no caption left: it is not scored.
    assert [record["id"] for record in found] == ["23431", "23433"]
    assert found[0]["references"] == ["a shoe", "A brown shoe."]
    photo = vizwiz.folder / "vizwiz/val/VizWiz_val_00000002.jpg"
    assert found[1]["image"] == [photo.read_bytes()]


def test_the_test_file_has_images_only(vizwiz, read):
    name = "VizWiz_test_00000000.jpg"
    test = {"info": {}, "images": [{"file_name": name, "id": 31181, "text_detected": True}]}
    vizwiz.write("vizwiz_captions/annotations/test.json", test)
    (example,), bad = read("vizwiz_captions", "test")
    assert (example.id, example.references, bad) == ("31181", (), [])
    assert example.image == "VizWiz_test_00000000"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"is_rejected": "no"}, "'is_rejected' must be true or false, but is 'no'"),
        ({"is_precanned": None}, "'is_precanned' must be true or false, but is None"),
    ],
)
def test_a_mark_that_is_none(vizwiz, read, change, sentence):
    file = copy.deepcopy(ANNOTATIONS)
    file["annotations"][0].update(change)
    vizwiz.write(FILE, file)
    (good,), (told,) = read("vizwiz_captions", "validation")
    assert f"{FILE}, record 0, 'captions' 0: {sentence}" in told and good.id == "23433"


def test_a_photo_that_nobody_described_is_a_mistake(vizwiz, examples):
    file = copy.deepcopy(ANNOTATIONS)
    file["annotations"].pop()
    vizwiz.write(FILE, file)
    with pytest.raises(UserError, match=f"{FILE}, record 2: there are no references"):
        examples("vizwiz_captions", "validation")
