"""T5Gemma 2: the folders of Hugging Face's T5Gemma2ForConditionalGeneration."""

from collections.abc import Iterator, Mapping
from os import PathLike
from typing import Any

from omni_smola.models.gemma_layers import StackConfig
from omni_smola.models.t5gemma2 import T5Gemma2Config
from omni_smola.models.vit import ViTConfig
from omni_smola.pretrained import copies, siglip, towers
from omni_smola.pretrained.rules import Family, Rule, transpose

Fields = Mapping[str, Any]
TYPES = ("t5gemma2",)
_HEAD = "lm_head.out_proj.weight"

# Fields of config.json -> ours.
_STACK = {
    "hidden_size": "d_model",
    "num_attention_heads": "heads",
    "num_key_value_heads": "key_heads",
    "head_dim": "d_head",
    "intermediate_size": "d_ff",
}
_VISION = towers.SIZES | {"intermediate_size": "mlp"}
_IDS = {"boi_token_index": "boi", "eoi_token_index": "eoi"}
# What we compute; a field that is not there says the first of these.
_STACK_ONLY = {
    "hidden_activation": ("gelu_pytorch_tanh",),
    "attention_bias": (False,),
    "attn_logit_softcapping": (None,),
    "use_bidirectional_attention": (False, None),
    "bos_token_id": (2,),
}
_VISION_ONLY = {
    "model_type": ("siglip_vision_model",),
    "hidden_act": ("gelu_pytorch_tanh",),
    "num_channels": (3,),
}
_TOP_ONLY = {
    "is_encoder_decoder": (True,),
    "tie_word_embeddings": (True, False),
}
# What transformers takes a field for that is not there.
_ABSENT_STACK = {"query_pre_attn_scalar": 256, "rms_norm_eps": 1e-6}
_ABSENT_ENCODER = {"mm_tokens_per_image": 256}
_ABSENT_VISION = {"layer_norm_eps": 1e-6}
_KINDS = {"sliding_attention": True, "full_attention": False}


def family(config: T5Gemma2Config) -> Family:
    """The rules for the tensors of a T5Gemma2ForConditionalGeneration.

    transformers 5 writes the names that the published files have; in memory, and in some files,
    the encoder's are under `text_model` and the tower's under `vision_model`.
    """
    encoder, tower = "model.encoder", "model.encoder.vision_tower"
    heads = (_HEAD,) if config.tied else ()
    rules = [
        _embedding("weight", "embedding", *heads),
        _embedding("eoi_embedding", "eoi_embedding"),
        *([] if config.tied else [Rule(_HEAD, "head/kernel/logits", transpose)]),
        Rule(
            f"{encoder}.multi_modal_projector.mm_input_projection_weight",
            "visual_projection/kernel/projection",
        ),
        Rule(f"{encoder}.multi_modal_projector.mm_soft_emb_norm.weight", "visual_norm/scale"),
        *(_rule(encoder, *names, "text_model") for names in _stack("encoder")),
        *(_rule("model.decoder", *names) for names in _stack("decoder")),
        *siglip.rules((f"{tower}.", f"{tower}.vision_model."), "vision/"),
    ]
    # The tower's pooling head, of which nothing is read.
    ignored = (
        r"model\.encoder\.vision_tower\.(vision_model\.)?(head\..*|embeddings\.position_ids)",
    )
    return Family("T5Gemma 2", tuple(rules), ignored, TYPES, "model.")


def _embedding(name: str, ours: str, *heads: str) -> Rule:
    """A part of the one embedding, which encoder, decoder and a tied head share."""
    places = ("encoder.embed_tokens", "encoder.text_model.embed_tokens", "decoder.embed_tokens")
    first, *others = (f"model.{place}.{name}" for place in places)
    return Rule(first, ours, others=(*others, *heads))


def _rule(prefix: str, theirs: str, ours: str, between: str | None = None) -> Rule:
    others = () if between is None else (f"{prefix}.{between}.{theirs}",)
    transform = transpose if "/kernel/" in ours else None
    return Rule(f"{prefix}.{theirs}", ours, transform, others=others)


