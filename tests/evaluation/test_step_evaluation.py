"""The evaluation of a run's states, where its results cannot be written."""

import types

import numpy as np
import pytest

from omni_smola import config as configs
from omni_smola.evaluation import evaluator
from omni_smola.step_evaluation import StepEvaluation
from omni_smola.training.faults.watchdog import Watchdog


@pytest.fixture
def evaluation(tmp_path):
    """Of one task of one example, whose answer is right; `read` counts the evaluations."""
    read = []

    def batches(name):
        read.append(name)
        batch = {"example_mask": np.ones(1, bool), "target": np.array([[7, 1]], np.int32)}
        yield batch, [{"id": "a", "prompt": "?", "references": ["7"]}]

    tasks = [evaluator.Task("one", "vqa", "exact_match")]
    evaluate = evaluator.Evaluator(tasks, batches, lambda ids: str(ids[0]), memory=0)
    run = types.SimpleNamespace(
        workdir=str(tmp_path),
        generate=lambda trainable, batch: batch["target"],
        watchdog=Watchdog(0),
        config=configs.defaults(),
        checkpoints=types.SimpleNamespace(has_score=lambda step: "score" in read),
    )
    made = StepEvaluation(run, evaluate, "tuned", lambda step, values: None)
    return types.SimpleNamespace(
        call=made, evaluate=evaluate, read=read, folder=tmp_path, config=run.config
    )


STATE = types.SimpleNamespace(step=np.int32(5), trainable={})


def test_a_state_is_evaluated_once(evaluation):
    assert not evaluation.call.done(5)
    assert evaluation.call.while_training(STATE) == evaluation.call(STATE) == 100.0
    assert evaluation.call.done(5)
    assert evaluation.read == ["one"]
    assert (evaluation.folder / "scores" / "tuned-5.json").exists()


def test_a_step_is_done_when_its_score_is_kept_too_where_the_best_is_kept(evaluation):
    evaluation.config.checkpoint.keep_best = 1
    evaluation.call.while_training(STATE)
    assert not evaluation.call.done(5)
    evaluation.read.append("score")
    assert evaluation.call.done(5)


def test_an_evaluation_of_other_examples_is_not_done(evaluation):
    evaluation.call(STATE)
    evaluation.evaluate.identity = "other examples"
    assert not evaluation.call.done(5)
    (evaluation.folder / "scores" / "tuned-5.json").write_text("{")
    assert not evaluation.call.done(5)


def test_unwritten_results_are_told_and_made_again(evaluation, capsys):
    blocked = evaluation.folder / "predictions"
    blocked.write_text("a file where the folder should be")
    assert evaluation.call.while_training(STATE) == 100.0
    assert "THE EVALUATION OF STEP 5 COULD NOT BE WRITTEN" in capsys.readouterr().err
    with pytest.raises(OSError):
        evaluation.call(STATE)
    blocked.unlink()
    assert evaluation.call(STATE) == 100.0
    assert (blocked / "tuned-5" / "one.jsonl").exists() and len(evaluation.read) == 3
