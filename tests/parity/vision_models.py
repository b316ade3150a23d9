"""Small vision towers of transformers and what we read of their files, for several test modules.

Importing this needs neither torch nor transformers: a module that skips itself where they are
missing is no place for names that another module imports.
"""

from flax import nnx

from omni_smola.models.layers import Precision
from omni_smola.models.pix2struct import Pix2Struct
from omni_smola.models.vit import ViT
from omni_smola.pretrained import clip, dinov2, eva_clip, load, siglip
from omni_smola.training import state

# 30 and 37 pixels are 4 and 5 patches of 7 and a rest that no patch sees.
SIZES = dict(
    hidden_size=24, num_hidden_layers=3, num_attention_heads=3, image_size=30, patch_size=7
)
WITH_MLP = SIZES | {"intermediate_size": 40}
PATCHES = dict(
    hidden_size=20,
    patch_embed_hidden_size=27,
    d_ff=36,
    d_kv=6,
    num_hidden_layers=3,
    num_attention_heads=3,
    seq_len=17,
    layer_norm_eps=3e-3,
)


def make(model, **config):
    """A model of transformers, every parameter random: as drawn, norms do nothing, and more."""
    import torch
    import transformers

    torch.manual_seed(0)
    model = getattr(transformers, f"{model}Model")(
        getattr(transformers, f"{model}Config")(**config)
    ).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            one = parameter.ndim == 1 and name.endswith((".weight", "lambda1"))
            parameter.copy_(0.3 * torch.randn_like(parameter) + one)
    return model


MODELS = {
    "siglip": (siglip, "SiglipVision", WITH_MLP | {"layer_norm_eps": 3e-3}),
    "clip": (clip, "CLIPVision", WITH_MLP),
    "clip_gelu": (clip, "CLIPVision", WITH_MLP | {"hidden_act": "gelu", "layer_norm_eps": 3e-3}),
    "dinov2": (dinov2, "Dinov2", SIZES | {"qkv_bias": False}),
    "dinov2_giant": (dinov2, "Dinov2", SIZES | {"use_swiglu_ffn": True, "layer_norm_eps": 3e-3}),
    "dinov2_registers": (dinov2, "Dinov2WithRegisters", SIZES | {"num_register_tokens": 3}),
    "eva_clip": (eva_clip, "Blip2Vision", WITH_MLP | {"layer_norm_eps": 3e-3}),
}


def ours(folder, family, config):
    cls = ViT if hasattr(config, "image_size") else Pix2Struct
    model = nnx.eval_shape(lambda: cls(config, precision=Precision(), rngs=nnx.Rngs(0)))
    load.fill(model, folder, family.family(config))
    return model


def arrays(folder, family, config):
    return state.paths(nnx.to_pure_dict(nnx.state(ours(folder, family, config))))
