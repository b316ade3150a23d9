"""VSR: the real statements."""

import pytest

from omni_smola.errors import UserError


def test_real_statements_of_both_configs(real, downloads, examples):
    real("vsr", "vsr")
    real("coco/train2017", "vsr/data/images")
    found = examples("vsr/random", "train")
    assert len(found) == 70 and found[0]["id"] == "0" and found[69]["id"] == "69"
    assert found[0]["question"] == "The bed is at the right side of the dining table."
    assert [r["references"] for r in found[:2]] == [["no"], ["yes"]]
    photo = downloads.folder / "coco/train2017/000000010092.jpg"
    assert found[0]["image"] == [photo.read_bytes()]
    first = examples("vsr/zeroshot", "train")[0]
    assert first["question"] == "The person is touching the pizza."
    counts = {s: len(examples("vsr/zeroshot", s)) for s in ("validation", "test")}
    assert counts == {"validation": 10, "test": 20}


def test_a_label_that_is_none_and_the_number_of_the_line(downloads, examples):
    line = '{"image": "000000000009.jpg", "caption": "It is on it.", "label": %s}\n'
    path = "vsr/data/splits/zeroshot/test.jsonl"
    downloads.write(path, "".join(line % label for label in ("1", "2", "0")))
    downloads.images("coco/val2017/000000000009.jpg")
    with pytest.raises(
        UserError, match=f"{path}, line 2: 'label' must be a whole number from 0 to 1, but is 2"
    ):
        examples("vsr", "test")
    # Without a config it is the first, and what is left out does not shift the numbers.
    assert [r["id"] for r in examples("vsr", "test", "skip")] == ["0", "2"]
