"""MoME's two stages: the second starts, to the bit, where the first ended."""

import jax
import numpy as np
import pytest

from omni_smola.errors import UserError
from omni_smola.training import sharding, stages
from omni_smola.training import state as states
from omni_smola.training.checkpoint import Checkpoints
from omni_smola.training.model import identity, make_model
from omni_smola.training.step import TrainState


@pytest.fixture(scope="module")
def mesh():
    return sharding.make_mesh(2, 1, 1, jax.devices()[:2])


@pytest.fixture(scope="module")
def first(small_mome, mesh, tmp_path_factory):
    """The workdir of a first stage whose every parameter has moved, its config and its model."""
    config = small_mome.config(language_experts=1)
    model = make_model(config, mesh)
    rng = np.random.default_rng(0)

    def moved(leaf):
        return jax.device_put(leaf + 0.2 * rng.standard_normal(leaf.shape, "f"), leaf.sharding)

    model.trainable = jax.tree.map(moved, model.trainable)
    workdir = tmp_path_factory.mktemp("first")
    checkpoints = Checkpoints(str(workdir), identity(config, model.fingerprint))
    step = jax.device_put(np.int32(7), sharding.partition(mesh, "step", ()))
    checkpoints.save(TrainState(step, model.trainable, {"count": step}))
    checkpoints.close()
    return workdir, config, model


def test_the_second_stage_starts_to_the_bit_where_the_first_ended(small_mome, mesh, first):
    workdir, _, before = first
    config = small_mome.config(language_experts=3, language_stage_1=str(workdir))
    model = make_model(config, mesh)
    trainable = stages.start(config, mesh, str(workdir), model)
    shapes = jax.tree.map(lambda x: (x.shape, x.dtype), model.trainable)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), trainable) == shapes
    batch = small_mome.batch()

    def logits(model, trainable):
        run = jax.jit(lambda t, f, b: model.assemble(t, f)(b))
        return np.asarray(run(trainable, model.frozen, batch))

    want = logits(before, before.trainable)
    np.testing.assert_array_equal(logits(model, trainable), want)
    assert np.any(logits(model, model.trainable) != want)
    # Routers are the second stage's own.
    drawn, found = states.paths(model.trainable), states.paths(trainable)
    routers = [path for path in drawn if "mlp/experts/router" in path]
    assert routers
    for path in routers:
        np.testing.assert_array_equal(found[path], drawn[path])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"language_rank": 5}, r"language\.rank = 4.*language\.rank = 5"),
        ({"vision_transform": "average"}, r"vision\.transform = adt.*average"),
        ({"vision_encoders": "semantic"}, r"backbone = |vision\.encoders = "),
    ],
)
def test_a_first_stage_of_something_else_is_refused(small_mome, mesh, first, changes, sentence):
    workdir, *_ = first
    config = small_mome.config(language_stage_1=str(workdir), **changes)
    with pytest.raises(UserError, match=sentence):
        stages.start(config, mesh, str(workdir), make_model(config, mesh))


def test_a_missing_first_stage_is_a_sentence(small_mome, mesh, tmp_path):
    config = small_mome.config(language_stage_1=str(tmp_path))
    with pytest.raises(UserError, match="There is no first stage in"):
        stages.start(config, mesh, str(tmp_path), make_model(config, mesh))


def test_a_first_stage_needs_experts_to_start(small_mome, mesh):
    config = small_mome.config(language_experts=1, language_stage_1="somewhere")
    with pytest.raises(UserError, match="two or more experts"):
        make_model(config, mesh)


def test_the_first_stage_is_the_same_run_with_single_adapters(small_mome):
    config = small_mome.config(language_route="both", language_stage_1_steps=9)
    first = stages.first_stage(config)
    assert (first.steps, first.language.experts, first.language.stage_1_steps) == (9, 1, 0)
    first.steps = config.steps
    first.language = config.language
    assert first.to_dict() == config.to_dict()
    assert stages.folder(config, "runs/mome") == "runs/mome/stage_1"
