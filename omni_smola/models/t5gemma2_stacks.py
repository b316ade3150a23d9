"""Encoder and decoder of T5Gemma 2 (arXiv 2512.14856).

The encoder is Gemma 3's stack without the causal mask. The decoder has one attention per layer,
merged of self- and cross-attention: the same weights project the target and the encoder's output
to keys and values, and one softmax runs over both. The encoder's keys have no positions, and no
window hides them.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from omni_smola.models import gemma_layers, layers, t5
from omni_smola.models.gemma_layers import Block, StackConfig
from omni_smola.token_kinds import TokenKind

Array = jax.Array


def _stack(
    block: type[Block], config: StackConfig, causal: bool, options: t5.Options, rngs: nnx.Rngs
) -> layers.Stack:
    return layers.Stack(
        lambda rngs: block(config, causal=causal, options=options, rngs=rngs),
        config.depth,
        rngs=rngs,
    )


class Encoder(nnx.Module):
    """Embedded tokens to encoder output; all tokens, of images too, see each other."""

    def __init__(self, config: StackConfig, *, options: t5.Options, rngs: nnx.Rngs):
        self.config = config
        self.options = options
        self.stack = _stack(Block, config, False, options, rngs)
        self.norm = gemma_layers.norm(config, options)

    def __call__(self, x: Array, kinds: Array) -> Array:
        """x: (b, s, d_model), kinds: (b, s) -> (b, s, d_model).

        Padding may stand anywhere: positions and windows count the other tokens only.
        """
        positions = gemma_layers.token_positions(kinds)
        full = layers.mask_bias(kinds != TokenKind.PADDING)
        near = full + gemma_layers.window_bias(
            positions, positions, self.config.window, causal=False
        )

        def step(block, x, kind):
            bias = jnp.where(kind["sliding"], near, full)
            return block(x, kinds, positions, bias, kind), None

        x, _ = self.stack.scan(
            step,
            x,
            gemma_layers.layer_kinds(self.config),
            remat=self.options.remat,
            unroll=self.options.unroll,
        )
        return self.norm(x)


class DecoderBlock(Block):
    """A block whose attention also reads the encoder's output, through its own k and v."""

    def project_memory(self, encoded: Array, kinds: Array) -> tuple[Array, Array]:
        """Encoder output (b, s, d_model) -> key and value, twice (b, s, key_heads, d_head)."""
        attention = self.attention
        y = attention.qkv(encoded, kinds)  # what it makes of q is dropped by the compiler
        key, value = (layers.split_heads(y[n], attention.config.key_heads) for n in "kv")
        return key if attention.k_norm is None else attention.k_norm(key), value


class Decoder(nnx.Module):
    """Embedded target tokens to hidden states, all at once or one by one with a cache.

    The cache is a dict of arrays with the layer on axis 0 and the batch on axis 1: `key` and
    `value` (layers, b, s + max_length, key_heads, d_head), the encoder's output before the
    target; `memory_mask` (1, b, s).
    """

    def __init__(self, config: StackConfig, *, options: t5.Options, rngs: nnx.Rngs):
        self.config = config
        self.options = options
        self.stack = _stack(DecoderBlock, config, True, options, rngs)
        self.norm = gemma_layers.norm(config, options)

    def _biases(self, positions: Array, length: int, memory: Array) -> tuple[Array, Array]:
        """Biases of full and of sliding layers, over the encoder's tokens and the target's.

        positions: (m,) of the queries; length: of the target; memory: (b, s) bool. Returns twice
        (b, 1, m, s + length).
        """
        keys = jnp.arange(length)
        seen = keys[None, :] <= positions[:, None]
        full = jnp.where(seen, 0.0, layers.NEGATIVE)[None, None]
        near = full + gemma_layers.window_bias(positions, keys, self.config.window, causal=True)
        b, m = memory.shape[0], len(positions)
        outside = layers.mask_bias(memory)
        outside = jnp.broadcast_to(outside, (b, 1, m, outside.shape[-1]))

        def joined(own):
            return jnp.concatenate([outside, jnp.broadcast_to(own, (b, 1, m, length))], axis=-1)

        return joined(full), joined(near)

    def __call__(self, x: Array, encoded: Array, encoded_kinds: Array) -> Array:
        """x: (b, t, d_model), encoded: (b, s, d_model), encoded_kinds: (b, s) -> as x."""
        positions = jnp.arange(x.shape[1])
        full, near = self._biases(positions, x.shape[1], encoded_kinds != TokenKind.PADDING)
        kinds = jnp.full(x.shape[:2], TokenKind.TEXT, jnp.int32)

        def step(block, x, kind):
            query, *own = block.project(x, kinds, positions, kind)
            memory = block.project_memory(encoded, encoded_kinds)
            key, value = (jnp.concatenate(pair, axis=1) for pair in zip(memory, own, strict=True))
            bias = jnp.where(kind["sliding"], near, full)
            return block.finish(x, query, key, value, bias, kinds), None

        x, _ = self.stack.scan(
            step,
            x,
            gemma_layers.layer_kinds(self.config),
            remat=self.options.remat,
            unroll=self.options.unroll,
        )
        return self.norm(x)

    def init_cache(self, encoded: Array, encoded_kinds: Array, max_length: int) -> dict[str, Array]:
        """The cache before the first token: the encoder's keys and values, and room."""

        def step(block, carry, _):
            return carry, block.project_memory(encoded, encoded_kinds)

        _, memory = self.stack.scan(step, 0)
        room = ((0, 0), (0, 0), (0, max_length), (0, 0), (0, 0))
        key, value = (jnp.pad(x, room) for x in memory)
        mask = (encoded_kinds != TokenKind.PADDING)[None]
        return {"key": key, "value": value, "memory_mask": mask}

    def step(
        self, cache: dict[str, Array], x: Array, position: Array
    ) -> tuple[Array, dict[str, Array]]:
        """One token x: (b, 1, d_model) at `position` () -> its hidden state, and the cache."""
        memory = cache["memory_mask"][0]
        offset = memory.shape[1]
        full, near = self._biases(position[None], cache["key"].shape[2] - offset, memory)
        kinds = jnp.full(x.shape[:2], TokenKind.TEXT, jnp.int32)

        def step(block, x, scanned):
            kind, *cached = scanned
            query, *own = block.project(x, kinds, position[None], kind)
            key, value = (
                jax.lax.dynamic_update_slice_in_dim(whole, one, offset + position, 1)
                for whole, one in zip(cached, own, strict=True)
            )
            bias = jnp.where(kind["sliding"], near, full)
            return block.finish(x, query, key, value, bias, kinds), (key, value)

        scanned = (gemma_layers.layer_kinds(self.config), cache["key"], cache["value"])
        x, (key, value) = self.stack.scan(step, x, scanned, unroll=self.options.unroll)
        return self.norm(x), {**cache, "key": key, "value": value}
