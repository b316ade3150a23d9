"""The weights of vision encoders: files of our own, and folders as others publish them.

`save_tower` and `read_tower` carry a ViT from the PaLI that trained it to the MoME that uses it.
"""

import dataclasses
import json
import os
import pathlib
import sys
from collections.abc import Mapping
from os import PathLike
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
from safetensors import SafetensorError, safe_open

from omni_smola.errors import UserError
from omni_smola.models.pix2struct import Pix2Struct, Pix2StructConfig
from omni_smola.models.vision_encoders import PUBLIC, config_of, split
from omni_smola.models.vit import ViT, ViTConfig
from omni_smola.pretrained import clip, dinov2, eva_clip, load, native, pix2struct, siglip
from omni_smola.pretrained.sentences import fitted

# How the names of a family's encoders begin -> who reads their weights.
FAMILIES: dict[str, ModuleType] = {
    "clip_": clip,
    "eva_clip_": eva_clip,
    "siglip_": siglip,
    "dinov2_": dinov2,
    "pix2struct_": pix2struct,
}
# How a tower is used, not what it is: its weights fit either way.
_FREE = ("image_size", "skip", "final_norm")


def read_tower(
    folder: str | PathLike,
    name: str,
    wanted: Mapping[str, Any],
    place: Mapping[str, jax.sharding.Sharding] | None = None,
) -> dict[str, jax.Array]:
    """The weights of the encoder called `name`, as a folder of towers holds them.

    Args:
      folder: with NAME.safetensors of `save_tower`, else, for an encoder of PUBLIC, with the folder
        NAME as Hugging Face keeps it, config.json and safetensors; or "shipped". Of an encoder
        that this package ships, its own file where the folder has none.
      name: of the encoder, NAME or NAME@PIXELS.
      wanted: path in the encoder's `vit` -> array or ShapeDtypeStruct.
      place: path -> sharding, as for `load.read`.

    Returns:
      Path -> array of the wanted shape and dtype.

    Raises:
      UserError: there is neither, or not that tower; or tensors are missing, unexpected or of
        another shape, all of them in one sentence.
    """
    base, pixels = split(name)
    own, theirs = native.tower(os.fspath(folder), base), pathlib.Path(folder).expanduser() / base
    config = config_of(name)
    if base in PUBLIC and (pixels is not None or not os.path.isfile(own)):
        if not theirs.is_dir():
            raise UserError(
                f"The folder {theirs.parent} has neither {base}/, a Hugging Face folder with the "
                f"weights of the vision encoder {base!r}, nor {base}.safetensors of our own, which "
                "has one resolution: put one there, or set --config.vision.init to the folder "
                "that has it, or to random."
            )
        family = next(module for start, module in FAMILIES.items() if base.startswith(start))
        _check_public(theirs, base, family)
        return load.read(theirs, family.family(config), wanted, place)
    if base in native.SHIPPED_TOWERS and theirs.parent.is_dir() and not os.path.isfile(own):
        if jax.process_index() == 0:
            print(
                f"{theirs.parent} has no {base}.safetensors: the vision encoder {base} starts from "
                "the weights that omni_smola ships.",
                file=sys.stderr,
                flush=True,
            )
        own = native.tower("shipped", base)
    _check_sizes(own, name, config)
    read = native.read(own, wanted, what=native.TOWER)
    return {path: jax.device_put(x, (place or {}).get(path)) for path, x in read.items()}


def _check_public(folder: pathlib.Path, name: str, family: ModuleType) -> None:
    """Raises UserError if a Hugging Face folder holds another tower than it should."""
    found = dataclasses.asdict(family.read_config(folder))
    problems = [
        f"{field} {found[field]} instead of {value}"
        for field, value in dataclasses.asdict(PUBLIC[name]).items()
        if field not in _FREE and found[field] != value
    ]
    if problems:
        start = (
            f"The folder {folder} does not hold the vision encoder {name!r}: by its config.json it "
            "has "
        )
        end = ". Put the published model of that name there."
        raise UserError(fitted(start, problems, end))


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


def _check_sizes(path: str, name: str, config: ViTConfig | Pix2StructConfig) -> None:
    """Raises UserError if a file of `save_tower` says that it has other sizes."""
    wanted = json.loads(json.dumps(dataclasses.asdict(config)))
    problems = [
        f"{size} {value} instead of {wanted.get(size)}"
        for size, value in _recorded_sizes(path).items()
        if value != wanted.get(size)
    ]
    if problems:
        start = f"The vision tower {path} does not fit the vision encoder {name!r}: it has "
        raise UserError(
            fitted(start, problems, ". Choose the file that was made for this encoder.")
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
