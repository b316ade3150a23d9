"""MoME's adaptive deformable transformation (arXiv 2407.12709): any map to side x side tokens.

Queries are adaptive averages of the map; each post-norm layer lets them see each other, read the
ORIGINAL map at a few learned places, and pass a feed-forward. For query i, head j, point k

    p_ijk = offset(q_i)_jk / (W, H) + R_i        w_ij = softmax over k of weight(q_i)_jk
    o_ij  = sum_k w_ijk * bilinear_sample(value(f)_j, p_ijk)

which is Deformable DETR's decoder layer (arXiv 2010.04159) on one level, its initialisation of the
offsets included: head j looks in direction j, its point k at k + 1 tokens' distance. As there, the
positions are added to the queries of both attentions and to the keys of self-attention.

Plain cross-attention and average pooling are the paper's alternatives; all are called alike.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from omni_smola.errors import UserError
from omni_smola.experts.param import ExpertParam
from omni_smola.experts.vision_map import VisionMap, adaptive_average, weighted_sample

Array = jax.Array
_NEGATIVE = -1e9
_XAVIER = nnx.initializers.xavier_uniform()


@dataclasses.dataclass(frozen=True)
class AdtConfig:
    """Sizes of a transformation; the paper's are the defaults.

    Attributes:
      side: a map becomes side * side tokens.
      layers: equal layers.
      heads: of both attentions; divides the encoder's width.
      points: places that a head reads for a query.
      d_ff: width of the feed-forward.
      dropout: rate, where Deformable DETR has it; it needs a key at the call.
      authors_reference: start the reference points as the authors' code does, from border to border
        and in (y, x) order, rather than at the cells' centres in (x, y) order.
    """

    side: int = 16
    layers: int = 6
    heads: int = 8
    points: int = 4
    d_ff: int = 1024
    dropout: float = 0.1
    authors_reference: bool = False

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self)[:5]:
            if getattr(self, field.name) < 1:
                raise UserError(
                    f"vision.{field.name} is {getattr(self, field.name)}, but it is a number "
                    f"of 1 or more: set --config.vision.{field.name}={field.default}."
                )
        if not 0 <= self.dropout < 1:
            raise UserError(
                f"vision.dropout is {self.dropout}, but a rate of dropout is at least 0 and "
                "below 1: set --config.vision.dropout=0.1, or 0 for none."
            )


class Linear(nnx.Module):
    """x W + b with trained float32 parameters; products in x's dtype, summed in float32."""

    def __init__(
        self,
        width_in: int,
        width_out: int,
        *,
        init: Callable[..., Array] = _XAVIER,
        rngs: nnx.Rngs,
    ):
        self.kernel = ExpertParam(init(rngs.params(), (width_in, width_out), jnp.float32))
        self.bias = ExpertParam(jnp.zeros((width_out,), jnp.float32))

    def __call__(self, x: Array, dtype: jnp.dtype | None = None) -> Array:
        """x: (..., width_in) -> (..., width_out) in `dtype`, or in x's own."""
        kernel = self.kernel[...].astype(x.dtype)
        y = jnp.matmul(x, kernel, preferred_element_type=jnp.float32) + self.bias[...]
        return y.astype(dtype or x.dtype)


class Norm(nnx.Module):
    """LayerNorm, eps 1e-5, statistics in float32; trained float32 scale and bias."""

    def __init__(self, width: int):
        self.scale = ExpertParam(jnp.ones((width,), jnp.float32))
        self.bias = ExpertParam(jnp.zeros((width,), jnp.float32))

    def __call__(self, x: Array) -> Array:
        """x: (..., width) -> the same shape and dtype."""
        y = x.astype(jnp.float32)
        y = y - jnp.mean(y, axis=-1, keepdims=True)
        y = y * jax.lax.rsqrt(jnp.mean(jnp.square(y), axis=-1, keepdims=True) + 1e-5)
        return (y * self.scale[...] + self.bias[...]).astype(x.dtype)


def _dropout(x: Array, rate: float, key: Array | None) -> Array:
    if key is None:
        return x
    return jnp.where(jax.random.bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0)


