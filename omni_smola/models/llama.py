"""Llama 1 and 2 (arXiv 2302.13971, 2307.09288) and models of their shape, such as Vicuna.

Decoder-only language models with RMSNorm, a SiLU gate, rotary positions, an output head of its own
and, in the larger ones, fewer heads of keys than of queries.
"""

import dataclasses

from omni_smola.errors import UserError
from omni_smola.models.decoder_only import LanguageConfig
from omni_smola.models.gemma_layers import StackConfig

BOS = 1


def _llama(
    depth: int, d_model: int, d_ff: int, heads: int, key_heads: int, base: float = 10_000.0
) -> LanguageConfig:
    stack = StackConfig(
        d_model=d_model,
        heads=heads,
        key_heads=key_heads,
        d_head=d_model // heads,
        d_ff=d_ff,
        sliding=(False,) * depth,
        epsilon=1e-5,
        base=base,
        norm_offset=0.0,
        activation="silu",
    )
    return LanguageConfig(32_000, stack, tied=False, bos=BOS)


_7B = _llama(32, 4096, 11008, heads=32, key_heads=32)
_13B = _llama(40, 5120, 13824, heads=40, key_heads=40)

_SMOLLM2 = dataclasses.replace(
    _llama(30, 576, 1536, heads=9, key_heads=3, base=100_000.0), vocabulary=49_152, tied=True
)

# Vicuna 1.5 is Llama 2 tuned.
LLAMA = {
    "smollm2_135m": _SMOLLM2,
    "tinyllama_1b": _llama(22, 2048, 5632, heads=32, key_heads=4),
    "llama2_7b": _7B,
    "llama2_13b": _13B,
    "llama2_70b": _llama(80, 8192, 28672, heads=64, key_heads=8),
    "vicuna_7b": _7B,
    "vicuna_13b": _13B,
}


def llama(name: str) -> LanguageConfig:
    """The sizes called `name`; raises UserError with the known names."""
    if name not in LLAMA:
        raise UserError(f"There is no Llama called {name!r}: choose one of {', '.join(LLAMA)}.")
    return LLAMA[name]
