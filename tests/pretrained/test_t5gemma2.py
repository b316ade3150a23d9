"""What a folder's config.json says of a T5Gemma 2, and what is refused."""

import json

import pytest

from omni_smola.errors import UserError
from omni_smola.models.t5gemma2 import NAMED
from omni_smola.pretrained import t5gemma2

LAYERS = ["sliding_attention"] * 5 + ["full_attention"]
STACK = {
    "hidden_size": 640,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 256,
    "intermediate_size": 2048,
    "num_hidden_layers": 18,
    "vocab_size": 262_144,
    "sliding_window": 512,
    "layer_types": LAYERS * 3,
    "hidden_activation": "gelu_pytorch_tanh",
    "attention_bias": False,
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
    "query_pre_attn_scalar": 256,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {
        "full_attention": {"factor": 8.0, "rope_theta": 1_000_000, "rope_type": "linear"},
        "sliding_attention": {"rope_theta": 10_000, "rope_type": "default"},
    },
}
# The fields of the published 270M-270M that say what is computed.
PUBLISHED = {
    "model_type": "t5gemma2",
    "is_encoder_decoder": True,
    "image_token_index": 256_001,
    "eoi_token_index": 256_000,
    "decoder": STACK,
    "encoder": {
        "mm_tokens_per_image": 256,
        "boi_token_index": 255_999,
        "eoi_token_index": 256_000,
        "text_config": STACK,
        "vision_config": {
            "model_type": "siglip_vision_model",
            "image_size": 896,
            "patch_size": 14,
            "hidden_size": 1152,
            "num_hidden_layers": 27,
            "intermediate_size": 4304,
            "num_attention_heads": 16,
            "hidden_act": "gelu_pytorch_tanh",
            "layer_norm_eps": 1e-6,
            "num_channels": 3,
        },
    },
}


def write(folder, where=None, value=None):
    """The published config.json, one field of it changed: "decoder.head_dim"; None removes it."""
    fields = json.loads(json.dumps(PUBLISHED))  # unlike deepcopy, twice the stack is two
    if where is not None:
        *parents, name = where.split(".")
        part = fields
        for parent in parents:
            part = part[parent]
        part[name] = value
        if value is None:
            del part[name]
    (folder / "config.json").write_text(json.dumps(fields))
    return folder


def test_the_published_config_is_the_named_shape(tmp_path):
    got = t5gemma2.read_config(write(tmp_path))
    named = NAMED["t5gemma2_270m"]
    # query_pre_attn_scalar is 256, the width of a head, which the named shape leaves unsaid.
    assert got.encoder.scale == named.encoder.scale == 1 / 16
    for ours in (got, named):
        object.__setattr__(ours.encoder, "query_scalar", None)
        object.__setattr__(ours.decoder, "query_scalar", None)
    assert got == named


def test_fields_that_transformers_has_defaults_for(tmp_path):
    write(tmp_path, "decoder.rope_parameters", {"full_attention": {"rope_type": "default"}})
    decoder = t5gemma2.read_config(tmp_path).decoder
    assert (decoder.base, decoder.factor, decoder.local_base) == (1e6, 1.0, 1e4)


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        ("model_type", "t5gemma", "type 't5gemma', but a T5Gemma 2"),
        ("tie_word_embeddings", 3, "tie_word_embeddings is 3"),
        ("decoder.hidden_activation", "silu", "decoder.hidden_activation is 'silu'"),
        ("decoder.head_dim", 3, "decoder.head_dim is odd"),
        ("decoder.head_dim", "8", "decoder.head_dim is '8'"),
        ("decoder.sliding_window", None, "decoder.sliding_window is 'missing'"),
        ("decoder.vocab_size", 262_208, "unlike vocabularies"),
        ("decoder.rope_scaling", {"factor": 2.0}, "decoder.rope_scaling is given"),
        ("encoder.text_config.attn_logit_softcapping", 50.0, "attn_logit_softcapping is 50.0"),
        ("encoder.text_config.num_key_value_heads", 3, "no multiple of num_key_value_heads"),
        ("encoder.text_config.layer_types", LAYERS, "does not name the kind of each"),
        ("encoder.text_config.layer_types", ["chunked"] * 18, "layer_types has others"),
        ("encoder.text_config", None, "encoder.text_config.hidden_size is 'missing'"),
        ("encoder.vision_config.model_type", "clip_vision_model", "'clip_vision_model'"),
        ("encoder.vision_config.num_attention_heads", 7, "no multiple of num_attention_heads"),
        ("encoder.mm_tokens_per_image", 200, "cannot be averaged to 200 tokens"),
        ("encoder.text_config.rms_norm_eps", "small", "text_config.rms_norm_eps is 'small'"),
        ("encoder.vision_config.layer_norm_eps", -1, "layer_norm_eps is -1"),
        ("encoder.boi_token_index", "<boi>", "encoder.boi_token_index is '<boi>'"),
        ("decoder.final_logit_softcapping", 0, "final_logit_softcapping is 0"),
        ("decoder.rope_parameters.full_attention.factor", "8", "full_attention.factor is '8'"),
        (
            "decoder.rope_parameters.full_attention.rope_type",
            "yarn",
            "full_attention.rope_type is 'yarn'",
        ),
        (
            "decoder.rope_parameters.sliding_attention.rope_type",
            "linear",
            "sliding_attention.rope_type is 'linear'",
        ),
    ],
)
def test_what_is_not_computed_is_refused(tmp_path, where, value, message):
    with pytest.raises(UserError, match=message):
        t5gemma2.read_config(write(tmp_path, where, value))


def test_all_mistakes_are_told_at_once(tmp_path):
    write(tmp_path, "decoder.head_dim", 0)
    fields = json.loads((tmp_path / "config.json").read_text())
    fields["encoder"]["vision_config"]["patch_size"] = None
    (tmp_path / "config.json").write_text(json.dumps(fields))
    with pytest.raises(UserError, match=r"patch_size is None; decoder\.head_dim is 0"):
        t5gemma2.read_config(tmp_path)
