"""A backbone by its config, and the experts that a config attaches to it."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
from flax import nnx

from omni_smola.errors import UserError
from omni_smola.experts import attach, mole
from omni_smola.experts.adapter import Adapter, AdapterConfig
from omni_smola.experts.adt import AdtConfig
from omni_smola.experts.lora import Lora, LoraConfig
from omni_smola.experts.mole import Mole, MoleConfig
from omni_smola.experts.move import MoveConfig
from omni_smola.experts.param import ExpertParam
from omni_smola.experts.smola import SmolaConfig, SmolaExperts
from omni_smola.models import backbones, vision_encoders
from omni_smola.models.backbones import Backbone
from omni_smola.models.layers import Precision
from omni_smola.models.mome import Seeing
from omni_smola.models.sentence_encoder import BertConfig
from omni_smola.models.t5 import Options
from omni_smola.views import View

Array = jax.Array
METHODS = ("smola", "lora", "adapter", "none", "full")


def sizes(config: ml_collections.ConfigDict) -> Backbone:
    """The named sizes of `config.backbone`, at its resolution.

    Raises:
      UserError: an unknown name, or a resolution that the patches do not tile.
    """
    return backbones.at_resolution(backbones.named(config.name), config.name, config.resolution)


def backbone(
    config: ml_collections.ConfigDict,
    rngs: nnx.Rngs,
    vision: ml_collections.ConfigDict | None = None,
    sentence: BertConfig | None = None,
    known: Backbone | None = None,
) -> nnx.Module:
    """The backbone of `config.backbone` with fresh weights.

    It is bare, but for MoME's mixture of vision experts where `vision` (`config.vision`) names
    encoders, and for the encoder of instructions that `sentence` describes. `known` are its sizes,
    where they do not follow from its name.
    """
    precision = Precision(jnp.dtype(config.dtype), jnp.dtype(config.param_dtype))
    options = Options(precision, config.remat, config.unroll)
    move = move_config(vision) if vision is not None and vision.encoders else None
    return backbones.make(
        known or sizes(config), move=move, options=options, sentence=sentence, rngs=rngs
    )


def move_config(config: ml_collections.ConfigDict) -> MoveConfig:
    """`config.vision` as the sizes of the mixture; raises UserError for what cannot be."""
    adt = AdtConfig(
        side=config.side,
        layers=config.layers,
        heads=config.heads,
        points=config.points,
        d_ff=config.d_ff,
        dropout=config.dropout,
    )
    return MoveConfig(
        tuple(config.encoders.split("+")),
        transform=config.transform,
        aggregate=config.aggregate,
        cls=config.cls,
        plain=tuple(filter(None, config.plain.split("+"))),
        adt=adt,
    )


def attach_experts(
    model: nnx.Module,
    config: ml_collections.ConfigDict,
    rngs: nnx.Rngs,
    where: str = "encoder/.*",
) -> list[str]:
    """Attaches the experts of `config.experts`; returns the paths that got some.

    `where` is the pattern of those that get some where the config has none.

    Raises:
      UserError: an unknown method, a bad size, or a pattern that matches nothing.
    """
    if config.method in ("none", "full"):
        return []
    where = config.where or where
    if config.method == "smola":
        make = partial(SmolaExperts, smola_config(config))
        return attach.attach_to_linears(model, where, make, rngs=rngs, routed=True)
    if config.method == "lora":
        make = partial(Lora, LoraConfig(config.rank, config.alpha))
        return attach.attach_to_linears(model, where, make, rngs=rngs, routed=False)
    if config.method == "adapter":
        make = partial(Adapter, AdapterConfig(config.rank))
        return attach.attach_to_feed_forwards(model, where, make, rngs=rngs)
    raise UserError(f"experts.method is {config.method!r}: choose one of {', '.join(METHODS)}.")


def attach_language_experts(
    model: nnx.Module, config: ml_collections.ConfigDict, rngs: nnx.Rngs
) -> list[str]:
    """Puts MoLE parallel to feed-forwards, as `config.language` says; returns their paths.

    Raises:
      UserError: a bad size, or a pattern that matches nothing.
    """
    if not config.experts:
        return []
    make = partial(Mole, mole_config(config), instruction_width=model.instruction_width)
    return attach.attach_to_feed_forwards(model, config.where or LANGUAGE_WHERE, make, rngs=rngs)


def mole_config(config: ml_collections.ConfigDict) -> MoleConfig:
    """`config.language` as the sizes of MoLE; raises UserError for what cannot be."""
    return MoleConfig(
        experts=config.experts,
        rank=config.rank,
        route=config.route,
        gumbel=config.gumbel,
        temperature=config.temperature,
    )


# Beside every feed-forward of the language model, encoder and decoder alike.
LANGUAGE_WHERE = "(encoder|decoder)/.*"


def smola_config(config: ml_collections.ConfigDict) -> SmolaConfig:
    """`config.experts` as the sizes of Omni-SMoLA."""
    return SmolaConfig(
        visual=config.visual,
        text=config.text,
        multimodal=config.multimodal,
        rank=config.rank,
        router_rank=config.router_rank or None,
        share_router=config.share_router,
        scale_init=config.scale_init,
    )


def views(config: ml_collections.ConfigDict) -> dict[str, View]:
    """How each encoder of `config.vision` sees the image; none for the backbone's own tower."""
    names = filter(None, config.encoders.split("+"))
    return {name: vision_encoders.view(name) for name in names}


