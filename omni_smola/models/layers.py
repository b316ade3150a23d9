"""Layers that all backbones share.

Every linear map of a backbone is a `Projection`, called `projection(x, kinds)`: `kinds: (batch,
tokens)` says what each token is (`omni_smola.token_kinds.TokenKind`). A plain projection ignores
it; experts that replace one do not. Frozen weights are stored in `param_dtype`; activations are in
`dtype`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from omni_smola.spread import HEADS, WIDE, spread

Array = jax.Array
NEGATIVE = -1e9


@dataclasses.dataclass(frozen=True)
class Precision:
    """`dtype` of activations and products, `param_dtype` of stored weights."""

    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32


class Projection(nnx.Module):
    """One or several linear maps of the same input, by name of the output.

    Attributes:
      d_in: width of the input.
      outputs: name -> width.
      causal: whether the input is a target sequence, where no token may see a later one.
    """

    def __init__(
        self,
        d_in: int,
        outputs: Mapping[str, int],
        *,
        use_bias: bool = False,
        causal: bool = False,
        kernel_init: Callable[..., Array] | None = None,
        precision: Precision = Precision(),
        rngs: nnx.Rngs,
    ):
        self.d_in = d_in
        self.outputs = dict(outputs)
        self.causal = causal
        self.precision = precision
        init = kernel_init or nnx.initializers.lecun_normal()
        dtype = precision.param_dtype
        self.kernel = nnx.Dict(
            {n: nnx.Param(init(rngs.params(), (d_in, w), dtype)) for n, w in outputs.items()}
        )
        if use_bias:
            self.bias = nnx.Dict({n: nnx.Param(jnp.zeros((w,), dtype)) for n, w in outputs.items()})
        else:
            self.bias = None

    def __call__(self, x: Array, kinds: Array) -> dict[str, Array]:
        """x: (b, m, d_in) -> {name: (b, m, width)}."""
        del kinds
        dtype = self.precision.dtype
        y = {name: x @ self.kernel[name][...].astype(dtype) for name in self.outputs}
        if self.bias is not None:
            y = {name: value + self.bias[name][...].astype(dtype) for name, value in y.items()}
        return y


class RMSNorm(nnx.Module):
    """T5's norm: no mean, no bias, eps 1e-6, statistics in float32.

    With `offset` 1 the factor is 1 + scale and the stored scale starts at zero, as in Gemma.
    """

    def __init__(
        self, width: int, *, precision: Precision, epsilon: float = 1e-6, offset: float = 0.0
    ):
        self.epsilon = epsilon
        self.offset = offset
        self.scale = nnx.Param(jnp.full((width,), 1.0 - offset, precision.param_dtype))

    def __call__(self, x: Array) -> Array:
        y = x.astype(jnp.float32)
        y = y * jax.lax.rsqrt(jnp.mean(jnp.square(y), axis=-1, keepdims=True) + self.epsilon)
        return (y * (self.offset + self.scale[...].astype(jnp.float32))).astype(x.dtype)


class LayerNorm(nnx.Module):
    """LayerNorm with optional bias, statistics in float32."""

    def __init__(
        self, width: int, *, precision: Precision, use_bias: bool = True, epsilon: float = 1e-6
    ):
        self.epsilon = epsilon
        self.scale = nnx.Param(jnp.ones((width,), precision.param_dtype))
        self.bias = nnx.Param(jnp.zeros((width,), precision.param_dtype)) if use_bias else None

    def __call__(self, x: Array) -> Array:
        y = x.astype(jnp.float32)
        y = y - jnp.mean(y, axis=-1, keepdims=True)
        y = y * jax.lax.rsqrt(jnp.mean(jnp.square(y), axis=-1, keepdims=True) + self.epsilon)
        y = y * self.scale[...].astype(jnp.float32)
        if self.bias is not None:
            y = y + self.bias[...].astype(jnp.float32)
        return y.astype(x.dtype)


class FeedForward(nnx.Module):
    """Feed-forward, gated (T5 1.1: act(x wi_0) * (x wi_1)) or plain (ViT: act(x wi_0)), then wo."""

    is_feed_forward = True

    def __init__(
        self,
        d_model: int,
        d_ff: int,
        *,
        activation: Callable[[Array], Array],
        gated: bool,
        use_bias: bool = False,
        causal: bool = False,
        precision: Precision,
        rngs: nnx.Rngs,
    ):
        self.d_model = d_model
        self.activation = activation
        common = dict(use_bias=use_bias, causal=causal, precision=precision, rngs=rngs)
        names = ("wi_0", "wi_1") if gated else ("wi_0",)
        self.wi = Projection(d_model, dict.fromkeys(names, d_ff), **common)
        self.wo = Projection(d_ff, {"wo": d_model}, **common)

    def __call__(self, x: Array, kinds: Array) -> Array:
        """x: (b, m, d_model) -> (b, m, d_model)."""
        inner = {name: spread(y, WIDE) for name, y in self.wi(x, kinds).items()}
        hidden = self.activation(inner["wi_0"])
        if "wi_1" in inner:
            hidden = hidden * inner["wi_1"]
        return self.wo(hidden, kinds)["wo"]


def split_heads(x: Array, heads: int) -> Array:
    """(b, m, heads * dim) -> (b, m, heads, dim)."""
    return x.reshape(*x.shape[:-1], heads, -1)


def rotate(x: Array, positions: Array, *, base: float = 10_000.0, factor: float = 1.0) -> Array:
    """Rotary position embedding (RoFormer, arXiv 2104.09864), pairing channel i with i + dim / 2.

    Args:
      x: (b, m, h, dim) queries or keys, dim even.
      positions: (m,) or (b, m) integers.
      base: of the wave lengths. factor: positions are divided by it (linear scaling).

    Returns:
      As x; angles in float32.
    """
    half = x.shape[-1] // 2
    frequency = base ** (-jnp.arange(half, dtype=jnp.float32) / half) / factor
    angle = positions.astype(jnp.float32)[..., None, None] * frequency
    sine, cosine = jnp.sin(angle), jnp.cos(angle)
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = [first * cosine - second * sine, second * cosine + first * sine]
    return jnp.concatenate(turned, axis=-1).astype(x.dtype)


def attend(
    query: Array,
    key: Array,
    value: Array,
    bias: Array | None,
    *,
    scale: float = 1.0,
    softcap: float | None = None,
) -> Array:
    """Dot-product attention with an additive bias, softmax in float32.

    Args:
      query: (b, m, h, dim). key, value: (b, n, g, dim), g a divisor of h: each key head serves
        h / g query heads that lie next to each other.
      bias: broadcastable to (b, h, m, n), NEGATIVE where a key is not to be seen.
      scale: factor on the logits (T5: 1).
      softcap: bounds the logits, cap * tanh(logits / cap), before the bias (Gemma 2).

    Returns:
      (b, m, h * dim) in the dtype of `value`.
    """
    query, key, value = (spread(x, HEADS) for x in (query, key, value))
    if key.shape[2] != query.shape[2]:
        repeats = query.shape[2] // key.shape[2]
        key, value = (jnp.repeat(x, repeats, axis=2) for x in (key, value))
    logits = jnp.einsum("bmhd,bnhd->bhmn", query, key).astype(jnp.float32) * scale
    if softcap is not None:
        logits = softcap * jnp.tanh(logits / softcap)
    if bias is not None:
        logits = logits + bias
    weights = jax.nn.softmax(logits, axis=-1).astype(value.dtype)
    out = jnp.einsum("bhmn,bnhd->bmhd", weights, value)
    return spread(out.reshape(*out.shape[:2], -1), WIDE)


def mask_bias(mask: Array) -> Array:
    """(b, n) bool, True where a key may be seen -> (b, 1, 1, n) float32 bias."""
    return jnp.where(mask, 0.0, NEGATIVE)[:, None, None, :]


class Stack(nnx.Module):
    """`length` equal layers, their parameters stacked on a leading axis and run by one scan.

    Attributes:
      layer: one module whose every parameter has the leading axis.
      stack_length: the number of layers.
    """

    def __init__(self, make: Callable[[nnx.Rngs], nnx.Module], length: int, *, rngs: nnx.Rngs):
        build = nnx.vmap(make, in_axes=0, out_axes=0, axis_size=length)
        self.layers = nnx.split_rngs(splits=length)(build)(rngs)
        self.stack_length = length

    def scan(
        self,
        step: Callable[[nnx.Module, Array, Any], tuple[Array, Any]],
        carry: Array,
        xs: Any = None,
        *,
        remat: bool = False,
        unroll: int | bool = 1,
    ) -> tuple[Array, Any]:
        """Runs `carry, y = step(layer, carry, x)` layer after layer.

        Args:
          step: what one layer does; x is that layer's slice of `xs`.
          carry: the activations.
          xs: a pytree with a leading layer axis (a cache), or None.
          remat: compute a layer's activations again in the backward pass instead of keeping them.
          unroll: layers per loop step of the compiled program, or True for all of them.

        Returns:
          The last carry, and the stacked ys.
        """
        graphdef, state = nnx.split(self.layers)

        def body(carry, scanned):
            layer_state, x = scanned
            carry, y = step(nnx.merge(graphdef, layer_state), spread(carry), x)
            return spread(carry), y

        if remat:
            body = jax.checkpoint(body, prevent_cse=False)
        return jax.lax.scan(body, carry, (state, xs), unroll=unroll)
