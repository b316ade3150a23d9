"""ViTs of big_vision, such as SigLIP's original files: .npz with params/img/embedding/kernel, ...

Both of its layouts are read: one tensor for each block, and all blocks of a scanned model in one.
Such a file does not describe itself: its sizes are a named one's (`models.vit_sizes`).
"""

import numpy as np

from omni_smola.models.vit import ViTConfig
from omni_smola.pretrained import position
from omni_smola.pretrained.rules import Family, Fit, Rule, Transform

_BLOCK = "Transformer/encoderblock"
_ATTENTION = "MultiHeadDotProductAttention_0"


def rules(
    prefixes: tuple[str, ...] = ("params/img/", "params/"), ours: str = ""
) -> tuple[Rule, ...]:
    """The rules of a ViT, for models that have one.

    Args:
      prefixes: before their names, tried in this order.
      ours: before our paths, such as "vision/".
    """
    tensors = [
        ("embedding/kernel", "patch/kernel/patch", _outputs_last, None),
        ("embedding/bias", "patch/bias/patch", None, None),
        ("pos_embedding", "position", _row, position.bilinear),
        ("Transformer/encoder_norm/scale", "norm/scale", None, None),
        ("Transformer/encoder_norm/bias", "norm/bias", None, None),
    ]
    blocks = [
        (f"{_ATTENTION}/out/kernel", "out/kernel/o", _outputs_last, None),
        (f"{_ATTENTION}/out/bias", "out/bias/o", None, None),
    ]
    for name in ("query", "key", "value"):
        blocks += [
            (f"{_ATTENTION}/{name}/kernel", f"qkv/kernel/{name[0]}", _inputs_first, None),
            (f"{_ATTENTION}/{name}/bias", f"qkv/bias/{name[0]}", _flat, None),
        ]
    for index, path, name in ((0, "mlp/wi", "wi_0"), (1, "mlp/wo", "wo")):
        for part in ("kernel", "bias"):
            blocks.append((f"MlpBlock_0/Dense_{index}/{part}", f"{path}/{part}/{name}", None, None))
        for part in ("scale", "bias"):
            blocks.append((f"LayerNorm_{index}/{part}", f"norm_{index + 1}/{part}", None, None))
    whole = [_rule(prefixes, ("NAME",), ours, *tensor) for tensor in tensors]
    layouts = (f"{_BLOCK}_{{}}/NAME", f"{_BLOCK}/NAME[{{}}]")
    return (
        *whole,
        *(_rule(prefixes, layouts, f"{ours}encoder/layers/", *tensor) for tensor in blocks),
    )


def family(config: ViTConfig) -> Family:
    """The rules for a file of a ViT or of SigLIP; the text tower and the head are not read.

    Position embeddings are resampled to `config.image_size` as big_vision does.
    """
    del config
    ignored = (
        r"params/txt/.*",
        r"params/[bt]",
        r"params/(img/)?(MAPHead_0|head|pre_logits)/.*",
        r"opt/.*",
    )
    return Family("big_vision ViT", rules(), ignored)


def _rule(
    prefixes: tuple[str, ...],
    layouts: tuple[str, ...],
    ours: str,
    theirs: str,
    path: str,
    transform: Transform | None,
    fit: Fit | None,
) -> Rule:
    """A rule for a tensor under any prefix, in any layout; NAME there stands for its name."""
    first, *others = (
        f"{p}{layout.replace('NAME', theirs)}" for p in prefixes for layout in layouts
    )
    return Rule(first, f"{ours}{path}", transform, others=tuple(others), fit=fit)


def _inputs_first(x: np.ndarray) -> np.ndarray:
    """(width, heads, dim) -> (width, heads * dim)."""
    return x.reshape(x.shape[0], -1)


def _outputs_last(x: np.ndarray) -> np.ndarray:
    """(heads, dim, width) or (p, p, 3, width) -> (all but the last, width)."""
    return x.reshape(-1, x.shape[-1])


def _flat(x: np.ndarray) -> np.ndarray:
    return x.reshape(-1)


def _row(x: np.ndarray) -> np.ndarray:
    """(1, tokens, width) -> (tokens, width)."""
    return x[0]
