"""The backbones that a config can name: one table, whatever their kind."""

import dataclasses
from typing import Any

from flax import nnx

from omni_smola.errors import UserError
from omni_smola.experts.move import MoveConfig
from omni_smola.models.decoder_only import LanguageConfig
from omni_smola.models.llama import LLAMA
from omni_smola.models.mome import Mome, MomeConfig, MomeDecoder
from omni_smola.models.pali import Pali, PaliConfig
from omni_smola.models.paligemma import PALIGEMMA, PaliGemma, PaliGemmaConfig
from omni_smola.models.shapes import PALI
from omni_smola.models.t5gemma2 import NAMED as T5GEMMA2
from omni_smola.models.t5gemma2 import T5Gemma2, T5Gemma2Config

Backbone = PaliConfig | T5Gemma2Config | PaliGemmaConfig | LanguageConfig
_TABLES: tuple[dict[str, Any], ...] = (PALI, T5GEMMA2, PALIGEMMA, LLAMA)
_MODELS = {PaliConfig: Pali, T5Gemma2Config: T5Gemma2, PaliGemmaConfig: PaliGemma}
# The side of the image that a model is handed which sees through vision experts only.
_UNSEEN = 1


def named(name: str) -> Backbone:
    """The sizes called `name`; raises UserError with the known names."""
    for table in _TABLES:
        if name in table:
            return table[name]
    raise UserError(
        f"There is no backbone called {name!r}: choose one of {', '.join(names())} "
        "(--config.backbone.name=..., or backbone=... after the config's colon), or auto for the "
        "sizes that the config.json of --config.backbone.init's folder describes."
    )


def names() -> list[str]:
    """All names that `named` knows."""
    return [name for table in _TABLES for name in table]


def at_resolution(config: Backbone, name: str, pixels: int) -> Backbone:
    """The backbone with images of `pixels` x `pixels`; 0 leaves its own.

    Raises:
      UserError: the patches do not tile the image, or it is not seen by this backbone.
    """
    if not pixels:
        return config
    if isinstance(config, LanguageConfig):
        raise UserError(
            f"backbone.resolution is {pixels}, but {name} sees images through vision experts only, "
            "which have resolutions of their own: set --config.backbone.resolution=0."
        )
    vision = config.vision
    if pixels < 1 or pixels % vision.patch_size:
        raise UserError(
            f"backbone.resolution is {pixels}, but {name} cuts images into patches of "
            f"{vision.patch_size} pixels: choose a positive multiple of that, or 0 for its own "
            f"{vision.image_size}."
        )
    return dataclasses.replace(config, vision=dataclasses.replace(vision, image_size=pixels))


def make(
    config: Backbone, *, move: MoveConfig | None = None, rngs: nnx.Rngs, **how: Any
) -> nnx.Module:
    """The model of these sizes with fresh weights.

    Args:
      move: MoME's mixture of vision experts, in place of a tower of its own.
      how: `options` and `sentence`, as the models take them.

    Raises:
      UserError: vision experts on a backbone that they are not made for, or none for one that sees
        nothing without.
    """
    if move is None and isinstance(config, LanguageConfig):
        raise UserError(
            "This backbone is a language model and sees no image by itself: give it vision "
            "experts, as configs/mome.py does (--config.vision.encoders=...)."
        )
    if move is None:
        return _MODELS[type(config)](config, rngs=rngs, **how)
    if isinstance(config, PaliConfig):
        return Mome(MomeConfig(config, move), rngs=rngs, **how)
    if isinstance(config, LanguageConfig):
        return MomeDecoder(config, move, rngs=rngs, **how)
    raise UserError(
        f"MoME's vision experts cannot stand for the tower of a {_MODELS[type(config)].__name__}, "
        "whose language model was trained with its own: choose a PaLI (tiny), Vicuna or Llama, or "
        "set --config.vision.encoders= to nothing."
    )


def image_size(config: Backbone) -> int:
    """Side of the image that the model's own tower reads, in pixels."""
    return _UNSEEN if isinstance(config, LanguageConfig) else config.vision.image_size


def vocabulary(config: Backbone) -> int:
    """Token ids that can be embedded."""
    if isinstance(config, PaliConfig | PaliGemmaConfig):
        return config.language.vocabulary
    return config.vocabulary


def frame(config: Backbone, name: str = "") -> tuple[str, dict[str, int]]:
    """How prompts of a backbone are framed, see `data.framing.load`.

    Args:
      config: its sizes. name: what `config.backbone.name` calls it.

    Returns:
      A key of `data.frames.FRAMES`, and the ids of special tokens that the model itself knows.
    """
    if isinstance(config, PaliConfig):
        return "t5", {}
    if isinstance(config, T5Gemma2Config):
        marks = {"<start_of_image>": config.boi, "<end_of_image>": config.eoi}
        return "t5gemma2", {"bos": config.bos} | marks
    language = config.language if isinstance(config, PaliGemmaConfig) else config
    ids = {} if language.bos is None else {"bos": language.bos}
    if isinstance(config, PaliGemmaConfig):
        return "paligemma", ids
    return "vicuna" if name.startswith("vicuna") else "plain", ids


def expert_paths(config: Backbone) -> str:
    """Pattern of the linears that get experts by default: those of the multimodal encoder.

    In a decoder-only model prompt and image are read by the decoder itself.
    """
    decoder_only = isinstance(config, PaliGemmaConfig | LanguageConfig)
    return "decoder/.*" if decoder_only else "encoder/.*"
