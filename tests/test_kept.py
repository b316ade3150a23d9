"""What a workdir keeps: frozen scores of these very examples, and which data it was trained on."""

import json
import shutil
import types

import numpy as np
import pytest

from omni_smola import config as configs
from omni_smola import kept
from omni_smola.data import tasks
from omni_smola.evaluation import evaluator
from omni_smola.training.faults.watchdog import Watchdog

COLOURS = ["red", "blue", "red"]


def lines(answers=COLOURS, prompt="what color?") -> str:
    records = ({"image": None, "question": prompt, "answers": [a]} for a in answers)
    return "".join(json.dumps(record) + "\n" for record in records)


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "toggles"
    made.mkdir()
    for split in ("train", "test"):
        (made / f"{split}.jsonl").write_text(lines())
    return made


@pytest.fixture
def run(tmp_path, folder):
    """(**fields of the config by path) -> what `kept` needs of a Run on this folder."""

    def make(folder=folder, fingerprint="weights", frame="t5", **fields):
        config = configs.defaults()
        config.data.sources.toggles = str(folder)
        config.update_from_flattened_dict({k.replace("__", "."): v for k, v in fields.items()})
        tasks.register(dict(config.data.sources), data_dir=str(tmp_path / "tfds"))
        made = types.SimpleNamespace(
            config=config,
            workdir=str(tmp_path),
            rates={"toggles": 1.0},
            eval_tasks=[tasks.get("toggles").row],
            model=types.SimpleNamespace(fingerprint=fingerprint, image_size=96, trainable={}),
            framing=types.SimpleNamespace(name=frame),
            watchdog=Watchdog(0),
        )
        made.generate = lambda trainable, batch: np.ones((1, 1), np.int32)
        made.make_evaluator = lambda: _evaluator(folder)
        return made

    return make


def _evaluator(folder) -> evaluator.Evaluator:
    """A model that answers "red", on the answers that the folder has now."""
    records = [json.loads(line) for line in (folder / "test.jsonl").read_text().splitlines()]

    def batches(name):
        for record in records:
            example = {"id": "", "prompt": record["question"], "references": record["answers"]}
            yield {"example_mask": np.ones(1, bool)}, [example]

    tasks = [evaluator.Task("toggles", "vqa", "exact_match")]
    return evaluator.Evaluator(tasks, batches, lambda ids: "red", primary=True)


def frozen(run) -> tuple[str, float]:
    path = kept.frozen_scores(run, kept.make_evaluator(run))
    with open(path) as file:
        return path, json.load(file)["tasks"]["toggles"]["scores"]["exact_match"]


def test_frozen_scores_are_of_the_answers_that_are_there_now(run, folder):
    assert frozen(run())[1] == pytest.approx(200 / 3)
    (folder / "test.jsonl").write_text(lines(["crimson", "navy", "crimson"]))
    assert frozen(run())[1] == 0
    (folder / "test.jsonl").write_text(lines())
    assert frozen(run())[1] == pytest.approx(200 / 3)


def test_frozen_scores_are_kept_while_nothing_changes(run, folder, tmp_path):
    path, _ = frozen(run())
    with open(path) as file:
        marked = file.read().replace("exact_match", "kept")
    with open(path, "w") as file:
        file.write(marked)
    copy = shutil.copytree(folder, tmp_path / "copy")
    (folder / "train.jsonl").write_text(lines(["other"]))
    for same in (run(), run(copy), run(optimizer__learning_rate=0.5), run(data__mixing="size")):
        evaluate = kept.make_evaluator(same)
        assert kept.frozen_scores(same, evaluate) == path
    with open(path) as file:
        assert file.read() == marked


@pytest.mark.parametrize(
    "change",
    [
        {"fingerprint": "other"},
        {"frame": "plain"},
        {"eval__examples": 2},
        {"decode__method": "beam"},
        {"data__prompt_length": 9},
        {"data__prompts": "instruction"},
        {"backbone__dtype": "bfloat16"},
        {"data__sources": {"toggles": {"metric": "anls"}}},
    ],
)
def test_what_scores_follow_from_is_in_their_identity(run, folder, change):
    if "data__sources" in change:
        made = run()
        tasks.register({"toggles": {"path": str(folder), "metric": "anls"}})
        made.eval_tasks = [tasks.get("toggles").row]
    else:
        made = run(**change)
    assert kept.evaluated(made) != kept.evaluated(run())


def test_the_seed_counts_where_answers_are_drawn(run):
    assert kept.evaluated(run(seed=1)) == kept.evaluated(run(seed=2))
    drawn = [kept.evaluated(run(seed=seed, decode__method="sample")) for seed in (1, 2)]
    assert drawn[0] != drawn[1]


def test_changed_training_data_are_said_once(run, folder, tmp_path, capsys):
    kept.note_training_data(run(), 0)
    kept.note_training_data(run(), 5)
    assert "TRAINING DATA" not in capsys.readouterr().err
    (folder / "train.jsonl").write_text(lines([*COLOURS, "green"]))
    kept.note_training_data(run(), 7)
    said = capsys.readouterr().err
    assert "THE TRAINING DATA OF toggles HAVE CHANGED (3 examples then, 4 now) since step 0" in said
    kept.note_training_data(run(), 9)
    assert "TRAINING DATA" not in capsys.readouterr().err
    noted = json.loads((tmp_path / "data.json").read_text())
    assert [each["step"] for each in noted] == [0, 7]


def test_a_new_run_and_an_older_workdir_have_nothing_to_compare(run, folder, tmp_path, capsys):
    kept.note_training_data(run(), 3)
    (folder / "train.jsonl").write_text(lines(["x", "y"]))
    kept.note_training_data(run(), 0)
    (tmp_path / "data.json").write_text("[]")
    kept.note_training_data(run(), 3)
    assert "TRAINING DATA" not in capsys.readouterr().err


def test_a_first_stage_of_other_data_is_said(run, folder, tmp_path, capsys):
    first = run()
    first.workdir = str(tmp_path / "stage_1")
    (tmp_path / "stage_1").mkdir()
    kept.note_training_data(first, 0)
    (folder / "train.jsonl").write_text(lines(["x"]))
    kept.note_training_data(run(language__stage_1_steps=3), 0)
    assert "since the first stage in" in capsys.readouterr().err
