"""Gemma 1 and 2: the folders of Hugging Face's GemmaForCausalLM and Gemma2ForCausalLM."""

from os import PathLike

from omni_smola.models import gemma
from omni_smola.models.decoder_only import LanguageConfig
from omni_smola.models.gemma_layers import StackConfig
from omni_smola.pretrained import llama, towers
from omni_smola.pretrained.rules import Family, Rule

TYPES = {"gemma": "", "gemma2": ""}
# What fields mean that a config.json leaves out.
ABSENT = {
    "vocab_size": 256_000,
    "head_dim": 256,
    "rms_norm_eps": 1e-6,
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_activation": "gelu_pytorch_tanh",
    "tie_word_embeddings": True,
    "attention_bias": False,
    "use_bidirectional_attention": None,
    "bos_token_id": 2,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
}
_FIRST = {"input": "norm_1", "post_attention": "norm_2"}
_SECOND = {
    "input": "norm_1",
    "post_attention": "post_1",
    "pre_feedforward": "norm_2",
    "post_feedforward": "post_2",
}
_LAYERS = {"sliding_attention": True, "full_attention": False}


def family(config: LanguageConfig) -> Family:
    """The rules for the tensors of a GemmaForCausalLM or a Gemma2ForCausalLM."""
    second = config.stack.post_norms
    name = "Gemma 2" if second else "Gemma"
    return Family(name, rules(config), (), ("gemma2" if second else "gemma",), "model.")


def rules(
    config: LanguageConfig,
    prefixes: tuple[str, ...] = ("model.",),
    heads: tuple[str, ...] = (llama.HEAD,),
) -> tuple[Rule, ...]:
    """The rules of a Gemma, for models that have one, with what stands before their names."""
    norms = _SECOND if config.stack.post_norms else _FIRST
    return llama.decoder_rules(prefixes, norms, heads, tied=config.tied)


def read_config(folder: str | PathLike) -> LanguageConfig:
    """The sizes of a folder's model, from its config.json.

    Raises:
      UserError: no such folder or config.json, another architecture or a field that we do not
        compute, or a size that is missing or no whole number above zero, all in one sentence.
    """
    found = towers.Fields(folder, "Gemma", TYPES, ABSENT)
    found.one_of("use_bidirectional_attention", {None: None, False: None})
    tied = llama.tied_head(found)
    return language_config(found, second=found.fields["model_type"] == "gemma2", tied=tied)


def language_config(found: towers.Fields, *, second: bool, tied: bool) -> LanguageConfig:
    """A Gemma 1 or 2 of these fields; raises UserError with all that `found` has to tell."""
    fields = found.fields
    sizes, more = llama.decoder_fields(found)
    more["base"], more["factor"] = llama.rope(found)
    more["local_base"] = more["base"]
    found.one_of("bos_token_id", {gemma.BOS: gemma.BOS})
    if not second:
        # Published files say "gelu" and mean its tanh form.
        found.one_of("hidden_act", {"gelu_pytorch_tanh": "gelu", "gelu": "gelu"})
    else:
        found.one_of("hidden_activation", {"gelu_pytorch_tanh": "gelu"})
        more |= _second(found)
        if more["factor"] != 1:
            found.problem("rope_type is 'linear', but only 'default' is implemented in Gemma 2")
    found.check()
    cap = fields["final_logit_softcapping"] if second else None
    stack = StackConfig(**sizes, **more)
    return LanguageConfig(
        fields["vocab_size"], stack, tied=tied, scaled=True, final_cap=cap, bos=gemma.BOS
    )


def _second(found: towers.Fields) -> dict:
    """What only Gemma 2 has."""
    fields, depth = found.fields, found.fields.get("num_hidden_layers")
    kinds = fields.get("layer_types")
    if kinds is None and isinstance(depth, int):
        sliding = tuple(layer % 2 == 0 for layer in range(depth))
    elif isinstance(kinds, list) and len(kinds) == depth and set(map(str, kinds)) <= set(_LAYERS):
        sliding = tuple(_LAYERS[kind] for kind in kinds)
    else:
        found.problem(
            f"layer_types is {kinds!r}, which does not call each layer one of {', '.join(_LAYERS)}"
        )
        sliding = ()
    if any(sliding):
        found.sizes({"sliding_window": "window"})
    if fields["final_logit_softcapping"] is not None:
        found.number("final_logit_softcapping")
    cap = fields["attn_logit_softcapping"]
    return {
        "sliding": sliding,
        "window": fields["sliding_window"],
        "query_scalar": found.number("query_pre_attn_scalar"),
        "softcap": None if cap is None else found.number("attn_logit_softcapping"),
        "post_norms": True,
    }
