"""What the families of vision towers share: rules by pieces, and the sizes in their config.json."""

import pathlib
from collections.abc import Iterable, Iterator, Mapping
from os import PathLike
from typing import Any

import numpy as np

from omni_smola import json_object
from omni_smola.errors import UserError
from omni_smola.pretrained import huggingface
from omni_smola.pretrained.rules import Fit, Rule, Transform, patch_kernel, transpose
from omni_smola.pretrained.sentences import fitted

Tensor = tuple[str, str, Transform | None, Fit | None]
# Of the fields of config.json that say it, what `ViTConfig.activation` says.
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "silu": "silu",
}
SIZES = {
    "hidden_size": "width",
    "num_hidden_layers": "depth",
    "num_attention_heads": "heads",
    "image_size": "image_size",
    "patch_size": "patch_size",
}


def linear(theirs: str, ours: str, name: str) -> Iterator[Tensor]:
    """A linear map: module of theirs, projection of ours and the output's name there."""
    yield f"{theirs}.weight", f"{ours}/kernel/{name}", transpose, None
    yield f"{theirs}.bias", f"{ours}/bias/{name}", None, None


def convolution(theirs: str) -> Iterator[Tensor]:
    """The convolution that cuts patches."""
    yield f"{theirs}.weight", "patch/kernel/patch", patch_kernel, None
    yield f"{theirs}.bias", "patch/bias/patch", None, None


def norm(theirs: str, ours: str) -> Iterator[Tensor]:
    """A LayerNorm."""
    yield f"{theirs}.weight", f"{ours}/scale", None, None
    yield f"{theirs}.bias", f"{ours}/bias", None, None


def clip_blocks(theirs: str = "encoder.layers.{}") -> Iterator[Tensor]:
    """The blocks of CLIP, and of SigLIP, which took their names from it."""
    for name in "qkv":
        yield from linear(f"{theirs}.self_attn.{name}_proj", "encoder/layers/qkv", name)
    yield from linear(f"{theirs}.self_attn.out_proj", "encoder/layers/out", "o")
    yield from clip_rest(theirs)


def clip_rest(theirs: str = "encoder.layers.{}") -> Iterator[Tensor]:
    """The blocks of CLIP without their attention."""
    yield from linear(f"{theirs}.mlp.fc1", "encoder/layers/mlp/wi", "wi_0")
    yield from linear(f"{theirs}.mlp.fc2", "encoder/layers/mlp/wo", "wo")
    yield from norm(f"{theirs}.layer_norm1", "encoder/layers/norm_1")
    yield from norm(f"{theirs}.layer_norm2", "encoder/layers/norm_2")


def flat(x: np.ndarray) -> np.ndarray:
    """A token of any shape, such as (1, 1, width), to (width,)."""
    return x.reshape(-1)


def class_position(x: np.ndarray) -> np.ndarray:
    """Positions (1 + n, width) or (1, 1 + n, width) -> (width,), the class token's."""
    return x.reshape(-1, x.shape[-1])[0]


def patch_positions(x: np.ndarray) -> np.ndarray:
    """Positions (1 + n, width) or (1, 1 + n, width) -> (n, width), the patches'."""
    return x.reshape(-1, x.shape[-1])[1:]


def rules(tensors: Iterable[Tensor], prefixes: tuple[str, ...], ours: str = "") -> tuple[Rule, ...]:
    """Rules for tensors under any of several prefixes.

    Args:
      tensors: (name, path, transform, fit).
      prefixes: what stands before their names, tried in this order.
      ours: what stands before our paths, such as "vision/" in a Pali.
    """
    return tuple(
        Rule(
            f"{prefixes[0]}{name}",
            f"{ours}{path}",
            transform,
            others=tuple(f"{prefix}{name}" for prefix in prefixes[1:]),
            fit=fit,
        )
        for name, path, transform, fit in tensors
    )


def is_size(name: str, value: Any) -> bool:
    """Whether a field of config.json is a size that a model can have.

    Layers, which are counted one by one, are at most 10,000; all else is at most ten million.
    """
    return type(value) is int and 1 <= value <= (10_000 if name.endswith("_layers") else 10**7)


