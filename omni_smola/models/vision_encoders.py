"""Vision encoders for MoME: several of them look at one image, each in a view of its own.

An encoder is anything of the shape of `VisionEncoder`. SMALL are ViTs of our own; `save_tower` and
`load_tower` carry one from the PaLI that trained it to the model that uses it. PUBLIC are towers
whose weights others have published, those of MoME's paper among them (EVA-CLIP, DINOv2 and
Pix2Struct, arXiv 2407.12709); `read_tower` reads either kind.
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping
from os import PathLike
from types import ModuleType
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import nnx
from safetensors import SafetensorError, safe_open

from omni_smola import views
from omni_smola.errors import UserError
from omni_smola.experts.vision_map import VisionMap
from omni_smola.models.layers import Precision
from omni_smola.models.pix2struct import PIX2STRUCT, Pix2Struct, Pix2StructConfig
from omni_smola.models.vit import ViT, ViTConfig
from omni_smola.models.vit_sizes import DINOV2, VIT
from omni_smola.pretrained import clip, dinov2, eva_clip, load, native, pix2struct, siglip

Array = jax.Array

SMALL = {
    "semantic": ViTConfig(image_size=96, patch_size=12, width=96, depth=3, mlp=384, heads=3),
    "spatial": ViTConfig(image_size=96, patch_size=12, width=96, depth=3, mlp=384, heads=3),
    "reading": ViTConfig(image_size=96, patch_size=12, width=128, depth=3, mlp=512, heads=4),
}


@dataclasses.dataclass(frozen=True)
class Public:
    """A published tower: its sizes, at the resolution we look at, and who reads its weights."""

    config: ViTConfig | Pix2StructConfig
    family: ModuleType

    @property
    def view(self) -> views.View:
        """A square, by the bicubic filter of all these ViTs' own preprocessing, or patches."""
        if isinstance(self.config, Pix2StructConfig):
            return views.Patches(self.config.patch_size)
        return views.Square(self.config.image_size, "bicubic")


PUBLIC = {
    "clip_l14": Public(VIT["clip_l14"], clip),
    "clip_l14_336": Public(VIT["clip_l14_336"], clip),
    "eva_clip_g14": Public(VIT["eva_clip_g14"], eva_clip),
    "siglip_so400m14_224": Public(VIT["siglip_so400m14_224"], siglip),
    "siglip_so400m14_384": Public(VIT["siglip_so400m14_384"], siglip),
    # MoME looks through DINOv2 at 32 x 32 patches.
    **{
        name: Public(dataclasses.replace(size, image_size=448), dinov2)
        for name, size in DINOV2.items()
    },
    **{name: Public(size, pix2struct) for name, size in PIX2STRUCT.items()},
}
# How a tower is used, not what it is: its weights fit either way.
_FREE = ("image_size", "skip", "final_norm")


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


def view(name: str) -> views.View:
    """How the encoder called `name` sees the image; raises UserError as `vision_encoder`."""
    if name in PUBLIC:
        return PUBLIC[name].view
    return views.Square(_small(name).image_size)


def vision_encoder(
    name: str,
    *,
    precision: Precision,
    remat: bool = False,
    unroll: int | bool = 1,
    rngs: nnx.Rngs,
) -> ViTEncoder | Pix2StructEncoder:
    """The encoder called `name`, one of SMALL or PUBLIC, with fresh weights.

    Raises:
      UserError: there is none of that name.
    """
    config = PUBLIC[name].config if name in PUBLIC else _small(name)
    make = Pix2StructEncoder if isinstance(config, Pix2StructConfig) else ViTEncoder
    how = {"precision": precision, "remat": remat, "unroll": unroll, "rngs": rngs}
    return make(name, config, view=view(name), **how)


def _small(name: str) -> ViTConfig:
    if name not in SMALL:
        raise UserError(
            f"There is no vision encoder {name!r}: choose one of {', '.join([*SMALL, *PUBLIC])}, "
            "joined by + (--config.vision.encoders=..., or vision=... after the colon of "
            "configs/mome.py)."
        )
    return SMALL[name]