def _stack(side: str) -> Iterator[tuple[str, str]]:
    """(their name, our path) of a stack's tensors."""
    theirs, ours = "layers.{}", f"{side}/stack/layers"
    for name in "qkv":
        yield f"{theirs}.self_attn.{name}_proj.weight", f"{ours}/attention/qkv/kernel/{name}"
    for name in "qk":
        yield f"{theirs}.self_attn.{name}_norm.weight", f"{ours}/attention/{name}_norm/scale"
    yield f"{theirs}.self_attn.o_proj.weight", f"{ours}/attention/out/kernel/o"
    for name, path in (("gate", "wi/kernel/wi_0"), ("up", "wi/kernel/wi_1")):
        yield f"{theirs}.mlp.{name}_proj.weight", f"{ours}/mlp/{path}"
    yield f"{theirs}.mlp.down_proj.weight", f"{ours}/mlp/wo/kernel/wo"
    for number, part in ((1, "self_attn"), (2, "feedforward")):
        yield f"{theirs}.pre_{part}_layernorm.weight", f"{ours}/norm_{number}/scale"
        yield f"{theirs}.post_{part}_layernorm.weight", f"{ours}/post_{number}/scale"
    yield "norm.weight", f"{side}/norm/scale"


def read_config(folder: str | PathLike) -> T5Gemma2Config:
    """The sizes of a folder's model, from its config.json.

    Raises:
      UserError: no such folder or config.json, another architecture, a field that we do not
        compute, a size that is missing or no whole number above zero, all in one sentence.
    """
    top = towers.Fields(folder, "T5Gemma 2", dict.fromkeys(TYPES, ""), {})
    fields = top.fields
    encoder = _ABSENT_ENCODER | _part(fields, "encoder")
    text = _ABSENT_STACK | _part(encoder, "text_config")
    vision = _ABSENT_VISION | _part(encoder, "vision_config")
    decoder = _ABSENT_STACK | _part(fields, "decoder")
    named = (("encoder.text_config", text), ("decoder", decoder))
    bad = [
        *_others("", fields, _TOP_ONLY),
        *_others("encoder.vision_config.", vision, _VISION_ONLY),
        *_sizes("encoder.vision_config.", vision, _VISION),
        *_numbers("encoder.vision_config.", vision, _ABSENT_VISION),
        *_sizes("encoder.", encoder, _ABSENT_ENCODER),
        *_sizes("encoder.", encoder, [name for name in _IDS if name in encoder]),
    ]
    for name, part in named:
        bad += _others(f"{name}.", part, _STACK_ONLY)
        bad += _sizes(f"{name}.", part, [*_STACK, "num_hidden_layers", "vocab_size"])
        bad += _numbers(f"{name}.", part, _ABSENT_STACK)
        bad += [] if bad else [*_layers(f"{name}.", part), *_ropes(f"{name}.", part)]
    if decoder.get("final_logit_softcapping") is not None:
        bad += _numbers("decoder.", decoder, ["final_logit_softcapping"])
    if not bad and vision["hidden_size"] % vision["num_attention_heads"]:
        bad = ["encoder.vision_config.hidden_size is no multiple of num_attention_heads"]
    if not bad and text["vocab_size"] != decoder["vocab_size"]:
        bad = ["encoder and decoder have unlike vocabularies, though they share one embedding"]
    if bad:
        for problem in bad:
            top.problem(problem)
        top.check()
    sizes = {ours: vision[name] for name, ours in _VISION.items()}
    return T5Gemma2Config(
        ViTConfig(**sizes, epsilon=float(vision["layer_norm_eps"]), **top.pixels({})),
        _stack_config(text),
        _stack_config(decoder),
        vocabulary=decoder["vocab_size"],
        visual_tokens=encoder["mm_tokens_per_image"],
        softcap=decoder.get("final_logit_softcapping"),
        tied=_tied(top),
        **{ours: encoder[name] for name, ours in _IDS.items() if name in encoder},
    )