class _Attention(nnx.Module):
    """Multi-head attention, its output projection zero at the start."""

    def __init__(self, config: AdtConfig, width: int, *, rngs: nnx.Rngs):
        self.config = config
        self.query, self.key, self.value = (Linear(width, width, rngs=rngs) for _ in range(3))
        self.out = Linear(width, width, init=nnx.initializers.zeros, rngs=rngs)

    def __call__(
        self, query: Array, key: Array, value: Array, mask: Array | None, dropout: Array | None
    ) -> Array:
        """query (b, m, c), key and value (b, n, c), mask (b, n) -> (b, m, c)."""
        heads = self.config.heads
        query, key, value = (
            linear(x).reshape(*x.shape[:2], heads, -1)
            for linear, x in ((self.query, query), (self.key, key), (self.value, value))
        )
        logits = jnp.einsum("bmhd,bnhd->bhmn", query, key, preferred_element_type=jnp.float32)
        logits = logits * query.shape[-1] ** -0.5
        if mask is not None:
            logits = jnp.where(mask[:, None, None, :], logits, _NEGATIVE)
        weights = jax.nn.softmax(logits, axis=-1).astype(value.dtype)
        weights = _dropout(weights, self.config.dropout, dropout)
        read = jnp.einsum("bhmn,bnhd->bmhd", weights, value)
        return self.out(read.reshape(*read.shape[:2], -1))


class _PlainReading(nnx.Module):
    """Attention of the queries to all tokens of the map."""

    def __init__(self, config: AdtConfig, width: int, *, rngs: nnx.Rngs):
        self.attention = _Attention(config, width, rngs=rngs)

    def __call__(self, query: Array, vision_map: VisionMap, places: None, key: Array | None):
        """query (b, m, c) -> (b, m, c)."""
        tokens = vision_map.tokens
        return self.attention(query, tokens, tokens, vision_map.mask(), key)


class _DeformableReading(nnx.Module):
    """Weighted bilinear samples of the map around the reference points."""

    def __init__(self, config: AdtConfig, width: int, *, rngs: nnx.Rngs):
        self.config = config
        zeros, samples = nnx.initializers.zeros, config.heads * config.points
        self.offset = Linear(width, 2 * samples, init=zeros, rngs=rngs)
        self.offset.bias[...] = jnp.asarray(_directions(config.heads, config.points))
        self.weight = Linear(width, samples, init=zeros, rngs=rngs)
        self.value = Linear(width, width, rngs=rngs)
        self.out = Linear(width, width, init=zeros, rngs=rngs)

    def __call__(self, query: Array, vision_map: VisionMap, places: Array, key: Array | None):
        """query (b, m, c), places (m, 2) in [0, 1] -> (b, m, c); there is no dropout of weights."""
        del key
        heads, points = self.config.heads, self.config.points
        shape = (*query.shape[:2], heads, points)
        # Places and weights in float32: bfloat16 could not tell neighbouring tokens apart.
        offset = self.offset(query, jnp.float32).reshape(*shape, 2)
        extent = jnp.maximum(vision_map.sizes[:, None, None, None, ::-1], 1)
        where = places[:, None, None, :] + offset / extent
        weights = jax.nn.softmax(self.weight(query, jnp.float32).reshape(shape), axis=-1)
        tokens = vision_map.tokens
        value = self.value(tokens).reshape(*tokens.shape[:2], heads, -1)
        # What is gathered is large and cheap to gather again in the backward pass.
        sample = jax.checkpoint(weighted_sample, prevent_cse=False)
        read = sample(value, where, weights, vision_map.sizes)
        return self.out(read.reshape(query.shape))


class _Layer(nnx.Module):
    """Self-attention, reading of the map, feed-forward; after each the residual and a norm."""

    def __init__(self, config: AdtConfig, width: int, reading: type, *, rngs: nnx.Rngs):
        self.config = config
        self.attention = _Attention(config, width, rngs=rngs)
        self.reading = reading(config, width, rngs=rngs)
        self.wi = Linear(width, config.d_ff, rngs=rngs)
        self.wo = Linear(config.d_ff, width, init=nnx.initializers.zeros, rngs=rngs)
        self.attention_norm, self.reading_norm, self.norm = (Norm(width) for _ in range(3))

    def __call__(
        self,
        query: Array,
        vision_map: VisionMap,
        positions: Array,
        places: Array | None,
        key: Array | None,
    ) -> Array:
        """query (b, m, c), positions (m, c), places (m, 2) -> (b, m, c)."""
        rate = self.config.dropout
        keys = [None] * 6 if key is None else jax.random.split(key, 6)
        placed = query + positions
        seen = self.attention(placed, placed, query, None, keys[0])
        query = self.attention_norm(query + _dropout(seen, rate, keys[1]))
        read = self.reading(query + positions, vision_map, places, keys[2])
        query = self.reading_norm(query + _dropout(read, rate, keys[3]))
        hidden = _dropout(nnx.relu(self.wi(query)), rate, keys[4])
        return self.norm(query + _dropout(self.wo(hidden), rate, keys[5]))


