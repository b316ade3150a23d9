"""ChartQA in the official layout."""

import pytest

from omni_smola.errors import UserError


def chart_files(downloads, split, human, augmented):
    for half, pairs in (("human", human), ("augmented", augmented)):
        records = [{"imgname": name, "query": "How many?", "label": label} for name, label in pairs]
        downloads.write(f"chartqa/{split}/{split}_{half}.json", records)


def test_halves_are_groups_and_charts_belong_to_their_split(downloads, examples):
    chart_files(downloads, "train", [("41.png", "14")], [("two_col_2.png", "[2010, 2012]")])
    chart_files(downloads, "test", [("41.png", 23)], [])
    downloads.images(*(f"chartqa/{name}.png" for name in ("train/png/41", "test/png/41")))
    downloads.images("chartqa/train/png/two_col_2.png")
    human, augmented = examples("chartqa", "train")
    assert (human["id"], augmented["id"]) == ("human-0", "augmented-0")
    assert (human["groups"], augmented["groups"]) == ("human", "augmented")
    assert human["references"] == ["14"]
    assert augmented["references"] == ["[2010, 2012]"], "a list is one string"
    (other,) = examples("chartqa", "test")
    assert other["references"] == ["23"] and other["image"] != human["image"]
    assert other["image"] == [(downloads.folder / "chartqa/test/png/41.png").read_bytes()]


def test_a_chart_that_is_absent_is_told(downloads, examples):
    chart_files(downloads, "val", [("1.png", "2"), ("9.png", "2")], [("1.png", "3")])
    with pytest.raises(UserError, match=r"There is no chart in .*put there the folders of https"):
        examples("chartqa", "validation")
    downloads.images("chartqa/val/png/1.png")
    with pytest.raises(UserError, match=r"val_human.json, record 1: the image 'val/9' is not in"):
        examples("chartqa", "validation")
    found = examples("chartqa", "validation", "skip")
    assert [record["id"] for record in found] == ["human-0", "augmented-0"]


def test_real_charts(real, downloads, examples):
    real("chartqa/train/train_augmented.json", "chartqa/train/train_augmented.json")
    real("chartqa/train/png", "chartqa/train/png")
    downloads.write("chartqa/train/train_human.json", [])
    found = examples("chartqa", "train")
    assert len(found) == 80 and {record["groups"] for record in found} == {"augmented"}
    assert found[0]["references"] == ["19.5"] and all(record["image"] for record in found)


def test_real_test_questions(real, downloads, examples):
    import json

    names = set()
    for half in ("human", "augmented"):
        path = f"test/test_{half}.json"
        records = json.loads(real(f"chartqa/{path}", f"chartqa/{path}").read_text())
        names.update(record["imgname"] for record in records)
    downloads.images(*(f"chartqa/test/png/{name}" for name in names))
    found = examples("chartqa", "test")
    assert len(found) == 240 and len({record["id"] for record in found}) == 240
    assert found[0]["question"] == "How many food item is shown in the bar graph?"
    assert [record["groups"] for record in found[119:121]] == ["human", "augmented"]
