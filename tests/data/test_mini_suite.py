"""The mini suite: it is what it says, it is the same everywhere, and its splits share nothing."""

import collections
import hashlib
import io
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from omni_smola.data.builders.mini_suite import drawing, families, ingredients, mini_suite, tables
from omni_smola.errors import UserError

CONFIGS = tuple(families.FAMILIES)
_DIGESTS = """
import hashlib
from omni_smola.data.builders.mini_suite import families
for config, family in reversed(families.FAMILIES.items()):
    for split in family.sizes:
        texts = [repr(families.example(config, split, index)) for index in (199, 3)]
        print(config, split, hashlib.sha256("".join(texts).encode()).hexdigest())
"""


def pixels(record: dict) -> np.ndarray:
    with Image.open(io.BytesIO(record["image"][0])) as image:
        assert (image.format, image.mode) == ("PNG", "RGB")
        return np.asarray(image, np.int32)


def places(image: np.ndarray, text: str) -> list[tuple[int, int]]:
    """Where on the character grid of the image the text is written, as (x, y) in pixels."""
    width = drawing.CHARACTER * len(text)
    drawn = Image.new("RGB", (width, drawing.LINE), (255, 255, 255))
    drawing.write(drawn, text, 0, 0)
    # Neighbours may reach into the outermost columns.
    glyphs = (np.asarray(drawn) == 0).all(-1)[:, 1:-1]
    ink = (image == 0).all(-1)
    return [
        (x, y)
        for y in range(0, drawing.SIZE, drawing.LINE)
        for x in range(0, drawing.SIZE - width + 1, drawing.CHARACTER)
        if (ink[y : y + drawing.LINE, x + 1 : x + width - 1] == glyphs).all()
    ]


@pytest.mark.parametrize("config", CONFIGS)
def test_examples_are_common_records(config):
    ids = set()
    for split in families.FAMILIES[config].sizes:
        for index in range(40):
            record = families.example(config, split, index)
            ids.add(record["id"])
            assert len(record["references"]) >= 1 and all(record["references"])
            assert record["box"].shape == (4,) and record["box"].dtype == np.float32
            if config == "pretrain_text":
                assert record["image"] == []
            else:
                assert pixels(record).shape == (96, 96, 3)
    assert len(ids) == 40 * len(families.FAMILIES[config].sizes)


def test_examples_are_the_same_in_any_process_and_order():
    root = pathlib.Path(mini_suite.__file__).parents[4]
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(root)}
    there = subprocess.check_output([sys.executable, "-c", _DIGESTS], env=environment, text=True)
    here = []
    for config, family in families.FAMILIES.items():
        for split in family.sizes:
            texts = {i: repr(families.example(config, split, i)) for i in (3, 50, 199)}
            digest = hashlib.sha256((texts[199] + texts[3]).encode()).hexdigest()
            here.append(f"{config} {split} {digest}")
    assert sorted(there.splitlines()) == sorted(here)


def test_sides_share_no_ingredient():
    used = collections.Counter()
    for side in ingredients.SIDES:
        used.update({sprite.key for sprite in ingredients.shapes(side)})
        used.update({sprite.key for sprite in ingredients.digits(side)})
        folder, numbers = ingredients.easy_vqa_images(side)
        used.update(("image", folder, number) for number in numbers)
        assert (folder == "test") == (side == "test")
        for kind in ("open", "yes", "no"):
            asked = {(q.folder, q.image) for q in ingredients.questions(side, kind)}
            assert asked <= {(folder, number) for number in numbers}
    assert set(used.values()) == {1}
    for table in tables.TABLES:
        sides = ingredients.partition(table, 100, tables._SHARES)
        assert sorted(np.concatenate(list(sides.values()))) == list(range(100))
        assert all(tables.rows(table, side) for side in ingredients.SIDES)


