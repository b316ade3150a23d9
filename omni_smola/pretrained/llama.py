"""Llama: the folders of Hugging Face's LlamaForCausalLM, and what Gemma's share with them."""

from collections.abc import Iterator
from os import PathLike
from typing import Any

from omni_smola.models import llama
from omni_smola.models.decoder_only import LanguageConfig
from omni_smola.models.gemma_layers import StackConfig
from omni_smola.pretrained import copies, towers
from omni_smola.pretrained.rules import Family, Rule, transpose

TYPES = {"llama": ""}
HEAD = "lm_head.weight"
SIZES = {
    "hidden_size": "d_model",
    "num_attention_heads": "heads",
    "num_key_value_heads": "key_heads",
    "head_dim": "d_head",
    "intermediate_size": "d_ff",
}
# What fields mean that a config.json leaves out; the sizes are always there.
_ABSENT = {
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "mlp_bias": False,
    "bos_token_id": 1,
}
_NORMS = {"input": "norm_1", "post_attention": "norm_2"}


def family(config: LanguageConfig) -> Family:
    """The rules for the tensors of a LlamaForCausalLM."""
    # Constants that old files keep.
    ignored = (r"model\.(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq",)
    rules = decoder_rules(("model.",), _NORMS, (HEAD,), tied=config.tied)
    return Family("Llama", rules, ignored, tuple(TYPES), "model.")


def read_config(folder: str | PathLike) -> LanguageConfig:
    """The sizes of a folder's model, from its config.json.

    Raises:
      UserError: no such folder or config.json, another architecture or a field that we do not
        compute, or a size that is missing or no whole number above zero, all in one sentence.
    """
    found = towers.Fields(folder, "Llama", TYPES, _ABSENT)
    fields = found.fields
    if fields.get("num_key_value_heads") is None:
        fields["num_key_value_heads"] = fields.get("num_attention_heads")
    if fields.get("head_dim") is None:
        heads, width = fields.get("num_attention_heads"), fields.get("hidden_size")
        whole = isinstance(heads, int) and isinstance(width, int) and heads > 0
        fields["head_dim"] = width // heads if whole else None
    sizes, more = decoder_fields(found)
    base, factor = rope(found)
    found.one_of("mlp_bias", {False: False})
    found.one_of("hidden_act", {"silu": "silu"})
    tied = tied_head(found)
    found.check()
    stack = StackConfig(
        **sizes, base=base, factor=factor, norm_offset=0.0, activation="silu", **more
    )
    bos = fields["bos_token_id"]
    return LanguageConfig(
        fields.get("vocab_size"), stack, tied=tied, bos=llama.BOS if bos is None else bos
    )


def tied_head(found: towers.Fields) -> bool:
    """Whether the head is the embedding: config.json says so, and the weights do not deny it.

    Raises:
      UserError: the weights are damaged.
    """
    says_so = found.one_of("tie_word_embeddings", {True: True, False: False})
    return bool(says_so) and copies.tied(found.folder, "embed_tokens.weight", HEAD)


def decoder_rules(
    prefixes: tuple[str, ...], norms: dict[str, str], heads: tuple[str, ...], *, tied: bool
) -> tuple[Rule, ...]:
    """The rules of a decoder-only language model.

    Args:
      prefixes: before their names, tried in this order.
      norms: their norms of a layer, without `_layernorm` -> ours.
      heads: names of the head, tried in this order.
      tied: a head is a copy of the embedding, and either may hold the matrix.
    """
    rules = tuple(
        Rule(
            prefixes[0] + theirs,
            ours,
            transpose if "/kernel/" in ours else None,
            others=tuple(prefix + theirs for prefix in prefixes[1:])
            + (heads if tied and ours == "embedding" else ()),
        )
        for theirs, ours in _tensors(norms)
    )
    head = Rule(heads[0], "head/kernel/logits", transpose, others=heads[1:])
    return rules if tied else (*rules, head)


def decoder_fields(found: towers.Fields) -> tuple[dict[str, int], dict[str, Any]]:
    """Sizes of the stack, and of what else of it all families say by the same fields.

    Layers are taken to see everything: a family with sliding ones replaces `sliding`.
    """
    sizes = found.sizes(SIZES)
    found.sizes({"vocab_size": "vocabulary", "num_hidden_layers": "depth"})
    found.one_of("attention_bias", {False: False})
    found.divides("num_key_value_heads", "num_attention_heads")
    if isinstance(found.fields.get("head_dim"), int) and found.fields["head_dim"] % 2:
        found.problem("head_dim is odd")
    depth = found.fields.get("num_hidden_layers")
    sliding = (False,) * depth if isinstance(depth, int) else ()
    return sizes, {"epsilon": found.number("rms_norm_eps"), "sliding": sliding}


def rope(found: towers.Fields) -> tuple[float, float]:
    """Base and linear factor of the rotary positions, in the fields of any version."""
    fields = found.fields
    given = fields.get("rope_parameters") or fields.get("rope_scaling") or {}
    given = given if isinstance(given, dict) else {"rope_type": given}
    kind = given.get("rope_type", given.get("type", "default"))
    if kind not in ("default", "linear"):
        found.problem(f"rope_type is {kind!r}, but only 'default' or 'linear' is implemented")
    base = given.get("rope_theta") or fields.get("rope_theta") or 10_000.0
    factor = given.get("factor") or 1.0 if kind == "linear" else 1.0
    for name, value in (("rope_theta", base), ("factor", factor)):
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e30:
            found.problem(f"{name} of the rotary positions is {value!r}")
            return 1.0, 1.0
    if given.get("partial_rotary_factor", 1.0) != 1.0:
        found.problem("partial_rotary_factor is not 1.0, the only one that is implemented")
    return float(base), float(factor)


def _tensors(norms: dict[str, str]) -> Iterator[tuple[str, str]]:
    """(their name, our path) of every tensor."""
    yield "embed_tokens.weight", "embedding"
    yield "norm.weight", "decoder/norm/scale"
    theirs, ours = "layers.{}", "decoder/stack/layers"
    for name in "qkv":
        yield f"{theirs}.self_attn.{name}_proj.weight", f"{ours}/attention/qkv/kernel/{name}"
    yield f"{theirs}.self_attn.o_proj.weight", f"{ours}/attention/out/kernel/o"
    for name, path in (
        ("gate", "wi/kernel/wi_0"),
        ("up", "wi/kernel/wi_1"),
        ("down", "wo/kernel/wo"),
    ):
        yield f"{theirs}.mlp.{name}_proj.weight", f"{ours}/mlp/{path}"
    for name, path in norms.items():
        yield f"{theirs}.{name}_layernorm.weight", f"{ours}/{path}/scale"