class _Transform(nnx.Module):
    """What Adt and CrossAttention share; `layers` has its parameters stacked on a leading axis."""

    _reading: type

    def __init__(self, config: AdtConfig, width: int, *, rngs: nnx.Rngs):
        if width % config.heads:
            raise UserError(
                f"A vision encoder's width is {width}, which vision.heads={config.heads} does "
                "not divide: set --config.vision.heads to a divisor of every encoder's width."
            )
        self.config = config
        self.width = width
        self.positions = ExpertParam(jnp.zeros((config.side**2, width), jnp.float32))
        build = nnx.vmap(
            lambda rngs: _Layer(config, width, self._reading, rngs=rngs),
            in_axes=0,
            out_axes=0,
            axis_size=config.layers,
        )
        self.layers = nnx.split_rngs(splits=config.layers)(build)(rngs)

    def _places(self) -> Array | None:
        return None

    def __call__(self, vision_map: VisionMap, key: Array | None = None) -> Array:
        """Brings a map to side * side tokens.

        Args:
          vision_map: tokens (b, n, width); padding is never read.
          key: for dropout; None is none.

        Returns:
          (b, side * side, width) in the dtype of the tokens.

        Raises:
          UserError: the tokens are not of the encoder's width.
        """
        query = _pooled(vision_map, self.config, self.width)
        vision_map = vision_map.replace(tokens=vision_map.visible())
        positions, places = self.positions[...].astype(query.dtype), self._places()
        drops = key is not None and self.config.dropout > 0
        keys = jax.random.split(key, self.config.layers) if drops else None
        graphdef, state = nnx.split(self.layers)

        def body(query, scanned):
            layer_state, layer_key = scanned
            layer = nnx.merge(graphdef, layer_state)
            return layer(query, vision_map, positions, places, layer_key), None

        return jax.lax.scan(body, query, (state, keys))[0]


class Adt(_Transform):
    """The adaptive deformable transformation; `reference` (side * side, 2) is its R."""

    _reading = _DeformableReading

    def __init__(self, config: AdtConfig, width: int, *, rngs: nnx.Rngs):
        super().__init__(config, width, rngs=rngs)
        self.reference = ExpertParam(jnp.asarray(_reference(config)))

    def _places(self) -> Array:
        return self.reference[...]


class CrossAttention(_Transform):
    """The same queries and layers, attending to all tokens of the map; memory of queries * n."""

    _reading = _PlainReading


class AveragePool(nnx.Module):
    """Adaptive average pooling alone; no parameters."""

    def __init__(self, config: AdtConfig, width: int, *, rngs: nnx.Rngs):
        del rngs
        self.config = config
        self.width = width

    def __call__(self, vision_map: VisionMap, key: Array | None = None) -> Array:
        """tokens (b, n, width) -> (b, side * side, width); UserError if of another width."""
        del key
        return _pooled(vision_map, self.config, self.width)


TRANSFORMS = {"adt": Adt, "average": AveragePool, "cross_attention": CrossAttention}


def check_width(vision_map: VisionMap, width: int) -> None:
    """Raises UserError unless the map's tokens are `width` wide."""
    if vision_map.tokens.shape[-1] != width:
        raise UserError(
            f"A map's tokens are {vision_map.tokens.shape[-1]} wide, but its transformation was "
            f"built for {width}: give `widths` the width of the encoder that makes the map."
        )


def _pooled(vision_map: VisionMap, config: AdtConfig, width: int) -> Array:
    check_width(vision_map, width)
    return adaptive_average(vision_map.visible(), vision_map.sizes, config.side)


def _directions(heads: int, points: int) -> np.ndarray:
    """Starting offsets in tokens, (heads * points * 2,): heads around a square, points outwards."""
    angle = np.arange(heads) * (2 * np.pi / heads)
    direction = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    direction /= np.abs(direction).max(axis=-1, keepdims=True)
    offsets = direction[:, None] * np.arange(1, points + 1)[:, None]
    return offsets.reshape(-1).astype(np.float32)


def _reference(config: AdtConfig) -> np.ndarray:
    """(side * side, 2) starting reference points of the row-major queries."""
    side = config.side
    if config.authors_reference:
        ticks = np.linspace(0, 1, side)
    else:
        ticks = (np.arange(side) + 0.5) / side
    first, second = np.meshgrid(ticks, ticks, indexing="ij" if config.authors_reference else "xy")
    return np.stack([first.reshape(-1), second.reshape(-1)], axis=-1).astype(np.float32)
