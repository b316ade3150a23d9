"""The layers of Gemma 1 to 3, of T5Gemma 2 and, with fewer norms, of Llama.

A block is attention and a gated feed-forward, each between a norm before it and, where `post_norms`
says so, one after it. Keys and values have fewer heads than queries, positions are rotary, and
some layers of a stack see only a window of near tokens, with another rotary base. All layers of a
stack are equal but for that: which kind each is travels through the scan as data (`layer_kinds`).
Sources: Gemma 2 (arXiv 2408.00118), Gemma 3 (arXiv 2503.19786).
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from omni_smola.models import layers, t5
from omni_smola.token_kinds import TokenKind

Array = jax.Array
LayerKind = dict[str, Array]


@dataclasses.dataclass(frozen=True)
class StackConfig:
    """Sizes of a stack of blocks.

    Attributes:
      sliding: for each layer, whether it sees only a window of tokens.
      heads: of the queries. key_heads: of keys and values, a divisor of `heads`.
      window: tokens that a sliding layer sees, the query's own among them.
      base, factor: rotary base and linear position scaling of the layers that see everything.
      local_base: rotary base of the sliding layers.
      query_scalar: logits are divided by its square root; None is d_head.
      qk_norm: RMSNorm on each head's queries and keys (Gemma 3).
      post_norms: a norm behind attention and behind the feed-forward, too (Gemma 2 and 3).
      softcap: bound of the attention logits (Gemma 2).
      norm_offset: 1 where norms multiply by 1 + scale (Gemma), 0 where by scale (Llama).
      activation: of the feed-forward, a name in `t5.ACTIVATIONS`.
    """

    d_model: int
    heads: int
    key_heads: int
    d_head: int
    d_ff: int
    sliding: tuple[bool, ...]
    window: int | None = None
    base: float = 10_000.0
    factor: float = 1.0
    local_base: float = 10_000.0
    query_scalar: float | None = None
    qk_norm: bool = False
    post_norms: bool = False
    softcap: float | None = None
    epsilon: float = 1e-6
    norm_offset: float = 1.0
    activation: str = "gelu"

    @property
    def depth(self) -> int:
        """Number of layers."""
        return len(self.sliding)

    @property
    def scale(self) -> float:
        """Factor on the attention logits."""
        return (self.query_scalar or self.d_head) ** -0.5


def norm(config: StackConfig, options: t5.Options, width: int | None = None) -> layers.RMSNorm:
    """RMSNorm of the stack's kind, over `width` or d_model channels."""
    return layers.RMSNorm(
        width or config.d_model,
        precision=options.precision,
        epsilon=config.epsilon,
        offset=config.norm_offset,
    )


def layer_kinds(config: StackConfig) -> LayerKind:
    """What tells the layers of a stack apart, by name (depth,): the `xs` of its scan.

    `sliding` bool, `base` and `factor` float32 of the rotary positions.
    """
    sliding = np.asarray(config.sliding, bool)
    return {
        "sliding": jnp.asarray(sliding),
        "base": jnp.asarray(np.where(sliding, config.local_base, config.base), jnp.float32),
        "factor": jnp.asarray(np.where(sliding, 1.0, config.factor), jnp.float32),
    }


def token_positions(kinds: Array) -> Array:
    """(b, m) kinds -> (b, m) int32: how many tokens that are not padding stand before each."""
    count = jnp.cumsum(kinds != TokenKind.PADDING, axis=1, dtype=jnp.int32)
    return jnp.maximum(count - 1, 0)


