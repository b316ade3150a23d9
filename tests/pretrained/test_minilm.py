"""Folders of sentence encoders: every tensor in its place, one sentence for what can be wrong."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

from omni_smola.errors import UserError
from omni_smola.models.layers import Precision
from omni_smola.models.sentence_encoder import BertConfig
from omni_smola.pretrained import minilm

FIELDS = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "vocab_size": 11,
    "hidden_size": 6,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 10,
    "max_position_embeddings": 7,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
}
LAYER = {
    "attention.self.query.weight": (6, 6),
    "attention.self.query.bias": (6,),
    "attention.self.key.weight": (6, 6),
    "attention.self.key.bias": (6,),
    "attention.self.value.weight": (6, 6),
    "attention.self.value.bias": (6,),
    "attention.output.dense.weight": (6, 6),
    "attention.output.dense.bias": (6,),
    "attention.output.LayerNorm.weight": (6,),
    "attention.output.LayerNorm.bias": (6,),
    "intermediate.dense.weight": (10, 6),
    "intermediate.dense.bias": (10,),
    "output.dense.weight": (6, 10),
    "output.dense.bias": (6,),
    "output.LayerNorm.weight": (6,),
    "output.LayerNorm.bias": (6,),
}
SHAPES = {
    "embeddings.word_embeddings.weight": (11, 6),
    "embeddings.position_embeddings.weight": (7, 6),
    "embeddings.token_type_embeddings.weight": (2, 6),
    "embeddings.LayerNorm.weight": (6,),
    "embeddings.LayerNorm.bias": (6,),
} | {f"encoder.layer.{i}.{name}": shape for i in range(2) for name, shape in LAYER.items()}


def random_tensors():
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}


def write(folder, tensors=None, fields=FIELDS):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(fields))
    if tensors is not None:
        save_file(tensors, folder / "model.safetensors")
    return folder


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "encoder", random_tensors())


def change(folder, function):
    tensors = load_file(folder / "model.safetensors")
    function(tensors)
    save_file(tensors, folder / "model.safetensors")


def test_every_tensor_comes_to_its_place(folder):
    config, weights = minilm.load(folder)
    assert config == BertConfig(11, 6, 2, 3, 10, 7, 2, 1e-12)
    tensors = random_tensors()

    def layers(name):
        return np.stack([tensors[f"encoder.layer.{i}.{name}"] for i in range(2)])

    def linear(module, name, output):
        weight = np.swapaxes(layers(f"{name}.weight"), 1, 2)
        module = f"encoder/layers/{module}"
        return {
            f"{module}/kernel/{output}": weight,
            f"{module}/bias/{output}": layers(f"{name}.bias"),
        }

    want = {
        "words": tensors["embeddings.word_embeddings.weight"],
        "positions": tensors["embeddings.position_embeddings.weight"],
        "types": tensors["embeddings.token_type_embeddings.weight"],
        "norm/scale": tensors["embeddings.LayerNorm.weight"],
        "norm/bias": tensors["embeddings.LayerNorm.bias"],
        "encoder/layers/norm_1/scale": layers("attention.output.LayerNorm.weight"),
        "encoder/layers/norm_1/bias": layers("attention.output.LayerNorm.bias"),
        "encoder/layers/norm_2/scale": layers("output.LayerNorm.weight"),
        "encoder/layers/norm_2/bias": layers("output.LayerNorm.bias"),
        **linear("qkv", "attention.self.query", "q"),
        **linear("qkv", "attention.self.key", "k"),
        **linear("qkv", "attention.self.value", "v"),
        **linear("out", "attention.output.dense", "o"),
        **linear("mlp/wi", "intermediate.dense", "wi_0"),
        **linear("mlp/wo", "output.dense", "wo"),
    }
    assert weights.keys() == want.keys()
    for path, value in weights.items():
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, want[path], err_msg=path)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_an_encoder_is_filled_in_the_dtype_asked_for(folder, dtype):
    encoder = minilm.sentence_encoder(folder, Precision(jnp.float32, dtype))
    _, weights = minilm.load(folder)
    leaves = {"/".join(path): leaf for path, leaf in nnx.state(encoder).flat_state()}
    assert leaves.keys() == weights.keys()
    for path, leaf in leaves.items():
        assert type(leaf) is nnx.Param
        assert leaf[...].dtype == dtype
        np.testing.assert_array_equal(leaf[...], weights[path].astype(dtype), err_msg=path)


def test_names_may_have_the_prefix_and_the_rest_of_a_pretraining_model(folder):
    _, want = minilm.load(folder)
    tensors = {f"bert.{name}": value for name, value in random_tensors().items()}
    tensors["bert.pooler.dense.weight"] = np.zeros((6, 6), np.float32)
    tensors["bert.embeddings.position_ids"] = np.arange(7)[None]
    tensors["cls.predictions.bias"] = np.zeros(11, np.float32)
    save_file(tensors, folder / "model.safetensors")
    _, got = minilm.load(folder)
    assert got.keys() == want.keys()
    assert all(np.array_equal(got[path], want[path]) for path in want)


def test_half_precision_is_read_as_float32(folder):
    change(folder, lambda t: t.update({n: v.astype(jnp.bfloat16) for n, v in t.items()}))
    _, weights = minilm.load(folder)
    want = random_tensors()["embeddings.LayerNorm.bias"].astype(jnp.bfloat16)
    np.testing.assert_array_equal(weights["norm/bias"], want.astype(np.float32))
    assert weights["norm/bias"].dtype == np.float32


def test_all_that_does_not_fit_is_told_in_one_sentence(folder):
    def spoil(tensors):
        del tensors["embeddings.LayerNorm.bias"]
        tensors["encoder.layer.2.output.dense.bias"] = np.zeros(6, np.float32)
        tensors["classifier.weight"] = np.zeros((1, 6), np.float32)
        tensors["pooler.dense.weight"] = np.zeros((6, 6), np.float32)
        # The transpose has as many numbers; a reshape would hide it.
        tensors["encoder.layer.0.output.dense.weight"] = np.zeros((10, 6), np.float32)
        tensors["embeddings.word_embeddings.weight"] = np.zeros((12, 6), np.float32)

    change(folder, spoil)
    with pytest.raises(UserError) as error:
        minilm.load(folder)
    message = str(error.value)
    for problem in (
        "model.safetensors",
        "missing embeddings.LayerNorm.bias",
        "unexpected encoder.layer.2.output.dense.bias",
        "unexpected classifier.weight",
        "encoder.layer.0.output.dense.weight is (10, 6) instead of (6, 10)",
        "embeddings.word_embeddings.weight is (12, 6) instead of (11, 6)",
    ):
        assert problem in message
    assert "missing pooler" not in message and "unexpected pooler" not in message
    assert len(message) < 600
    assert message.count("; ") == 4


def test_a_name_with_and_without_the_prefix_is_ambiguous(folder):
    name = "embeddings.LayerNorm.bias"
    change(folder, lambda tensors: tensors.update({f"bert.{name}": tensors[name]}))
    with pytest.raises(UserError, match=f"unexpected bert.{name}"):
        minilm.load(folder)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"model_type": "distilbert"}, "a model of type 'distilbert'"),
        ({"model_type": None}, "a model of type None"),
        ({"hidden_act": "relu"}, "hidden_act is 'relu' .* only 'gelu'"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type is 'relative_key'"),
        ({"is_decoder": True}, "is_decoder is True"),
        ({"num_attention_heads": 4}, "hidden_size is no multiple of num_attention_heads"),
        ({"vocab_size": "11", "num_hidden_layers": 0}, "'11'; num_hidden_layers is 0"),
        ({"layer_norm_eps": "tiny"}, "layer_norm_eps is 'tiny'"),
    ],
)
def test_a_config_that_is_not_our_bert_is_refused(tmp_path, fields, told):
    with pytest.raises(UserError, match=told):
        minilm.load(write(tmp_path / "encoder", fields=FIELDS | fields))


def test_a_size_that_is_missing_is_named(tmp_path):
    fields = {name: value for name, value in FIELDS.items() if name != "intermediate_size"}
    with pytest.raises(UserError, match="intermediate_size is 'missing'"):
        minilm.load(write(tmp_path / "encoder", fields=fields))


@pytest.mark.parametrize("text", ["{", "[]", b"\xff\xfe"])
def test_a_config_that_is_not_a_json_object(folder, text):
    data = text if isinstance(text, bytes) else text.encode()
    (folder / "config.json").write_bytes(data)
    with pytest.raises(UserError, match=r"config\.json is not"):
        minilm.load(folder)


@pytest.mark.parametrize(
    ("pooling", "told"),
    [
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, None),
        ({"pooling_mode": "mean"}, None),
        ({"pooling_mode": ["mean"]}, None),
        ({"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}, "cls_token"),
        ({"pooling_mode": "lasttoken"}, "by lasttoken"),
        ({"pooling_mode": ["mean", "max"]}, "by max"),
    ],
)
def test_another_pooling_than_the_mean_is_refused(folder, pooling, told):
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    if told is None:
        assert minilm.read_config(folder).width == 6
    else:
        with pytest.raises(UserError, match=told):
            minilm.read_config(folder)


def test_a_pickle_is_refused_and_left_unread(tmp_path):
    folder = write(tmp_path / "encoder")
    (folder / "pytorch_model.bin").write_bytes(b"cbuiltins\nexit\n(I3\ntR.")  # exits when unpickled
    with pytest.raises(UserError, match=r"pickle, pytorch_model\.bin.*save_pretrained"):
        minilm.load(folder)


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(UserError, match=r"folder .*nowhere has no readable config\.json"):
        minilm.load(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"has no model\.safetensors"):
        minilm.load(write(tmp_path / "encoder"))


@pytest.mark.parametrize("keep", [0, 4, 200, -1])
def test_a_file_cut_short(folder, keep):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(UserError, match="is not a complete safetensors file"):
        minilm.load(folder)
