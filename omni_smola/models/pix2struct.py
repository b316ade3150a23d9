"""The vision encoder of Pix2Struct (arXiv 2210.03347): images of every shape, as patches.

Pre-RMSNorm, no biases but the patches', attention without scaling, gated GELU. A patch's place is
the sum of an embedding of its row and one of its column, both counted from 1, as 0 is padding.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from omni_smola.errors import UserError
from omni_smola.models import layers
from omni_smola.models.layers import Precision
from omni_smola.models.vit import GELU
from omni_smola.token_kinds import TokenKind

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Pix2StructConfig:
    """Sizes of the encoder; `patch_size` in pixels, `positions` the rows and columns it knows."""

    patch_size: int
    width: int
    depth: int
    mlp: int
    heads: int
    d_head: int = 64
    positions: int = 4096
    epsilon: float = 1e-6


PIX2STRUCT = {
    "pix2struct_base": Pix2StructConfig(16, width=768, depth=12, mlp=2048, heads=12),
    "pix2struct_large": Pix2StructConfig(16, width=1536, depth=18, mlp=3968, heads=24),
}


class Pix2StructBlock(nnx.Module):
    """Self-attention and feed-forward, each after a norm and added to the stream."""

    def __init__(self, config: Pix2StructConfig, *, precision: Precision, rngs: nnx.Rngs):
        width, inner = config.width, config.heads * config.d_head
        norm = partial(layers.RMSNorm, width, precision=precision, epsilon=config.epsilon)
        common = dict(precision=precision, rngs=rngs)
        self.heads = config.heads
        self.norm_1, self.norm_2 = norm(), norm()
        self.qkv = layers.Projection(width, dict.fromkeys("qkv", inner), **common)
        self.out = layers.Projection(inner, {"o": width}, **common)
        self.mlp = layers.FeedForward(width, config.mlp, activation=GELU, gated=True, **common)

    def __call__(self, x: Array, kinds: Array, bias: Array) -> Array:
        """x: (b, n, width), bias (b, 1, 1, n) -> (b, n, width)."""
        qkv = self.qkv(self.norm_1(x), kinds)
        query, key, value = (layers.split_heads(qkv[name], self.heads) for name in "qkv")
        x = x + self.out(layers.attend(query, key, value, bias), kinds)["o"]
        return x + self.mlp(self.norm_2(x), kinds)


class Pix2Struct(nnx.Module):
    """Patches of `views.Patches` to tokens."""

    def __init__(
        self,
        config: Pix2StructConfig,
        *,
        precision: Precision,
        remat: bool = False,
        unroll: int | bool = 1,
        rngs: nnx.Rngs,
    ):
        self.config = config
        self.precision = precision
        self.remat = remat
        self.unroll = unroll
        self.patch = layers.Projection(
            3 * config.patch_size**2,
            {"patch": config.width},
            use_bias=True,
            precision=precision,
            rngs=rngs,
        )

        def table() -> nnx.Param:
            shape = (config.positions, config.width)
            value = jax.random.normal(rngs.params(), shape, precision.param_dtype)
            return nnx.Param(value * config.width**-0.5)

        self.rows, self.columns = table(), table()
        self.encoder = layers.Stack(
            lambda rngs: Pix2StructBlock(config, precision=precision, rngs=rngs),
            config.depth,
            rngs=rngs,
        )
        self.norm = layers.RMSNorm(config.width, precision=precision, epsilon=config.epsilon)

    def __call__(self, patches: Array, sizes: Array) -> Array:
        """Tokens of a batch of images.

        Args:
          patches: (b, n, patch_size * patch_size * 3) float, row-major, standardised, padding last.
          sizes: (b, 2) int32, rows and columns of patches; 0 of both is no image.

        Returns:
          (b, n, width) in the precision's dtype; what stands at padding has no meaning.

        Raises:
          UserError: more patches than there are positions.
        """
        count = patches.shape[1]
        if count >= self.config.positions:
            raise UserError(
                f"Pix2Struct got {count} patches, but knows rows and columns 1 to "
                f"{self.config.positions - 1}: set the view's max_patches to that or less."
            )
        place = jnp.arange(count)
        seen = place < jnp.prod(sizes, axis=-1)[:, None]
        columns = jnp.maximum(sizes[:, 1:], 1)
        row = jnp.where(seen, place // columns + 1, 0)
        column = jnp.where(seen, place % columns + 1, 0)
        kinds = jnp.where(seen, TokenKind.VISUAL, TokenKind.PADDING).astype(jnp.int32)
        dtype = self.precision.dtype
        x = self.patch(patches.astype(dtype), kinds)["patch"]
        x = x + jnp.take(self.rows[...], row, axis=0).astype(dtype)
        x = x + jnp.take(self.columns[...], column, axis=0).astype(dtype)
        bias = layers.mask_bias(seen)
        x, _ = self.encoder.scan(
            lambda block, x, _: (block(x, kinds, bias), None),
            x,
            remat=self.remat,
            unroll=self.unroll,
        )
        return self.norm(x)
