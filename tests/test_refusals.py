"""What is refused before a model is made, and leaves nothing behind; what is said and goes on."""

import json

import pytest

from omni_smola import config as configs
from omni_smola import notices, refusals
from omni_smola import run as runs
from omni_smola.config_checks import check_given
from omni_smola.data import tasks
from omni_smola.errors import UserError
from omni_smola.training.faults.workdir import ensure_workdir, no_empty_folders

LONG = "a red square with four equal sides in the middle of a white page, " * 4 + "."


@pytest.fixture
def folder(tmp_path):
    """A folder of long answers: eight questions to train on, four to test."""
    path = tmp_path / "pets"
    path.mkdir()
    for split, count in (("train", 8), ("test", 4)):
        lines = [
            {"image": None, "question": f"{i}?", "answers": [LONG.strip()]} for i in range(count)
        ]
        (path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return path


@pytest.fixture
def config(folder):
    config = configs.defaults()
    config.backbone.init = "random"
    configs.set_folders(config, [str(folder)])
    return config


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("eval.split", "tset", r"has no split 'tset'; it has 'train', 'test'"),
        ("data.train_split", "validation", r"has no split 'validation'"),
        ("eval.tasks", "pets+pest", r"task 'pest' is unknown. Did you mean 'pets'"),
        ("eval.tasks", "pets+pets", r"names a task twice"),
        ("data.rates", {"pest": 1.0}, r"task 'pest' is unknown"),
        ("data.rates", {}, r"nothing to train on.*folders=path/to/one\+path/to/another"),
        ("data.mixing", "sizes", r"mixing='sizes'"),
        ("optimizer.name", "sgd", r"optimizer.name is 'sgd'"),
        ("optimizer.warmup", -1, r"optimizer.warmup is -1"),
        ("decode.method", "gredy", r"'gredy'"),
        ("experts.method", "moe", r"experts.method is 'moe'"),
        ("experts.rank", -4, r"experts.rank is -4"),
        ("backbone.name", "pali4", r"'pali4'"),
        ("backbone.init", "none.safetensors", r"no backbone file none.safetensors"),
        ("backbone.resolution", 50, r"resolution is 50"),
        ("vision.encoders", "semantic+seeing", r"'seeing'"),
        ("language.balance", -1.0, r"balance=-1"),
        ("export", "x.safetensors", r"only experts.method=full"),
        ("mesh.data", 3, r"mesh|devices"),
        ("optimizer.learning_rate", float("nan"), r"learning_rate is nan"),
    ],
)
def test_settings_and_data_are_refused_before_folder_and_model(
    config, tmp_path, monkeypatch, field, value, sentence
):
    monkeypatch.setattr(runs, "make_model", lambda *_: pytest.fail("made a model"))
    group, _, name = field.rpartition(".")
    with config.ignore_type():
        (config[group] if group else config)[name] = value
    with pytest.raises(UserError, match=sentence):
        runs.Run(config, str(tmp_path / "runs" / "x"))
    assert not (tmp_path / "runs").exists()


def test_a_second_stage_that_cannot_be_is_refused_before_the_first_is_trained(config):
    config.language.update(experts=4, stage_1_steps=10)
    config.experts.method = "none"
    refusals.check(config)
    config.language.stage_1_steps = -1
    with pytest.raises(UserError, match="stage_1_steps is -1"):
        refusals.check(config)


def test_a_workdir_without_a_checkpoint_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no checkpoint in .*nowhere/checkpoints: train first"):
        refusals.check_trained(str(tmp_path / "nowhere"))
    (tmp_path / "run" / "checkpoints" / "5").mkdir(parents=True)
    refusals.check_trained(str(tmp_path / "run"))


def test_a_refused_run_leaves_no_empty_folder(tmp_path):
    there = tmp_path / "there"
    there.mkdir()
    (there / "empty").mkdir()
    for workdir in (tmp_path / "a" / "b", there):
        with pytest.raises(UserError), no_empty_folders(str(workdir)):
            ensure_workdir(str(workdir / "checkpoints"))
            raise UserError("no")
    assert not (tmp_path / "a").exists()
    assert [path.name for path in there.iterdir()] == ["empty"]  # it was there before
    with pytest.raises(UserError), no_empty_folders(str(tmp_path / "c" / "d")):
        (tmp_path / "c" / "d" / "e").mkdir(parents=True)
        (tmp_path / "c" / "file").write_text("x")
        raise UserError("no")
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["file"]


def test_a_warm_up_that_the_user_gave_is_refused_one_by_default_shrinks(config):
    config.steps = 20
    refusals.check(config)
    check_given(config, {"steps"})
    with pytest.raises(UserError, match=r"warmup is 40 steps, but the run has 20.* at most 20"):
        check_given(config, {"steps", "optimizer.warmup"})
    config.steps = 40
    check_given(config, {"steps", "optimizer.warmup"})


@pytest.mark.parametrize("question", ["", "  ", "\x00"])
def test_no_prompt_and_no_image_are_refused(tmp_path, question):
    with pytest.raises(UserError, match="needs a prompt"):
        refusals.check_question(None, question)
    with pytest.raises(UserError, match=r"image .*nowhere.png cannot be read.*--image=PATH"):
        refusals.check_question(str(tmp_path / "nowhere.png"), "what is it?")
    assert refusals.check_question(None, "what is\tit? ") == "what is\tit? "


def test_what_is_adapted_or_cut_is_said(config, tmp_path, monkeypatch):
    told = []
    for module in (runs, notices):
        monkeypatch.setattr(module, "say", told.append)
    run = runs.Run.__new__(runs.Run)
    run.config, run._reads = config, ("train", "eval")
    run.vocabulary = runs.load_vocabulary(config)
    run.framing = runs.make_framing(config, run.vocabulary)
    config.steps, config.eval.examples = 20, 64
    run.register_tasks()
    assert tasks.get("pets").row.metric == "rouge_l"
    (metric,) = [line for line in told if "scored by rouge_l" in line]
    assert "task pets" in metric and "57.0 words" in metric and "sources.pets.metric=" in metric
    assert "pets: 64 examples asked for (eval.examples), the split 'test' has 4" in told
    told.clear()
    notices.say_adapted(run)
    assert "warm-up is 10 steps, not 40" in told[0]
    (cut,) = told[1:]
    length = len(run.vocabulary.encode(LONG)) + 1
    assert cut == (
        f"pets: 100% of the targets are cut at 32 tokens; {length} would fit 99%: "
        f"--config.data.target_length={length}"
    )
    config.data.target_length, config.steps = length, 80
    told.clear()
    notices.say_adapted(run)
    assert told == []
