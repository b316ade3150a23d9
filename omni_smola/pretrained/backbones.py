"""Any backbone's weights, from what `config.backbone.init` names: ours, or a public checkpoint."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import Sharding

from omni_smola.config_arguments import paths
from omni_smola.errors import UserError
from omni_smola.models.backbones import Backbone
from omni_smola.models.decoder_only import LanguageConfig
from omni_smola.models.pali import PaliConfig
from omni_smola.models.paligemma import PaliGemmaConfig
from omni_smola.models.t5gemma2 import T5Gemma2Config
from omni_smola.pretrained import (
    gemma,
    hub,
    huggingface,
    llama,
    load,
    native,
    paligemma,
    siglip,
    t5,
    t5gemma2,
    t5x,
)
from omni_smola.pretrained.rules import Family

# model_type in config.json -> who reads its sizes.
_READERS = {
    "t5gemma2": t5gemma2,
    "paligemma": paligemma,
    "llama": llama,
    "gemma": gemma,
    "gemma2": gemma,
}
_TOWER = "vision/"
_PROJECTION = "visual_projection/"


def is_public(init: str) -> bool:
    """Whether `init` names a public checkpoint, and not "random", "shipped" or a file of ours."""
    if init in ("random", "shipped", ""):
        return False
    names = parts(init)
    if len(names) > 1 or names[0].startswith("hf://"):
        return True
    path = pathlib.Path(names[0]).expanduser()
    return path.suffix != ".safetensors" or (path.is_file() and not _is_ours(path))


def parts(init: str) -> list[str]:
    """The checkpoints that `init` names: paths or addresses joined by +, see `paths`."""
    return paths(init) or [init]


def folder(init: str) -> pathlib.Path:
    """The local folder or file of a public checkpoint, downloaded if it is hf://OWNER/REPO.

    Of two, joined by +, the language model's, which also has the tokenizer.

    Raises:
      UserError: see `hub.resolve`.
    """
    return hub.resolve(parts(init)[-1])


def read_config(init: str) -> Backbone:
    """The sizes of a public checkpoint, by its folder's config.json.

    Raises:
      UserError: there is no such folder, or it is of no kind that is known.
    """
    path = folder(init)
    kind = str(huggingface.config(path).get("model_type", ""))
    if kind not in _READERS or len(parts(init)) > 1:
        raise UserError(
            f"backbone.name is auto, but the checkpoint {init} is of the type {kind!r}: sizes are "
            f"read of {', '.join(_READERS)}; name those of any other by --config.backbone.name."
        )
    return _READERS[kind].read_config(path)


def read(
    init: str,
    config: Backbone,
    wanted: Mapping[str, Any],
    place: Mapping[str, Sharding] | None = None,
) -> dict[str, jax.Array]:
    """The parameters of a backbone from a public checkpoint.

    Args:
      init: a folder, a file or hf://OWNER/REPO, see `load.open_checkpoint`; for a PaLI two of them
        joined by +, a SigLIP's and a T5's. What is in no checkpoint (a PaLI's visual projection) is
        left out of the result.
      config: the sizes. wanted, place: see `load.read`.

    Raises:
      UserError: as `load.read`, or one checkpoint in place of two or the other way around.
    """
    if not isinstance(config, PaliConfig):
        if len(parts(init)) > 1:
            raise UserError(
                f"config.backbone.init names two checkpoints, {init}, but this backbone is "
                "published as one: give its folder or hf://OWNER/REPO."
            )
        return load.read(folder(init), _family(config), wanted, place)
    names = parts(init)
    tower = {path: leaf for path, leaf in wanted.items() if path.startswith(_TOWER)}
    rest = {
        path: leaf for path, leaf in wanted.items() if not path.startswith((_TOWER, _PROJECTION))
    }
    if len(names) != (2 if tower else 1):
        raise UserError(
            f"config.backbone.init is {init}, but a PaLI of public parts needs "
            + (
                "the checkpoints of its SigLIP tower and of its T5: join them by + (a plus "
                r"sign inside of a path is \+), as in "
                "hf://google/siglip-so400m-patch14-224+hf://google/flan-t5-base."
                if tower
                else "only the checkpoint of its T5 where it sees through vision experts."
            )
        )
    language = hub.resolve(names[-1])
    family = (t5.t5x_family if _is_t5x(language) else t5.family)(config.language)
    given = load.read(language, family, rest, place)
    if tower:
        plain = siglip.family(config.vision)
        moved = dataclasses.replace(plain, rules=siglip.rules(ours=_TOWER))
        given |= load.read(hub.resolve(names[0]), moved, tower, place)
    return given


def _family(config: Backbone) -> Family:
    if isinstance(config, T5Gemma2Config):
        return t5gemma2.family(config)
    if isinstance(config, PaliGemmaConfig):
        return paligemma.family(config)
    assert isinstance(config, LanguageConfig)
    # Gemma's norms multiply by 1 + scale; that is what tells its layout from Llama's here.
    return (gemma if config.stack.norm_offset else llama).family(config)


def _is_t5x(path: pathlib.Path) -> bool:
    return path.is_dir() and huggingface.find(path) is None and t5x.is_tree(path)


def _is_ours(path: pathlib.Path) -> bool:
    """Our own files name tensors by paths, with slashes; `native.read` tells of a damaged one."""
    names = native.names(path)
    return not names or any("/" in name for name in names)
