"""TallyQA in the official layout."""

import pytest

from omni_smola.errors import UserError


def record(image, question_id, answer, **more):
    return {
        "answer": answer,
        "data_source": "imported_genome",
        "image": image,
        "image_id": 92410408,
        "question": "How many headlights does the black bus have?",
        "question_id": question_id,
    } | more


TRAIN = [record("train2014/COCO_train2014_000000000007.jpg", 1, 0), record("VG_100K/7.jpg", 2, 15)]
TEST = [
    record("VG_100K_2/2410408.jpg", 30095774, 4, issimple=False),
    record("VG_100K/7.jpg", 30095774, 2, image_id=97, issimple=True),
]
PHOTOS = {
    "VG_100K/7.jpg": "visual_genome/VG_100K/7.jpg",
    "VG_100K_2/2410408.jpg": "visual_genome/VG_100K_2/2410408.jpg",
    "train2014/COCO_train2014_000000000007.jpg": "coco/train2014/COCO_train2014_000000000007.jpg",
}


@pytest.fixture
def tallyqa(downloads):
    downloads.write("tallyqa/train.json", TRAIN)
    downloads.write("tallyqa/test.json", TEST)
    downloads.images(*PHOTOS.values())
    return downloads


def test_photos_of_both_sets_and_counts_as_digits(tallyqa, examples):
    train, test = examples("tallyqa", "train"), examples("tallyqa", "test")
    assert [r["references"] for r in train + test] == [["0"], ["15"], ["4"], ["2"]]
    assert [r["groups"] for r in train + test] == ["", "", "complex", "simple"]
    assert [r["id"] for r in test] == ["92410408/30095774", "97/30095774"]
    photos = [(tallyqa.folder / PHOTOS[r["image"]]).read_bytes() for r in TRAIN + TEST]
    assert [r["image"] for r in train + test] == [[photo] for photo in photos]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"answer": "four"}, "'answer' must be a whole number from 0, but is 'four'"),
        ({"issimple": None}, "'issimple' must be true or false, but is None"),
        ({"image": "VG_100K/2410408.jpg"}, "'VG_100K/2410408.jpg' is not in the collection"),
    ],
)
def test_a_bad_question_is_told(tallyqa, examples, change, sentence):
    (tallyqa.folder / "tallyqa/train.json").unlink()
    tallyqa.write("tallyqa/test.json", [TEST[1], TEST[0] | change])
    with pytest.raises(UserError, match=f"test.json, record 1: .*{sentence}"):
        examples("tallyqa", "test")
