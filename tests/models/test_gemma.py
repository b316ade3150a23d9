"""Decoder-only models as a whole, on a small Gemma 2: causality, padding, a cache, precision."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from omni_smola.errors import UserError
from omni_smola.models import gemma
from omni_smola.models.decoder_only import LanguageConfig, LanguageModel
from omni_smola.models.gemma_layers import StackConfig
from omni_smola.models.layers import Precision
from omni_smola.models.t5 import Options

from ..framed import framed
from .conftest import randomized

STACK = StackConfig(
    d_model=24,
    heads=6,
    key_heads=2,
    d_head=10,
    d_ff=28,
    sliding=(True, False, True),
    window=3,
    query_scalar=7.0,
    post_norms=True,
    softcap=2.0,
)
CONFIG = LanguageConfig(41, STACK, scaled=True, final_cap=3.0, bos=2)


def make(options=None, config=CONFIG):
    return randomized(
        nnx.eval_shape(lambda: LanguageModel(config, options=options, rngs=nnx.Rngs(0)))
    )


@pytest.fixture(scope="module")
def model():
    return make()


@pytest.fixture(scope="module")
def batch(batch):
    return framed(batch, [2])


@nnx.jit
def logits(model, batch):
    return model(batch)


def test_padding_changes_no_bit(model, batch):
    noise = np.random.default_rng(1).integers(1, 40, batch["prompt"].shape).astype(np.int32)
    other = batch | {"prompt": np.where(batch["prompt_mask"], batch["prompt"], noise)}
    np.testing.assert_array_equal(logits(model, other), logits(model, batch))
    # More padding is another program, but the same positions and windows.
    wide = {name: np.pad(batch[name], ((0, 0), (0, 2))) for name in ("prompt", "prompt_mask")}
    np.testing.assert_allclose(logits(model, batch | wide), logits(model, batch), rtol=0, atol=1e-5)


@pytest.mark.parametrize("position", [0, 3])
def test_the_logits_of_a_target_depend_on_earlier_targets_only(model, batch, position):
    other = batch | {"target": batch["target"].copy()}
    other["target"][:, position] = (other["target"][:, position] + 1) % 40
    changed = np.any(np.asarray(logits(model, other)) != logits(model, batch), axis=2)
    assert not np.any(changed[:, : position + 1])
    assert np.all(changed[:, position + 1 :])


def test_a_window_hides_what_is_far(batch):
    """One sliding layer of three tokens: the logits at 4 come of the targets 3, 2 and 1."""
    stack = dataclasses.replace(STACK, sliding=(True,))
    model = make(config=dataclasses.replace(CONFIG, stack=stack))
    want = logits(model, batch)
    for index in range(4):
        other = batch | {"target": batch["target"].copy()}
        other["target"][:, index] = (other["target"][:, index] + 1) % 40
        changed = np.any(np.asarray(logits(model, other)) != want, axis=2)[:, 4]
        np.testing.assert_array_equal(changed, index > 0)


def test_decoding_with_a_cache_equals_the_whole_forward(model, batch):
    want = logits(model, batch)
    # More room than the target needs: what is not filled yet is not seen.
    cache = nnx.jit(lambda m, b: m.init_cache(b, 9))(model, batch)
    for name, leaf in cache.items():
        assert leaf.shape[1] == 4, name
    step = nnx.jit(lambda m, *args: m.step(*args))
    tokens = np.zeros(4, np.int32)
    for position in range(6):
        got, cache = step(model, cache, tokens, jnp.int32(position))
        assert got.dtype == jnp.float32
        np.testing.assert_allclose(got, want[:, position], rtol=0, atol=1e-5)
        tokens = batch["target"][:, position]


def test_remat_and_unrolling_change_nothing(model, batch):
    other = make(Options(remat=True, unroll=3))
    np.testing.assert_allclose(logits(other, batch), logits(model, batch), rtol=0, atol=1e-5)


def test_bfloat16_is_close_to_float32_and_its_gradients_are_finite(model, batch):
    half = make(Options(Precision(jnp.bfloat16, jnp.bfloat16)))
    got, want = logits(half, batch), np.asarray(logits(model, batch))
    assert got.dtype == jnp.float32
    assert np.abs(got - want).max() < 0.1 * np.abs(want).max()

    graphdef, state = nnx.split(half)
    gradient = jax.jit(jax.grad(lambda s: jnp.mean(nnx.merge(graphdef, s)(batch) ** 2)))(state)
    for leaf in jax.tree.leaves(gradient):
        assert leaf.dtype == jnp.bfloat16
        assert np.all(np.isfinite(np.asarray(leaf, np.float32)))


PARAMETERS = {
    "gemma_2b": 2_506_172_416,
    "gemma_7b": 8_537_680_896,
    "gemma2_2b": 2_614_341_888,
    "gemma2_9b": 9_241_705_984,
    "gemma2_27b": 27_227_128_320,
}


@pytest.mark.parametrize("name", gemma.GEMMA)
def test_named_sizes_have_the_published_numbers_of_parameters(name):
    model = nnx.eval_shape(lambda: LanguageModel(gemma.gemma(name), rngs=nnx.Rngs(0)))
    found = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(nnx.state(model)))
    assert found == PARAMETERS[name]


def test_an_unknown_name_names_the_known_ones():
    with pytest.raises(UserError, match="called 'gemma9': choose one of gemma_2b, gemma_7b"):
        gemma.gemma("gemma9")


def test_an_id_outside_of_the_vocabulary_is_refused():
    with pytest.raises(UserError, match="id 41 of bos is not in the vocabulary of 41"):
        dataclasses.replace(CONFIG, bos=41)
