"""T5 1.1 encoder and decoder (arXiv 1910.10683, 2002.05202; mT5 2010.11934; UL2 2205.05131).

Pre-RMSNorm, no biases, gated feed-forward, relative position bias with 32 buckets and maximum
distance 128 computed once per stack, no scaling of the attention logits. The output head is a
matrix of its own, or, where the config says so, the embedding table.
"""

import dataclasses
import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from omni_smola.models import layers
from omni_smola.models.layers import Precision
from omni_smola.token_kinds import TokenKind

Array = jax.Array
ACTIVATIONS = {"gelu": partial(jax.nn.gelu, approximate=True), "silu": jax.nn.silu}


@dataclasses.dataclass(frozen=True)
class T5Config:
    """Sizes of an encoder-decoder.

    Attributes:
      activation: of the gate: "gelu" (its tanh form; T5 1.1, Flan-T5, mT5) or "silu" (UL2).
      epsilon: of every norm.
      tied_head: the logits are products with the embedding table; there is no head.
      scaled_head: hidden states are multiplied by d_model**-0.5 before the logits, as T5 and T5X
        do where the head is tied.
    """

    vocabulary: int
    encoder_layers: int
    decoder_layers: int
    d_model: int
    heads: int
    d_head: int
    d_ff: int
    activation: str = "gelu"
    buckets: int = 32
    max_distance: int = 128
    epsilon: float = 1e-6
    tied_head: bool = False
    scaled_head: bool = False


@dataclasses.dataclass(frozen=True)
class Options:
    """How a stack is run: precision, rematerialisation, layers per loop step."""

    precision: Precision = dataclasses.field(default_factory=Precision)
    remat: bool = False
    unroll: int | bool = 1


def position_bucket(relative: Array, bidirectional: bool, buckets: int, maximum: int) -> Array:
    """Buckets of key position minus query position: near ones exact, far ones logarithmic."""
    bucket = jnp.zeros_like(relative)
    if bidirectional:
        buckets //= 2
        bucket = jnp.where(relative > 0, buckets, 0)
        distance = jnp.abs(relative)
    else:
        distance = jnp.maximum(-relative, 0)
    exact = buckets // 2
    far = buckets - exact
    # The definition is exact + floor(log(distance / exact) / log(maximum / exact) * far). Compared
    # with where each bucket starts, no logarithm rounds differently from device to device.
    starts = [math.ceil(exact * (maximum / exact) ** (k / far) - 1e-6) for k in range(far)]
    reached = jnp.sum(distance[..., None] >= jnp.asarray(starts), axis=-1)
    return bucket + jnp.where(distance < exact, distance, exact - 1 + reached)


class RelativePosition(nnx.Module):
    """One learned bias per head and bucket, shared by all layers of a stack."""

    def __init__(self, config: T5Config, bidirectional: bool, *, options: Options, rngs: nnx.Rngs):
        self.config = config
        self.bidirectional = bidirectional
        self.table = nnx.Param(
            jax.random.normal(
                rngs.params(), (config.buckets, config.heads), options.precision.param_dtype
            )
            * config.d_model**-0.5
        )

    def __call__(self, queries: Array, keys: Array) -> Array:
        """Positions (m,), (n,) -> bias (1, heads, m, n) float32."""
        relative = keys[None, :] - queries[:, None]
        bucket = position_bucket(
            relative, self.bidirectional, self.config.buckets, self.config.max_distance
        )
        return self.table[...].astype(jnp.float32)[bucket].transpose(2, 0, 1)[None]


