"""SigLIP, and SigLIP 2 of a fixed resolution: SiglipVisionModel, or the tower of a SiglipModel.

The variable resolution of SigLIP 2 (NaFlex) is not read.
"""

from os import PathLike

from omni_smola.models.vit import ViTConfig
from omni_smola.pretrained import position, towers
from omni_smola.pretrained.rules import Family, Rule

TYPES = {"siglip_vision_model": "", "siglip": "vision_config"}
_ABSENT = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 16,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
}
_IGNORED = r"(vision_model\.)?(head\..*|embeddings\.position_ids)"


def rules(prefixes: tuple[str, ...] = ("", "vision_model."), ours: str = "") -> tuple[Rule, ...]:
    """The rules of a SigLIP tower, for models that have one.

    Args:
      prefixes: before their names, such as ("vision_tower.", "vision_tower.vision_model.").
      ours: before our paths, such as "vision/".
    """
    tensors = [
        *towers.convolution("embeddings.patch_embedding"),
        ("embeddings.position_embedding.weight", "position", None, position.bicubic),
        *towers.clip_blocks(),
        *towers.norm("post_layernorm", "norm"),
    ]
    return towers.rules(tensors, prefixes, ours)


def family(config: ViTConfig) -> Family:
    """The rules for a folder or file of SigLIP; the text model and the pooling head are not read.

    Position embeddings are resampled to `config.image_size` as transformers does.
    """
    layer = r"(vision_model\.)?encoder\.layers\.{}"
    ignored = (r"text_model\..*", r"logit_(scale|bias)", _IGNORED)
    ignored += towers.skipped(layer, config.depth, config.skip)
    return Family("SigLIP", rules(), ignored, tuple(TYPES))


def read_config(folder: str | PathLike) -> ViTConfig:
    """The tower of a folder, read to its final norm.

    Raises:
      UserError: no such folder or config.json, another architecture or a field that we do not
        compute, or a size that is missing or no whole number above zero, all in one sentence.
    """
    return tower_config(towers.Fields(folder, "SigLIP", TYPES, _ABSENT))


def tower_config(found: towers.Fields) -> ViTConfig:
    """The tower that these fields describe, a folder's own or a part of a larger model's.

    Raises:
      UserError: as `read_config`.
    """
    config = ViTConfig(
        **found.sizes(towers.SIZES | {"intermediate_size": "mlp"}),
        activation=found.one_of("hidden_act", towers.ACTIVATIONS),
        epsilon=found.number("layer_norm_eps"),
        **found.pixels({}),
    )
    found.one_of("num_channels", {3: 3})
    found.divides("num_attention_heads", "hidden_size")
    found.check()
    return config
