"""Shares of routers by family: their arithmetic, the table, the CSV and the picture."""

import csv
import dataclasses

import numpy as np
import pytest
from PIL import Image

from omni_smola.errors import UserError
from omni_smola.evaluation import routing


@dataclasses.dataclass(frozen=True)
class Task:
    name: str
    group: str


TASKS = (Task("one", "captioning"), Task("two", "grounding"), Task("three", "grounding"))
# The last row of a batch only fills it up.
BATCHES = {
    "one": [({"x": np.array([0, 1, 2, 9]), "example_mask": np.array([1, 1, 1, 0], bool)}, [])],
    "two": [({"x": np.array([2, 2, 1, 9]), "example_mask": np.array([1, 1, 1, 0], bool)}, [])],
    "three": [({"x": np.array([2, 9, 9, 9]), "example_mask": np.array([1, 0, 0, 0], bool)}, [])],
}


def shares(batch):
    """Vision: all to the encoder x % 2. Language: layer 0 chooses x % 3, layer 1 always 2."""
    x = batch["x"]
    first = 0.4 * np.eye(3)[x % 3] + 0.2
    second = np.tile([0.1, 0.3, 0.6], (len(x), 1))
    return {"vision": np.eye(2)[x % 2], "encoder/mlp": np.stack([first, second])}


@pytest.fixture(scope="module")
def rows():
    return routing.measure(TASKS, BATCHES.__getitem__, shares, ["clip", "dino"])


def share(rows, router, layer, family, expert):
    (row,) = [
        r
        for r in rows
        if (r.router, r.layer, r.family, r.expert) == (router, layer, family, expert)
    ]
    return row.share


def test_shares_are_means_over_the_real_examples_of_a_family(rows):
    assert share(rows, "vision", 0, "captioning", "clip") == pytest.approx(2 / 3)
    assert share(rows, "vision", 0, "grounding", "clip") == pytest.approx(3 / 4)
    for expert in "123":
        assert share(rows, "encoder/mlp", 0, "captioning", expert) == pytest.approx(1 / 3)
        assert share(rows, "encoder/mlp", 1, "grounding", expert) == (expert == "3")
    assert share(rows, "encoder/mlp", 0, "grounding", "3") == pytest.approx(3 / 4)


def test_the_csv_has_a_line_for_every_share(rows, tmp_path):
    routing.write_csv(tmp_path / "new" / "routing.csv", rows)
    with open(tmp_path / "new" / "routing.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(rows) == 2 * 2 + 2 * 2 * 3
    assert tuple(lines[0]) == routing.COLUMNS
    for router, layer in (("vision", "0"), ("encoder/mlp", "0"), ("encoder/mlp", "1")):
        for family in ("captioning", "grounding"):
            own = [r for r in lines if (r["router"], r["layer"]) == (router, layer)]
            total = sum(float(r["share"]) for r in own if r["family"] == family)
            assert total == pytest.approx(1, abs=1e-5)


def test_the_picture_shows_something(rows, tmp_path):
    routing.draw(tmp_path / "routing.png", rows)
    pixels = np.asarray(Image.open(tmp_path / "routing.png").convert("RGB"))
    assert min(pixels.shape[:2]) > 400
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50


def test_the_table_names_favourites(rows):
    text = routing.table(rows)
    assert "clip 75%  dino 25%" in text
    assert "3 (75%)  3 (100%)" in text


def test_a_model_without_routers_is_a_sentence():
    with pytest.raises(UserError, match=r"mome\.py"):
        routing.measure(TASKS, BATCHES.__getitem__, lambda batch: {}, [])