class Attention(nnx.Module):
    """Multi-head attention; for cross-attention q reads the target and k, v the encoder output."""

    def __init__(
        self, config: T5Config, *, cross: bool, causal: bool, options: Options, rngs: nnx.Rngs
    ):
        d, inner = config.d_model, config.heads * config.d_head
        self.heads = config.heads
        small = nnx.initializers.normal((d * config.d_head) ** -0.5)
        normal = nnx.initializers.normal(d**-0.5)
        common = dict(precision=options.precision, rngs=rngs)
        # T5 does not scale its logits by sqrt(d_head): its queries start that much smaller.
        if cross:
            self.q = layers.Projection(d, {"q": inner}, causal=True, kernel_init=small, **common)
            self.kv = layers.Projection(d, {"k": inner, "v": inner}, kernel_init=normal, **common)
        else:
            self.qkv = layers.Projection(
                d, dict.fromkeys("qkv", inner), causal=causal, kernel_init=normal, **common
            )
            query = self.qkv.kernel["q"]
            query[...] = query[...] * config.d_head**-0.5
        out = nnx.initializers.normal(inner**-0.5)
        self.out = layers.Projection(inner, {"o": d}, causal=causal, kernel_init=out, **common)

    def project(self, x: Array, kinds: Array) -> tuple[Array, ...]:
        """x: (b, m, d) -> query, key and value of self-attention, (b, m, heads, d_head) each."""
        y = self.qkv(x, kinds)
        return tuple(layers.split_heads(y[name], self.heads) for name in "qkv")

    def project_memory(self, encoded: Array, kinds: Array) -> tuple[Array, Array]:
        """Encoder output (b, s, d) -> key and value of cross-attention."""
        y = self.kv(encoded, kinds)
        return layers.split_heads(y["k"], self.heads), layers.split_heads(y["v"], self.heads)


class EncoderLayer(nnx.Module):
    """Self-attention and feed-forward, each after a norm and added to the stream."""

    def __init__(self, config: T5Config, *, options: Options, rngs: nnx.Rngs):
        norm = partial(_norm, config, options)
        self.norm_1, self.norm_2 = norm(), norm()
        self.attention = Attention(config, cross=False, causal=False, options=options, rngs=rngs)
        self.mlp = _feed_forward(config, False, options, rngs)

    def __call__(self, x: Array, kinds: Array, bias: Array) -> Array:
        query, key, value = self.attention.project(self.norm_1(x), kinds)
        x = x + self.attention.out(layers.attend(query, key, value, bias), kinds)["o"]
        return x + self.mlp(self.norm_2(x), kinds)


class DecoderLayer(nnx.Module):
    """Causal self-attention, cross-attention and feed-forward."""

    def __init__(self, config: T5Config, *, options: Options, rngs: nnx.Rngs):
        norm = partial(_norm, config, options)
        self.norm_1, self.norm_2, self.norm_3 = norm(), norm(), norm()
        common = dict(causal=True, options=options, rngs=rngs)
        self.attention = Attention(config, cross=False, **common)
        self.cross = Attention(config, cross=True, **common)
        self.mlp = _feed_forward(config, True, options, rngs)

    def __call__(
        self, x: Array, kinds: Array, bias: Array, memory: tuple[Array, Array], memory_bias: Array
    ) -> Array:
        """x: (b, t, d), memory: keys and values of the encoder output -> (b, t, d)."""
        query, key, value = self.attention.project(self.norm_1(x), kinds)
        x = x + self.attention.out(layers.attend(query, key, value, bias), kinds)["o"]
        return self.read_memory(x, kinds, memory, memory_bias)

    def read_memory(
        self, x: Array, kinds: Array, memory: tuple[Array, Array], memory_bias: Array
    ) -> Array:
        """What follows self-attention: cross-attention into `memory`, then the feed-forward."""
        query = layers.split_heads(self.cross.q(self.norm_2(x), kinds)["q"], self.cross.heads)
        y = layers.attend(query, *memory, memory_bias)
        x = x + self.cross.out(y, kinds)["o"]
        return x + self.mlp(self.norm_3(x), kinds)


class Encoder(nnx.Module):
    """Embedded tokens to encoder output."""

    def __init__(self, config: T5Config, *, options: Options, rngs: nnx.Rngs):
        self.options = options
        self.position = RelativePosition(config, True, options=options, rngs=rngs)
        self.stack = layers.Stack(
            lambda rngs: EncoderLayer(config, options=options, rngs=rngs),
            config.encoder_layers,
            rngs=rngs,
        )
        self.norm = _norm(config, options)

    def __call__(self, x: Array, kinds: Array) -> Array:
        """x: (b, s, d), kinds: (b, s) -> (b, s, d)."""
        positions = jnp.arange(x.shape[1])
        bias = self.position(positions, positions) + layers.mask_bias(kinds != TokenKind.PADDING)
        x, _ = self.stack.scan(
            lambda layer, x, _: (layer(x, kinds, bias), None),
            x,
            remat=self.options.remat,
            unroll=self.options.unroll,
        )
        return self.norm(x)


