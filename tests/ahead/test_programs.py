"""The programs that are compiled ahead of time are those that a run has, to the letter."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

from omni_smola import config as configs
from omni_smola import modes, programs
from omni_smola import run as runs
from omni_smola.ahead import programs as ahead
from omni_smola.errors import UserError
from omni_smola.training import sharding

EXAMPLES = 8


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """Eight devices on every axis, sampled answers, and images of a user's own."""
    folder = tmp_path_factory.mktemp("pets")
    lines = []
    for i in range(EXAMPLES):
        Image.new("RGB", (30, 20), (i, 0, 0)).save(folder / f"{i}.png")
        lines.append(json.dumps({"image": f"{i}.png", "question": "which?", "answers": ["a cat"]}))
    for split in ("train", "test"):
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    config = configs.defaults()
    config.backbone.update(init="random", resolution=24, dtype="bfloat16", remat=True)
    config.experts.update(visual=2, text=2, multimodal=2, rank=2)
    config.data.sources = {"pets": str(folder)}
    config.data.rates = {"pets": 1.0}
    config.mesh.update(data=2, fsdp=2, tensor=2)
    config.update(batch_size=8, accumulate=2)
    config.eval.update(batch_size=4, examples=4)
    config.decode.method = "sample"
    return config


@pytest.fixture(scope="module")
def run(config, tmp_path_factory):
    opened = runs.Run(config, str(tmp_path_factory.mktemp("run")))
    opened.register_tasks()
    return opened


def lowered(program: ahead.Program) -> str:
    return program.jitted.lower(*program.arguments).as_text()


def test_the_step_is_the_one_of_training(config, run, monkeypatch):
    given, program = {}, ahead.make("train", config)
    jit = sharding.jit_train_step

    def recorded(*arguments):
        jitted = jit(*arguments)

        def call(*arguments):
            given["text"] = jitted.lower(*arguments).as_text()
            return arguments[0], {}

        return call

    monkeypatch.setattr(modes.sharding, "jit_train_step", recorded)
    batch = next(run.train_batches(0))
    monkeypatch.setattr(modes.loop, "train", lambda state, plan, *, step, **_: step(state, batch))
    train(run, run.fresh_state())
    assert lowered(program) == given["text"]


def train(run, state):
    """What `modes.train` does once a state is there."""
    import inspect

    names = list(inspect.signature(modes._steps).parameters)
    rest = {name: Anything() for name in names[2:]}
    modes._steps(run, state, **rest)


class Anything:
    """Stands for writers and signals, which the program does not depend on."""

    def __getattr__(self, name):
        return lambda *args, **named: None


def test_the_answer_is_the_one_of_evaluation(config, run, monkeypatch):
    given = {}
    jit = programs.jit_answer

    def recorded(mesh, generate):
        jitted = jit(mesh, generate)

        def call(*arguments):
            given["text"] = jitted.lower(*arguments).as_text()
            return np.zeros((config.eval.batch_size, config.data.target_length), np.int32)

        return call

    program = ahead.make("decode", config)
    monkeypatch.setattr(programs, "jit_answer", recorded)
    run.__dict__.pop("_generate", None)
    batch, _ = next(iter(run.eval_batches("pets")))
    run.generate(run.model.trainable, batch)
    assert lowered(program) == given["text"]
    assert program.rounds == config.data.target_length
    # Keys and values of both decoder layers: of the answer, and of image and prompt.
    tokens = config.data.target_length + 2 * 2 + config.data.prompt_length
    assert program.facts["cache_bytes_of_all_chips"] >= 2 * 2 * 4 * tokens * 128 * 2


def test_no_weight_is_made_or_read(config):
    big = config.copy_and_resolve_references()
    big.backbone.update(name="palix", init="/nowhere.safetensors", resolution=756)
    big.backbone.param_dtype = "bfloat16"
    program = ahead.make("train", big)
    assert program.facts["frozen_parameters"] > 50e9
    assert all(
        isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(program.arguments)
    )


@pytest.mark.parametrize("name", ahead.NAMES)
@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("mesh.tensor", 3, r"config\.mesh is .*does not fill the 8 devices"),
        ("batch_size", 6, r"batch_size is 6"),
        ("backbone.name", "palx", r"no backbone called 'palx'"),
        ("mesh.frozen", "nowhere", r"config\.mesh\.frozen"),
    ],
)
def test_mistakes_are_those_of_a_run(config, name, field, value, sentence):
    wrong = config.copy_and_resolve_references()
    wrong.update_from_flattened_dict({field: value})
    with pytest.raises(UserError, match=sentence):
        ahead.make(name, wrong)
