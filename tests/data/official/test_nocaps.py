"""NoCaps, and with it COCO's own layout of captions."""

import copy

import pytest

from omni_smola.data.builders.nocaps import Nocaps
from omni_smola.errors import UserError

VALIDATION = "nocaps/nocaps_val_4500_captions.json"
TEST = "nocaps/nocaps_test_image_info.json"


def image(number, open_images_id, **more):
    return {
        "id": number,
        "open_images_id": open_images_id,
        "height": 1024,
        "width": 732,
        "coco_url": f"https://s3.amazonaws.com/nocaps/val/{open_images_id}.jpg",
        "file_name": f"{open_images_id}.jpg",
        "license": 0,
        "date_captured": "2018-11-06 11:04:33",
        **more,
    }


FILE = {
    "licenses": [],
    "info": {"description": "nocaps validation dataset", "year": 2018},
    "images": [
        image(0, "0013ea2087020901", domain="in-domain"),
        image(1, "0032257bf3cd56d0", domain="near-domain"),
        image(2, "003232584a062b07", domain="out-domain"),
    ],
    "annotations": [
        {"image_id": number, "id": 10 * number + i, "caption": f"Caption {i} of {number}."}
        for i in range(10)
        for number in (2, 0, 1)
    ],
}


@pytest.fixture
def nocaps(downloads):
    downloads.write(VALIDATION, FILE)
    names = [record["open_images_id"] for record in FILE["images"]]
    downloads.images(*(f"nocaps/validation/{name}.jpg" for name in [*names, "ffff2087020901aa"]))
    return downloads


def test_ten_captions_by_domain(nocaps, source, examples):
    found = examples("nocaps", "validation")
    assert [record["id"] for record in found] == ["0", "1", "2"]
    assert [record["groups"] for record in found] == ["in-domain", "near-domain", "out-domain"]
    assert found[1]["references"] == [f"Caption {i} of 1." for i in range(10)]
    photo = nocaps.folder / "nocaps/validation/003232584a062b07.jpg"
    assert found[2]["image"] == [photo.read_bytes()]
    # Of the photos in the folder, only the named ones are stored.
    stored = source("nocaps")._store.positions
    assert set(stored) == {record["open_images_id"] for record in FILE["images"]}


def test_a_folder_without_any_of_the_photos(nocaps):
    for record in FILE["images"]:
        (nocaps.folder / "nocaps/validation" / record["file_name"]).unlink()
    with pytest.raises(UserError, match="Of the 3 images of the collection nocaps none is in"):
        Nocaps.IMAGES.images(nocaps.folder)


def test_domains_are_optional_and_test_is_hidden(nocaps, read):
    images = [{k: v for k, v in record.items() if k != "domain"} for record in FILE["images"]]
    nocaps.write(VALIDATION, FILE | {"images": images})
    nocaps.write(TEST, {"licenses": [], "info": {}, "images": [image(0, "00014bc9ba7b33a5")]})
    assert [example.groups for example in read("nocaps", "validation")[0]] == ["", "", ""]
    (hidden,), _ = read("nocaps", "test")
    assert (hidden.id, hidden.image, hidden.references) == ("0", "00014bc9ba7b33a5", ())


def test_real_test_images(real, read):
    real(TEST, "nocaps/nocaps_test_image_info.json")
    good, bad = read("nocaps", "test")
    # The ids go on after those of the 4,500 photos of validation.
    assert [example.id for example in good] == [str(4500 + i) for i in range(100)] and not bad
    assert len({example.image for example in good}) == 100


BAD = {
    "captions of no image": (
        lambda file: file["annotations"][4].update(image_id=7),
        "annotation 4: no image of the file has the id '7'",
        3,
    ),
    "a caption without its image": (
        lambda file: file["annotations"][4].pop("image_id"),
        "annotation 4: the field 'image_id' is missing",
        3,
    ),
    "a caption that is none": (
        lambda file: file["annotations"][4].update(caption=" "),
        "record 0, 'captions' 1: 'caption' is empty",
        2,
    ),
    "an image without id": (
        lambda file: file["images"].append({"file_name": "0032257bf3cd56d0.jpg"}),
        "record 3: the field 'captions' is missing",
        3,
    ),
}


@pytest.mark.parametrize(("change", "sentence", "kept"), BAD.values(), ids=BAD)
def test_captions_and_images_that_do_not_meet(nocaps, read, change, sentence, kept):
    file = copy.deepcopy(FILE)
    change(file)
    nocaps.write(VALIDATION, file)
    good, (told,) = read("nocaps", "validation")
    assert f"{VALIDATION}, {sentence}" in told and len(good) == kept
