"""Vision encoders for MoME: several of them look at one image, each in a view of its own.

An encoder is anything of the shape of `VisionEncoder`. SMALL are ViTs of our own; PUBLIC are towers
whose weights others have published, those of MoME's paper among them (EVA-CLIP, DINOv2 and
Pix2Struct, arXiv 2407.12709), at the resolution of the paper or the publisher. Another one stands
behind an @: `dinov2_small@168` sees 168 x 168 pixels. `pretrained.tower_files` reads either.
"""

import dataclasses
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import nnx

from omni_smola import views
from omni_smola.errors import UserError
from omni_smola.experts.vision_map import VisionMap
from omni_smola.models.layers import Precision
from omni_smola.models.pix2struct import PIX2STRUCT, Pix2Struct, Pix2StructConfig
from omni_smola.models.vit import ViT, ViTConfig
from omni_smola.models.vit_sizes import DINOV2, VIT

Array = jax.Array

SMALL = {
    "semantic": ViTConfig(image_size=96, patch_size=12, width=96, depth=3, mlp=384, heads=3),
    "spatial": ViTConfig(image_size=96, patch_size=12, width=96, depth=3, mlp=384, heads=3),
    "reading": ViTConfig(image_size=96, patch_size=12, width=128, depth=3, mlp=512, heads=4),
}


_LARGEST = 4096  # pixels; 85,000 tokens of DINOv2
PUBLIC: dict[str, ViTConfig | Pix2StructConfig] = {
    **{
        name: VIT[name]
        for name in (
            "clip_l14",
            "clip_l14_336",
            "eva_clip_g14",
            "siglip_so400m14_224",
            "siglip_so400m14_384",
        )
    },
    # MoME looks through DINOv2 at 32 x 32 patches.
    **{name: dataclasses.replace(size, image_size=448) for name, size in DINOV2.items()},
    **PIX2STRUCT,
}


@runtime_checkable
class VisionEncoder(Protocol):
    """Makes a map of an image; the map may have another size for every example.

    Attributes:
      name: of the encoder and of its view: it reads the batch's fields of that name.
      width: channels of its tokens.
      view: how it sees the image; hand {name: view} to the pipeline.
    """

    name: str
    width: int
    view: views.View

    def __call__(self, batch: Mapping[str, Array]) -> VisionMap:
        """A batch with the view's fields -> tokens (b, n, width); sizes 0 without an image."""
        ...


class ViTEncoder(nnx.Module):
    """A ViT as a vision encoder: all its patch tokens, and its class token where it has one.

    The parameters are those of the ViT, under `vit`, as plain `nnx.Param`s: frozen wherever only
    experts are trained.
    """

    def __init__(
        self,
        name: str,
        config: ViTConfig,
        *,
        precision: Precision,
        view: views.Square | None = None,
        remat: bool = False,
        unroll: int | bool = 1,
        rngs: nnx.Rngs,
    ):
        self.name = name
        self.width = config.width
        self.view = view or views.Square(config.image_size)
        self.vit = ViT(config, precision=precision, remat=remat, unroll=unroll, rngs=rngs)

    def __call__(self, batch: Mapping[str, Array]) -> VisionMap:
        """Reads image:NAME (b, s, s, 3) uint8 and image_mask (b,) bool."""
        pixels = self.vit.normalize(batch[views.key("image", self.name)])
        tokens, cls = self.vit.features(pixels)
        rows = jnp.where(batch["image_mask"], self.vit.config.side, 0).astype(jnp.int32)
        return VisionMap(tokens=tokens, sizes=jnp.stack([rows, rows], axis=-1), cls=cls)


