"""Schedules at the steps that matter, and both optimisers at work."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from omni_smola.errors import UserError
from omni_smola.training import optimizer
from omni_smola.training import state as states
from omni_smola.training.step import TrainState, make_train_step

from .conftest import train_config

PEAK, WARMUP, STEPS = 0.5, 10, 110


def at(schedule: str, step: int, **fields) -> float:
    config = train_config(schedule=schedule, learning_rate=PEAK, warmup=WARMUP, **fields)
    return float(optimizer.make_schedule(config, STEPS)(step))


@pytest.mark.parametrize("schedule", optimizer.SCHEDULES)
def test_every_schedule_warms_up_to_the_peak(schedule):
    for step, value in ((0, 0.0), (5, PEAK / 2), (10, PEAK)):
        np.testing.assert_allclose(at(schedule, step), value, rtol=1e-6)


@pytest.mark.parametrize(
    ("schedule", "half", "end"),
    [
        ("constant", PEAK, PEAK),
        ("cosine", PEAK * 0.55, PEAK * 0.1),
        ("linear", PEAK * 0.55, PEAK * 0.1),
        ("rsqrt", PEAK / 6**0.5, PEAK / 11**0.5),
    ],
)
def test_after_the_warm_up(schedule, half, end):
    np.testing.assert_allclose(at(schedule, 60, final_fraction=0.1), half, rtol=1e-5)
    np.testing.assert_allclose(at(schedule, 110, final_fraction=0.1), end, rtol=1e-5)


def test_without_a_warm_up_the_first_step_has_the_peak():
    config = train_config(schedule="linear", learning_rate=PEAK, warmup=0)
    assert float(optimizer.make_schedule(config, STEPS)(0)) == PEAK


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"schedule": "step"}, r"optimizer.schedule is 'step': choose one of constant, cosine"),
        ({"warmup": -1}, r"optimizer.warmup is -1"),
        ({"name": "sgd"}, r"optimizer.name is 'sgd': choose one of adamw, adafactor"),
    ],
)
def test_mistakes_are_sentences(fields, sentence):
    with pytest.raises(UserError, match=sentence):
        optimizer.make_optimizer(train_config(**fields), STEPS)


@pytest.mark.parametrize(
    ("warmup", "steps", "expected"),
    [(40, 600, 40), (40, 40, 40), (40, 20, 10), (1000, 100, 50), (40, 1, 0), (40, 0, 0)],
)
def test_a_warm_up_shrinks_with_a_run_that_is_shorter(warmup, steps, expected):
    config = train_config(schedule="cosine", learning_rate=PEAK, warmup=warmup)
    assert optimizer.warmup_steps(config, steps) == expected
    assert float(optimizer.make_schedule(config, steps)(expected)) == PEAK


@pytest.mark.parametrize("name", optimizer.OPTIMIZERS)
def test_both_optimisers_learn(toy, name):
    rule, schedule = optimizer.make_optimizer(train_config(name=name, learning_rate=0.1), 60)
    step = jax.jit(make_train_step(toy.assemble, rule, schedule))
    state = TrainState(jnp.int32(0), toy.trainable, rule.init(toy.trainable))
    batches = [toy.batch() for _ in range(60)]
    losses = []
    for batch in batches:
        state, metrics = step(state, toy.frozen, batch)
        losses.append(float(metrics["loss"]))
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:10])


def test_adafactor_keeps_rows_and_columns_of_large_matrices_only():
    rule, _ = optimizer.make_optimizer(train_config(name="adafactor"), 10)
    shapes = jax.eval_shape(rule.init, {"w": jax.ShapeDtypeStruct((256, 512), jnp.float32)})
    assert states.count(shapes) < 256 * 512 // 4


def test_gradients_are_clipped_by_their_global_norm():
    params = {"a": jnp.zeros(3), "b": jnp.zeros(4)}
    grads = {"a": jnp.full(3, 30.0), "b": jnp.full(4, -40.0)}
    for clip_norm, norm in ((2.0, 2.0), (0.0, optax.global_norm(grads))):
        config = train_config(clip_norm=clip_norm, b1=0.9)
        rule, _ = optimizer.make_optimizer(config, 10)
        _, state = rule.update(grads, rule.init(params), params)
        mu = optax.tree.get(state, "mu")  # Adam's first moment: 0.1 of the gradient it saw
        np.testing.assert_allclose(optax.global_norm(mu), 0.1 * norm, rtol=1e-5)


@pytest.mark.parametrize("name", optimizer.OPTIMIZERS)
def test_weight_decay_pulls_towards_zero(name):
    params = {"w": jnp.full((4, 4), 3.0)}
    changes = []
    for weight_decay in (0.0, 0.1):
        rule, _ = optimizer.make_optimizer(train_config(name=name, weight_decay=weight_decay), 10)
        updates, _ = rule.update({"w": jnp.full((4, 4), 1e-3)}, rule.init(params), params)
        changes.append(float(updates["w"].mean()))
    assert changes[1] < changes[0] < 0
