"""Public checkpoints by the rules of their family, read tensor by tensor to where they belong.

Host memory is needed for one tensor, not for the model, see `placement`.
"""

import contextlib
import pathlib
from collections.abc import Mapping
from os import PathLike
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Sharding, SingleDeviceSharding

from omni_smola.errors import UserError
from omni_smola.pretrained import copies, huggingface, names, plan
from omni_smola.pretrained.big_vision import NpzFile
from omni_smola.pretrained.placement import placed
from omni_smola.pretrained.reader import Reader
from omni_smola.pretrained.rules import Family
from omni_smola.pretrained.safetensors_file import SafetensorsFile
from omni_smola.pretrained.t5x import ArrayTree, is_tree
from omni_smola.trees import nest, paths

_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".msgpack", ".h5", ".joblib")


def open_checkpoint(path: str | PathLike) -> Reader:
    """The Reader of a file or folder; nothing but names and shapes is read, nothing unpickled.

    Args:
      path: a .safetensors or .npz file; a folder with model.safetensors or its index; or the folder
        of a T5X or Orbax tree.

    Raises:
      UserError: there is nothing at `path`, it has no weights, only a pickle, or damaged ones.
    """
    path = pathlib.Path(path).expanduser()
    if path.is_file():
        return _open_file(path)
    if not path.is_dir():
        raise UserError(
            f"There is no checkpoint {path}: give a local folder or file by "
            "--config.backbone.init=PATH, or hf://OWNER/REPO."
        )
    found = huggingface.find(path)
    if found is not None:
        return found
    if is_tree(path):
        return ArrayTree(path)
    archives = sorted(path.glob("*.npz"))
    if len(archives) == 1:
        return NpzFile(archives[0])
    pickles = sorted(file.name for file in path.iterdir() if file.suffix in _PICKLES)
    if pickles:
        raise UserError(_refused(path, pickles[0]))
    raise UserError(
        f"The folder {path} has no weights: give one with {huggingface.WEIGHTS}, with "
        f"{huggingface.INDEX} and its files, with one .npz, or the folder of a T5X or Orbax tree."
    )


def read(
    path: str | PathLike,
    family: Family,
    wanted: Mapping[str, Any],
    place: Mapping[str, Sharding] | None = None,
) -> dict[str, jax.Array]:
    """The parameters of a bare backbone from a public checkpoint.

    Args:
      path: see `open_checkpoint`.
      family: whose tensor is which of ours.
      wanted: path in the bare backbone -> array or ShapeDtypeStruct; its shape and dtype are those
        of the result. What the family has rules for and is not wanted is left unread.
      place: path -> sharding; else that of the leaf in `wanted`, else the first device.

    Returns:
      Path -> array of the wanted shape and dtype, in its sharding.

    Raises:
      UserError: as `open_checkpoint`; config.json names another architecture; tensors are missing,
        unexpected or of another shape or type, all of them in one sentence; or two that are one
        parameter differ.
    """
    place = place or {}
    first = SingleDeviceSharding(jax.local_devices()[0])
    with contextlib.closing(open_checkpoint(path)) as opened:
        model_type = _check_architecture(opened, family)
        reader = names.align(opened, plan.names(family, wanted), family.root)
        parts_of = plan.make_plan(reader, family, wanted, model_type)
        copies.check(reader, parts_of)
        return {
            ours: placed(
                reader,
                parts,
                tuple(wanted[ours].shape),
                np.dtype(wanted[ours].dtype),
                place.get(ours) or getattr(wanted[ours], "sharding", None) or first,
            )
            for ours, parts in parts_of.items()
        }


def fill(model: nnx.Module, path: str | PathLike, family: Family) -> None:
    """Fills a bare backbone in place, in the dtypes that its parameters have; raises as `read`."""
    state = nnx.state(model, nnx.Param)
    loaded = read(path, family, paths(nnx.to_pure_dict(state)))
    nnx.replace_by_pure_dict(state, nest(loaded))
    nnx.update(model, state)


def _open_file(path: pathlib.Path) -> Reader:
    if path.suffix == ".safetensors":
        return SafetensorsFile(path)
    if path.suffix == ".npz":
        return NpzFile(path)
    if path.name == huggingface.INDEX:
        return huggingface.Sharded(path)
    if path.suffix in _PICKLES:
        raise UserError(_refused(path.parent, path.name))
    raise UserError(
        f"The file {path} is no checkpoint that is read: give a .safetensors or .npz file, or a "
        "folder."
    )


def _refused(folder: pathlib.Path, name: str) -> str:
    return (
        f"The weights {folder / name} are not opened: a pickle can run any code when it is read, "
        "and weights are read from safetensors, .npz, T5X's and Orbax's trees only. Choose the "
        "model's safetensors files, or, where you trust its author, convert it once by "
        "transformers' AutoModel.from_pretrained(FOLDER).save_pretrained(FOLDER), which writes "
        "safetensors."
    )


def _check_architecture(reader: Reader, family: Family) -> str:
    """What config.json calls the model, "" where there is none; raises UserError if another."""
    folder = reader.path if reader.path.is_dir() else reader.path.parent
    if not (folder / "config.json").is_file():
        return ""
    found = str(huggingface.config(folder).get("model_type", ""))
    if family.model_types and found not in family.model_types:
        raise UserError(
            f"The checkpoint {reader.path} is a {found or 'model of unnamed type'!r} by its "
            f"config.json, but this backbone is a {family.name} "
            f"(model_type {' or '.join(map(repr, family.model_types))}): choose a checkpoint of "
            "that family, or the backbone of this one by --config.backbone.name."
        )
    return found
