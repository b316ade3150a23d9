"""What config.json says of a T5, and what of it is refused."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from omni_smola.errors import UserError
from omni_smola.models import shapes
from omni_smola.models.t5 import T5Config
from omni_smola.pretrained import t5

# As google/flan-t5-small describes itself, so far as it matters.
FLAN_SMALL = {
    "architectures": ["T5ForConditionalGeneration"],
    "d_ff": 1024,
    "d_kv": 64,
    "d_model": 512,
    "decoder_start_token_id": 0,
    "dropout_rate": 0.1,
    "eos_token_id": 1,
    "feed_forward_proj": "gated-gelu",
    "initializer_factor": 1.0,
    "is_encoder_decoder": True,
    "layer_norm_epsilon": 1e-06,
    "model_type": "t5",
    "n_positions": 512,
    "num_decoder_layers": 8,
    "num_heads": 6,
    "num_layers": 8,
    "output_past": True,
    "pad_token_id": 0,
    "relative_attention_num_buckets": 32,
    "tie_word_embeddings": False,
    "use_cache": True,
    "vocab_size": 32128,
}


UNLIKE = {"decoder.embed_tokens.weight": 1.0, "lm_head.weight": 2.0}


def folder(tmp_path, without=(), names=(), **changes):
    fields = {k: v for k, v in (FLAN_SMALL | changes).items() if k not in without}
    (tmp_path / "config.json").write_text(json.dumps(fields), encoding="utf-8")
    if names:
        values = names if isinstance(names, dict) else dict.fromkeys(names, 0.0)
        tensors = {name: np.full(1, value) for name, value in values.items()}
        save_file(tensors, tmp_path / "model.safetensors")
    return tmp_path


def test_flan_t5_is_the_named_shape(tmp_path):
    assert t5.read_config(folder(tmp_path)) == shapes.LANGUAGE["t5_small"]


def test_mt5_and_ul2_are_named_shapes(tmp_path):
    mt5 = folder(tmp_path, ["feed_forward_proj"], model_type="mt5", vocab_size=250_112)
    assert t5.read_config(mt5) == shapes.LANGUAGE["mt5_small"]
    sizes = dict(d_ff=16384, d_kv=256, d_model=4096, num_heads=16, num_layers=32)
    ul2 = folder(
        tmp_path,
        ["num_decoder_layers"],
        feed_forward_proj="gated-silu",
        dense_act_fn="silu",
        **sizes,
    )
    assert t5.read_config(ul2) == shapes.LANGUAGE["ul2_20b"]


@pytest.mark.parametrize(
    ("fields", "names", "tied", "scaled"),
    [
        ({"tie_word_embeddings": False}, ["shared.weight"], False, False),  # the loader will ask
        ({"tie_word_embeddings": True}, ["shared.weight"], True, True),
        ({"tie_word_embeddings": True}, ["lm_head.weight"], True, True),  # the one matrix
        ({"tie_word_embeddings": True}, ["lm_head.weight", "shared.weight"], True, True),
        ({"tie_word_embeddings": True}, [], True, True),
        ({"tie_word_embeddings": True, "scale_decoder_outputs": False}, ["x"], True, False),
        ({"tie_word_embeddings": True, "model_type": "mt5"}, UNLIKE, False, False),
        (
            {"tie_word_embeddings": True},
            {"w.shared.weight": 1.0, "w.lm_head.weight": 2.0},
            False,
            True,
        ),
    ],
)
def test_the_head_is_tied_where_the_file_has_none_of_its_own(tmp_path, fields, names, tied, scaled):
    config = t5.read_config(folder(tmp_path, names=names, **fields))
    assert (config.tied_head, config.scaled_head) == (tied, scaled)
    ours = {rule.ours for rule in t5.family(config).rules}
    assert ("head/kernel/logits" in ours) == (not tied)


def test_positions_and_epsilon_are_read(tmp_path):
    fields = dict(relative_attention_max_distance=64, layer_norm_epsilon=1e-5)
    config = t5.read_config(folder(tmp_path, **fields))
    assert (config.max_distance, config.epsilon) == (64, 1e-5)
    without = ["relative_attention_num_buckets", "layer_norm_epsilon"]
    config = t5.read_config(folder(tmp_path, without))
    assert (config.buckets, config.epsilon) == (T5Config.buckets, T5Config.epsilon)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"feed_forward_proj": "relu"}, "feed_forward_proj is 'relu'.*T5 1.0 .* has no gate"),
        ({"feed_forward_proj": "gated-relu"}, "'gated-relu'.*gated-gelu, .*gated-silu"),
        ({"feed_forward_proj": ["gated-gelu"]}, "feed_forward_proj is"),
        ({"dense_act_fn": "gelu"}, "dense_act_fn is 'gelu'.*gelu_new"),
        ({"model_type": "umt5"}, "'umt5'.*each of its layers has a position bias"),
        ({"model_type": "bert"}, "'bert', but only 't5'"),
        ({"decoder_start_token_id": 2}, "decoder_start_token_id is 2"),
        ({"pad_token_id": 5}, "pad_token_id is 5"),
        ({"is_encoder_decoder": False}, "is_encoder_decoder is False"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantised"),
        ({"d_kv": 0}, "d_kv is 0"),
        ({"vocab_size": None, "num_heads": 2.0}, "vocab_size is None; num_heads is 2.0"),
        ({"relative_attention_num_buckets": 2}, "2 buckets"),
        ({"relative_attention_max_distance": 16}, "32 buckets .* distance 16"),
        ({"layer_norm_epsilon": "tiny"}, "layer_norm_epsilon is 'tiny'"),
    ],
)
def test_what_is_not_computed_is_a_sentence(tmp_path, changes, words):
    with pytest.raises(UserError, match=words):
        t5.read_config(folder(tmp_path, **changes))


def test_t5_1_0_does_not_name_its_activation(tmp_path):
    with pytest.raises(UserError, match="feed_forward_proj is 'relu'"):
        t5.read_config(folder(tmp_path, ["feed_forward_proj"]))


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"config\.json"):
        t5.read_config(tmp_path / "nowhere")