@pytest.mark.parametrize("config", CONFIGS)
def test_examples_use_their_own_side_only(config, monkeypatch):
    asked = set()
    for module, name in ((ingredients, "shapes"), (ingredients, "digits"), (tables, "rows")):
        real = getattr(module, name)
        position = -1

        def spy(*arguments, real=real, position=position):
            asked.add(arguments[position])
            return real(*arguments)

        monkeypatch.setattr(module, name, spy)
    real_questions, real_groups = ingredients.questions, tables.groups
    monkeypatch.setattr(
        ingredients, "questions", lambda side, kind: asked.add(side) or real_questions(side, kind)
    )
    monkeypatch.setattr(
        tables, "groups", lambda t, side, column: asked.add(side) or real_groups(t, side, column)
    )
    for split in families.FAMILIES[config].sizes:
        asked.clear()
        for index in range(30):
            families.example(config, split, index)
        assert asked == {families.side_of(config, split)}
    if config.startswith("pretrain_"):
        assert families.side_of(config, "validation") == "pretrain_validation"


def test_cut_out_shapes_are_named_as_easy_vqa_names_them():
    sprites = {
        sprite.key: sprite for side in ingredients.SIDES for sprite in ingredients.shapes(side)
    }
    checked = 0
    for side in ingredients.SIDES:
        for question in ingredients.questions(side, "open"):
            sprite = sprites.get(f"easy_vqa/{question.folder}/{question.image}")
            if sprite is not None:
                assert question.answer in (sprite.color, sprite.name)
                checked += 1
    assert checked > 5000


def test_captions_are_five_short_and_different():
    for config in ("caption", "pretrain_caption"):
        for index in range(60):
            references = families.example(config, "train", index)["references"]
            assert len(set(references)) == 5
            assert max(len(caption.split()) for caption in references) <= 11


def test_caption_relation_holds_in_the_image():
    for index in range(60):
        record = families.example("caption", "validation", index)
        words = record["references"][0].split()
        colors = words[1], words[-2]
        if colors[0] == colors[1]:
            continue
        image = pixels(record)
        where = [
            np.argwhere((image == ingredients.COLORS[color]).all(-1)).mean(0) for color in colors
        ]
        axis = 0 if "above" in words else 1
        assert where[0][axis] < where[1][axis]


def test_vqa_is_easy_vqa_with_ten_mostly_agreeing_answers():
    kinds = collections.Counter()
    for index in range(80):
        record = families.example("vqa", "test", index)
        (answer, votes), *_ = collections.Counter(record["references"]).most_common()
        assert len(record["references"]) == 10 and votes >= 7
        kinds[answer if answer in ("yes", "no") else "open"] += 1
    assert kinds == {"open": 40, "yes": 20, "no": 20}


def test_counts_are_balanced_and_right():
    answers = collections.Counter()
    checked = 0
    for index in range(210):
        record = families.example("count", "test", index)
        answers[record["references"][0]] += 1
        color = record["question"].split()[2]
        if color in ingredients.COLORS:
            inside = (pixels(record) == ingredients.COLORS[color]).all(-1)
            cells = inside.reshape(3, 32, 3, 32).sum((1, 3)) > 20
            assert cells.sum() == int(record["references"][0])
            checked += 1
    assert answers == {str(n): 30 for n in range(7)}
    assert checked > 20


def test_the_box_of_a_single_object_is_tight():
    for index in range(20):
        made = families.example("pretrain_box", "validation", index)
        image = pixels(made).astype(int)
        x1, y1, x2, y2 = np.round(made["box"] * 96).astype(int)
        # What is not the background's colour lies in the box, and reaches (nearly) all its sides.
        background = image[0, 0] if x1 or y1 else image[-1, -1]
        rows, columns = np.nonzero(np.abs(image - background).sum(-1) > 60)
        assert x1 <= columns.min() and columns.max() < x2 and y1 <= rows.min() and rows.max() < y2
        assert columns.max() - columns.min() >= x2 - x1 - 6
        assert rows.max() - rows.min() >= y2 - y1 - 6


def test_boxes_are_tight_on_a_grid_of_24_and_named_by_unique_expressions():
    for index in range(60):
        record = families.example("box", "test", index)
        steps = record["box"] * 24
        np.testing.assert_allclose(steps, np.round(steps), atol=1e-4)
        left, top, right, bottom = (np.round(steps).astype(int) * 4).tolist()
        image = pixels(record)
        inside = image[top:bottom, left:right]
        # The canvas' colour is the commonest one.
        colors, counts = np.unique(image.reshape(-1, 3), axis=0, return_counts=True)
        drawn = np.abs(inside - colors[counts.argmax()]).sum(-1) > 0
        assert drawn[0].any() and drawn[-1].any() and drawn[:, 0].any() and drawn[:, -1].any()
        assert record["question"] == record["references"][0]
        assert 1 <= len(set(record["references"])) == len(record["references"]) <= 3