class Pix2StructEncoder(nnx.Module):
    """Pix2Struct's encoder as a vision encoder; its parameters are under `vit`, as ViTEncoder's."""

    def __init__(
        self,
        name: str,
        config: Pix2StructConfig,
        *,
        precision: Precision,
        view: views.Patches | None = None,
        remat: bool = False,
        unroll: int | bool = 1,
        rngs: nnx.Rngs,
    ):
        self.name = name
        self.width = config.width
        self.view = view or views.Patches(config.patch_size)
        self.vit = Pix2Struct(config, precision=precision, remat=remat, unroll=unroll, rngs=rngs)

    def __call__(self, batch: Mapping[str, Array]) -> VisionMap:
        """Reads patches:NAME (b, n, p * p * 3) float32, sizes:NAME (b, 2) int32 and image_mask."""
        sizes = batch[views.key("sizes", self.name)]
        sizes = jnp.where(batch["image_mask"][:, None], sizes, 0).astype(jnp.int32)
        tokens = self.vit(batch[views.key("patches", self.name)], sizes)
        return VisionMap(tokens=tokens, sizes=sizes, cls=None)


def split(name: str) -> tuple[str, int | None]:
    """NAME or NAME@PIXELS -> the encoder's own name, and the resolution that is asked for.

    Raises:
      UserError: what follows the @ is no whole number.
    """
    base, at, pixels = name.partition("@")
    if at and not (pixels.isascii() and pixels.isdigit()):
        raise UserError(
            f"The vision encoder {name!r} has no resolution behind its @: write NAME@PIXELS, such "
            f"as {base}@224, or {base} alone for its own."
        )
    return base, int(pixels) if at else None


def config_of(name: str) -> ViTConfig | Pix2StructConfig:
    """The sizes of the encoder called `name`, one of SMALL or PUBLIC, at its resolution.

    Args:
      name: NAME, or NAME@PIXELS for a published ViT whose positions are to be resampled.

    Raises:
      UserError: there is none of that name, or it cannot have that resolution.
    """
    base, pixels = split(name)
    if base not in PUBLIC and base not in SMALL:
        raise UserError(
            f"There is no vision encoder {base!r}: choose one of {', '.join([*SMALL, *PUBLIC])}, "
            "joined by + (--config.vision.encoders=..., or vision=... after the colon of "
            "configs/mome.py)."
        )
    config = PUBLIC.get(base) or SMALL[base]
    if pixels is None:
        return config
    if base not in PUBLIC or isinstance(config, Pix2StructConfig):
        raise UserError(
            f"The vision encoder {name!r} cannot have another resolution: only those of published "
            f"ViTs are resampled. Name it {base} in --config.vision.encoders."
        )
    if not pixels or pixels % config.patch_size or pixels > _LARGEST:
        near = max(1, round(pixels / config.patch_size)) * config.patch_size
        raise UserError(
            f"The vision encoder {name!r} cuts images into patches of {config.patch_size} pixels, "
            f"which do not tile {pixels}: choose a multiple of {config.patch_size} up to "
            f"{_LARGEST}, such as {base}@{min(near, config.image_size)}."
        )
    return dataclasses.replace(config, image_size=pixels)


def view(name: str) -> views.View:
    """How the encoder called `name` sees the image: a square, or patches.

    Published ViTs by the bicubic filter of their own preprocessing. Raises as `config_of`.
    """
    config = config_of(name)
    if isinstance(config, Pix2StructConfig):
        return views.Patches(config.patch_size)
    return views.Square(config.image_size, *(("bicubic",) if split(name)[0] in PUBLIC else ()))


def vision_encoder(
    name: str,
    *,
    precision: Precision,
    remat: bool = False,
    unroll: int | bool = 1,
    rngs: nnx.Rngs,
) -> ViTEncoder | Pix2StructEncoder:
    """The encoder called `name`, with fresh weights; raises as `config_of`."""
    config = config_of(name)
    make = Pix2StructEncoder if isinstance(config, Pix2StructConfig) else ViTEncoder
    how = {"precision": precision, "remat": remat, "unroll": unroll, "rngs": rngs}
    return make(name, config, view=view(name), **how)
