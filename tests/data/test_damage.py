"""Damaged data: named by file and index, or left out without moving anything else."""

import glob
import json
import os

import numpy as np
import pytest

from omni_smola.data import pipeline, tasks
from omni_smola.data.damage import Damage
from omni_smola.data.sources import TfdsSource
from omni_smola.errors import UserError

from .conftest import box_records, caption_records

SIZES = dict(batch_size=4, prompt_length=12, target_length=8, resolution=16)


def stream(rates, count, damage=None, start=0, **options):
    options = dict(seed=0, start_step=start, damage=damage) | SIZES | options
    batches = pipeline.train_batches(rates, **options)
    return [next(batches) for _ in range(count)]


def cut(path):
    os.truncate(path, os.path.getsize(path) // 2)


@pytest.fixture
def captions(write_folder):
    return write_folder("cap", train=caption_records(9), val=caption_records(5))


def damaged_rows(whole, found):
    """Which rows have no target any more, after checking that nothing else has changed."""
    bad = []
    for a, b in zip(whole, found, strict=True):
        assert a.keys() == b.keys()
        rows = ~b["target_mask"].any(axis=1)
        for name in a:
            np.testing.assert_array_equal(a[name][~rows], b[name][~rows], err_msg=name)
        for name in ("image", "image_mask", "target", "target_mask"):
            assert not b[name][rows].any()
        bad.append(rows)
    return np.concatenate(bad)


def test_under_fail_an_image_is_named_by_its_line(captions):
    tasks.register({"cap": str(captions)})
    cut(captions / "img/1.png")
    sentence = r"Line 2 of split 'train' of .*img/1\.png.* does not decode.*on_error=skip"
    with pytest.raises(UserError, match=sentence):
        stream({"cap": 1.0}, 3)


def test_under_skip_its_row_counts_nothing_and_all_others_stay(captions):
    tasks.register({"cap": str(captions)}, on_error="skip")
    whole = stream({"cap": 1.0}, 9)
    cut(captions / "img/1.png")
    (captions / "img/4.png").unlink()
    said = []
    damage = Damage(said.append)
    tasks.register({"cap": str(captions)}, on_error="skip")
    found = stream({"cap": 1.0}, 9, damage)  # 36 rows, four epochs of nine examples
    bad = damaged_rows(whole, found)
    assert bad.sum() == damage.rows == 8 and len(damage.examples) == 2
    assert any("line 2" in text and "does not decode" in text for text in said)
    assert any("line 5" in text and "cannot be read" in text for text in said)
    assert "8 rows of 2 damaged examples" in damage.summary()
    # And the stream opens anywhere, as without damage.
    later = stream({"cap": 1.0}, 3, Damage(said.append), start=6)
    for a, b in zip(found[6:], later, strict=True):
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


@pytest.mark.parametrize(
    "line",
    [
        '{"image": "img/2.png", "expression": "thing", "box": [5, 2, 99, 15]}',
        '{"image": "img/2.png", "expression": "thing", "box": [5, 2',
        '{"image": "img/2.png", "box": [5, 2, 9, 15]}',
    ],
    ids=["out of range", "not JSON", "a field is missing"],
)
def test_a_bad_line_keeps_its_place(write_folder, line):
    folder = write_folder("find", train=box_records(6), val=box_records(3))
    tasks.register({"find": str(folder)})
    rates = {"find": 1.0, "find_describe": 1.0}
    whole = stream(rates, 6)
    file = folder / "train.jsonl"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines[:2], line, *lines[3:]]) + "\n")
    with pytest.raises(UserError, match=r"train\.jsonl, line 3"):
        tasks.register({"find": str(folder)})
    said = []
    damage = Damage(said.append)
    tasks.register({"find": str(folder)}, on_error="skip")
    bad = damaged_rows(whole, stream(rates, 6, damage))
    assert bad.sum() == 4  # 12 draws of each of two tasks, of six examples
    assert "line 3 of split 'train'" in said[0] and "train.jsonl, line 3" in said[0]


def test_evaluation_leaves_damaged_examples_out(captions):
    cut(captions / "img/3.png")
    tasks.register({"cap": str(captions)}, on_error="skip")
    damage = Damage(lambda text: None)
    found = list(pipeline.eval_batches("cap", "validation", damage=damage, **SIZES))
    names = [example["id"] for _, examples in found for example in examples]
    assert names == [f"validation-{n}" for n in (1, 2, 3, 5)]
    for batch, examples in found:
        assert batch["example_mask"].sum() == len(examples)
        assert "damaged" not in batch
    assert damage.rows == 1
    with pytest.raises(UserError, match=r"(?i)line 4"):
        tasks.register({"cap": str(captions)})  # its header is cut, too, or it is met when read
        list(pipeline.eval_batches("cap", "validation", **SIZES))


@pytest.fixture(scope="module")
def counting(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    TfdsSource("count", str(folder)).num_input_examples("train")
    return folder


def test_a_truncated_record_file_is_named(counting, tmp_path):
    (file,) = glob.glob(f"{counting}/mini_suite/count/*/*validation*")
    with open(file, "rb") as whole:
        saved = whole.read()
    try:
        cut(file)
        tasks.register(data_dir=str(counting))
        sentence = rf"of split 'validation' of mini_suite/count \({file}\) is damaged: it cannot be"
        with pytest.raises(UserError, match=sentence):
            stream({"mini_count": 1.0}, 1, split="validation")
        # A file that is gone as a whole is no single bad example.
        damage = Damage(lambda text: None)
        with pytest.raises(UserError, match=rf"100 of 100 examples read were damaged.*{file}"):
            stream({"mini_count": 1.0}, 40, damage, split="validation")
    finally:
        with open(file, "wb") as whole:
            whole.write(saved)


class OneBox(TfdsSource):
    """The mini suite's boxes, the first of which reaches over the edge."""

    def read(self, split, indices):
        import tensorflow as tf

        records = super().read(split, indices)
        for place, index in enumerate(indices):
            if index == 0:
                example = tf.train.Example.FromString(records[place])
                example.features.feature["box"].float_list.value[2] = 1.25
                records[place] = example.SerializeToString()
        return records


@pytest.mark.parametrize("skip", [False, True])
def test_a_box_out_of_range_in_a_record_file(counting, monkeypatch, skip):
    monkeypatch.setattr(tasks, "TfdsSource", OneBox)
    tasks.register(data_dir=str(counting), on_error="skip" if skip else "fail")
    if not skip:
        with pytest.raises(UserError, match=r"Record 0 .*its box \[.*1\.25.*does not lie"):
            list(pipeline.eval_batches("mini_box", "validation", limit=6, **SIZES))
        return
    damage = Damage(lambda text: None)
    given = pipeline.eval_batches("mini_box", "validation", limit=6, damage=damage, **SIZES)
    assert sum(len(examples) for _, examples in given) == 5
    assert json.dumps(damage.examples).count("does not lie") == 1