def test_choices_hold_the_answer_once_and_letters_are_balanced():
    letters = {3: collections.Counter(), 4: collections.Counter()}
    for index in range(600):
        record = families.example("choice", "train", index)
        choices, answer = record["choices"], record["answer_index"]
        assert len(set(choices)) == len(choices)
        assert record["references"] == [choices[answer]]
        letters[len(choices)][answer] += 1
    for total, counts in letters.items():
        assert set(counts) == set(range(total))
        assert max(counts.values()) < 1.5 * min(counts.values())


@pytest.mark.parametrize("config", ["document", "pretrain_document"])
def test_answers_can_be_read_off_the_page(config):
    for index in range(120):
        record = families.example(config, "validation", index)
        assert places(pixels(record), record["references"][0]), record["id"]


def test_field_answers_stand_behind_the_name_of_their_field():
    for index in range(0, 80, 2):
        record = families.example("document", "test", index)
        field = record["question"].removeprefix("what is the ").removesuffix("?")
        assert places(pixels(record), f"{field} {record['references'][0]}"), record["id"]


def test_chart_answers_follow_from_the_bars():
    for index in range(160):
        record = families.example("chart", "test", index)
        image, question, answer = pixels(record), record["question"], record["references"][0]
        areas = {c: int((image == rgb).all(-1).sum()) for c, rgb in ingredients.COLORS.items()}
        del areas["black"]  # the text
        areas = {color: area for color, area in areas.items() if area}
        assert len(areas) in (3, 4)
        name = question.removesuffix("?").split(" of ")[-1] if " of " in question else answer
        (x, y), *_ = places(image, name)
        bottom = drawing.SIZE - drawing.LINE
        below = y == bottom  # names stand below vertical bars
        bar = image[:bottom, x + 2 : x + 18] if below else image[y + 12 : y + 24]
        colors = [c for c in areas if (bar == ingredients.COLORS[c]).all(-1).any()]
        assert len(colors) == 1, record["id"]
        if " of " in question:
            column = slice(x, x + 24) if below else slice(0, drawing.SIZE)
            row = slice(0, bottom) if below else slice(y + 12, y + 24)
            assert places(image, answer) and (image[row, column] == 0).all(-1).any()
        elif question.endswith("bar?"):
            extreme = max if "highest" in question else min
            assert areas[colors[0]] == extreme(areas.values()), record["id"]
        else:
            assert question.endswith(f"is {colors[0]}?")


def test_prepare_writes_record_i_at_place_i_and_only_once(tmp_path):
    builder = mini_suite.prepare("document", tmp_path)
    stored = builder.as_data_source("validation")
    assert len(stored) == 200
    for index in (0, 7, 199):
        made = families.example("document", "validation", index)
        found = stored[index]
        assert found["id"].decode() == made["id"]
        assert [bytes(image) for image in found["image"]] == made["image"]
        assert [text.decode() for text in found["references"]] == made["references"]
        np.testing.assert_array_equal(found["box"], made["box"])
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.array_record*")}
    assert before
    mini_suite.prepare("document", tmp_path)
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.array_record*")}


def test_prepare_takes_what_a_faster_process_has_prepared(tmp_path, monkeypatch):
    real = mini_suite.MiniSuite.download_and_prepare

    def overtaken(self, **arguments):
        real(mini_suite.MiniSuite(config="chart", data_dir=str(tmp_path)), **arguments)
        raise FileExistsError("Directory not empty")

    monkeypatch.setattr(mini_suite.MiniSuite, "download_and_prepare", overtaken)
    assert len(mini_suite.prepare("chart", tmp_path).as_data_source("test")) == 256


def test_mistakes_are_sentences(tmp_path):
    with pytest.raises(UserError, match="no config 'captions'; it has caption, vqa"):
        mini_suite.prepare("captions", tmp_path)
    with pytest.raises(UserError, match="no example 20 in split 'dev'; its splits: train"):
        families.example("caption", "dev", 20)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be prepared under .*file"):
        mini_suite.prepare("box", tmp_path / "file")
    with pytest.raises(UserError, match="package nonesuch, which is not installed"):
        ingredients.package_folder("nonesuch_package", "nonesuch")
