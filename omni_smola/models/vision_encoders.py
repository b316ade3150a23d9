"""Vision encoders for MoME: several of them look at one image, each in a view of its own.

An encoder is anything of the shape of `VisionEncoder`. Those here are ViTs of our own; `save_tower`
and `load_tower` carry one from the PaLI that trained it to the model that uses it.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import nnx
from safetensors import SafetensorError, safe_open

from omni_smola import views
from omni_smola.errors import UserError
from omni_smola.experts.vision_map import VisionMap
from omni_smola.models import vit
from omni_smola.models.layers import Precision
from omni_smola.models.vit import ViT, ViTConfig
from omni_smola.pretrained import native

Array = jax.Array

SMALL = {
    "semantic": ViTConfig(image_size=96, patch_size=12, width=96, depth=3, mlp=384, heads=3),
    "spatial": ViTConfig(image_size=96, patch_size=12, width=96, depth=3, mlp=384, heads=3),
    "reading": ViTConfig(image_size=96, patch_size=8, width=128, depth=3, mlp=512, heads=4),
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
    """A ViT as a vision encoder: all its patch tokens, no CLS.

    The parameters are those of the ViT, under `vit`, as plain `nnx.Param`s: frozen wherever only
    experts are trained.
    """

    def __init__(
        self,
        name: str,
        config: ViTConfig,
        *,
        precision: Precision,
        remat: bool = False,
        unroll: int | bool = 1,
        rngs: nnx.Rngs,
    ):
        self.name = name
        self.width = config.width
        self.view = views.Square(config.image_size)
        self.vit = ViT(config, precision=precision, remat=remat, unroll=unroll, rngs=rngs)

    def __call__(self, batch: Mapping[str, Array]) -> VisionMap:
        """Reads image:NAME (b, s, s, 3) uint8 and image_mask (b,) bool."""
        tokens = self.vit(vit.normalize(batch[views.key("image", self.name)]))
        side = self.vit.config.image_size // self.vit.config.patch_size
        rows = jnp.where(batch["image_mask"], side, 0).astype(jnp.int32)
        return VisionMap(tokens=tokens, sizes=jnp.stack([rows, rows], axis=-1), cls=None)


def view(name: str) -> views.View:
    """How the encoder called `name` sees the image; raises UserError as `vision_encoder`."""
    return views.Square(_small(name).image_size)


def vision_encoder(
    name: str,
    *,
    precision: Precision,
    remat: bool = False,
    unroll: int | bool = 1,
    rngs: nnx.Rngs,
) -> ViTEncoder:
    """The encoder called `name`, one of SMALL, with fresh weights.

    Raises:
      UserError: there is none of that name.
    """
    return ViTEncoder(
        name, _small(name), precision=precision, remat=remat, unroll=unroll, rngs=rngs
    )


def _small(name: str) -> ViTConfig:
    if name not in SMALL:
        raise UserError(
            f"There is no vision encoder {name!r}: choose one of {', '.join(SMALL)}, joined by + "
            "(--config.vision.encoders=..., or vision=... after the colon of configs/mome.py)."
        )
    return SMALL[name]


def save_tower(
    path: str, tower: ViT, metadata: Mapping[str, str], dtype: Any = jnp.bfloat16
) -> None:
    """Writes a ViT alone, such as `pali.vision` of a Pali without experts.

    Args:
      path: of the .safetensors file. metadata: text about how the weights were made.
      tower: the ViT; its sizes go into the metadata as "vision".
      dtype: of the stored tensors.
    """
    sizes = json.dumps(dataclasses.asdict(tower.config))
    native.save(path, tower, {**metadata, "vision": sizes}, dtype)


def load_tower(path: str, encoder: ViTEncoder) -> None:
    """Fills an encoder from a file of `save_tower`, in the dtypes that its parameters have.

    Raises:
      UserError: no such file, one that is not complete, or a ViT of other sizes.
    """
    wanted = dataclasses.asdict(encoder.vit.config)
    problems = [
        f"{size} {value} instead of {wanted.get(size)}"
        for size, value in _recorded_sizes(path).items()
        if value != wanted.get(size)
    ]
    if problems:
        raise UserError(
            f"The vision tower {path} does not fit the vision encoder {encoder.name!r}: it has "
            f"{'; '.join(problems)}. Choose the file that was made for this encoder."
        )
    native.load(path, encoder.vit, native.TOWER)


def _recorded_sizes(path: str) -> dict[str, Any]:
    """The ViTConfig that a file says it has: no tensor's shape tells the number of heads.

    Empty for a file that says nothing, or cannot be read, of which `native.load` tells why.
    """
    try:
        with safe_open(path, framework="flax") as file:
            return json.loads((file.metadata() or {}).get("vision", "{}"))
    except (SafetensorError, OSError, json.JSONDecodeError):
        return {}
