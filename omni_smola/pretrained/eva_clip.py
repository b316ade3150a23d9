"""EVA-CLIP ViT-g/14, MoME's CLIP: the vision tower in folders of BLIP-2 and InstructBLIP.

Those hold 39 of the published 40 blocks, the last being left out, and a norm of their own after
them, which MoME does not use.
"""

from functools import partial
from os import PathLike

import numpy as np

from omni_smola.models.vit import ViTConfig
from omni_smola.models.vit_sizes import CLIP_PIXELS
from omni_smola.pretrained import position, towers
from omni_smola.pretrained.rules import Family

TYPES = {
    "blip_2_vision_model": "",
    "instructblip_vision_model": "",
    "blip-2": "vision_config",
    "instructblip": "vision_config",
}
_ABSENT = {
    "hidden_size": 1408,
    "intermediate_size": 6144,
    "num_hidden_layers": 39,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 14,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-6,
    "qkv_bias": True,
}


def family(config: ViTConfig) -> Family:
    """The rules for a folder or file; the querying transformer and language model are not read.

    Position embeddings are resampled to `config.image_size` as transformers does.
    """
    layer, places = "encoder.layers.{}", "embeddings.position_embedding"
    tensors = [
        *towers.convolution("embeddings.patch_embedding"),
        ("embeddings.class_embedding", "class_token", towers.flat, None),
        (places, "class_position", towers.class_position, None),
        (places, "position", towers.patch_positions, position.bicubic),
        *towers.linear(f"{layer}.self_attn.projection", "encoder/layers/out", "o"),
        *towers.clip_rest(layer),
        *towers.norm("post_layernorm", "norm"),
    ]
    for index, name in enumerate("qkv"):
        theirs, ours = f"{layer}.self_attn.qkv", "encoder/layers/qkv"
        tensors.append((f"{theirs}.weight", f"{ours}/kernel/{name}", partial(_third, index), None))
        tensors.append((f"{theirs}.bias", f"{ours}/bias/{name}", partial(_third, index), None))
    ignored = (
        r"(qformer|language_model|language_projection)\..*",
        r"query_tokens",
        *towers.skipped(r"(vision_model\.)?encoder\.layers\.{}", config.depth, config.skip),
    )
    return Family("EVA-CLIP", towers.rules(tensors, ("", "vision_model.")), ignored, tuple(TYPES))


def read_config(folder: str | PathLike) -> ViTConfig:
    """The tower of a folder, its features without a final norm, as MoME reads them.

    Raises:
      UserError: no such folder or config.json, another architecture or a field that we do not
        compute, or a size that is missing or no whole number above zero, all in one sentence.
    """
    found = towers.Fields(folder, "EVA-CLIP", TYPES, _ABSENT)
    config = ViTConfig(
        **found.sizes(towers.SIZES | {"intermediate_size": "mlp"}),
        activation=found.one_of("hidden_act", towers.ACTIVATIONS),
        epsilon=found.number("layer_norm_eps"),
        class_token=True,
        final_norm=False,
        **found.pixels(CLIP_PIXELS),
    )
    found.one_of("qkv_bias", {True: True})
    found.divides("num_attention_heads", "hidden_size")
    found.check()
    return config


def _third(index: int, x: np.ndarray) -> np.ndarray:
    """One of query, key and value, which lie one after the other, turned around."""
    size = x.shape[0] // 3
    return x[index * size : (index + 1) * size].T
