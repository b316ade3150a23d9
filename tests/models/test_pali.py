"""PaLI as a whole: what is padding, decoding with a cache, precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from omni_smola.models.layers import Precision
from omni_smola.models.t5 import Options
from omni_smola.token_kinds import TokenKind


@nnx.jit
def logits(model, batch):
    return model(batch)


@pytest.fixture(scope="module")
def model(make_pali):
    return make_pali()


def test_image_tokens_stand_before_the_prompt_and_missing_ones_are_padding(model, batch):
    encode = nnx.jit(lambda m, b: m.encode(b)[:2])
    encoded, kinds = encode(model, batch)
    assert encoded.shape == (4, 4 + 5, 24)
    assert kinds.dtype == jnp.int32
    v, t, o = TokenKind.VISUAL, TokenKind.TEXT, TokenKind.PADDING
    np.testing.assert_array_equal(
        kinds,
        [
            [v, v, v, v, t, t, t, t, t],
            [v, v, v, v, t, t, t, o, o],
            [o, o, o, o, t, t, t, t, o],
            [o] * 9,
        ],
    )


def test_padded_prompts_and_missing_images_change_no_bit(model, batch):
    rng = np.random.default_rng(1)
    ids = rng.integers(1, 40, batch["prompt"].shape).astype(np.int32)
    noise = rng.integers(0, 256, batch["image"].shape).astype(np.uint8)
    other = {
        **batch,
        "prompt": np.where(batch["prompt_mask"], batch["prompt"], ids),
        "image": np.where(batch["image_mask"][:, None, None, None], batch["image"], noise),
    }
    got, want = logits(model, other), logits(model, batch)
    # The last example has nothing but padding to attend to.
    np.testing.assert_array_equal(got[:3], want[:3])
    assert np.all(np.isfinite(got))


@pytest.mark.parametrize("name", ["prompt", "image"])
def test_what_is_present_is_read(model, batch, name):
    other = {**batch, name: np.where(batch[name] > 20, batch[name] - 1, batch[name] + 1)}
    changed = np.any(np.asarray(logits(model, other)) != logits(model, batch), axis=(1, 2))
    present = batch["image_mask"] if name == "image" else batch["prompt_mask"].any(1)
    np.testing.assert_array_equal(changed[:3], present[:3])


def test_the_logits_of_a_target_depend_on_earlier_targets_only(model, batch):
    other = {**batch, "target": batch["target"].copy()}
    other["target"][:, 2] = (other["target"][:, 2] + 1) % 40
    changed = np.any(np.asarray(logits(model, other)) != logits(model, batch), axis=2)
    assert not np.any(changed[:, :3])
    assert np.all(changed[:, 3:])


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


def test_remat_and_unrolling_change_nothing(make_pali, model, batch):
    other = make_pali(Options(remat=True, unroll=2))
    np.testing.assert_allclose(logits(other, batch), logits(model, batch), rtol=0, atol=1e-5)


def test_bfloat16_is_close_to_float32_and_its_gradients_are_finite(make_pali, model, batch):
    half = make_pali(Options(Precision(jnp.bfloat16, jnp.bfloat16)))
    got, want = logits(half, batch), np.asarray(logits(model, batch))
    assert got.dtype == jnp.float32
    assert np.abs(got - want).max() < 0.1 * np.abs(want).max()

    graphdef, state = nnx.split(half)
    gradient = jax.jit(jax.grad(lambda s: jnp.mean(nnx.merge(graphdef, s)(batch) ** 2)))(state)
    for leaf in jax.tree.leaves(gradient):
        assert leaf.dtype == jnp.bfloat16
        assert np.all(np.isfinite(np.asarray(leaf, np.float32)))
