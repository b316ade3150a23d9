"""Omni-SMoLA and MoME in JAX: mixtures of low-rank experts for multimodal models.

What is listed here is public, and imported when it is first used: importing the package imports
neither JAX nor TensorFlow.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omni_smola.data.in_memory import make_batch as make_batch
    from omni_smola.data.tokenizer import load_tokenizer as load_tokenizer
    from omni_smola.errors import UserError as UserError
    from omni_smola.evaluation.decode import Decoding as Decoding
    from omni_smola.evaluation.generate import generate as generate
    from omni_smola.evaluation.generate import generate_ids as generate_ids
    from omni_smola.experts.adapter import Adapter as Adapter
    from omni_smola.experts.adapter import AdapterConfig as AdapterConfig
    from omni_smola.experts.attach import attach_to_feed_forwards as attach_to_feed_forwards
    from omni_smola.experts.attach import attach_to_linears as attach_to_linears
    from omni_smola.experts.lora import Lora as Lora
    from omni_smola.experts.lora import LoraConfig as LoraConfig
    from omni_smola.experts.methods import attach_experts as attach_experts
    from omni_smola.experts.mole import Mole as Mole
    from omni_smola.experts.mole import MoleConfig as MoleConfig
    from omni_smola.experts.param import ExpertParam as ExpertParam
    from omni_smola.experts.smola import SmolaConfig as SmolaConfig
    from omni_smola.experts.smola import SmolaExperts as SmolaExperts
    from omni_smola.experts_file import load_experts as load_experts
    from omni_smola.experts_file import read_card as read_card
    from omni_smola.experts_file import save_experts as save_experts
    from omni_smola.metrics import METRICS as METRICS
    from omni_smola.pretrained.model import load_backbone as load_backbone
    from omni_smola.token_kinds import TokenKind as TokenKind
    from omni_smola.training.run_experts import load_run_experts as load_run_experts
    from omni_smola.training.step import target_loss as target_loss

__version__ = "0.1.0"

_MODULES = {
    "data.in_memory": ("make_batch",),
    "data.tokenizer": ("load_tokenizer",),
    "errors": ("UserError",),
    "evaluation.decode": ("Decoding",),
    "evaluation.generate": ("generate", "generate_ids"),
    "experts.adapter": ("Adapter", "AdapterConfig"),
    "experts.attach": ("attach_to_feed_forwards", "attach_to_linears"),
    "experts.lora": ("Lora", "LoraConfig"),
    "experts.methods": ("attach_experts",),
    "experts.mole": ("Mole", "MoleConfig"),
    "experts.param": ("ExpertParam",),
    "experts.smola": ("SmolaConfig", "SmolaExperts"),
    "experts_file": ("load_experts", "read_card", "save_experts"),
    "metrics": ("METRICS",),
    "pretrained.model": ("load_backbone",),
    "token_kinds": ("TokenKind",),
    "training.run_experts": ("load_run_experts",),
    "training.step": ("target_loss",),
}
_PLACES = {name: module for module, names in _MODULES.items() for name in names}

__all__ = sorted(_PLACES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """The public name, imported now."""
    if name not in _PLACES:
        raise AttributeError(f"module 'omni_smola' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"omni_smola.{_PLACES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})
