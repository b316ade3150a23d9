"""The sentence embedding of an instruction, which MoME's routers read (arXiv 2407.12709).

A BERT (arXiv 1810.04805: post-norm, learned positions, exact GELU) whose last hidden states are
averaged over the text and divided by their length (sentence-transformers; all-MiniLM-L6-v2).
"""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from omni_smola.errors import UserError
from omni_smola.models import layers, prompts
from omni_smola.models.layers import Precision
from omni_smola.token_kinds import TokenKind

Array = jax.Array
GELU = partial(jax.nn.gelu, approximate=False)


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """Sizes of a BERT; the defaults are those of all-MiniLM-L6-v2.

    vocabulary, positions and token_types are the rows of the three embedding tables.
    """

    vocabulary: int = 30522
    width: int = 384
    depth: int = 6
    heads: int = 12
    mlp: int = 1536
    positions: int = 512
    token_types: int = 2
    epsilon: float = 1e-12


class BertBlock(nnx.Module):
    """Attention, then the feed-forward; a norm after each sum."""

    def __init__(self, config: BertConfig, *, precision: Precision, rngs: nnx.Rngs):
        width = config.width
        common = dict(use_bias=True, precision=precision, rngs=rngs)
        norm = partial(layers.LayerNorm, width, precision=precision, epsilon=config.epsilon)
        self.heads = config.heads
        self.qkv = layers.Projection(width, dict.fromkeys("qkv", width), **common)
        self.out = layers.Projection(width, {"o": width}, **common)
        self.norm_1 = norm()
        self.mlp = layers.FeedForward(width, config.mlp, activation=GELU, gated=False, **common)
        self.norm_2 = norm()

    def __call__(self, x: Array, bias: Array, kinds: Array) -> Array:
        """x: (b, n, width); bias: (b, 1, 1, n), see `layers.mask_bias` -> (b, n, width)."""
        qkv = self.qkv(x, kinds)
        query, key, value = (layers.split_heads(qkv[name], self.heads) for name in "qkv")
        y = layers.attend(query, key, value, bias, scale=query.shape[-1] ** -0.5)
        x = self.norm_1(x + self.out(y, kinds)["o"])
        return self.norm_2(x + self.mlp(x, kinds))


class SentenceEncoder(nnx.Module):
    """Token ids of a text to one vector of length 1. All parameters are frozen `nnx.Param`s."""

    def __init__(self, config: BertConfig, *, precision: Precision, rngs: nnx.Rngs):
        def table(rows: int) -> nnx.Param:
            shape = (rows, config.width)
            return nnx.Param(0.02 * jax.random.normal(rngs.params(), shape, precision.param_dtype))

        self.config = config
        self.precision = precision
        self.words = table(config.vocabulary)
        self.positions = table(config.positions)
        self.types = table(config.token_types)
        self.norm = layers.LayerNorm(config.width, precision=precision, epsilon=config.epsilon)
        self.encoder = layers.Stack(
            lambda rngs: BertBlock(config, precision=precision, rngs=rngs), config.depth, rngs=rngs
        )

    def __call__(self, tokens: Array, mask: Array) -> Array:
        """The embeddings of a batch of texts.

        Args:
          tokens: (b, n) int32, [CLS] ... [SEP] and padding, whose value does not matter.
          mask: (b, n) bool, False at the padding.

        Returns:
          (b, width) float32, each of length 1, or zero where the mask is False everywhere.

        Raises:
          UserError: n exceeds the positions that the encoder has.
        """
        length = tokens.shape[1]
        if length > self.config.positions:
            raise UserError(
                f"The instruction has {length} tokens, but the sentence encoder has "
                f"{self.config.positions} positions: cut instructions to at most that many."
            )
        embedded = self.words[...][tokens], self.positions[...][:length], self.types[...][0]
        x = self.norm(sum(part.astype(self.precision.dtype) for part in embedded))
        bias = layers.mask_bias(mask)
        kinds = jnp.where(mask, TokenKind.TEXT, TokenKind.PADDING)
        x, _ = self.encoder.scan(lambda block, x, _: (block(x, bias, kinds), None), x)
        return mean_embedding(x, mask)


def embed_instruction(
    sentence: SentenceEncoder | None,
    batch: Mapping[str, Array],
    embed: Callable[[Array], Array],
) -> Array:
    """The embedding (b, e) float32 of the instruction, on which a backbone's routers decide.

    Args:
      sentence: reads instruction (b, n) int32 and instruction_mask (b, n) bool of the batch; None
        is `mean_embedding` of its prompt (b, p) int32, prompt_mask (b, p) bool, without the frame.
      embed: the backbone's table of tokens.
    """
    if sentence is not None:
        return sentence(batch["instruction"], batch["instruction_mask"])
    return mean_embedding(embed(batch["prompt"]), prompts.own_tokens(batch))


def mean_embedding(embeddings: Array, mask: Array) -> Array:
    """The mean of the tokens that count, divided by its length.

    Also the instruction embedding that needs no second network: of the prompt's own embedded
    tokens. Length 1, as a sentence encoder's, so that a router, its initial values and its learning
    rate mean the same with either.

    Args:
      embeddings: (b, n, d), any float dtype. mask: (b, n) bool, True where a token counts.

    Returns:
      (b, d) float32, each of length 1, or zero where no token counts.
    """
    # A mean and a sum differ by a factor, which the division by the length cancels.
    total = jnp.sum(jnp.where(mask[..., None], embeddings.astype(jnp.float32), 0.0), axis=1)
    square = jnp.sum(jnp.square(total), axis=-1, keepdims=True)
    return total * jax.lax.rsqrt(jnp.maximum(square, 1e-24))
