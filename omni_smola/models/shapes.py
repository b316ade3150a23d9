"""Named sizes of PaLI backbones, from a laptop's to PaLI-X (papers.md 1.5 of the design).

`LANGUAGE` has the public encoder-decoders; behind SigLIP So400m/14 each is a PaLI of public parts,
`so400m_t5_base` and so on. Flan-T5 and Flan-UL2 have the sizes of T5 1.1 and UL2 and the names too.
"""

import dataclasses

from omni_smola.errors import UserError
from omni_smola.models.pali import PaliConfig
from omni_smola.models.t5 import T5Config
from omni_smola.models.vision_encoders import SMALL
from omni_smola.models.vit import ViTConfig
from omni_smola.models.vit_sizes import VIT

PALI = {
    "tiny": PaliConfig(
        ViTConfig(image_size=96, patch_size=12, width=128, depth=4, mlp=512, heads=4),
        T5Config(3072, 4, 2, d_model=128, heads=4, d_head=32, d_ff=256),
    ),
    # PaLI-3: SigLIP ViT-G/14 and UL2 3B (its shape is taken to be mT5-XL's).
    "pali3": PaliConfig(
        ViTConfig(image_size=812, patch_size=14, width=1664, depth=48, mlp=8192, heads=16),
        T5Config(250_112, 24, 24, d_model=2048, heads=32, d_head=64, d_ff=5120, activation="silu"),
    ),
    # PaLI-X: ViT-22B and UL2 32B (widths derived from its parameter count).
    "palix": PaliConfig(
        dataclasses.replace(VIT["vit_22b"], image_size=756),
        T5Config(
            250_112, 50, 50, d_model=4096, heads=16, d_head=256, d_ff=16384, activation="silu"
        ),
    ),
}

# d_model, d_ff, heads and layers of encoder and decoder; each head has 64 channels.
_T5 = {
    "small": (512, 1024, 6, 8),
    "base": (768, 2048, 12, 12),
    "large": (1024, 2816, 16, 24),
    "xl": (2048, 5120, 32, 24),
    "xxl": (4096, 10240, 64, 24),
}


def _t5(vocabulary: int, d_model: int, d_ff: int, heads: int, depth: int) -> T5Config:
    return T5Config(vocabulary, depth, depth, d_model=d_model, heads=heads, d_head=64, d_ff=d_ff)


LANGUAGE = {
    **{f"t5_{name}": _t5(32_128, *sizes) for name, sizes in _T5.items()},
    **{f"mt5_{name}": _t5(250_112, *sizes) for name, sizes in _T5.items()},
    "ul2_20b": T5Config(
        32_128, 32, 32, d_model=4096, heads=16, d_head=256, d_ff=16384, activation="silu"
    ),
}
SO400M = ViTConfig(image_size=224, patch_size=14, width=1152, depth=27, mlp=4304, heads=16)
PALI |= {f"so400m_{name}": PaliConfig(SO400M, language) for name, language in LANGUAGE.items()}

# Each small vision encoder before the default's language model, which teaches it.
PALI |= {f"tiny_{name}": PaliConfig(tower, PALI["tiny"].language) for name, tower in SMALL.items()}


def pali(name: str) -> PaliConfig:
    """The sizes called `name`; raises UserError with the known names."""
    if name not in PALI:
        raise UserError(
            f"There is no backbone called {name!r}: choose one of {', '.join(PALI)} "
            "(--config.backbone.name=..., or backbone=... after the config's colon)."
        )
    return PALI[name]
