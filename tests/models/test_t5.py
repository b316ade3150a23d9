"""T5's position buckets, its encoder against float64 numpy, causality, and ways to run a stack."""

import dataclasses
import fractions
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from omni_smola.models import t5
from omni_smola.models.t5 import Options, T5Config
from omni_smola.token_kinds import TokenKind

from .conftest import randomized

CONFIG = T5Config(40, 2, 2, d_model=12, heads=2, d_head=4, d_ff=10)


def bucket(relative, bidirectional, buckets, maximum):
    """The published definition in exact arithmetic.

    Half of the buckets are exact; bucket `exact + k` starts where
    log(distance / exact) / log(maximum / exact) * far >= k, that is where
    (distance / exact) ** far >= (maximum / exact) ** k.
    """
    sign = 0
    if bidirectional:
        buckets //= 2
        sign = buckets if relative > 0 else 0
        distance = abs(relative)
    else:
        distance = max(-relative, 0)
    exact = buckets // 2
    if distance < exact:
        return sign + distance
    far = buckets - exact
    ratio, base = fractions.Fraction(distance, exact), fractions.Fraction(maximum, exact)
    reached = max(k for k in range(far) if ratio**far >= base**k)
    return sign + exact + reached


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("buckets", "maximum"), [(32, 128), (32, 256), (8, 20)])
def test_buckets_are_the_published_ones(bidirectional, buckets, maximum):
    relative = np.arange(-400, 401)
    got = t5.position_bucket(jnp.asarray(relative), bidirectional, buckets, maximum)
    want = [bucket(int(r), bidirectional, buckets, maximum) for r in relative]
    np.testing.assert_array_equal(got, want)


def test_a_few_buckets_by_heart():
    relative = jnp.asarray([0, -1, 1, -7, -8, 8, -15, -16, -32, 64, -127, -128, 1000])
    np.testing.assert_array_equal(
        t5.position_bucket(relative, True, 32, 128),
        [0, 1, 17, 7, 8, 24, 9, 10, 12, 30, 15, 15, 31],
    )
    np.testing.assert_array_equal(
        t5.position_bucket(jnp.asarray([5, 0, -1, -15, -16, -20, -127, -1000]), False, 32, 128),
        [0, 0, 1, 15, 16, 17, 31, 31],
    )


def test_the_bias_of_a_key_depends_on_its_distance_to_the_query():
    position = t5.RelativePosition(CONFIG, True, options=Options(), rngs=nnx.Rngs(0))
    bias = position(jnp.arange(4, 6), jnp.arange(9))
    assert bias.shape == (1, 2, 2, 9)
    assert bias.dtype == jnp.float32
    table = np.asarray(position.table[...])
    np.testing.assert_array_equal(bias[0, :, 0, 7], table[bucket(3, True, 32, 128)])
    np.testing.assert_array_equal(bias[0, :, 1, 1], table[bucket(-4, True, 32, 128)])
    np.testing.assert_array_equal(bias[0, :, 0, :-1], bias[0, :, 1, 1:])


def random_module(make, config=CONFIG, **options):
    make = partial(make, config, options=Options(**options))
    return randomized(nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0))), size=0.3)


def rms_norm(x, scale):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * scale


def silu(x):
    return x / (1 + np.exp(-x))


