"""The sentence encoder against float64 numpy, and what padding may not do."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from omni_smola.errors import UserError
from omni_smola.models.layers import Precision
from omni_smola.models.sentence_encoder import BertConfig, SentenceEncoder, mean_embedding

from .conftest import randomized

# All widths differ, so that no transposed matrix fits by accident.
CONFIG = BertConfig(
    vocabulary=30, width=12, depth=3, heads=3, mlp=20, positions=9, token_types=2, epsilon=1e-12
)
MASK = np.arange(7) < np.array([7, 4, 2])[:, None]
PAD = 25  # an id that no text has
TOKENS = np.where(MASK, np.random.default_rng(0).integers(0, 20, MASK.shape), PAD).astype(np.int32)


def make(dtype=jnp.float32):
    """An encoder with random parameters, as (state, function of state, tokens and mask)."""
    encoder = nnx.eval_shape(
        lambda: SentenceEncoder(CONFIG, precision=Precision(dtype, dtype), rngs=nnx.Rngs(0))
    )
    graphdef, state = nnx.split(randomized(encoder, size=0.5))
    for path, leaf in state.flat_state():  # or the biases would drown what the norms let through
        if path[-1] == "scale":
            leaf.set_value(leaf[...] + 1)
    return state, jax.jit(lambda state, tokens, mask: nnx.merge(graphdef, state)(tokens, mask))


STATE, CALL = make()


def encode(tokens, mask=MASK):
    return np.asarray(CALL(STATE, tokens, mask))


def norm64(x, norm):
    x = x - x.mean(-1, keepdims=True)
    return (
        x / np.sqrt((x**2).mean(-1, keepdims=True) + CONFIG.epsilon) * norm["scale"] + norm["bias"]
    )


def block64(x, p):
    """One layer for one text without padding, (n, width)."""

    def linear(x, layer, name):
        return x @ layer["kernel"][name] + layer["bias"][name]

    heads = []
    for head in np.split(np.arange(CONFIG.width), CONFIG.heads):
        q, k, v = (linear(x, p["qkv"], name)[:, head] for name in "qkv")
        weights = np.exp(q @ k.T / math.sqrt(len(head)))
        heads.append(weights / weights.sum(-1, keepdims=True) @ v)
    x = norm64(x + linear(np.concatenate(heads, -1), p["out"], "o"), p["norm_1"])
    inner = linear(x, p["mlp"]["wi"], "wi_0")
    hidden = inner * 0.5 * (1 + np.vectorize(math.erf)(inner / math.sqrt(2)))
    return norm64(x + linear(hidden, p["mlp"]["wo"], "wo"), p["norm_2"])


def test_a_text_is_the_mean_of_a_bert_divided_by_its_length():
    got = encode(TOKENS)
    assert got.dtype == np.float32
    assert np.max(np.std(got, axis=0)) > 0.05  # the texts matter
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), nnx.to_pure_dict(STATE))
    for row, tokens, mask in zip(got, TOKENS, MASK, strict=True):
        n = mask.sum()
        x = norm64(p["words"][tokens[:n]] + p["positions"][:n] + p["types"][0], p["norm"])
        for layer in range(CONFIG.depth):
            x = block64(x, jax.tree.map(lambda w, i=layer: w[i], p["encoder"]["layers"]))
        mean = x.mean(0)
        np.testing.assert_allclose(row, mean / np.sqrt((mean**2).sum()), rtol=0, atol=1e-5)


def test_padding_has_no_influence():
    def loss(state, rows):
        return jnp.sum(rows[:, None] * jnp.sin(3 * CALL(state, TOKENS, MASK)))

    gradient = jax.jit(jax.grad(loss))
    of_all, of_short = (
        jax.tree.map(np.asarray, nnx.to_pure_dict(gradient(STATE, np.array(rows, np.float32))))
        for rows in ([1, 1, 1], [0, 1, 1])
    )
    assert np.all(np.any(of_all["words"][np.unique(TOKENS[MASK])] != 0, axis=-1))
    assert np.all(of_all["words"][PAD] == 0)
    # Only the first text is long enough for the last positions.
    assert np.any(of_all["positions"][6] != 0)
    assert np.all(of_short["positions"][4:] == 0)
    assert np.any(of_short["positions"][3] != 0)


def test_more_padding_or_another_id_in_it_changes_nothing():
    want = encode(TOKENS)
    np.testing.assert_array_equal(encode(np.where(MASK, TOKENS, 3)), want)
    longer = [np.pad(x, [(0, 0), (0, 2)]) for x in (TOKENS, MASK)]
    np.testing.assert_allclose(encode(*longer), want, rtol=0, atol=1e-6)


def test_rows_of_a_batch_do_not_see_each_other():
    together = encode(TOKENS)
    other = TOKENS.copy()
    other[0] = 7
    changed = encode(other)
    np.testing.assert_array_equal(changed[1:], together[1:])
    assert np.max(np.abs(changed[0] - together[0])) > 0.05


def test_embeddings_have_length_one_also_in_bfloat16():
    state, call = make(jnp.bfloat16)
    half = call(state, TOKENS, MASK)
    assert half.dtype == jnp.float32
    for embeddings in (half, encode(TOKENS)):
        np.testing.assert_allclose(np.linalg.norm(embeddings, axis=-1), 1, rtol=0, atol=1e-6)
    assert np.all(np.sum(half * encode(TOKENS), axis=-1) > 0.99)


def test_a_row_of_padding_alone_is_zero():
    embeddings = encode(TOKENS, MASK & [[True], [False], [True]])
    assert np.all(embeddings[1] == 0)
    np.testing.assert_array_equal(embeddings[::2], encode(TOKENS)[::2])


def test_more_tokens_than_positions_are_refused():
    tokens = np.zeros((1, 10), np.int32)
    with pytest.raises(UserError, match=r"has 10 tokens, but .* has 9 positions"):
        encode(tokens, tokens == 0)


def test_every_parameter_is_frozen():
    leaves = STATE.flat_state()
    assert all(type(variable) is nnx.Param for _, variable in leaves)


def test_mean_embedding_counts_the_masked_tokens_alone():
    x = np.random.default_rng(2).normal(size=(3, 7, 5)).astype(np.float32)
    x[~MASK] = np.nan
    pooled = jax.jit(mean_embedding)
    for scale in (1.0, 1e4):
        for row, tokens, mask in zip(pooled(np.float32(scale) * x, MASK), x, MASK, strict=True):
            mean = tokens[mask].astype(np.float64).mean(0)
            np.testing.assert_allclose(row, mean / np.sqrt((mean**2).sum()), rtol=0, atol=1e-6)


def test_mean_embedding_is_summed_in_float32_and_zero_without_tokens():
    # Beyond 256, ones added to a bfloat16 sum are lost.
    x = np.ones((1, 1024, 2), jnp.bfloat16)
    x[:, :512, 1] = 0
    mask = np.ones((1, 1024), bool)
    got = jax.jit(mean_embedding)(x, mask)
    np.testing.assert_allclose(got, [[2 / math.sqrt(5), 1 / math.sqrt(5)]], rtol=0, atol=1e-6)
    nothing, gradient = jax.jit(jax.value_and_grad(lambda x: jnp.sum(mean_embedding(x, ~mask))))(
        x.astype(np.float32)
    )
    assert nothing == 0
    assert np.all(np.asarray(gradient) == 0)
