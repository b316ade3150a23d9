"""T5 1.1, Flan-T5, mT5, ByT5, UL2 and Flan-UL2: folders of Hugging Face's, and T5X's trees.

All of them are one architecture (`models.t5`). Hugging Face's folders describe themselves
(`read_config`); a T5X tree has no such file: its sizes are a named shape's.
"""

import pathlib
from collections.abc import Iterator
from os import PathLike
from typing import Any

from omni_smola.errors import UserError
from omni_smola.models.t5 import T5Config
from omni_smola.pretrained import copies, huggingface, towers
from omni_smola.pretrained.rules import Family, Rule, transpose
from omni_smola.pretrained.sentences import fitted

# Fields of config.json -> ours.
_SIZES = {
    "vocab_size": "vocabulary",
    "num_layers": "encoder_layers",
    "num_decoder_layers": "decoder_layers",
    "d_model": "d_model",
    "num_heads": "heads",
    "d_kv": "d_head",
    "d_ff": "d_ff",
    "relative_attention_num_buckets": "buckets",
    "relative_attention_max_distance": "max_distance",
}
_ABSENT = {"relative_attention_num_buckets": 32, "relative_attention_max_distance": 128}
_ACTIVATIONS = {
    "gated-gelu": "gelu",
    "gated-gelu_new": "gelu",
    "gated-silu": "silu",
    "gated-swish": "silu",
}
# What `dense_act_fn`, a copy of the second half of feed_forward_proj, may say. For "gated-gelu" it
# says gelu_new, GELU's tanh form, which is meant.
_DENSE = {"gelu": ("gelu_new", "gelu_pytorch_tanh"), "silu": ("silu", "swish")}
_ONLY = {
    "is_encoder_decoder": (True,),
    "is_decoder": (False,),
    "pad_token_id": (0, None),
    "decoder_start_token_id": (0, None),
}
_TYPES = ("t5", "mt5")
_HEAD = "lm_head.weight"
_EMBEDDINGS = ("shared.weight", "decoder.embed_tokens.weight", "encoder.embed_tokens.weight")


def family(config: T5Config) -> Family:
    """The rules for Hugging Face's T5ForConditionalGeneration and MT5ForConditionalGeneration."""
    # Files from before 2023 and some converters' (MADLAD-400's) name the one embedding twice; of a
    # tied model safetensors.torch.save_model keeps the first name of the alphabet.
    others = _EMBEDDINGS[1:] + ((_HEAD,) if config.tied_head else ())
    rules = [Rule(_EMBEDDINGS[0], "embedding", others=others)]
    for ours, theirs, _ in _tensors():
        rules.append(Rule(theirs, ours, transpose if "/kernel/" in ours else None))
    if not config.tied_head:
        rules.append(Rule(_HEAD, "head/kernel/logits", transpose))
    # Older files hold a position bias of cross-attention, which T5 never used.
    unused = r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight"
    return Family("T5", tuple(rules), (unused,), _TYPES)


def t5x_family(config: T5Config) -> Family:
    """The rules for T5X's trees, such as target/encoder/layers_0/attention/query/kernel.

    Their kernels are (in, out), as ours; layers that T5X scanned over are not read.
    """
    theirs = [("embedding", "token_embedder/embedding"), *((o, x) for o, _, x in _tensors())]
    if not config.tied_head:
        theirs.append(("head/kernel/logits", "decoder/logits_dense/kernel"))
    rules = tuple(
        Rule(f"target/{x}", o, transpose if o.endswith("position/table") else None, others=(x,))
        for o, x in theirs
    )
    return Family("T5X", rules, (r"state/.*", r"optimizer/.*", "step", "version"))


def _tensors() -> Iterator[tuple[str, str, str]]:
    """(our path, Hugging Face's name, T5X's name) of all but the embedding and the head."""
    attentions = {
        "encoder": [("attention", "SelfAttention", "attention")],
        "decoder": [
            ("attention", "SelfAttention", "self_attention"),
            ("cross", "EncDecAttention", "encoder_decoder_attention"),
        ],
    }
    norms = {
        "encoder": ["pre_attention_layer_norm", "pre_mlp_layer_norm"],
        "decoder": [
            "pre_self_attention_layer_norm",
            "pre_cross_attention_layer_norm",
            "pre_mlp_layer_norm",
        ],
    }
    for side in ("encoder", "decoder"):
        ours, layer, t5x = f"{side}/stack/layers", f"{side}.block.{{}}.layer", f"{side}/layers_{{}}"
        for n, (part, hf, x) in enumerate(attentions[side]):
            for name, long in (("q", "query"), ("k", "key"), ("v", "value"), ("o", "out")):
                linear = "out" if name == "o" else "qkv"
                if part == "cross" and linear == "qkv":
                    linear = "q" if name == "q" else "kv"
                yield (
                    f"{ours}/{part}/{linear}/kernel/{name}",
                    f"{layer}.{n}.{hf}.{name}.weight",
                    f"{t5x}/{x}/{long}/kernel",
                )
        last = len(attentions[side])
        for name in ("wi_0", "wi_1", "wo"):
            yield (
                f"{ours}/mlp/{name[:2]}/kernel/{name}",
                f"{layer}.{last}.DenseReluDense.{name}.weight",
                f"{t5x}/mlp/{name}/kernel",
            )
        for n, x in enumerate(norms[side]):
            yield f"{ours}/norm_{n + 1}/scale", f"{layer}.{n}.layer_norm.weight", f"{t5x}/{x}/scale"
        yield (
            f"{side}/position/table",
            f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
            f"{side}/relpos_bias/rel_embedding",
        )
        norm = f"{side}.final_layer_norm.weight"
        yield f"{side}/norm/scale", norm, f"{side}/{side}_norm/scale"


