"""Every row of MoME's tables is a config that builds, trains and answers."""

import pathlib
import runpy

import jax
import numpy as np
import pytest

from omni_smola.evaluation import decode
from omni_smola.models import build
from omni_smola.training import optimizer as optimizers
from omni_smola.training import sharding
from omni_smola.training import state as states
from omni_smola.training.model import make_model
from omni_smola.training.step import TrainState, make_train_step

CONFIG = pathlib.Path(__file__).parents[2] / "configs" / "mome.py"
VISION = (
    "vision=semantic,transform=average",
    "vision=spatial,transform=average",
    "vision=reading,transform=average",
    "vision=three,transform=average,aggregate=addition",
    "vision=three,transform=adt,aggregate=addition",
    "vision=three,transform=cross_attention,aggregate=router",
    "vision=three,transform=adt,aggregate=router",
)
LANGUAGE = (
    "mole_both",
    "mole_token",
    "mole_instance",
    "mole_instance_gumbel",
    "mole_instance_balance",
)
ROWS = [f"{row},language=adapter" for row in VISION]
ROWS += [f"vision=semantic,language={row}" for row in LANGUAGE]
ROWS += ["vision=three,language=mole_instance,smola=2-2-2"]


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS)
def test_a_row_builds_trains_and_answers(small_mome, row):
    config = runpy.run_path(str(CONFIG))["get_config"](row)
    config.vision.init = config.backbone.init = "random"
    config.vision.update(side=2, layers=1, heads=2, points=2, d_ff=16)
    config.language.rank = 4
    config.language.stage_1_steps = 0
    config.optimizer.warmup = 0
    mesh = sharding.make_mesh(1, 1, 1, jax.devices()[:1])
    model = make_model(config, mesh)
    batch = {**small_mome.batch(), "task": np.zeros(4, np.int32)}
    optimizer, schedule = optimizers.make_optimizer(config.optimizer, 3)
    step = make_train_step(
        model.assemble,
        optimizer,
        schedule,
        penalty=build.penalty(config.language),
        noise_seed=0 if build.noisy(config.vision, config.language) else None,
    )
    zero = jax.device_put(np.int32(0), sharding.partition(mesh, "step", ()))
    before = jax.tree.map(np.asarray, model.trainable)
    frozen = jax.tree.map(np.asarray, model.frozen)
    place = model.layout.tree(jax.eval_shape(optimizer.init, model.trainable))
    statistics = jax.jit(optimizer.init, out_shardings=place)(model.trainable)
    state = TrainState(zero, model.trainable, statistics)
    run = sharding.jit_train_step(mesh, step, state)
    for _ in range(2):
        state, metrics = run(state, model.frozen, batch)
        assert np.isfinite(metrics["loss"]) and float(metrics["gradient_norm"]) > 0
    assert ("penalty" in metrics) == ("balance" in row)
    moved = jax.tree.map(lambda a, b: np.any(a != b), before, state.trainable)
    assert np.mean(jax.tree.leaves(moved)) > 0.5
    jax.tree.map(np.testing.assert_array_equal, frozen, model.frozen)

    @jax.jit
    def generate(trainable, frozen, batch):
        answering = model.assemble(trainable, frozen)
        cache = answering.init_cache(batch, 3)
        greedy = decode.Decoding(method="greedy")
        return decode.decode(answering.step, cache, 4, 3, greedy, jax.random.key(0))

    ids = np.asarray(generate(state.trainable, model.frozen, batch))
    assert ids.shape == (4, 3) and np.all((ids >= 0) & (ids < 40))
    assert states.count(state.trainable) > 0
