"""The report: rows from score files, means of like with like, aligned text."""

import dataclasses
import json

import pytest

from omni_smola.errors import UserError
from omni_smola.evaluation import evaluator, report
from omni_smola.evaluation.report import Row

ROWS = [
    Row("mini_caption", "captioning", "cider", 31.2, 88.126, 256),
    Row("mini_vqa", "vqa", "vqa_accuracy", 10.0, 60.5, 200),
    Row("mini_count", "vqa", "exact_match", 40.0, 39.5, 100),
]


def write(path, **tasks):
    """A file of scores: name=(family, metric, score, examples)."""
    content = {
        name: {"family": family, "metric": metric, "scores": {metric: score}, "examples": n}
        for name, (family, metric, score, n) in tasks.items()
    }
    path.write_text(json.dumps({"label": "x", "step": 0, "tasks": content}))
    return path


def test_plain_table():
    assert report.table(ROWS) == (
        "task          family      metric        frozen  Omni-SMoLA  difference  examples\n"
        "--------------------------------------------------------------------------------\n"
        "mini_caption  captioning  cider          31.20       88.13      +56.93       256\n"
        "mini_vqa      vqa         vqa_accuracy   10.00       60.50      +50.50       200\n"
        "mini_count    vqa         exact_match    40.00       39.50       -0.50       100\n"
        "--------------------------------------------------------------------------------\n"
        "mean                                     27.07       62.71      +35.64       556"
    )


def test_markdown_table():
    lines = report.table(ROWS, markdown=True, tuned="LoRA").splitlines()
    assert lines[:3] == [
        "| task         | family     | metric       | frozen |  LoRA | difference | examples |",
        "| ------------ | ---------- | ------------ | -----: | ----: | ---------: | -------: |",
        "| mini_caption | captioning | cider        |  31.20 | 88.13 |     +56.93 |      256 |",
    ]
    assert len(lines) == 6 and len({line.count("|") for line in lines}) == 1


def test_constant_answers_have_a_column_of_their_own():
    rows = [dataclasses.replace(row, constant=c) for row, c in zip(ROWS, (7, 30, 20), strict=True)]
    lines = report.table(rows).splitlines()
    assert lines[0].split()[2:6] == ["metric", "constant", "frozen", "Omni-SMoLA"]
    assert lines[2].split() == "mini_caption captioning cider 7.00 31.20 88.13 +56.93 256".split()
    assert lines[-1].split()[:3] == ["mean", "19.00", "27.07"]
    partly = report.table([*rows[:2], ROWS[2]]).splitlines()
    assert partly[4].split()[3] == partly[-1].split()[1] == "-"


def test_no_difference_has_no_minus_sign():
    table = report.table([Row("t", "g", "m", 50.001, 50.0, 1)])
    assert "+0.00" in table and "-0.00" not in table


def test_without_a_baseline_its_columns_are_empty():
    rows = [Row(r.task, r.family, r.metric, None, r.tuned, r.examples) for r in ROWS]
    last = report.table(rows).splitlines()[-1].split()
    assert last == ["mean", "-", "62.71", "-", "556"]


def test_a_mean_compares_like_with_like():
    rows = [*ROWS, Row("mini_new", "vqa", "anls", None, 100.0, 50)]
    mean = report.mean(rows)
    assert mean.task == "mean of 3" and mean.examples == 556
    assert mean.tuned == pytest.approx((88.126 + 60.5 + 39.5) / 3)
    assert mean.difference == pytest.approx(mean.tuned - mean.frozen)


def test_scores_of_different_tasks_are_not_averaged_into_a_difference():
    mean = report.mean([Row("a", "g", "m", None, 50.0, 1), Row("b", "g", "m", 10.0, None, 1)])
    assert mean.difference is None


def test_families():
    assert report.families(ROWS) == [
        ROWS[0],
        Row("mean", "vqa", "", 25.0, 50.0, 300),
    ]


def test_report_tells_scores_families_and_places():
    text = report.report(ROWS, {"checkpoint": "/w/checkpoints/600", "logs": "/w/logs"})
    tables = text.split("\n\n")
    assert len(tables) == 3
    families = [line.split() for line in tables[1].splitlines()]
    assert families[3] == ["mean", "vqa", "25.00", "50.00", "+25.00", "300"]
    # Each family counts once: caption's 88.126 and the mean of the two others.
    assert families[-1][:3] == ["mean", f"{(31.2 + 25) / 2:.2f}", f"{(88.126 + 50) / 2:.2f}"]
    assert tables[2] == "checkpoint  /w/checkpoints/600\nlogs        /w/logs\n"
    one_each = report.report(ROWS[:2], {"logs": "/w/logs"}, markdown=True)
    assert one_each.split("\n\n")[1] == "- logs  `/w/logs`\n"  # families would say nothing new