def skipped(theirs: str, depth: int, skip: int) -> tuple[str, ...]:
    """Regular expressions for the tensors of the last `skip` of `depth` layers.

    Args:
      theirs: regular expression for a layer's name, with {} for its index.
    """
    return tuple(theirs.format(layer) + r"\..*" for layer in range(depth - skip, depth))


class Fields:
    """The part of a folder's config.json that describes a vision tower.

    Args:
      folder: of a Hugging Face model.
      family: its name in messages.
      parts: model_type -> where the tower is described, "" for the top of the file.
      absent: fields that such files leave out, and what they mean then.

    Raises:
      UserError: no such folder or config.json, or another architecture.
    """

    def __init__(
        self,
        folder: str | PathLike,
        family: str,
        parts: Mapping[str, str],
        absent: Mapping[str, Any],
    ):
        self.folder = pathlib.Path(folder).expanduser()
        self.family = family
        top = huggingface.config(self.folder)
        model_type = top.get("model_type")
        if not isinstance(model_type, str) or model_type not in parts:
            raise UserError(
                f"The folder {self.folder} holds a model of type {model_type!r}, but a {family} "
                f"is one of {', '.join(parts)}: choose the folder of one."
            )
        part = parts[model_type]
        # Old files of CLIP hold the same twice, of which the _dict is what counts.
        found = (top.get(f"{part}_dict") or top.get(part) or {}) if part else top
        self.fields = {**absent, **(found if isinstance(found, dict) else {})}
        self._problems: list[str] = []

    def sizes(self, names: Mapping[str, str]) -> dict[str, int]:
        """Field of theirs -> ours, as ours -> number."""
        for name in names:
            value = self.fields.get(name)
            if not is_size(name, value):
                self._problems.append(f"{name} is {self.fields.get(name, 'missing')!r}")
                self.fields[name] = None  # what is made of it before `check` does without
        return {ours: self.fields.get(name) for name, ours in names.items()}

    def number(self, name: str) -> float:
        """A field that is any number above zero."""
        value = self.fields.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e30:
            self._problems.append(f"{name} is {self.fields.get(name, 'missing')!r}")
            return 1.0
        return float(value)

    def one_of(self, name: str, known: Mapping[Any, Any]) -> Any:
        """What we call the value of a field; `known` is theirs -> ours."""
        value = self.fields.get(name)
        if not isinstance(value, str | int | None) or value not in known:
            names = " or ".join(repr(each) for each in known)
            self._problems.append(f"{name} is {value!r}, but only {names} is implemented")
            return None
        return known[value]

    def problem(self, sentence: str) -> None:
        """Adds to what `check` tells."""
        self._problems.append(sentence)

    def divides(self, part: str, whole: str) -> None:
        """One size is to be a divisor of another."""
        if not self._problems and self.fields[whole] % self.fields[part]:
            self._problems.append(f"{whole} is no multiple of {part}")

    def check(self) -> None:
        """Raises UserError with all that was wrong."""
        if self._problems:
            start = f"{self.folder}/config.json does not describe a {self.family} that we compute ("
            end = "): copy the folder again, or choose another model."
            raise UserError(fitted(start, self._problems, end))

    def pixels(self, default: Mapping[str, Any]) -> dict[str, Any]:
        """Mean and deviation of pixels, from preprocessor_config.json where there is one."""
        file = self.folder / "preprocessor_config.json"
        found = json_object.read_if_there(file)
        values = {"mean": found.get("image_mean"), "std": found.get("image_std")}
        for name, value in values.items():
            if value is None:
                continue
            listed = isinstance(value, list) and len(value) == 3
            if not listed or not all(isinstance(each, int | float) for each in value):
                raise UserError(
                    f"image_{name} is {value!r} in {file}, but it is a list of three numbers: "
                    "copy the file again."
                )
            values[name] = value[0] if len(set(value)) == 1 else tuple(value)
        return dict(default) | {name: value for name, value in values.items() if value is not None}
