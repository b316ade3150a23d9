"""DINOv2, without and with registers: Dinov2Model, Dinov2WithRegistersModel and their classifiers.

The giant's feed-forward is SwiGLU, whose two input matrices lie in one tensor.
"""

import math
from os import PathLike

import numpy as np

from omni_smola.errors import UserError
from omni_smola.models.vit import ViTConfig
from omni_smola.models.vit_sizes import IMAGENET_PIXELS
from omni_smola.pretrained import position, towers
from omni_smola.pretrained.rules import Family

TYPES = {"dinov2": "", "dinov2_with_registers": ""}
_ABSENT = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "mlp_ratio": 4,
    "num_channels": 3,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-6,
    "qkv_bias": True,
    "use_swiglu_ffn": False,
    "num_register_tokens": 4,
}
_YES_NO = {True: True, False: False}


def family(config: ViTConfig) -> Family:
    """The rules for a folder or file of DINOv2; mask token and classifier are not read.

    Position embeddings are resampled to `config.image_size` as transformers does: with registers by
    an antialiased filter, without them by a plain one.
    """
    layer, places = "encoder.layer.{}", "embeddings.position_embeddings"
    resample = antialiased if config.registers else position.bicubic
    tensors = [
        *towers.convolution("embeddings.patch_embeddings.projection"),
        ("embeddings.cls_token", "class_token", towers.flat, None),
        (places, "class_position", towers.class_position, None),
        (places, "position", towers.patch_positions, resample),
        ("embeddings.register_tokens", "registers", _row, None),
        *towers.linear(f"{layer}.attention.output.dense", "encoder/layers/out", "o"),
        *towers.norm(f"{layer}.norm1", "encoder/layers/norm_1"),
        *towers.norm(f"{layer}.norm2", "encoder/layers/norm_2"),
        (f"{layer}.layer_scale1.lambda1", "encoder/layers/scale_1", None, None),
        (f"{layer}.layer_scale2.lambda1", "encoder/layers/scale_2", None, None),
        *towers.norm("layernorm", "norm"),
    ]
    for name, long in (("q", "query"), ("k", "key"), ("v", "value")):
        theirs = f"{layer}.attention.attention.{long}"
        tensors += towers.linear(theirs, "encoder/layers/qkv", name)
    tensors += _gated(layer) if config.gated else _plain(layer)
    ignored = (
        r"(.*\.)?embeddings\.mask_token",
        r"classifier\..*",
        *towers.skipped(r"(.*\.)?encoder\.layer\.{}", config.depth, config.skip),
    )
    prefixes = ("", "dinov2.", "dinov2_with_registers.")
    return Family("DINOv2", towers.rules(tensors, prefixes), ignored, tuple(TYPES))


def read_config(folder: str | PathLike) -> ViTConfig:
    """The tower of a folder, read to its final norm.

    Raises:
      UserError: no such folder or config.json, another architecture or a field that we do not
        compute, or a size that is missing or no whole number above zero, all in one sentence.
    """
    found = towers.Fields(folder, "DINOv2", TYPES, _ABSENT)
    sizes = found.sizes(towers.SIZES)
    gated = found.one_of("use_swiglu_ffn", _YES_NO)
    mlp = int((sizes["width"] or 0) * found.number("mlp_ratio"))
    registers = 0
    if found.fields.get("model_type") == "dinov2_with_registers":
        registers = found.sizes({"num_register_tokens": "registers"})["registers"]
    config = ViTConfig(
        **sizes,
        # SwiGLU has three matrices for two: two thirds of the width, in multiples of 8.
        mlp=(int(mlp * 2 / 3) + 7) // 8 * 8 if gated else mlp,
        qkv_bias=found.one_of("qkv_bias", _YES_NO),
        activation="silu" if gated else found.one_of("hidden_act", towers.ACTIVATIONS),
        gated=gated,
        epsilon=found.number("layer_norm_eps"),
        class_token=True,
        registers=registers,
        layer_scale=True,
        **found.pixels(IMAGENET_PIXELS),
    )
    found.one_of("num_channels", {3: 3})
    found.divides("num_attention_heads", "hidden_size")
    found.check()
    return config


def antialiased(x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Resamples a grid as torch's interpolate(mode="bicubic", antialias=True), a `Rule.fit`.

    Keys' kernel with a = -1/2, as wide as the spacing of the smaller grid, its weights normalised
    where it reaches over the border.

    Args:
      x: (old * old, width), rows of the grid first.
      shape: (new * new, width).

    Returns:
      float32 of `shape`.

    Raises:
      UserError: a number of positions that is no square, or another width.
    """
    old, new = math.isqrt(x.shape[0]), math.isqrt(shape[0])
    if (old * old, x.shape[1]) != x.shape or (new * new, x.shape[1]) != shape:
        raise UserError(f"position embeddings {x.shape} are no square grid for one of {shape}")
    spacing = old / new
    centre = (np.arange(new) + 0.5) * spacing - 0.5
    distance = np.abs(np.arange(old) - centre[:, None]) / max(spacing, 1)
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    weights = np.where(distance <= 1, near, np.where(distance < 2, far, 0))
    weights = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    grid = x.astype(np.float32).reshape(old, old, -1)
    return np.einsum("ai,bj,ijc->abc", weights, weights, grid, optimize=True).reshape(shape)


def _plain(layer: str) -> list[towers.Tensor]:
    return [
        *towers.linear(f"{layer}.mlp.fc1", "encoder/layers/mlp/wi", "wi_0"),
        *towers.linear(f"{layer}.mlp.fc2", "encoder/layers/mlp/wo", "wo"),
    ]


def _gated(layer: str) -> list[towers.Tensor]:
    tensors = list(towers.linear(f"{layer}.mlp.weights_out", "encoder/layers/mlp/wo", "wo"))
    for name, half in (("wi_0", _upper), ("wi_1", _lower)):
        theirs, ours = f"{layer}.mlp.weights_in", "encoder/layers/mlp/wi"
        tensors.append((f"{theirs}.weight", f"{ours}/kernel/{name}", half, None))
        tensors.append((f"{theirs}.bias", f"{ours}/bias/{name}", half, None))
    return tensors


def _upper(x: np.ndarray) -> np.ndarray:
    """The first half of the rows, turned around: the matrix, or bias, that is activated."""
    return x[: x.shape[0] // 2].T


def _lower(x: np.ndarray) -> np.ndarray:
    return x[x.shape[0] // 2 :].T


def _row(x: np.ndarray) -> np.ndarray:
    """(1, n, width) -> (n, width)."""
    return x[0]