def gelu(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def numpy_encoder(p, x, present, activation):
    """x: (tokens, d_model) of one example; no logit is scaled, and no layer has a bias."""
    seen = np.flatnonzero(present)
    for layer in range(CONFIG.encoder_layers):
        lp = jax.tree.map(lambda a, n=layer: a[n], p["stack"]["layers"])
        y = rms_norm(x, lp["norm_1"]["scale"])
        kernel, heads = lp["attention"]["qkv"]["kernel"], []
        for h in range(CONFIG.heads):
            part = slice(h * CONFIG.d_head, (h + 1) * CONFIG.d_head)
            q, k, v = (y @ kernel[name][:, part] for name in "qkv")
            mixed = np.zeros_like(q)
            for t in range(len(x)):
                bias = [p["position"]["table"][bucket(s - t, True, 32, 128), h] for s in seen]
                weights = np.exp(k[seen] @ q[t] + bias)
                mixed[t] = weights / weights.sum() @ v[seen]
            heads.append(mixed)
        x = x + np.concatenate(heads, axis=-1) @ lp["attention"]["out"]["kernel"]["o"]
        y = rms_norm(x, lp["norm_2"]["scale"])
        wi, wo = lp["mlp"]["wi"]["kernel"], lp["mlp"]["wo"]["kernel"]["wo"]
        x = x + (activation(y @ wi["wi_0"]) * (y @ wi["wi_1"])) @ wo
    return rms_norm(x, p["norm"]["scale"])


@pytest.mark.parametrize(("name", "activation"), [("gelu", gelu), ("silu", silu)])
def test_the_encoder_equals_numpy(name, activation):
    config = dataclasses.replace(CONFIG, activation=name)
    encoder = random_module(t5.Encoder, config)
    x = np.random.default_rng(1).normal(size=(2, 7, 12))
    kinds = np.array([[2, 2, 2, 1, 1, 0, 0], [0, 0, 0, 1, 1, 1, 0]], np.int32)
    got = nnx.jit(lambda m, x: m(x, kinds))(encoder, jnp.asarray(x, jnp.float32))
    pure = nnx.to_pure_dict(nnx.state(encoder))
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), pure)
    for b in range(2):
        present = kinds[b] != TokenKind.PADDING
        want = numpy_encoder(p, x[b], present, activation)
        np.testing.assert_allclose(got[b][present], want[present], rtol=0, atol=1e-4)


def decoder_inputs(seed=2):
    rng = np.random.default_rng(seed)
    x, encoded = rng.normal(size=(2, 6, 12)), rng.normal(size=(2, 5, 12))
    kinds = np.array([[2, 2, 1, 1, 0], [0, 0, 1, 0, 0]], np.int32)
    return jnp.asarray(x, jnp.float32), jnp.asarray(encoded, jnp.float32), kinds


def test_the_decoder_sees_no_later_token_and_no_padded_memory():
    decoder = random_module(t5.Decoder)
    x, encoded, kinds = decoder_inputs()
    position = 3

    @nnx.jit
    def gradient(decoder, x, encoded):
        def at_position(x, encoded):
            return jnp.sum(decoder(x, encoded, kinds)[:, position] ** 3)

        return jax.grad(at_position, argnums=(0, 1))(x, encoded)

    of_x, of_encoded = (np.abs(g).max(-1) for g in gradient(decoder, x, encoded))
    assert np.all(of_x[:, :position] > 0)
    assert np.all(of_x[:, position] > 0)
    assert np.all(of_x[:, position + 1 :] == 0)
    assert np.all(of_encoded[kinds != TokenKind.PADDING] > 0)
    assert np.all(of_encoded[kinds == TokenKind.PADDING] == 0)


def outputs_and_gradients(**how):
    x, encoded, kinds = decoder_inputs()
    graphdef, state = nnx.split(random_module(t5.Decoder, **how))

    def loss(state):
        y = nnx.merge(graphdef, state)(x, encoded, kinds)
        return jnp.sum(y**3), y

    gradient, y = jax.jit(jax.grad(loss, has_aux=True))(state)
    return [y, *jax.tree.leaves(gradient)]


@pytest.fixture(scope="module")
def straight():
    return outputs_and_gradients()


@pytest.mark.parametrize("how", [{"remat": True}, {"unroll": 2, "remat": True}])
def test_remat_and_unrolling_change_neither_output_nor_gradient(straight, how):
    for got, want in zip(outputs_and_gradients(**how), straight, strict=True):
        scale = max(1.0, float(np.abs(want).max()))
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * scale)


def test_fresh_queries_are_smaller_because_logits_are_not_scaled():
    config = T5Config(40, 2, 1, d_model=64, heads=4, d_head=16, d_ff=8)
    layers = t5.Encoder(config, options=Options(), rngs=nnx.Rngs(0)).stack.layers
    q, k = (np.asarray(layers.attention.qkv.kernel[name][...]) for name in "qk")
    np.testing.assert_allclose(k.std() * 64**0.5, 1, atol=0.05)
    np.testing.assert_allclose(q.std() * (64 * 16) ** 0.5, 1, atol=0.05)
