"""Vision Transformer: all patch tokens before any pooling, as PaLI and MoME read them.

Pre-norm blocks. The fields of `ViTConfig` make them those of

  SigLIP, SigLIP 2 (arXiv 2303.15343, 2502.14786; fixed resolution)   the defaults
  CLIP (2103.00020)      class token, a norm before the first block, no bias of the patches
  DINOv2 (2304.07193)    class token, registers (2309.16588), layer scale, SwiGLU in the giant
  EVA-CLIP (2303.15389)  class token, plain blocks
  ViT-22B (2302.05442)   attention and MLP in parallel, queries and keys normed, no bias in q, k, v

and `models.vit_sizes` names the published sizes of each.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from omni_smola.models import layers
from omni_smola.models.layers import Precision
from omni_smola.token_kinds import TokenKind

Array = jax.Array
# One object each, so that two models of one config are one static argument to jit.
GELU = partial(jax.nn.gelu, approximate=True)


def quick_gelu(x: Array) -> Array:
    """CLIP's approximation of GELU: x sigmoid(1.702 x)."""
    return x * jax.nn.sigmoid(1.702 * x)


ACTIVATIONS = {
    "gelu_tanh": GELU,
    "gelu": partial(jax.nn.gelu, approximate=False),
    "quick_gelu": quick_gelu,
    "silu": jax.nn.silu,
}
NORMS = {"layer": layers.LayerNorm, "rms": layers.RMSNorm}


@dataclasses.dataclass(frozen=True)
class ViTConfig:
    """Sizes and flavour of a ViT.

    Attributes:
      image_size, patch_size: in pixels; what is left of an image right and below of whole patches
        is not seen.
      width, depth, mlp, heads: of the published model.
      parallel, qk_norm, qkv_bias: the blocks of ViT-22B.
      activation: one of ACTIVATIONS. gated: act(x wi_0) * (x wi_1) in the feed-forward.
      norm: one of NORMS. epsilon: of all norms.
      patch_bias: whether the projection of patches has one.
      class_token: a token before the patches, with a position of its own.
      registers: tokens without a position between class token and patches.
      input_norm: a norm before the first block. layer_scale: learned factors on each branch.
      skip: the last blocks that are left out, where features are read before them (LLaVA and MoME
        read CLIP's penultimate layer, skip 1); they are not even built.
      final_norm: whether the features pass the final norm.
      mean, std: of pixels in [0, 1], of all channels or of each, by which `normalize` goes.
    """

    image_size: int
    patch_size: int
    width: int
    depth: int
    mlp: int
    heads: int
    parallel: bool = False
    qk_norm: bool = False
    qkv_bias: bool = True
    activation: str = "gelu_tanh"
    gated: bool = False
    norm: str = "layer"
    epsilon: float = 1e-6
    patch_bias: bool = True
    class_token: bool = False
    registers: int = 0
    input_norm: bool = False
    layer_scale: bool = False
    skip: int = 0
    final_norm: bool = True
    mean: float | tuple[float, ...] = 0.5
    std: float | tuple[float, ...] = 0.5

    @property
    def side(self) -> int:
        """Rows, and columns, of patches."""
        return self.image_size // self.patch_size

    @property
    def tokens(self) -> int:
        """Patch tokens of one image."""
        return self.side**2


class ViTBlock(nnx.Module):
    """One encoder block: attention and MLP, one after the other or in parallel."""

    def __init__(self, config: ViTConfig, *, precision: Precision, rngs: nnx.Rngs):
        width = config.width
        self.config = config
        self.norm_1 = _norm(config, precision)
        self.norm_2 = None if config.parallel else _norm(config, precision)
        self.qkv = layers.Projection(
            width,
            dict.fromkeys("qkv", width),
            use_bias=config.qkv_bias,
            precision=precision,
            rngs=rngs,
        )
        self.out = layers.Projection(
            width, {"o": width}, use_bias=True, precision=precision, rngs=rngs
        )
        self.q_norm = _head_norm(config, precision) if config.qk_norm else None
        self.k_norm = _head_norm(config, precision) if config.qk_norm else None
        self.mlp = layers.FeedForward(
            width,
            config.mlp,
            activation=ACTIVATIONS[config.activation],
            gated=config.gated,
            use_bias=True,
            precision=precision,
            rngs=rngs,
        )
        ones = partial(jnp.ones, (width,), precision.param_dtype)
        self.scale_1 = nnx.Param(ones()) if config.layer_scale else None
        self.scale_2 = nnx.Param(ones()) if config.layer_scale else None

    def attention(self, x: Array, kinds: Array) -> Array:
        qkv = self.qkv(x, kinds)
        query, key, value = (layers.split_heads(qkv[n], self.config.heads) for n in "qkv")
        if self.q_norm is not None:
            query, key = self.q_norm(query), self.k_norm(key)
        y = layers.attend(query, key, value, None, scale=query.shape[-1] ** -0.5)
        return _scaled(self.out(y, kinds)["o"], self.scale_1)

    def __call__(self, x: Array, kinds: Array) -> Array:
        normed = self.norm_1(x)
        if self.config.parallel:
            y = self.mlp(normed, kinds)
            return x + self.attention(normed, kinds) + _scaled(y, self.scale_2)
        x = x + self.attention(normed, kinds)
        return x + _scaled(self.mlp(self.norm_2(x), kinds), self.scale_2)