def _tied(top: towers.Fields) -> bool:
    """Whether the head is the embedding: config.json says so, and the weights do not deny it."""
    says_so = top.fields.get("tie_word_embeddings", True)
    return says_so and copies.tied(top.folder, "embed_tokens.weight", _HEAD)


def _stack_config(fields: Fields) -> StackConfig:
    full, near = (_rope(fields, kind) for kind in ("full_attention", "sliding_attention"))
    return StackConfig(
        **{ours: fields[name] for name, ours in _STACK.items()},
        sliding=tuple(_KINDS[kind] for kind in fields["layer_types"]),
        window=fields.get("sliding_window"),
        base=float(full["rope_theta"]),
        factor=float(full["factor"]) if full["rope_type"] == "linear" else 1.0,
        local_base=float(near["rope_theta"]),
        query_scalar=float(fields["query_pre_attn_scalar"]),
        qk_norm=True,
        post_norms=True,
        epsilon=float(fields["rms_norm_eps"]),
    )


def _rope(fields: Fields, kind: str) -> dict[str, Any]:
    theta = 1e6 if kind == "full_attention" else 1e4
    absent = {"rope_type": "default", "rope_theta": theta, "factor": 1.0}
    given = _part(_part(fields, "rope_parameters"), kind)
    return absent | {name: value for name, value in given.items() if value is not None}


def _layers(where: str, fields: Fields) -> Iterator[str]:
    """What is wrong with the kinds of a stack's layers, or their heads."""
    kinds = fields.get("layer_types")
    if not isinstance(kinds, list) or len(kinds) != fields["num_hidden_layers"]:
        yield f"{where}layer_types does not name the kind of each of the layers"
    elif not _KINDS.keys() >= set(map(str, kinds)):
        yield f"{where}layer_types has others than {' and '.join(_KINDS)}"
    elif _KINDS["sliding_attention"] in (_KINDS[k] for k in kinds):
        yield from _sizes(where, fields, ["sliding_window"])
    if fields["num_attention_heads"] % fields["num_key_value_heads"]:
        yield f"{where}num_attention_heads is no multiple of num_key_value_heads"
    if fields["head_dim"] % 2:
        yield f"{where}head_dim is odd"


def _ropes(where: str, fields: Fields) -> Iterator[str]:
    """What is wrong with a stack's rotary positions."""
    for name in ("rope_scaling", "rope_theta", "rope_local_base_freq"):
        if fields.get(name) is not None:
            yield f"{where}{name} is given, where T5Gemma 2 has rope_parameters"
    for kind, types in (
        ("full_attention", ("default", "linear")),
        ("sliding_attention", ("default",)),
    ):
        rope, inside = _rope(fields, kind), f"{where}rope_parameters.{kind}."
        yield from _numbers(inside, rope, ["rope_theta", "factor"])
        if rope["rope_type"] not in types:
            yield (
                f"{inside}rope_type is {rope['rope_type']!r}, and only {' and '.join(types)} "
                "are implemented"
            )


def _sizes(where: str, fields: Fields, names: Any) -> list[str]:
    return [
        f"{where}{name} is {fields.get(name, 'missing')!r}"
        for name in names
        if not towers.is_size(name, fields.get(name))
    ]


def _numbers(where: str, fields: Fields, names: Any) -> list[str]:
    return [
        f"{where}{name} is {fields[name]!r}"
        for name in names
        if type(fields[name]) not in (int, float) or not 0 < fields[name] < 1e30
    ]


def _others(where: str, fields: Fields, only: Mapping[str, tuple]) -> list[str]:
    return [
        f"{where}{name} is {fields[name]!r}, and only {known[0]!r} is implemented"
        for name, known in only.items()
        if fields.get(name, known[0]) not in known
    ]


def _part(fields: Fields, name: str) -> Fields:
    part = fields.get(name)
    return part if isinstance(part, dict) else {}
