"""ST-VQA in the official layout of task 3."""

import pytest

from omni_smola.errors import UserError

PATHS = [f"coco-text/COCO_train2014_{i:012d}.jpg" for i in range(1, 25)] + ["imageNet/n1_7.JPEG"]
# By `printf PATH | sha256sum`: 0239..., the next is 2922..., and a tenth of ffff is 1999.
HELD = "coco-text/COCO_train2014_000000000020.jpg"


def record(path, question_id, **more):
    dataset, _, name = path.partition("/")
    return {
        "question_id": question_id,
        "question": "What is on the sign?",
        "image_id": question_id,
        "dataset": dataset,
        "file_name": name,
        "file_path": path,
        "set_name": "train",
    } | more


@pytest.fixture
def stvqa(downloads):
    train = [
        record(path, 10 * i + k, answers=["Stop", "stop sign"][: k + 1])
        for i, path in enumerate(PATHS)
        for k in range(2)
    ]
    test = [record(PATHS[0], 7, set_name="test")]
    for name, data in (("train", train), ("test", test)):
        downloads.write(f"stvqa/{name}_task_3.json", {"set_name": name, "data": data})
    downloads.images(*(f"stvqa/train_images/{path}" for path in PATHS))
    downloads.images(f"stvqa/test_task3_images/{PATHS[0]}", size=(3, 3))
    return downloads


def test_validation_is_a_part_of_the_training_images(stvqa, examples):
    train, validation = examples("stvqa", "train"), examples("stvqa", "validation")
    ids = {path: [str(10 * i), str(10 * i + 1)] for i, path in enumerate(PATHS)}
    assert [r["id"] for r in validation] == ids[HELD] == ["190", "191"]
    rest = [path for path in PATHS if path != HELD]
    assert [r["id"] for r in train] == [name for path in rest for name in ids[path]]
    assert [r["references"] for r in train[:2]] == [["Stop"], ["Stop", "stop sign"]]
    assert train[-1]["image"] == [(stvqa.folder / "stvqa/train_images" / rest[-1]).read_bytes()]


def test_a_path_in_both_folders_is_two_images(stvqa, examples):
    (found,) = examples("stvqa", "test")
    assert found["id"] == "7" and found["references"] == []
    photo = stvqa.folder / "stvqa/test_task3_images" / PATHS[0]
    assert found["image"] == [photo.read_bytes()]


def test_training_needs_answers(stvqa, examples):
    data = [record(PATHS[0], 0, answers=["Stop"]), record(PATHS[1], 1)]
    stvqa.write("stvqa/train_task_3.json", {"data": data})
    with pytest.raises(UserError, match="record 1: the field 'answers' is missing"):
        examples("stvqa", "train")