class Decoder(nnx.Module):
    """Embedded target tokens to hidden states, all at once or one by one with a cache.

    The cache is a dict of arrays with the layer on axis 0 and the batch on axis 1:
    `key`, `value`: (layers, b, max_length, heads, d_head); `memory_key`, `memory_value`:
    (layers, b, s, heads, d_head); `memory_mask`: (1, b, s).
    """

    def __init__(self, config: T5Config, *, options: Options, rngs: nnx.Rngs):
        self.config = config
        self.options = options
        self.position = RelativePosition(config, False, options=options, rngs=rngs)
        self.stack = layers.Stack(
            lambda rngs: DecoderLayer(config, options=options, rngs=rngs),
            config.decoder_layers,
            rngs=rngs,
        )
        self.norm = _norm(config, options)

    def __call__(self, x: Array, encoded: Array, encoded_kinds: Array) -> Array:
        """x: (b, t, d), encoded: (b, s, d), encoded_kinds: (b, s) -> (b, t, d)."""
        positions = jnp.arange(x.shape[1])
        causal = jnp.where(positions[None, :] <= positions[:, None], 0.0, layers.NEGATIVE)
        bias = self.position(positions, positions) + causal
        memory_bias = layers.mask_bias(encoded_kinds != TokenKind.PADDING)
        kinds = jnp.full(x.shape[:2], TokenKind.TEXT, jnp.int32)

        def step(layer, x, _):
            memory = layer.cross.project_memory(encoded, encoded_kinds)
            return layer(x, kinds, bias, memory, memory_bias), None

        x, _ = self.stack.scan(step, x, remat=self.options.remat, unroll=self.options.unroll)
        return self.norm(x)

    def init_cache(self, encoded: Array, encoded_kinds: Array, max_length: int) -> dict[str, Array]:
        """The cache before the first token: cross-attention's keys and values, and room."""

        def step(layer, carry, _):
            return carry, layer.cross.project_memory(encoded, encoded_kinds)

        _, (key, value) = self.stack.scan(step, 0)
        room = (*key.shape[:2], max_length, *key.shape[3:])
        return {
            "key": jnp.zeros(room, key.dtype),
            "value": jnp.zeros(room, key.dtype),
            "memory_key": key,
            "memory_value": value,
            "memory_mask": (encoded_kinds != TokenKind.PADDING)[None],
        }

    def step(
        self, cache: dict[str, Array], x: Array, position: Array
    ) -> tuple[Array, dict[str, Array]]:
        """One token x: (b, 1, d) at `position` () -> its hidden state (b, 1, d), and the cache."""
        length = cache["key"].shape[2]
        keys = jnp.arange(length)
        bias = self.position(position[None], keys) + jnp.where(
            keys <= position, 0.0, layers.NEGATIVE
        )
        memory_bias = layers.mask_bias(cache["memory_mask"][0])
        kinds = jnp.full(x.shape[:2], TokenKind.TEXT, jnp.int32)

        def step(layer, x, cached):
            query, key, value = layer.attention.project(layer.norm_1(x), kinds)
            key = jax.lax.dynamic_update_slice_in_dim(cached["key"], key, position, 1)
            value = jax.lax.dynamic_update_slice_in_dim(cached["value"], value, position, 1)
            x = x + layer.attention.out(layers.attend(query, key, value, bias), kinds)["o"]
            memory = (cached["memory_key"], cached["memory_value"])
            return layer.read_memory(x, kinds, memory, memory_bias), (key, value)

        per_layer: dict[str, Any] = {k: v for k, v in cache.items() if k != "memory_mask"}
        x, (key, value) = self.stack.scan(step, x, per_layer, unroll=self.options.unroll)
        return self.norm(x), {**cache, "key": key, "value": value}


def _norm(config: T5Config, options: Options) -> layers.RMSNorm:
    return layers.RMSNorm(config.d_model, precision=options.precision, epsilon=config.epsilon)


def _feed_forward(
    config: T5Config, causal: bool, options: Options, rngs: nnx.Rngs
) -> layers.FeedForward:
    return layers.FeedForward(
        config.d_model,
        config.d_ff,
        activation=ACTIVATIONS[config.activation],
        gated=True,
        causal=causal,
        precision=options.precision,
        rngs=rngs,
    )