# Rows of MoME's result tables: general, REC, REG, document, and the average it prints.
MOME = [
    (75.04, 61.42, 58.79, 30.84, 56.52),
    (66.09, 71.52, 55.58, 22.10, 53.82),
    (40.75, 39.26, 32.11, 47.05, 39.79),
    (70.36, 74.89, 57.55, 32.83, 58.91),
    (74.35, 76.93, 61.01, 39.23, 62.88),
    (79.05, 81.92, 63.82, 52.77, 69.39),
    (74.50, 63.80, 59.24, 31.73, 57.32),
    (75.61, 65.63, 59.17, 32.46, 58.22),
    (79.65, 81.58, 64.83, 53.69, 69.94),
]


@pytest.mark.parametrize("row", MOME)
def test_the_mean_of_groups_is_that_of_the_paper(row):
    """A group of several sets counts as one of a single set does."""
    groups = dict(zip(("general", "rec", "reg", "document"), row, strict=False))
    rows = [Row("set", name, "m", None, score, 1) for name, score in groups.items()]
    rows += [Row("other", "general", "m", None, row[0], 1)]
    text = report.report(rows, {"logs": "/w/logs"})
    overall = float(text.split("\n\n")[1].splitlines()[-1].split()[-3])
    assert overall == pytest.approx(row[4], abs=0.0051)


def test_without_public_references_there_is_no_table():
    text = report.report([], {"logs": "/w/logs"})
    assert text.startswith("No task has public references") and text.endswith("/w/logs\n")


def test_load_joins_the_two_files(tmp_path):
    frozen = write(tmp_path / "a", x=("g", "m", 1.0, 5), only_frozen=("g", "m", 2.0, 6))
    tuned = write(tmp_path / "b", only_tuned=("h", "m", 3.0, 7), x=("g", "m", 4.0, 5))
    assert report.load(frozen, tuned) == [
        Row("only_tuned", "h", "m", None, 3.0, 7),
        Row("x", "g", "m", 1.0, 4.0, 5),
        Row("only_frozen", "g", "m", 2.0, None, 6),
    ]
    assert report.load(tmp_path / "absent", tuned)[1] == Row("x", "g", "m", None, 4.0, 5)
    assert report.load(frozen, None)[0] == Row("x", "g", "m", 1.0, None, 5)


def test_load_reads_what_the_evaluator_writes(tmp_path):
    runner = evaluator.Evaluator(
        [evaluator.Task("t", "g", "both")],
        lambda name: [({"example_mask": [True]}, [{"id": "", "prompt": "", "references": [""]}])],
        lambda ids: "",
        metrics={"both": lambda predictions, references: {"reported": 7.0, "other": 9.0}},
        primary=True,
    )
    runner.run(lambda batch: [[1]], tmp_path, "tuned", 3)
    runner.write_scores(tmp_path / "scores.json")
    assert report.load(None, tmp_path / "scores.json") == [Row("t", "g", "reported", None, 7.0, 1)]


def test_what_does_not_compare_is_refused(tmp_path):
    frozen = write(tmp_path / "a", x=("g", "m", 1.0, 5))
    with pytest.raises(UserError, match="task x was scored with examples 5 frozen and 6 tuned"):
        report.load(frozen, write(tmp_path / "b", x=("g", "m", 1.0, 6)))
    with pytest.raises(UserError, match="with metric m frozen and n tuned"):
        report.load(frozen, write(tmp_path / "b", x=("g", "n", 1.0, 5)))


def test_missing_and_broken_files_are_told(tmp_path):
    with pytest.raises(UserError, match="no scores to report"):
        report.load(None, tmp_path / "absent")
    scored = {"scores": {"m": 1}, "metric": "m", "examples": 1, "family": "g", "constant": {}}
    contents = ("{", "[]", '{"tasks": {"x": {}}}', '{"tasks": []}')
    for content in (*contents, json.dumps({"tasks": {"x": scored}})):
        (tmp_path / "broken").write_text(content)
        with pytest.raises(UserError, match="broken is not a file of scores"):
            report.load(None, tmp_path / "broken")
