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


def test_lines_that_cannot_be_read_are_told_or_left_out(downloads, examples, capsys):
    line = '{"image": "000000000009.jpg", "caption": "It is %s.", "label": 1}\n'
    path = "vsr/data/splits/zeroshot/test.jsonl"
    whole = (line % "on it").encode()
    broken = {
        b'{"image": "0000': r"line 2, which is not JSON .*: .* is no object of fields",
        (line % "X").encode().replace(b"X", b"\xe9"): r"line 2: 'It is \\udce9\.' is not UTF-8",
        b"[1, 2]": r"line 2: \[1, 2\] is no object of fields",
    }
    downloads.images("coco/val2017/000000000009.jpg")
    for bad, sentence in broken.items():
        downloads.write(path, whole + bad.strip() + b"\n" + whole)
        with pytest.raises(UserError, match=rf"{path}, {sentence}"):
            examples("vsr", "test")
    assert [r["id"] for r in examples("vsr", "test", "skip")] == ["0", "2"]
    assert "left out 1 bad records, kept 2" in capsys.readouterr().err
