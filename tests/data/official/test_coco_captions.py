"""COCO captions and Flickr30k in Karpathy's layout."""

import pytest

from omni_smola.data.builders.coco_captions import CocoCaptions
from omni_smola.data.builders.flickr30k import Flickr30k


def image(split, cocoid, captions, folder="val2014"):
    """An image of dataset_coco.json with every key of the official file."""
    sentids = [cocoid * 10 + i for i in range(len(captions))]
    return {
        "filepath": folder,
        "sentids": sentids,
        "filename": f"COCO_{folder}_{cocoid:012d}.jpg",
        "imgid": cocoid - 1,
        "split": split,
        "sentences": [
            {"tokens": text.lower().split(), "raw": text, "imgid": cocoid - 1, "sentid": sentid}
            for text, sentid in zip(captions, sentids, strict=True)
        ],
        "cocoid": cocoid,
    }


FILE = "coco_captions/dataset_coco.json"
FIVE = ["A dog runs.", "a dog", "One dog.", "The dog is fast! ", "Dog"]
IMAGES = [
    image("test", 25, FIVE),
    image("restval", 9, [*FIVE, "A sixth."]),
    image("val", 30, FIVE),
    image("train", 34, FIVE, "train2014"),
]


@pytest.fixture
def coco(downloads):
    downloads.write(FILE, {"images": IMAGES, "dataset": "coco"})
    downloads.images(*(f"coco/{i['filepath']}/{i['filename']}" for i in IMAGES))
    return downloads


def test_all_captions_of_a_photo_are_one_example(coco, examples):
    (record,) = examples("coco_captions", "test")
    assert record["id"] == "25"
    assert record["references"] == ["A dog runs.", "a dog", "One dog.", "The dog is fast!", "Dog"]
    photo = coco.folder / "coco/val2014/COCO_val2014_000000000025.jpg"
    assert record["image"] == [photo.read_bytes()]
    assert (record["question"], record["groups"], record["language"]) == ("", "", "en")


def test_restval_is_for_training(coco, examples):
    train = examples("coco_captions", "train")
    assert [record["id"] for record in train] == ["9", "34"]
    assert len(train[0]["references"]) == 6
    assert [record["id"] for record in examples("coco_captions", "validation")] == ["30"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"split": "dev"}, "record 2: 'split' is 'dev', and not one of train, restval, val, test"),
        ({"split": None}, "record 2: 'split' must be a text, but is None"),
    ],
)
def test_a_photo_of_no_split_is_found_once(coco, read, change, sentence):
    coco.write(FILE, {"images": [*IMAGES[:2], IMAGES[2] | change, IMAGES[3]], "dataset": "coco"})
    good, (told,) = read("coco_captions", "train")
    assert f"{FILE}, {sentence}" in told
    assert [example.id for example in good] == ["9", "34"]
    assert read("coco_captions", "validation") == ([], [])


def test_captions_that_are_none(coco, read):
    changed = IMAGES[0] | {"sentences": [{"tokens": ["a"], "sentid": 3}]}
    coco.write(FILE, {"images": [changed, image("test", 26, FIVE)], "dataset": "coco"})
    (good,), (told,) = read("coco_captions", "test")
    assert good.id == "26" and "record 0, 'sentences' 0: the field 'raw' is missing" in told


def test_real_coco(real, downloads, read):
    real("coco_captions", "coco_karpathy")
    real("coco/val2014", "coco_karpathy/val2014")
    good, bad = read("coco_captions", "test")
    assert len(good) == 18 and not bad and len(read("coco_captions", "validation")[0]) == 20
    assert all(len(example.references) == 5 for example in good)
    assert {example.image for example in good} < set(CocoCaptions.IMAGES.images(downloads.folder))
    (meal,) = (example for example in good if example.id == "8277")
    assert meal.references[0] == "The meal consists of chopped chicken with cheese and brocolli."


def test_real_flickr30k(real, downloads, read):
    real("flickr30k", "flickr30k")
    good, bad = read("flickr30k", "train")
    assert len(good) == 10 and not bad and len(read("flickr30k", "test")[0]) == 1
    assert all(len(example.references) == 5 for example in good)
    assert {example.image for example in good} < set(Flickr30k.IMAGES.images(downloads.folder))
    assert good[0].id == "100652400"
    assert good[0].references[0].startswith("A man in a blue hard hat and orange safety vest")
