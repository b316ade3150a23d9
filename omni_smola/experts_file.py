"""Experts alone in a file: their parameters by path, and a card that says what they belong to.

A file of experts is a .safetensors file. Its metadata hold the card as JSON under `omni_smola`, and
the same JSON is written beside it, to read. With the card, experts are attached to a bare backbone
again, and checked against it. Nothing in such a file is ever run or unpickled.
"""

import contextlib
import itertools
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
from flax import nnx
from safetensors import SafetensorError, safe_open
from safetensors.flax import save_file

import omni_smola
from omni_smola.errors import UserError, first_line
from omni_smola.experts.methods import Attached, attach_again, attached
from omni_smola.experts.values import expert_parameters, put_parameters
from omni_smola.models.origin import origin
from omni_smola.pretrained.native import mismatches
from omni_smola.training.state import backbone_weights, fingerprint

FORMAT = 1
Card = dict[str, Any]
_KEY = "omni_smola"  # of the metadata
_OURS = ("format", "omni_smola", "backbone", "experts", "parameters")


def save_experts(
    path: str | os.PathLike[str], model: nnx.Module, *, card: Mapping[str, Any] | None = None
) -> Card:
    """Writes the experts of a model to a file, and their card beside it.

    Both files appear when they are complete, and replace those that were there.

    Args:
      path: of the file, ending in .safetensors; the card has the same name, ending in .json.
      model: with experts.
      card: what else people should know, as values that JSON has: `scores`, `license`, `notes` and
        whatever you like.

    Returns:
      The card: `format` of the file (1); `omni_smola`, the version; `backbone`: name, weights,
      dtype, resolution and frame that `load_backbone` was given ("" or 0 where it was not used),
      and its fingerprint; `experts`: for each kind its method, config and paths; the number of
      `parameters`; and what was given.

    Raises:
      UserError: another ending, a model without experts, or a card with a name of ours or with
        values that JSON does not have.
    """
    path = pathlib.Path(path).expanduser()
    if path.suffix != ".safetensors":
        raise UserError(
            f"The file of experts is to be called {path.name}, but it is a .safetensors file: end "
            "its name so."
        )
    tensors = expert_parameters(model)
    if not tensors:
        raise UserError(
            f"This {type(model).__name__} has no experts to save: attach some first, by "
            "attach_experts or attach_to_linears."
        )
    own: Card = {
        "format": FORMAT,
        "omni_smola": omni_smola.__version__,
        "backbone": _backbone(model),
        "experts": _described(model),
        "parameters": sum(leaf.size for leaf in tensors.values()),
    }
    text = _text(own, card or {})
    _write(path, tensors, text)
    return json.loads(text)


def load_experts(path: str | os.PathLike[str], model: nnx.Module, *, check: bool = True) -> Card:
    """Reads experts from a file into a model, in place.

    A model without experts gets those that the card describes. One that has experts must have the
    same ones: the same paths, shapes and dtypes. Values go to where the model has its own, which
    may be a sharding over several devices.

    Args:
      path: of a file that `save_experts` has written.
      model: the backbone that the experts were trained on.
      check: whether the backbone's fingerprint must be that of the card. Without, experts
        are loaded onto a backbone that differs a little, such as one of another dtype or
        resolution.

    Returns:
      The card, see `save_experts`.

    Raises:
      UserError: the file is none of experts or is damaged, or belongs to another backbone or to
        other experts. The model's values are then as they were.
    """
    path = pathlib.Path(path).expanduser()
    try:
        with safe_open(path, framework="flax") as file:
            card = _checked(path, (file.metadata() or {}).get(_KEY))
            if check:
                check_backbone(path, card["backbone"], model)
            found = {name: file.get_tensor(name) for name in file.keys()}
    except FileNotFoundError as error:
        raise UserError(f"There is no file of experts {path}: give an existing one.") from error
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"The file {path} is not a complete safetensors file ({first_line(error)}): copy it "
            "again."
        ) from error
    fresh = not expert_parameters(model)
    if fresh:
        _attach(path, card, model, found)
    _check_parameters(path, expert_parameters(model), found)
    if not fresh:
        _check_configs(path, _described(model), card["experts"])
    put_parameters(model, found)
    return card


def read_card(path: str | os.PathLike[str]) -> Card:
    """The card of a file of experts, see `save_experts`; raises UserError if it has none."""
    path = pathlib.Path(path).expanduser()
    try:
        with safe_open(path, framework="numpy") as file:
            return _checked(path, (file.metadata() or {}).get(_KEY))
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"There is no complete file of experts {path} ({first_line(error)}): copy it again, or "
            "give another."
        ) from error


def _write(path: pathlib.Path, tensors: dict[str, jax.Array], text: str) -> None:
    """Both files, under other names until they are complete."""
    target = (path, path.with_suffix(".json"))
    unfinished = [file.with_name(f"{file.name}.tmp") for file in target]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, unfinished[0], metadata={_KEY: text})
        unfinished[0].chmod(0o644)  # safetensors lets nobody else read what it writes
        unfinished[1].write_text(text + "\n", encoding="utf-8")
        for file, name in zip(unfinished, target, strict=True):
            file.replace(name)
    except (OSError, SafetensorError) as error:
        for file in unfinished:
            with contextlib.suppress(OSError):
                file.unlink(missing_ok=True)
        raise UserError(
            f"The experts cannot be written to {path} ({first_line(error)}): make room there, or "
            "choose another folder."
        ) from error