class ViT(nnx.Module):
    """Pixels to patch tokens."""

    def __init__(
        self,
        config: ViTConfig,
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
            use_bias=config.patch_bias,
            precision=precision,
            rngs=rngs,
        )

        def drawn(*shape: int) -> nnx.Param:
            value = jax.random.normal(rngs.params(), shape, precision.param_dtype)
            return nnx.Param(value * config.width**-0.5)

        self.position = drawn(config.tokens, config.width)
        self.class_token = drawn(config.width) if config.class_token else None
        self.class_position = drawn(config.width) if config.class_token else None
        self.registers = drawn(config.registers, config.width) if config.registers else None
        self.input_norm = _norm(config, precision) if config.input_norm else None
        self.encoder = layers.Stack(
            lambda rngs: ViTBlock(config, precision=precision, rngs=rngs),
            config.depth - config.skip,
            rngs=rngs,
        )
        self.norm = _norm(config, precision) if config.final_norm else None

    def __call__(self, image: Array) -> Array:
        """image: (b, h, w, 3) float as `normalize` makes it -> (b, tokens, width), of patches."""
        return self.features(image)[0]

    def features(self, image: Array) -> tuple[Array, Array | None]:
        """Patch tokens and class token.

        Args:
          image: (b, image_size, image_size, 3) float, as `normalize` makes it.

        Returns:
          (b, tokens, width) and, of a model that has a class token, (b, width), else None; both in
          the precision's dtype.
        """
        x = patches(image.astype(self.precision.dtype), self.config.patch_size)
        kinds = jnp.full(x.shape[:2], TokenKind.VISUAL, jnp.int32)
        x = self.patch(x, kinds)["patch"] + self.position[...].astype(self.precision.dtype)
        before = self._before(x.shape[0])
        first = sum(part.shape[1] for part in before)
        if before:
            x = jnp.concatenate([*before, x], axis=1)
            kinds = jnp.full(x.shape[:2], TokenKind.VISUAL, jnp.int32)
        if self.input_norm is not None:
            x = self.input_norm(x)
        x, _ = self.encoder.scan(
            lambda block, x, _: (block(x, kinds), None), x, remat=self.remat, unroll=self.unroll
        )
        if self.norm is not None:
            x = self.norm(x)
        return x[:, first:], x[:, 0] if self.class_token is not None else None

    def _before(self, batch: int) -> list[Array]:
        """What stands before the patches, (batch, n, width) each."""
        dtype = self.precision.dtype
        rows = []
        if self.class_token is not None:
            token, position = (
                p[...].astype(dtype) for p in (self.class_token, self.class_position)
            )
            rows.append((token + position)[None])
        if self.registers is not None:
            rows.append(self.registers[...].astype(dtype))
        return [jnp.broadcast_to(row, (batch, *row.shape)) for row in rows]

    def normalize(self, image: Array) -> Array:
        """uint8 pixels (b, h, w, 3) -> float32, by the config's mean and deviation."""
        return normalize(image, self.config.mean, self.config.std)


def patches(image: Array, size: int) -> Array:
    """(b, h, w, c) -> (b, (h // size) * (w // size), size * size * c), rows first.

    Pixels right and below of whole patches are left out, as by a convolution without padding.
    """
    b, h, w, c = image.shape
    rows, columns = h // size, w // size
    grid = image[:, : rows * size, : columns * size]
    grid = grid.reshape(b, rows, size, columns, size, c)
    return grid.transpose(0, 1, 3, 2, 4, 5).reshape(b, rows * columns, size * size * c)


def normalize(
    image: Array, mean: float | tuple[float, ...] = 0.5, std: float | tuple[float, ...] = 0.5
) -> Array:
    """uint8 pixels -> float32, (pixel / 255 - mean) / std; by default in [-1, 1]."""
    shift, spread = np.asarray(mean) / np.asarray(std), 255 * np.asarray(std)
    return image.astype(jnp.float32) / spread.astype(np.float32) - shift.astype(np.float32)


def _norm(config: ViTConfig, precision: Precision) -> nnx.Module:
    return NORMS[config.norm](config.width, precision=precision, epsilon=config.epsilon)


def _head_norm(config: ViTConfig, precision: Precision) -> nnx.Module:
    width = config.width // config.heads
    if config.norm == "rms":
        return layers.RMSNorm(width, precision=precision, epsilon=config.epsilon)
    return layers.LayerNorm(width, precision=precision, use_bias=False, epsilon=config.epsilon)


def _scaled(y: Array, scale: nnx.Param | None) -> Array:
    return y if scale is None else y * scale[...].astype(y.dtype)
