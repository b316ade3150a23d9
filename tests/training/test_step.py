"""The loss against NumPy in float64, accumulation, and what a step changes and what it cannot."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import log_softmax, logsumexp

from omni_smola.training import optimizer as optimizers
from omni_smola.training import state as states
from omni_smola.training.step import TrainState, cross_entropy, make_train_step

from .conftest import assert_same, micro_batches, train_config, train_micro


@pytest.mark.parametrize(("smoothing", "z_loss"), [(0, 0), (0.1, 0), (0, 1e-2), (0.2, 1e-3)])
def test_cross_entropy_is_that_of_float64(smoothing, z_loss):
    rng = np.random.default_rng(0)
    logits = 5 * rng.normal(size=(3, 4, 7))
    target = rng.integers(0, 7, (3, 4)).astype(np.int32)
    mask = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]], bool)

    wanted = np.eye(7)[target] * (1 - smoothing) + smoothing / 7
    per_token = -np.sum(wanted * log_softmax(logits, axis=-1), axis=-1)
    per_token = per_token + z_loss * logsumexp(logits, axis=-1) ** 2
    plain = -np.take_along_axis(log_softmax(logits, axis=-1), target[..., None], -1)[..., 0]

    loss, sums = cross_entropy(jnp.float32(logits), target, mask, smoothing, z_loss)
    np.testing.assert_allclose(loss, per_token[mask].sum(), rtol=1e-6)
    np.testing.assert_allclose(sums["loss"], plain[mask].sum(), rtol=1e-6)
    assert sums["tokens"] == 6
    assert sums["correct"] == (logits.argmax(-1) == target)[mask].sum()


def test_what_is_masked_has_no_influence(toy):
    batch = toy.batch()
    step = make_train_step(toy.assemble, optax.sgd(1.0), optax.constant_schedule(1.0))
    other = dict(batch)
    other["x"] = np.where(batch["target_mask"][..., None], batch["x"], 7.0)
    other["target"] = np.where(batch["target_mask"], batch["target"], 0)
    assert not np.array_equal(other["x"], batch["x"])
    state = TrainState(jnp.int32(0), toy.trainable, optax.sgd(1.0).init(toy.trainable))
    one, two = step(state, toy.frozen, batch), step(state, toy.frozen, other)
    assert_same(one[0].trainable, two[0].trainable)
    assert one[1]["loss"] == two[1]["loss"]


@pytest.mark.parametrize("parts", [2, 4, 8])
def test_accumulated_parts_equal_one_batch(toy, parts):
    """By the mean over all tokens, of which the parts have different numbers."""
    rule = optax.sgd(1.0)  # the change of the parameters is the gradient
    batch = toy.batch(size=16)
    state = TrainState(jnp.int32(0), toy.trainable, rule.init(toy.trainable))
    results = []
    for accumulate in (1, parts):
        step = make_train_step(
            toy.assemble,
            rule,
            optax.constant_schedule(1.0),
            accumulate=accumulate,
            label_smoothing=0.1,
            z_loss=1e-3,
        )
        results.append(jax.jit(step)(state, toy.frozen, batch))
    (whole, whole_metrics), (parted, parted_metrics) = results
    for path, leaf in states.paths(whole.trainable).items():
        np.testing.assert_allclose(states.paths(parted.trainable)[path], leaf, atol=1e-6)
    for name, value in whole_metrics.items():
        np.testing.assert_allclose(parted_metrics[name], value, rtol=1e-6, err_msg=name)


def test_metrics_of_a_step(toy):
    batch = toy.batch()
    schedule = optax.linear_schedule(0.0, 1.0, 10)
    step = make_train_step(toy.assemble, optax.sgd(schedule), schedule, z_loss=1.0)
    state = TrainState(jnp.int32(3), toy.trainable, optax.sgd(schedule).init(toy.trainable))
    after, metrics = step(state, toy.frozen, batch)
    assert int(after.step) == 4
    np.testing.assert_allclose(metrics["learning_rate"], 0.3, rtol=1e-6)
    logits = toy.assemble(toy.trainable, toy.frozen)(batch)
    mask = batch["target_mask"]
    correct = np.argmax(logits, -1) == batch["target"]
    np.testing.assert_allclose(metrics["token_accuracy"], correct[mask].mean(), rtol=1e-6)
    # The loss that is shown has no regulariser in it, so that runs compare.
    loss, _ = cross_entropy(logits, batch["target"], mask)
    np.testing.assert_allclose(metrics["loss"], loss / mask.sum(), rtol=1e-6)
    assert metrics["gradient_norm"] > 0


def test_a_batch_without_a_token_changes_nothing(toy):
    batch = toy.batch() | {"target_mask": np.zeros((8, 4), bool)}
    step = make_train_step(toy.assemble, optax.sgd(1.0), optax.constant_schedule(1.0))
    state = TrainState(jnp.int32(0), toy.trainable, optax.sgd(1.0).init(toy.trainable))
    after, metrics = step(state, toy.frozen, batch)
    assert metrics["loss"] == 0
    assert_same(after.trainable, toy.trainable)


def test_only_experts_are_trained_and_every_frozen_weight_keeps_its_bits(micro_model, one_device):
    model = micro_model(one_device)
    before, frozen = jax.tree.map(np.array, (model.trainable, model.frozen))
    trained = states.paths(model.trainable)
    assert trained and all("experts" in path.split("/") for path in trained)
    assert not any("experts" in path.split("/") for path in states.paths(model.frozen))

    _, state, _ = train_micro(model, one_device, micro_batches(4))
    after = states.paths(state.trainable)
    for path, leaf in states.paths(before).items():
        assert not np.array_equal(leaf, after[path]), path
    statistics = {path: x for path, x in states.paths(state.optimizer).items() if x.ndim}
    assert len(statistics) == 2 * len(trained)  # Adam's two moments, of nothing else
    assert all(path.endswith(tuple(trained)) for path in statistics)

    assert_same(model.frozen, frozen)
    # And they are those of a bare backbone of the same seed, which never met an expert.
    bare = micro_model(one_device, method="none")
    assert not states.paths(bare.trainable)
    assert_same(
        states.nest(states.backbone_weights(state.trainable, model.frozen)),
        states.nest(states.backbone_weights(bare.frozen)),
    )
    assert model.fingerprint == bare.fingerprint


def unguarded_step(assemble, rule):
    """A step that takes every update, without make_train_step."""

    def loss(trainable, frozen, batch):
        logits = assemble(trainable, frozen)(batch)
        return cross_entropy(logits, batch["target"], batch["target_mask"])

    def step(state, frozen, batch):
        grads, sums = jax.grad(loss, has_aux=True)(state.trainable, frozen, batch)
        grads = jax.tree.map(lambda g: g / jnp.maximum(sums["tokens"], 1.0), grads)
        updates, rest = rule.update(grads, state.optimizer, state.trainable)
        trainable = optax.apply_updates(state.trainable, updates)
        return TrainState(state.step + 1, trainable, rest), sums

    return jax.jit(step)


@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_the_guard_against_bad_steps_lets_good_ones_through(toy, clip):
    rule, schedule = optimizers.make_optimizer(train_config(clip_norm=clip), 3)
    step = make_train_step(toy.assemble, rule, schedule)
    batches = [toy.batch() for _ in range(3)]
    ends = []
    for jitted in (jax.jit(step), unguarded_step(toy.assemble, rule)):
        state = TrainState(jnp.int32(0), toy.trainable, rule.init(toy.trainable))
        for batch in batches:
            state = jitted(state, toy.frozen, batch)[0]
        ends.append(states.paths(state.trainable) | states.paths(state.optimizer))
    # Not to the bit: XLA rounds by what it fuses, and these are two programs.
    for path, leaf in ends[0].items():
        np.testing.assert_allclose(leaf, ends[1][path], rtol=1e-5, err_msg=path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_step_that_is_not_finite_leaves_the_state(toy, value, accumulate):
    rule = optax.adamw(1e-2)
    schedule = optax.constant_schedule(1e-2)
    step = jax.jit(make_train_step(toy.assemble, rule, schedule, accumulate=accumulate))
    state = TrainState(jnp.int32(0), toy.trainable, rule.init(toy.trainable))
    for _ in range(2):
        state, metrics = step(state, toy.frozen, toy.batch())
        assert metrics["skipped"] == 0
    compiled = step._cache_size()
    bad = toy.batch()
    bad["x"][0, 0, 0] = value
    after, metrics = step(state, toy.frozen, bad)
    assert metrics["skipped"] == 1
    assert step._cache_size() == compiled
    assert int(after.step) == 3  # the position in the data goes on
    assert_same(after.trainable, state.trainable)
    assert_same(after.optimizer, state.optimizer)


def test_gradients_of_frozen_weights_are_never_formed(toy):
    step = make_train_step(toy.assemble, optax.sgd(1.0), optax.constant_schedule(1.0))
    state = TrainState(jnp.int32(0), toy.trainable, optax.sgd(1.0).init(toy.trainable))
    frozen = toy.frozen | {"ids": jnp.arange(3)}  # integers have no gradient: jax.grad would raise
    after, _ = step(state, frozen, toy.batch())
    assert jax.tree.structure(after.trainable) == jax.tree.structure(toy.trainable)


def test_full_fine_tuning_trains_every_weight(micro_model, one_device):
    model = micro_model(one_device, method="full")
    assert states.paths(model.frozen) == {}
    before = states.paths(jax.tree.map(np.array, model.trainable))
    _, state, _ = train_micro(model, one_device, micro_batches(4))
    after = states.paths(state.trainable)
    same = [path for path, leaf in before.items() if np.array_equal(leaf, after[path])]
    assert same == []