def read_tower(
    folder: str | PathLike,
    name: str,
    wanted: Mapping[str, Any],
    place: Mapping[str, jax.sharding.Sharding] | None = None,
) -> dict[str, Array]:
    """The weights of the encoder called `name`, as a folder of towers holds them.

    Args:
      folder: with NAME.safetensors of `save_tower`, else, for an encoder of PUBLIC, with the folder
        NAME as Hugging Face keeps it, config.json and safetensors; or "shipped".
      name: of the encoder.
      wanted: path in the encoder's `vit` -> array or ShapeDtypeStruct.
      place: path -> sharding, as for `load.read`.

    Returns:
      Path -> array of the wanted shape and dtype.

    Raises:
      UserError: there is neither, or not that tower; or tensors are missing, unexpected or of
        another shape, all of them in one sentence.
    """
    own, theirs = native.tower(os.fspath(folder), name), pathlib.Path(folder).expanduser() / name
    if name in PUBLIC and not os.path.isfile(own):
        if not theirs.is_dir():
            raise UserError(
                f"The folder {theirs.parent} has neither {name}/, a Hugging Face folder with the "
                f"weights of the vision encoder {name!r}, nor {name}.safetensors of our own: put "
                "one there, or set --config.vision.init to the folder that has it, or to random."
            )
        public = PUBLIC[name]
        _check_public(theirs, name, public)
        return load.read(theirs, public.family.family(public.config), wanted, place)
    config = PUBLIC[name].config if name in PUBLIC else _small(name)
    _check_sizes(own, name, config)
    read = native.read(own, wanted, what=native.TOWER)
    return {path: jax.device_put(x, (place or {}).get(path)) for path, x in read.items()}


def _check_public(folder: pathlib.Path, name: str, public: Public) -> None:
    """Raises UserError if a Hugging Face folder holds another tower than it should."""
    found = dataclasses.asdict(public.family.read_config(folder))
    problems = [
        f"{field} {found[field]} instead of {value}"
        for field, value in dataclasses.asdict(public.config).items()
        if field not in _FREE and found[field] != value
    ]
    if problems:
        raise UserError(
            f"The folder {folder} does not hold the vision encoder {name!r}: by its configuration "
            f"it has {'; '.join(problems)}. Put the published model of that name there."
        )


def save_tower(
    path: str, tower: ViT | Pix2Struct, metadata: Mapping[str, str], dtype: Any = jnp.bfloat16
) -> None:
    """Writes a tower alone, such as `pali.vision` of a Pali without experts.

    Args:
      path: of the .safetensors file. metadata: text about how the weights were made.
      tower: its sizes go into the metadata as "vision".
      dtype: of the stored tensors.
    """
    sizes = json.dumps(dataclasses.asdict(tower.config))
    native.save(path, tower, {**metadata, "vision": sizes}, dtype)


def load_tower(path: str, encoder: ViTEncoder | Pix2StructEncoder) -> None:
    """Fills an encoder from a file of `save_tower`, in the dtypes that its parameters have.

    Raises:
      UserError: no such file, one that is not complete, or a ViT of other sizes.
    """
    _check_sizes(path, encoder.name, encoder.vit.config)
    native.load(path, encoder.vit, native.TOWER)


def _check_sizes(path: str, name: str, config: ViTConfig | Pix2StructConfig) -> None:
    """Raises UserError if a file of `save_tower` says that it has other sizes."""
    wanted = json.loads(json.dumps(dataclasses.asdict(config)))
    problems = [
        f"{size} {value} instead of {wanted.get(size)}"
        for size, value in _recorded_sizes(path).items()
        if value != wanted.get(size)
    ]
    if problems:
        raise UserError(
            f"The vision tower {path} does not fit the vision encoder {name!r}: it has "
            f"{'; '.join(problems)}. Choose the file that was made for this encoder."
        )


def _recorded_sizes(path: str) -> dict[str, Any]:
    """The ViTConfig that a file says it has: no tensor's shape tells the number of heads.

    Empty for a file that says nothing, or cannot be read, of which `native.load` tells why.
    """
    try:
        with safe_open(path, framework="flax") as file:
            return json.loads((file.metadata() or {}).get("vision", "{}"))
    except (SafetensorError, OSError, json.JSONDecodeError):
        return {}