def check_mome(vision: ml_collections.ConfigDict, language: ml_collections.ConfigDict) -> None:
    """Raises UserError for vision or language experts that cannot be, before a model is made."""
    views(vision)
    if language.experts < 0 or language.balance < 0:
        raise UserError(
            f"config.language has experts={language.experts} and balance={language.balance}, but "
            "both are 0 or more: 0 language experts is none, a balance of 0 is no penalty."
        )
    if vision.encoders:
        move_config(vision)
    if language.experts:
        mole_config(language)
    check_stages(language)


def check_stages(language: ml_collections.ConfigDict) -> None:
    """Raises UserError for a first stage before experts that cannot start from one."""
    if (language.stage_1 or language.stage_1_steps) and language.experts < 2:
        raise UserError(
            f"config.language has experts={language.experts} and a first stage to start from "
            f"(stage_1={language.stage_1!r}, stage_1_steps={language.stage_1_steps}), but only two "
            "or more experts are copies of its adapters: set --config.language.experts=4, or the "
            "first stage to nothing."
        )


def penalty(config: ml_collections.ConfigDict) -> Callable[..., Array] | None:
    """The load-balance penalty of `config.language`, (model, batch) -> (); None without one."""
    if not config.experts or not config.balance:
        return None
    return lambda model, batch: (
        config.balance * mole.balance_penalty(model, model.instruction(batch))
    )


def noisy(vision: ml_collections.ConfigDict, language: ml_collections.ConfigDict) -> bool:
    """Whether training draws noise: dropout in the transformation, or a sampled choice."""
    dropout = bool(vision.encoders) and vision.transform != "average" and vision.dropout > 0
    return dropout or (language.experts > 1 and language.gumbel)


def routing_shares(model: nnx.Module, batch: dict[str, Array]) -> dict[str, Array]:
    """What the routers of vision and language experts do with a batch.

    Returns:
      "vision" -> (b, encoders), shares of the mixture; path of a router -> (layers, b, experts),
      probabilities of each language expert.
    """
    shares = {}
    if mole.routes(model) == {"instance"}:
        probabilities = mole.router_probabilities(model, model.instruction(batch))
        shares = {path: x[None] if x.ndim == 2 else x for path, x in probabilities.items()}
    if isinstance(model, Seeing):
        shares = {"vision": model.vision_shares(batch)} | shares
    return shares


def trainable_filter(config: ml_collections.ConfigDict) -> Any:
    """What `config.experts.method` trains, as an NNX filter."""
    return nnx.Param if config.method == "full" else ExpertParam


def check_experts(config: ml_collections.ConfigDict) -> None:
    """Raises UserError for a method or size that cannot be, before a model is made."""
    if config.method not in METHODS:
        raise UserError(f"experts.method is {config.method!r}: choose one of {', '.join(METHODS)}.")
    {
        "smola": lambda: smola_config(config),
        "lora": lambda: LoraConfig(config.rank, config.alpha),
        "adapter": lambda: AdapterConfig(config.rank),
    }.get(config.method, lambda: None)()
