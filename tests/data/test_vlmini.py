"""Thirteen real sets in the layouts they were published in."""

import json

import numpy as np
import pytest

from omni_smola.data import tasks
from omni_smola.data.jsonl import check_folder
from omni_smola.data.pipeline import eval_batches, train_batches

# set -> (kind, metric, examples per line or None where it varies)
SETS = {
    "bccd": ("question", "exact_match", None),
    "chartqa_mini": ("question", "exact_match", 1),
    "colors_ref": ("box", "iou", 1),
    "daquar": ("question", "exact_match", 1),
    "flickr8k_cap": ("caption", "cider", 1),
    "mathvision_mc": ("choice", "exact_match", 1),
    "nlvr": ("question", "exact_match", 1),
    "sroie": ("question", "exact_match", None),
    "tabfact_mini": ("question", "exact_match", 1),
    "tux_cap": ("caption", "cider", 1),
    "vqav2_mini": ("question", "vqa_accuracy", 1),
    "vsr_mini": ("question", "exact_match", 1),
    "wtq_mini": ("question", "exact_match", 1),
}


@pytest.fixture(scope="module")
def vlmini(shared_dir):
    path = shared_dir / "data" / "vlmini"
    if not path.is_dir():
        pytest.skip("needs the real records of ../shared/data/vlmini")
    return path


@pytest.mark.parametrize("name", SETS)
def test_a_set_loads_whole_and_gives_batches(vlmini, name):
    kind, metric, per_line = SETS[name]
    tasks.register({name: str(vlmini / name)})
    task = tasks.get(name)
    assert (task.row.kind, task.row.metric) == (kind, metric)
    manifest = json.loads((vlmini / "manifest.json").read_text())[name]["splits"]
    for split, expected in manifest.items():
        count = task.source.num_input_examples({"val": "validation"}.get(split, split))
        if per_line:
            assert count == expected["examples"] * per_line
        else:
            assert count > expected["examples"]
    sizes = {"batch_size": 16, "prompt_length": 64, "target_length": 32, "resolution": 48}
    batch = next(train_batches({name: 1.0}, seed=0, **sizes))
    assert batch["image"].shape == (16, 48, 48, 3)
    assert batch["image_mask"].all()
    # A picture, not a flat field.
    assert all(row.std() > 1 for row in batch["image"])
    assert (batch["target_mask"].sum(axis=1) >= 2).all()
    batch, examples = next(eval_batches(name, "test", **sizes))
    assert batch["example_mask"].all()
    assert all(any(example["references"]) for example in examples)
    assert len({example["id"] for example in examples}) == 16


def test_every_image_of_a_set_decodes(vlmini):
    tasks.register({"vsr_mini": str(vlmini / "vsr_mini")})
    sizes = {"batch_size": 64, "prompt_length": 32, "target_length": 8, "resolution": 32}
    batches = eval_batches("vsr_mini", "train", **sizes)
    seen = sum(batch["example_mask"].sum() for batch, _ in batches)
    assert seen == 320


def test_patches_and_their_boxes_agree(vlmini):
    folder = check_folder(vlmini / "colors_ref")
    line = json.loads((vlmini / "colors_ref" / "train.jsonl").read_text().splitlines()[0])
    record = folder.records["train"][0]
    third = line["target"] / 3
    np.testing.assert_allclose(record.box, [third, 0, third + 1 / 3, 1])
    assert record.references == (line["utterance"],)
