"""Published sizes of ViTs, by name; each has the pixels' mean and deviation it was trained with.

Read from the models' own configurations; ViT-G/14 is PaLI-3's (arXiv 2310.09199) and ViT-22B's
norms have neither bias nor centring (2302.05442, section 2). SigLIP 2 of a fixed resolution has the
shapes of SigLIP. Of CLIP and EVA-CLIP are read the penultimate layer's tokens, without final norm,
as LLaVA and MoME (2407.12709) do; public files of EVA-CLIP do not even hold the 40th block. At
another resolution than its own a size is `dataclasses.replace(size, image_size=...)`; loading
resamples the position embeddings.
"""

from dataclasses import replace

from omni_smola.errors import UserError
from omni_smola.models.vit import ViTConfig

CLIP_PIXELS = {
    "mean": (0.48145466, 0.4578275, 0.40821073),
    "std": (0.26862954, 0.26130258, 0.27577711),
}
IMAGENET_PIXELS = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}

_SIGLIP_B = ViTConfig(224, 16, width=768, depth=12, mlp=3072, heads=12)
_SIGLIP_L = ViTConfig(256, 16, width=1024, depth=24, mlp=4096, heads=16)
_SO400M = ViTConfig(224, 14, width=1152, depth=27, mlp=4304, heads=16)
_SIGLIP_G = ViTConfig(256, 16, width=1536, depth=40, mlp=6144, heads=16)
_CLIP_L = ViTConfig(
    224,
    14,
    width=1024,
    depth=24,
    mlp=4096,
    heads=16,
    activation="quick_gelu",
    epsilon=1e-5,
    patch_bias=False,
    class_token=True,
    input_norm=True,
    skip=1,
    final_norm=False,
    **CLIP_PIXELS,
)
_DINO_L = ViTConfig(
    518,
    14,
    width=1024,
    depth=24,
    mlp=4096,
    heads=16,
    activation="gelu",
    class_token=True,
    layer_scale=True,
    **IMAGENET_PIXELS,
)
_DINO_G = replace(_DINO_L, width=1536, depth=40, heads=24, activation="silu", gated=True)

DINOV2 = {
    "dinov2_small": replace(_DINO_L, width=384, depth=12, mlp=1536, heads=6),
    "dinov2_base": replace(_DINO_L, width=768, depth=12, mlp=3072, heads=12),
    "dinov2_large": _DINO_L,
    "dinov2_giant": _DINO_G,
}
DINOV2 |= {f"{name}_registers": replace(size, registers=4) for name, size in DINOV2.items()}

VIT = {
    **{f"siglip_b16_{px}": replace(_SIGLIP_B, image_size=px) for px in (224, 256, 384, 512)},
    **{f"siglip_l16_{px}": replace(_SIGLIP_L, image_size=px) for px in (256, 384, 512)},
    **{f"siglip_so400m14_{px}": replace(_SO400M, image_size=px) for px in (224, 384, 448)},
    "siglip_b32_256": replace(_SIGLIP_B, image_size=256, patch_size=32),
    **{
        f"siglip_so400m16_{px}": replace(_SO400M, image_size=px, patch_size=16)
        for px in (256, 384, 512)
    },
    **{f"siglip_g16_{px}": replace(_SIGLIP_G, image_size=px) for px in (256, 384)},
    "clip_b32": replace(_CLIP_L, patch_size=32, width=768, depth=12, mlp=3072, heads=12),
    "clip_b16": replace(_CLIP_L, patch_size=16, width=768, depth=12, mlp=3072, heads=12),
    "clip_l14": _CLIP_L,
    "clip_l14_336": replace(_CLIP_L, image_size=336),
    "eva_clip_g14": ViTConfig(
        224,
        14,
        width=1408,
        depth=39,
        mlp=6144,
        heads=16,
        activation="gelu",
        class_token=True,
        final_norm=False,
        **CLIP_PIXELS,
    ),
    **DINOV2,
    "vit_g14": ViTConfig(224, 14, width=1664, depth=48, mlp=8192, heads=16),
    "vit_22b": ViTConfig(
        224,
        14,
        width=6144,
        depth=48,
        mlp=24576,
        heads=48,
        parallel=True,
        qk_norm=True,
        qkv_bias=False,
        norm="rms",
    ),
}


def vit(name: str) -> ViTConfig:
    """The size called `name`; raises UserError with the known names."""
    if name not in VIT:
        raise UserError(f"There is no ViT called {name!r}: choose one of {', '.join(VIT)}.")
    return VIT[name]