def read_config(folder: str | PathLike) -> T5Config:
    """The sizes of a Hugging Face folder's model, and whether its weights have a head of their own.

    Where config.json does not deny that the head is tied, the weights decide: releases of
    transformers from 5.0 on write tie_word_embeddings true for every T5.

    Raises:
      UserError: no such folder or config.json, another architecture, a field that we do not
        compute, a size that is missing or no whole number above zero, or damaged weights.
    """
    folder = pathlib.Path(folder).expanduser()
    file = folder / "config.json"
    fields = huggingface.config(folder)
    kind = fields.get("model_type")
    if kind not in _TYPES:
        why = ": each of its layers has a position bias of its own" if kind == "umt5" else ""
        raise UserError(
            f"{file} describes a model of type {kind!r}, but only 't5' (T5 1.1, Flan-T5, ByT5, "
            f"UL2) and 'mt5' are read as T5{why}. Choose a folder of one of these."
        )
    activation = _activation(file, fields, "gated-gelu" if kind == "mt5" else "relu")
    for name, known in _ONLY.items():
        if fields.get(name, known[0]) not in known:
            raise UserError(
                f"{name} is {fields[name]!r} in {file}, but only {known[0]!r} is implemented: "
                "choose another checkpoint."
            )
    tied, scaled = _head(folder, fields, kind)
    return T5Config(
        **_sizes(file, fields),
        activation=activation,
        epsilon=float(fields.get("layer_norm_epsilon", T5Config.epsilon)),
        tied_head=tied,
        scaled_head=scaled,
    )


def _activation(file: pathlib.Path, fields: dict[str, Any], absent: str) -> str:
    feed_forward = fields.get("feed_forward_proj", absent)
    activation = _ACTIVATIONS.get(str(feed_forward))
    if activation is None:
        more = ""
        if feed_forward == "relu":
            more = " T5 1.0 (t5-small ... t5-11b) has no gate; T5 1.1 and Flan-T5 of each size do."
        raise UserError(
            f"feed_forward_proj is {feed_forward!r} in {file}, but only gated feed-forwards are "
            f"implemented: {', '.join(_ACTIVATIONS)}.{more} Choose another checkpoint."
        )
    dense = fields.get("dense_act_fn", _DENSE[activation][0])
    if dense not in _DENSE[activation]:
        raise UserError(
            f"dense_act_fn is {dense!r} in {file}, but with feed_forward_proj {feed_forward!r} "
            f"only {' or '.join(_DENSE[activation])} is implemented: choose another checkpoint."
        )
    return activation


def _sizes(file: pathlib.Path, fields: dict[str, Any]) -> dict[str, int]:
    fields = _ABSENT | fields
    if fields.get("num_decoder_layers") is None:
        fields["num_decoder_layers"] = fields.get("num_layers", "missing")
    bad = [
        f"{name} is {fields.get(name, 'missing')!r}"
        for name in _SIZES
        if not towers.is_size(name, fields.get(name))
    ]
    buckets, distance = (fields[name] for name in _ABSENT)
    if not bad and (buckets < 4 or distance <= buckets // 2):
        bad = [f"{buckets} buckets of relative positions do not reach to distance {distance}"]
    epsilon = fields.get("layer_norm_epsilon", T5Config.epsilon)
    if type(epsilon) not in (int, float) or not 0 <= epsilon < 1e30:
        bad.append(f"layer_norm_epsilon is {epsilon!r}")
    if bad:
        end = "): sizes are whole numbers above zero. Copy the folder again."
        raise UserError(fitted(f"{file} does not describe a T5 (", bad, end))
    return {ours: fields[name] for name, ours in _SIZES.items()}


def _head(folder: pathlib.Path, fields: dict[str, Any], kind: str) -> tuple[bool, bool]:
    """Whether the head is tied, and whether what it reads is scaled."""
    flag = fields.get("tie_word_embeddings", True) is not False
    tied = flag and all(copies.tied(folder, name, _HEAD) for name in _EMBEDDINGS)
    # transformers 5 writes the scaling as a field of its own; before, it went with the flag. No
    # mT5 is scaled: all that were released say that their head is not tied.
    return tied, kind == "t5" and bool(fields.get("scale_decoder_outputs", flag))
