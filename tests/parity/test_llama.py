"""Llama against transformers: logits and decoding, on folders that it wrote."""

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from omni_smola.errors import UserError
from omni_smola.models.decoder_only import LanguageModel
from omni_smola.pretrained import llama, load

from . import test_gemma as shared

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

BOS = 1
SIZES = dict(
    vocab_size=131,
    hidden_size=36,
    intermediate_size=52,
    num_hidden_layers=3,
    num_attention_heads=6,
)
VARIANTS = {
    "vicuna": dict(rms_norm_eps=1e-5),
    "grouped and long": dict(
        num_key_value_heads=2,
        head_dim=10,
        rope_parameters={"rope_type": "linear", "factor": 3.0, "rope_theta": 500.0},
    ),
    "tied": dict(tie_word_embeddings=True, num_key_value_heads=3),
}


def original(name, seed=0):
    config = transformers.LlamaConfig(**(SIZES | VARIANTS[name]))
    return shared.randomize(transformers.LlamaForCausalLM(config), seed)


@pytest.mark.parametrize("name", VARIANTS)
def test_logits_at_once_and_with_a_cache(name, tmp_path):
    oracle, batch = original(name), shared.make_batch(bos=BOS)
    oracle.save_pretrained(tmp_path)
    model = shared.ours(tmp_path, llama)
    assert isinstance(model, LanguageModel)
    want = shared.wanted_logits(oracle, batch)
    shared.assert_near(shared.logits(model, batch), want)
    shared.assert_near(shared.stepwise(model, batch), want)


def test_old_fields_and_old_constants(tmp_path):
    """rope_theta and rope_scaling as version 4 wrote them, and rotary constants in the file."""
    oracle = original("grouped and long")
    oracle.save_pretrained(tmp_path)
    want = llama.read_config(tmp_path)
    old = {"rope_parameters": None, "rope_theta": 500.0}
    shared.changed_config(tmp_path, **old, rope_scaling={"type": "linear", "factor": 3.0})
    assert llama.read_config(tmp_path) == want
    shared.changed_config(tmp_path, **old, rope_scaling=None)
    assert llama.read_config(tmp_path).stack.factor == 1.0
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(5, np.float32)
    save_file(tensors, tmp_path / "model.safetensors")
    model = shared.ours(tmp_path, llama)
    load.fill(model, tmp_path, llama.family(model.config))
    tensors["model.layers.0.self_attn.q_norm.weight"] = np.ones(5, np.float32)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"unexpected model\.layers\.0\.self_attn\.q_norm"):
        load.fill(model, tmp_path, llama.family(model.config))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "mistral"}, "type 'mistral', but a Llama"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu', but only 'silu'"),
        ({"mlp_bias": True}, "mlp_bias is True"),
        ({"rope_parameters": {"rope_type": "llama3", "factor": 8.0}}, "rope_type is 'llama3'"),
        ({"rope_parameters": {"rope_theta": "x"}}, "rope_theta of the rotary positions is 'x'"),
        ({"rms_norm_eps": 0}, "rms_norm_eps is 0"),
        ({"vocab_size": None}, "vocab_size is None"),
    ],
    ids=str,
)
def test_what_is_not_computed_is_refused(changes, said, tmp_path):
    transformers.LlamaConfig(**(SIZES | VARIANTS["vicuna"])).save_pretrained(tmp_path)
    llama.read_config(tmp_path)
    shared.changed_config(tmp_path, **changes)
    with pytest.raises(UserError, match=said):
        llama.read_config(tmp_path)
