"""Gemma 1 and 2 (arXiv 2403.08295, 2408.00118): published sizes of decoder-only language models.

Gemma 2 has norms after its branches too, bounds the logits of attention and of the output, and lets
every other layer, from the first on, see only the nearest 4,096 tokens. Both multiply embeddings by
sqrt(d_model) and have no output head but the embedding table.
"""

from omni_smola.errors import UserError
from omni_smola.models.decoder_only import LanguageConfig
from omni_smola.models.gemma_layers import StackConfig

BOS = 2
VOCABULARY = 256_000


def first(depth: int, d_model: int, d_ff: int, heads: int, key_heads: int) -> LanguageConfig:
    """A Gemma 1 of these sizes."""
    stack = StackConfig(
        d_model=d_model,
        heads=heads,
        key_heads=key_heads,
        d_head=256,
        d_ff=d_ff,
        sliding=(False,) * depth,
    )
    return LanguageConfig(VOCABULARY, stack, scaled=True, bos=BOS)


def second(
    depth: int,
    d_model: int,
    d_ff: int,
    heads: int,
    key_heads: int,
    d_head: int = 256,
    query_scalar: float = 256.0,
) -> LanguageConfig:
    """A Gemma 2 of these sizes."""
    stack = StackConfig(
        d_model=d_model,
        heads=heads,
        key_heads=key_heads,
        d_head=d_head,
        d_ff=d_ff,
        sliding=tuple(layer % 2 == 0 for layer in range(depth)),
        window=4096,
        query_scalar=query_scalar,
        post_norms=True,
        softcap=50.0,
    )
    return LanguageConfig(VOCABULARY, stack, scaled=True, final_cap=30.0, bos=BOS)


GEMMA = {
    "gemma_2b": first(18, 2048, 16384, heads=8, key_heads=1),
    "gemma_7b": first(28, 3072, 24576, heads=16, key_heads=16),
    "gemma2_2b": second(26, 2304, 9216, heads=8, key_heads=4),
    "gemma2_9b": second(42, 3584, 14336, heads=16, key_heads=8),
    "gemma2_27b": second(46, 4608, 36864, heads=32, key_heads=16, d_head=128, query_scalar=144.0),
}


def gemma(name: str) -> LanguageConfig:
    """The sizes called `name`; raises UserError with the known names."""
    if name not in GEMMA:
        raise UserError(f"There is no Gemma called {name!r}: choose one of {', '.join(GEMMA)}.")
    return GEMMA[name]
