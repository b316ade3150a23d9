"""A step keeps the shapes and dtypes of the state, for every method, dtype and optimiser.

Where one changed, the second step would be compiled anew, its memory not reused, and a restored
state would be unlike a fresh one.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from omni_smola import config as configs
from omni_smola.models import build, shapes
from omni_smola.training import model as models
from omni_smola.training import optimizer as optimizers
from omni_smola.training import state as states
from omni_smola.training.step import TrainState, make_train_step

from .conftest import MICRO, micro_batches, train_config

METHODS = ("smola", "lora", "adapter", "full", "mole", "gumbel_and_balance")
DTYPES = ("float32", "bfloat16", "float16")


def abstract_step(one_device, method, dtype, rule, accumulate):
    """(state, state after a step), abstractly, of a micro PaLI with random weights."""
    config = configs.defaults()
    config.backbone.update(name="micro", init="random", dtype=dtype, param_dtype=dtype)
    config.experts.update(visual=2, text=2, multimodal=2, rank=2)
    if method in ("mole", "gumbel_and_balance"):
        config.experts.method = "none"
        config.language.update(experts=2, rank=2)
        if method != "mole":
            config.language.update(gumbel=True, balance=0.01)
    else:
        config.experts.method = method
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(shapes.PALI, "micro", MICRO)
        model = models.abstract_model(config, one_device)
    step = make_train_step(
        model.assemble,
        rule,
        optax.constant_schedule(1e-3),
        accumulate=accumulate,
        penalty=build.penalty(config.language),
        noise_seed=0 if build.noisy(config.vision, config.language) else None,
    )
    opt_state = jax.eval_shape(rule.init, model.trainable)
    before = TrainState(jax.ShapeDtypeStruct((), jnp.int32), model.trainable, opt_state)
    after, _ = jax.eval_shape(step, before, model.frozen, micro_batches(1)[0])
    return before, after


def described(state):
    return {
        path: (leaf.shape, leaf.dtype.name, getattr(leaf, "weak_type", False))
        for path, leaf in states.paths(
            {"trainable": state.trainable, "optimizer": state.optimizer, "step": state.step}
        ).items()
    }


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", METHODS)
def test_a_step_keeps_shapes_and_dtypes(one_device, method, dtype):
    for name, accumulate in itertools.product(optimizers.OPTIMIZERS, (1, 2)):
        config = train_config(name=name, clip_norm=1.0, weight_decay=0.01)
        rule, _ = optimizers.make_optimizer(config, 10)
        before, after = abstract_step(one_device, method, dtype, rule, accumulate)
        assert described(after) == described(before), (name, accumulate)
        statistics = [leaf for leaf in jax.tree.leaves(before.optimizer) if leaf.ndim]
        assert statistics and {leaf.dtype.name for leaf in statistics} == {"float32"}


def test_full_fine_tuning_in_bfloat16_compiles_once_and_its_moments_move(toy):
    """The second moment follows g^2 (1 - b2^n), which one of bfloat16 would not."""
    rule, schedule = optimizers.make_optimizer(train_config(weight_decay=0.0, b2=0.999), 50)
    trainable = jax.tree.map(lambda x: x.astype(jnp.bfloat16), toy.trainable)
    step = jax.jit(make_train_step(toy.assemble, rule, schedule), donate_argnums=0)
    state = TrainState(jnp.int32(0), trainable, rule.init(trainable))
    batch = toy.batch()
    batch["x"] *= 100  # predictions that a small step does not change: the gradient stays
    first = None
    for _ in range(50):
        state, _ = step(state, toy.frozen, batch)
        nu = np.asarray(next(x for p, x in states.paths(state.optimizer).items() if "nu/" in p))
        first = nu if first is None else first
    assert step._cache_size() == 1
    large = first > first.max() / 10
    assert large.any() and np.all(nu[large] > first[large])
    assert state.trainable["experts"]["w"].dtype == jnp.bfloat16


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_parts_of_a_batch_are_summed_in_float32(toy, dtype):
    """64 equal parts: a sum in bfloat16 stands still once a part is below its rounding."""
    rule = optimizers.in_float32(optax.sgd(1.0))
    trainable = jax.tree.map(lambda x: x.astype(dtype), toy.trainable)
    part = toy.batch(size=1)
    whole = {name: np.repeat(x, 64, axis=0) for name, x in part.items()}
    changes = []
    for batch, accumulate in ((part, 1), (whole, 64)):
        step = make_train_step(
            toy.assemble, rule, optax.constant_schedule(1.0), accumulate=accumulate
        )
        state = TrainState(jnp.int32(0), trainable, rule.init(trainable))
        after, metrics = step(state, toy.frozen, batch)
        changes.append((np.float32(after.trainable["experts"]["w"]), metrics["gradient_norm"]))
    np.testing.assert_array_equal(changes[0][0], changes[1][0])
    np.testing.assert_allclose(changes[0][1], changes[1][1], rtol=1e-6)
