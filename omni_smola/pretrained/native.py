"""Backbones of our own as safetensors files: path -> tensor, and how the file was made."""

import json
import os
from collections.abc import Mapping
from importlib import resources
from typing import Any

import jax
from flax import nnx
from safetensors import SafetensorError, safe_open
from safetensors.flax import save_file

from omni_smola.errors import UserError
from omni_smola.pretrained.sentences import fitted, some
from omni_smola.trees import nest, paths

SHIPPED = {"tiny": "tiny.safetensors"}
SHIPPED_TOWERS = ("semantic", "spatial", "reading")


def shipped(name: str) -> str:
    """The file of the named backbone inside this package; raises UserError if there is none."""
    if name not in SHIPPED:
        raise UserError(
            f"No weights of the backbone {name!r} are shipped, only of {', '.join(SHIPPED)}: give "
            "a folder or file by --config.backbone.init=PATH, have it downloaded by "
            "--config.backbone.init=hf://OWNER/REPO, or draw weights by "
            "--config.backbone.init=random."
        )
    return str(resources.files("omni_smola.pretrained") / SHIPPED[name])


def tower(folder: str, name: str) -> str:
    """The file of a vision encoder: in this package for the folder "shipped".

    Raises:
      UserError: no encoder of that name is shipped.
    """
    if folder != "shipped":
        return os.path.join(os.path.expanduser(folder), f"{name}.safetensors")
    if name not in SHIPPED_TOWERS:
        raise UserError(
            f"No weights of the vision encoder {name!r} are shipped, only of "
            f"{', '.join(SHIPPED_TOWERS)}: give the folder of {name}.safetensors by "
            "--config.vision.init=FOLDER, or draw weights by --config.vision.init=random."
        )
    return str(resources.files("omni_smola.pretrained") / f"tower_{name}.safetensors")


def names(path: str | os.PathLike) -> list[str]:
    """Names of the tensors in a .safetensors file; [] where it is no complete one."""
    try:
        with safe_open(path, framework="flax") as file:
            return list(file.keys())
    except (SafetensorError, OSError):
        return []


def save(path: str, model: nnx.Module, metadata: Mapping[str, str], dtype: Any) -> None:
    """Writes all parameters of a bare backbone; the file appears when it is complete.

    Args:
      path: of the .safetensors file. metadata: text about how the weights were made.
      dtype: of the stored tensors, such as jnp.bfloat16.
    """
    state = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    tensors = {name: leaf.astype(dtype) for name, leaf in paths(state).items()}
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    save_file(tensors, path + ".tmp", metadata=dict(metadata))
    os.chmod(path + ".tmp", 0o644)  # safetensors lets nobody else read what it writes
    os.replace(path + ".tmp", path)


BACKBONE = ("backbone", "--config.backbone.init=PATH")
TOWER = ("vision tower", "--config.vision.init=FOLDER")


def read(
    path: str,
    wanted: Mapping[str, Any],
    unread: tuple[str, ...] = (),
    what: tuple[str, str] = BACKBONE,
) -> dict[str, jax.Array]:
    """The tensors of a backbone file.

    Args:
      path: of the .safetensors file.
      wanted: path in the bare backbone -> array or ShapeDtypeStruct that says shape and dtype.
      unread: what names may begin with that are in the file but not wanted.
      what: the kind of file and the flag that names it, for mistakes.

    Raises:
      UserError: no such file, not a safetensors file or one cut short, or tensors that are missing,
        unexpected or of another shape (all of them in one sentence).
    """
    try:
        with safe_open(path, framework="flax") as file:
            names = {name for name in file.keys() if not name.startswith(unread)}
            _check_names(
                path, what, wanted, {n: tuple(file.get_slice(n).get_shape()) for n in names}
            )
            return {n: file.get_tensor(n).astype(leaf.dtype) for n, leaf in wanted.items()}
    except FileNotFoundError as error:
        raise UserError(
            f"There is no {what[0]} file {path}: give an existing .safetensors file by "
            f"{what[1]}, or set it to random{', or shipped' * (what is BACKBONE)}."
        ) from error
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise UserError(
            f"The {what[0]} file {path} is not a complete safetensors file ({error}): copy or make "
            f"it again, or choose another by {what[1]}."
        ) from error


def mismatches(
    wanted: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]
) -> list[str]:
    """What is wrong with the tensors of a file, name -> shape: missing, unexpected, misshapen."""
    problems = [f"missing {name}" for name in sorted(wanted.keys() - found.keys())]
    problems += [f"unexpected {name}" for name in sorted(found.keys() - wanted.keys())]
    return problems + [
        f"{name} is {found[name]} instead of {wanted[name]}"
        for name in sorted(wanted.keys() & found.keys())
        if found[name] != wanted[name]
    ]


def load(path: str, model: nnx.Module, what: tuple[str, str] = BACKBONE) -> None:
    """Fills a bare backbone from a file, in the dtypes that its parameters have; see `read`."""
    state = nnx.state(model, nnx.Param)
    loaded = read(path, paths(nnx.to_pure_dict(state)), what=what)
    nnx.replace_by_pure_dict(state, nest(loaded))
    nnx.update(model, state)


def _check_names(
    path: str,
    what: tuple[str, str],
    wanted: Mapping[str, jax.Array],
    found: Mapping[str, tuple[int, ...]],
) -> None:
    problems = mismatches({name: tuple(leaf.shape) for name, leaf in wanted.items()}, found)
    if problems:
        start = f"The {what[0]} file {path} does not fit the {what[0]} of this config: "
        own = f". Its own names are such as {some(sorted(found))}"
        end = f"{own}. Choose the sizes it was made with, or another file by {what[1]}."
        raise UserError(fitted(start, problems, end))