def _described(model: nnx.Module) -> list[Card]:
    return [
        {"method": one.method, "config": one.config, "paths": list(one.paths)}
        for one in attached(model)
    ]


def _backbone(model: nnx.Module) -> dict[str, Any]:
    known = origin(model)
    return {
        "name": known.name if known else "",
        "weights": known.weights if known else "",
        "dtype": known.dtype if known else "",
        "resolution": known.image_size if known else 0,
        "frame": known.frame if known else "",
        "fingerprint": _fingerprint(model),
    }


def _fingerprint(model: nnx.Module) -> str:
    return fingerprint(backbone_weights(nnx.to_pure_dict(nnx.state(model, nnx.Param))))


def _text(own: Card, given: Mapping[str, Any]) -> str:
    """The card as JSON."""
    taken = sorted(set(_OURS) & set(given))
    if taken:
        raise UserError(
            f"The card has {', '.join(taken)}, which save_experts writes itself: give these facts "
            "another name."
        )
    try:
        return json.dumps(own | dict(given), indent=2, allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"The card has a value that JSON does not have ({error}): give texts, finite numbers, "
            "lists and dicts, and NumPy's numbers as float(x)."
        ) from error


def _checked(path: pathlib.Path, text: str | None) -> Card:
    """The card of a file, whose form is known."""
    if text is None:
        raise UserError(
            f"The file {path} has no card of omni_smola, so it is none of experts: give one that "
            "save_experts has written."
        )
    try:
        card = json.loads(text)
        version = card["format"]
        known = isinstance(version, int) and isinstance(card["backbone"]["fingerprint"], str)
        for one in card["experts"]:
            known = known and isinstance(one["config"], dict) and isinstance(one["method"], str)
            known = known and isinstance(one["paths"], list)
            known = known and all(isinstance(path, str) for path in one["paths"])
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"The card of {path} is damaged ({error}): copy it again.") from error
    if not known or version < 1:
        raise UserError(f"The card of {path} is damaged: copy it again.")
    if version > FORMAT:
        raise UserError(
            f"The file {path} has format {version}, but this version of omni_smola reads up to "
            f"{FORMAT}: install omni_smola {card.get('omni_smola', '')} or newer."
        )
    return card


def check_backbone(path: pathlib.Path, trained_on: Mapping[str, Any], model: nnx.Module) -> None:
    """Raises UserError unless a model's backbone is the one that experts were trained on.

    Args:
      path: of the experts. trained_on: their card's `backbone`, or a part of it.
    """
    here = _backbone(model)
    frames = here["frame"], trained_on.get("frame")
    if here["fingerprint"] == trained_on["fingerprint"] and (
        not all(frames) or frames[0] == frames[1]
    ):
        return
    what = ", ".join(
        f"{name} {trained_on[name]!r} instead of {here[name]!r}"
        for name in here
        if name in trained_on and trained_on[name] != here[name]
    )
    raise UserError(
        f"The experts in {path} were trained on another backbone ({what}): load that one by "
        "load_backbone, with the same dtype, resolution and frame, or pass check=False."
    )


def _attach(
    path: pathlib.Path, card: Card, model: nnx.Module, found: Mapping[str, jax.Array]
) -> None:
    """Attaches what the card describes, if the file fits it; else the model stays bare."""
    experts = [
        Attached(one["method"], one["config"], tuple(one["paths"])) for one in card["experts"]
    ]
    if not experts:
        raise UserError(
            f"The card of {path} describes no experts to attach, and the model has none: attach "
            "them by the code that made them, then load."
        )
    # Tried on an abstract copy, as a mistake found after attaching would leave half a model.
    graphdef, state = nnx.split(model)
    try:
        trial = nnx.eval_shape(lambda: _with_experts(nnx.merge(graphdef, state), experts))
    except UserError as error:
        raise UserError(f"The experts in {path} do not fit this model: {error}") from error
    _check_parameters(path, expert_parameters(trial), found)
    _with_experts(model, experts)


def _with_experts(model: nnx.Module, experts: list[Attached]) -> nnx.Module:
    attach_again(model, experts, rngs=nnx.Rngs(0))
    return model


def _check_configs(path: pathlib.Path, here: list[Card], there: list[Card]) -> None:
    """Raises UserError unless the same numbers mean the same: LoRA's alpha is in no shape."""
    if here == there:
        return
    one, other = next(
        pair for pair in itertools.zip_longest(there, here, fillvalue={}) if pair[0] != pair[1]
    )
    raise UserError(
        f"The experts in {path} are {json.dumps(one)}, but the model has {json.dumps(other)}: load "
        "them into a model without experts, or attach those that the card describes (read_card)."
    )


def _check_parameters(
    path: pathlib.Path, wanted: Mapping[str, Any], found: Mapping[str, Any]
) -> None:
    """Raises UserError unless a file has the parameters of a model's experts.

    Args:
      path: of the experts.
      wanted: path -> what has the shape and dtype of the model's.
      found: the same of the file's.
    """
    problems = mismatches(
        {name: tuple(leaf.shape) for name, leaf in wanted.items()},
        {name: tuple(leaf.shape) for name, leaf in found.items()},
    ) or [
        f"{name} is {found[name].dtype} instead of {leaf.dtype}"
        for name, leaf in wanted.items()
        if found[name].dtype != leaf.dtype
    ]
    if problems:
        more = f" and {len(problems) - 8} more" * (len(problems) > 8)
        raise UserError(
            f"The experts in {path} are not those of this model: {'; '.join(problems[:8])}{more}. "
            "Load them into a model without experts, or attach those that the card describes "
            "(read_card)."
        )
