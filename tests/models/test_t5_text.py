"""T5 as a whole: named sizes, a tied head, padding, and decoding with a cache."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from omni_smola.models import shapes
from omni_smola.models.t5 import T5Config
from omni_smola.models.t5_text import T5
from omni_smola.training import state as states

from .conftest import randomized

CONFIG = T5Config(40, 2, 3, d_model=24, heads=2, d_head=8, d_ff=32)


def abstract(config):
    return nnx.eval_shape(lambda: T5(config, rngs=nnx.Rngs(0)))


def parameters(model):
    return states.paths(nnx.to_pure_dict(nnx.state(model, nnx.Param)))


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("t5_small", 77),
        ("t5_base", 248),
        ("t5_large", 783),
        ("t5_xl", 2_850),
        ("t5_xxl", 11_300),
        ("mt5_small", 300),
        ("mt5_base", 580),
        ("mt5_large", 1_230),
        ("mt5_xl", 3_740),
        ("mt5_xxl", 13_000),
        ("ul2_20b", 19_500),
    ],
)
def test_parameter_counts_are_within_two_percent_of_the_published(name, millions):
    leaves = parameters(abstract(shapes.LANGUAGE[name])).values()
    count = sum(math.prod(leaf.shape) for leaf in leaves)
    assert count / 1e6 == pytest.approx(millions, rel=0.02)


def test_every_public_language_model_has_a_pali():
    for name, language in shapes.LANGUAGE.items():
        sizes = shapes.pali(f"so400m_{name}")
        assert sizes.language == language
        assert (sizes.vision.width, sizes.vision.tokens) == (1152, 256)


def test_a_tied_head_has_no_parameters_and_all_other_paths_stay():
    own = parameters(abstract(CONFIG))
    tied = parameters(abstract(dataclasses.replace(CONFIG, tied_head=True)))
    assert own.keys() - tied.keys() == {"head/kernel/logits"}
    assert tied.keys() <= own.keys()


@pytest.fixture(scope="module", params=["own", "tied"])
def model(request):
    tied = request.param == "tied"
    config = dataclasses.replace(CONFIG, tied_head=tied, scaled_head=tied)
    return randomized(abstract(config))


@nnx.jit
def logits(model, batch):
    return model(batch)


@nnx.jit
def stepwise(model, batch):
    length = batch["target"].shape[1]
    cache, scores = model.init_cache(batch, length), []
    fed = jnp.pad(batch["target"], ((0, 0), (1, 0)))
    for position in range(2):
        step, cache = model.step(cache, fed[:, position], jnp.int32(position))
        scores.append(step)
    return jnp.stack(scores, axis=1)


def test_logits_are_products_of_hidden_states_and_the_head(model):
    hidden = np.random.default_rng(0).normal(size=(2, 3, 24))
    if model.head is None:
        want = hidden @ np.asarray(model.embedding[...]).T / math.sqrt(24)
    else:
        want = hidden @ np.asarray(model.head.kernel["logits"][...])
    got = model.logits(jnp.asarray(hidden, jnp.float32))
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max())


def test_padding_is_not_read_and_what_is_present_is(model, batch):
    want = logits(model, batch)
    ids = np.where(batch["prompt_mask"], batch["prompt"], 7)
    np.testing.assert_array_equal(logits(model, batch | {"prompt": ids})[:3], want[:3])
    ids = np.where(batch["prompt_mask"], batch["prompt"] % 39 + 1, 0)
    changed = np.any(np.asarray(logits(model, batch | {"prompt": ids})) != want, axis=(1, 2))
    np.testing.assert_array_equal(changed, batch["prompt_mask"].any(axis=1))


def test_steps_with_a_cache_equal_the_forward_pass(model, batch):
    want = np.asarray(logits(model, batch))[:, :2]
    np.testing.assert_allclose(stepwise(model, batch), want, atol=1e-5 * np.abs(want).max())


def test_the_instruction_is_the_mean_of_the_embedded_prompt(model, batch):
    instruction = model.instruction(batch)
    assert instruction.shape == (4, model.instruction_width)
    table = np.asarray(model.embedding[...])
    mean = table[batch["prompt"][1, :3]].mean(axis=0)
    np.testing.assert_allclose(instruction[1], mean / np.linalg.norm(mean), atol=1e-6)
    _, _, told = jax.eval_shape(lambda b: model.encode(b), batch)
    assert told.shape == instruction.shape
