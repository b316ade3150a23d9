"""Pix2Struct's vision encoder: Pix2StructVisionModel, or the encoder of a whole Pix2Struct."""

from os import PathLike

from omni_smola.models.pix2struct import Pix2StructConfig
from omni_smola.pretrained import towers
from omni_smola.pretrained.rules import Family

TYPES = {"pix2struct_vision_model": "", "pix2struct": "vision_config"}
_SIZES = {
    "hidden_size": "width",
    "num_hidden_layers": "depth",
    "num_attention_heads": "heads",
    "d_ff": "mlp",
    "d_kv": "d_head",
    "seq_len": "positions",
}
_ABSENT = {
    "hidden_size": 768,
    "patch_embed_hidden_size": 768,
    "d_ff": 2048,
    "d_kv": 64,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "dense_act_fn": "gelu_new",
    "layer_norm_eps": 1e-6,
    "seq_len": 4096,
}


def family(config: Pix2StructConfig) -> Family:
    """The rules for a folder or file of Pix2Struct; the decoder is not read."""
    del config
    layer = "encoder.layer.{}"
    linears = [
        ("embeddings.patch_projection", "patch", "patch"),
        (f"{layer}.attention.output", "encoder/layers/out", "o"),
        (f"{layer}.mlp.wo", "encoder/layers/mlp/wo", "wo"),
    ]
    for name, long in (("q", "query"), ("k", "key"), ("v", "value")):
        linears.append((f"{layer}.attention.{long}", "encoder/layers/qkv", name))
    for name in ("wi_0", "wi_1"):
        linears.append((f"{layer}.mlp.{name}", "encoder/layers/mlp/wi", name))
    tensors = [
        *(tensor for names in linears for tensor in towers.linear(*names)),
        ("embeddings.row_embedder.weight", "rows", None, None),
        ("embeddings.column_embedder.weight", "columns", None, None),
        (f"{layer}.pre_attention_layer_norm.weight", "encoder/layers/norm_1/scale", None, None),
        (f"{layer}.pre_mlp_layer_norm.weight", "encoder/layers/norm_2/scale", None, None),
        ("layernorm.weight", "norm/scale", None, None),
    ]
    rules = towers.rules(tensors, ("", "encoder."))
    return Family("Pix2Struct", rules, (r"decoder\..*",), tuple(TYPES))


def read_config(folder: str | PathLike) -> Pix2StructConfig:
    """The encoder of a folder.

    Raises:
      UserError: no such folder or config.json, another architecture or a field that we do not
        compute, or a size that is missing or no whole number above zero, all in one sentence.
    """
    found = towers.Fields(folder, "Pix2Struct", TYPES, _ABSENT)
    channels = found.sizes({"patch_embed_hidden_size": "channels"})["channels"]
    sides = {3 * side**2: side for side in range(1, 257)}
    if channels not in sides:
        found.problem(f"patch_embed_hidden_size is {channels!r}, no square of pixels")
    config = Pix2StructConfig(
        sides.get(channels, 1), **found.sizes(_SIZES), epsilon=found.number("layer_norm_eps")
    )
    found.one_of("dense_act_fn", {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"})
    found.check()
    return config
