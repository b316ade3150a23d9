"""CLIP's vision tower: CLIPVisionModel, CLIPVisionModelWithProjection, or a whole CLIPModel."""

from os import PathLike

from omni_smola.models.vit import ViTConfig
from omni_smola.models.vit_sizes import CLIP_PIXELS
from omni_smola.pretrained import position, towers
from omni_smola.pretrained.rules import Family

TYPES = {"clip_vision_model": "", "clip": "vision_config"}
_ABSENT = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 32,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}


def family(config: ViTConfig) -> Family:
    """The rules for a folder or file of CLIP; text model and projections are not read.

    Position embeddings are resampled to `config.image_size` as transformers does.
    """
    places = "embeddings.position_embedding.weight"
    tensors = [
        *towers.convolution("embeddings.patch_embedding"),
        ("embeddings.class_embedding", "class_token", towers.flat, None),
        (places, "class_position", towers.class_position, None),
        (places, "position", towers.patch_positions, position.bicubic),
        *towers.norm("pre_layrnorm", "input_norm"),
        *towers.clip_blocks(),
        *towers.norm("post_layernorm", "norm"),
    ]
    ignored = (
        r"text_model\..*",
        r"(text|visual)_projection\.weight",
        "logit_scale",
        r"(vision_model\.)?embeddings\.position_ids",
        *towers.skipped(r"(vision_model\.)?encoder\.layers\.{}", config.depth, config.skip),
    )
    return Family("CLIP", towers.rules(tensors, ("", "vision_model.")), ignored, tuple(TYPES))


def read_config(folder: str | PathLike, *, skip: int = 1) -> ViTConfig:
    """The tower of a folder, its features without the final norm, which is the pooled token's.

    Args:
      folder: of a Hugging Face model.
      skip: the last blocks that are left out; 1 is the penultimate layer, as LLaVA and MoME read.

    Raises:
      UserError: no such folder or config.json, another architecture or a field that we do not
        compute, or a size that is missing or no whole number above zero, all in one sentence.
    """
    found = towers.Fields(folder, "CLIP", TYPES, _ABSENT)
    config = ViTConfig(
        **found.sizes(towers.SIZES | {"intermediate_size": "mlp"}),
        activation=found.one_of("hidden_act", towers.ACTIVATIONS),
        epsilon=found.number("layer_norm_eps"),
        patch_bias=False,
        class_token=True,
        input_norm=True,
        skip=skip,
        final_norm=False,
        **found.pixels(CLIP_PIXELS),
    )
    found.one_of("num_channels", {3: 3})
    found.divides("num_attention_heads", "hidden_size")
    found.check()
    return config