def window_bias(queries: Array, keys: Array, window: int | None, *, causal: bool) -> Array:
    """What a sliding layer adds to the logits: NEGATIVE where a key is too far from a query.

    A causal window ends at the query, which sees itself and the window - 1 tokens before it (what
    comes after is another bias's business); otherwise it lies around the query, with
    (window - 1) // 2 tokens before and window // 2 behind it.

    Args:
      queries, keys: positions (b, m), (b, n) or (m,), (n,); window: None is all tokens.

    Returns:
      (b, 1, m, n) or (1, 1, m, n) float32.
    """
    queries, keys = jnp.atleast_2d(queries), jnp.atleast_2d(keys)
    distance = queries[:, None, :, None] - keys[:, None, None, :]
    if window is None:
        return jnp.zeros_like(distance, jnp.float32)
    if causal:
        near = distance < window
    else:
        near = (distance < (window + 1) // 2) & (-distance <= window // 2)
    return jnp.where(near, 0.0, layers.NEGATIVE)


class Attention(nnx.Module):
    """Grouped-query attention with rotary positions."""

    def __init__(self, config: StackConfig, *, causal: bool, options: t5.Options, rngs: nnx.Rngs):
        self.config = config
        inner, narrow = config.heads * config.d_head, config.key_heads * config.d_head
        common = dict(causal=causal, precision=options.precision, rngs=rngs)
        widths = {"q": inner, "k": narrow, "v": narrow}
        self.qkv = layers.Projection(config.d_model, widths, **common)
        self.out = layers.Projection(inner, {"o": config.d_model}, **common)
        self.q_norm = norm(config, options, config.d_head) if config.qk_norm else None
        self.k_norm = norm(config, options, config.d_head) if config.qk_norm else None

    def project(
        self, x: Array, kinds: Array, positions: Array, kind: LayerKind
    ) -> tuple[Array, Array, Array]:
        """Query, key and value of self-attention, normed and rotated.

        Args:
          x: (b, m, d_model). positions: (m,) or (b, m). kind: this layer's slice of `layer_kinds`.

        Returns:
          (b, m, heads, d_head), and twice (b, m, key_heads, d_head).
        """
        y = self.qkv(x, kinds)
        query = layers.split_heads(y["q"], self.config.heads)
        key, value = (layers.split_heads(y[name], self.config.key_heads) for name in "kv")
        if self.q_norm is not None:
            query, key = self.q_norm(query), self.k_norm(key)
        turn = partial(layers.rotate, positions=positions, base=kind["base"], factor=kind["factor"])
        return turn(query), turn(key), value

    def __call__(self, query: Array, key: Array, value: Array, bias: Array, kinds: Array) -> Array:
        """Attends and projects back: (b, m, d_model)."""
        config = self.config
        y = layers.attend(query, key, value, bias, scale=config.scale, softcap=config.softcap)
        return self.out(y, kinds)["o"]


class Block(nnx.Module):
    """Attention and a gated feed-forward, each normed before and perhaps after."""

    def __init__(self, config: StackConfig, *, causal: bool, options: t5.Options, rngs: nnx.Rngs):
        post = partial(norm, config, options) if config.post_norms else lambda: None
        self.norm_1, self.norm_2 = norm(config, options), norm(config, options)
        self.post_1, self.post_2 = post(), post()
        self.attention = Attention(config, causal=causal, options=options, rngs=rngs)
        self.mlp = layers.FeedForward(
            config.d_model,
            config.d_ff,
            activation=t5.ACTIVATIONS[config.activation],
            gated=True,
            causal=causal,
            precision=options.precision,
            rngs=rngs,
        )

    def project(
        self, x: Array, kinds: Array, positions: Array, kind: LayerKind
    ) -> tuple[Array, Array, Array]:
        """The stream x (b, m, d_model) -> query, key and value; see `Attention.project`."""
        return self.attention.project(self.norm_1(x), kinds, positions, kind)

    def finish(
        self, x: Array, query: Array, key: Array, value: Array, bias: Array, kinds: Array
    ) -> Array:
        """What follows the projections: attention and the feed-forward, added to the stream x.

        key, value: (b, n, key_heads, d_head), of these tokens or of more (a cache, an encoder's
        output). bias: broadcastable to (b, heads, m, n). Returns (b, m, d_model).
        """
        y = self.attention(query, key, value, bias, kinds)
        x = x + (y if self.post_1 is None else self.post_1(y))
        y = self.mlp(self.norm_2(x), kinds)
        return x + (y if self.post_2 is None else self.post_2(y))

    def __call__(
        self, x: Array, kinds: Array, positions: Array, bias: Array, kind: LayerKind
    ) -> Array:
        """Self-attention among the tokens of x (b, m, d_model)."""
        return self.finish(x, *self.project(x, kinds, positions, kind), bias, kinds)
