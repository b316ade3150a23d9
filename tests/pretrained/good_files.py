"""A good folder of every kind that is read, and how a run opens it; damaged by `odd_files`."""

import importlib
import json
import pathlib
import shutil
import tempfile

import jax
import numpy as np
import tensorstore as ts
import tokenizers
from flax import nnx, serialization
from safetensors.numpy import save

from omni_smola.data import vocabulary
from omni_smola.errors import UserError
from omni_smola.models.decoder_only import LanguageModel
from omni_smola.models.layers import Precision
from omni_smola.models.t5 import T5Config
from omni_smola.models.t5_text import T5
from omni_smola.models.vit import ViT, ViTConfig
from omni_smola.pretrained import backbones, big_vision_vit, llama, load, minilm, native, t5
from omni_smola.trees import paths

LLAMA = {
    "model_type": "llama",
    "vocab_size": 11,
    "hidden_size": 8,
    "intermediate_size": 6,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "tie_word_embeddings": True,
}
BERT = {
    "model_type": "bert",
    "vocab_size": 11,
    "hidden_size": 6,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 10,
    "max_position_embeddings": 7,
    "type_vocab_size": 2,
}
SMALL_T5 = T5Config(
    vocabulary=11, d_model=8, heads=2, d_head=4, d_ff=6, encoder_layers=1, decoder_layers=1
)
VIT = ViTConfig(image_size=4, patch_size=2, width=4, depth=2, mlp=6, heads=2)


def arrays(names_and_shapes):
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in names_and_shapes}


def expected(family, wanted):
    """A good checkpoint's tensors by a family's rules, from the shapes that it becomes."""
    found = []
    for rule in family.rules:
        if rule.ours not in wanted:
            continue
        shape = wanted[rule.ours]
        layers = range(shape[0]) if "{}" in rule.theirs else [None]
        for layer in layers:
            one = shape if layer is None else shape[1:]
            name = rule.theirs if layer is None else rule.theirs.replace("{}", str(layer))
            found.append((name, one[::-1] if rule.transform is not None else one))
    return arrays(found)


def shapes(make):
    return paths(nnx.to_pure_dict(nnx.state(nnx.eval_shape(make), nnx.Param)))


def of_llama(folder):
    config = llama.read_config(folder)
    return load.read(folder, llama.family(config), LLAMA_WANTED)


def of_bert(folder):
    return minilm.load(folder)


def of_npz(folder):
    return load.read(folder / "vit.npz", big_vision_vit.family(VIT), VIT_WANTED)


def of_t5x(folder):
    return load.read(folder, t5.t5x_family(SMALL_T5), T5_WANTED)


def of_ours(folder):
    file = str(folder / "ours.safetensors")
    if backbones.is_public(file):
        return None
    return native.read(file, {"a/b": jax.ShapeDtypeStruct((2, 3), np.float32)})


def of_tokenizer(folder):
    read = vocabulary.load(folder)
    texts = ["the cat <loc0000> sat", "", "Größe ☃\n<new>", "</s> 12.5%"]
    for text in texts:
        ids = read.encode(text)
        assert all(0 <= i < read.vocab_size for i in ids), ids
        assert isinstance(read.decode([*ids, read.eos_id, 0]), str)
    assert read.decode(list(range(min(read.vocab_size, 50)))) is not None
    return read.vocab_size


def write_bert(folder):
    config = minilm.BertConfig(*(BERT[n] for n in minilm._SIZES))
    tensors = arrays(minilm._wanted(minilm._shapes(config)))
    (folder / "model.safetensors").write_bytes(save(tensors))
    (folder / "config.json").write_text(json.dumps(BERT))


def write_llama(folder, sharded):
    tensors = expected(llama.family(LLAMA_CONFIG), {p: x.shape for p, x in LLAMA_WANTED.items()})
    (folder / "config.json").write_text(json.dumps(LLAMA))
    if not sharded:
        (folder / "model.safetensors").write_bytes(save(tensors))
        return
    where = {}
    for part in range(2):
        file = f"model-0000{part + 1}-of-00002.safetensors"
        mine = {name: tensors[name] for name in sorted(tensors)[part::2]}
        (folder / file).write_bytes(save(mine))
        where |= dict.fromkeys(mine, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))


def write_npz(folder):
    rng = np.random.default_rng(0)
    tensors = {
        "params/img/embedding/kernel": rng.normal(size=(2, 2, 3, 4)).astype(np.float32),
        "params/img/embedding/bias": np.zeros(4, np.float32),
        "params/img/pos_embedding": np.zeros((1, 4, 4), np.float32),
    }
    np.savez(folder / "vit.npz", **tensors)


def write_t5x(folder, driver):
    family = t5.t5x_family(SMALL_T5)
    for name, x in expected(family, {p: x.shape for p, x in T5_WANTED.items()}).items():
        path = str(folder / name.replace("/", "."))
        kvstore = {"driver": "file", "path": path}
        if driver == "ocdbt":
            base = {"driver": "file", "path": f"{folder}/"}
            kvstore = {"driver": "ocdbt", "base": base, "path": name.replace("/", ".") + "/"}
        spec = {"driver": "zarr" if driver == "ocdbt" else driver, "kvstore": kvstore}
        made = ts.open(spec, create=True, dtype=ts.float32, shape=x.shape).result()
        made.write(x).result()
    if driver == "zarr":
        tree = {"target": {"decoder": {"decoder_norm": {"scale": np.zeros(8, np.float32)}}}}
        (folder / "checkpoint").write_bytes(serialization.msgpack_serialize(tree))


def write_pieces(folder):
    shutil.copy(vocabulary.SHIPPED, folder / "tokenizer.model")
    (folder / "added_tokens.json").write_text(json.dumps({"<loc0000>": 3072, "</s>": 1}))
    listed = {"3073": {"content": "<new>", "lstrip": True, "special": False}}
    settings = {"added_tokens_decoder": listed, "eos_token": "</s>", "tokenizer_class": "T5"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def write_tokenizer(folder):
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<pad>", "</s>"], show_progress=False
    )
    made.train_from_iterator(["the cat sat on the mat"] * 3, trainer)
    made.add_tokens(["<loc0000>"])
    made.save(str(folder / "tokenizer.json"))
    (folder / "special_tokens_map.json").write_text(json.dumps({"eos_token": "</s>"}))
    (folder / "added_tokens.json").write_text("{}")


def write_configs(folder):
    """What the other families read of a config.json; a file each."""
    stack = LLAMA | {"model_type": "", "head_dim": 4, "num_key_value_heads": 1}
    tower = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 4}
    tower |= {"patch_size": 2, "intermediate_size": 6}
    gemma2 = stack | {"model_type": "gemma2", "layer_types": ["full_attention"] * 2}
    kinds = ["sliding_attention", "full_attention"]
    rope = {kind: {"rope_type": "default", "rope_theta": 10_000.0} for kind in kinds}
    third = stack | {"layer_types": kinds, "sliding_window": 3, "rope_parameters": rope}
    third |= {"vocab_size": 300_000}
    paligemma_text = gemma2 | {"vocab_size": 300_000}
    made = {
        "t5": {
            "model_type": "t5",
            "feed_forward_proj": "gated-gelu",
            **dict.fromkeys(t5._SIZES, 4),
            "relative_attention_max_distance": 20,
        },
        "gemma": gemma2,
        "paligemma": {"text_config": paligemma_text, "vision_config": tower},
        "t5gemma2": {
            "encoder": {"text_config": third, "vision_config": tower, "mm_tokens_per_image": 4},
            "decoder": third,
        },
        "clip": tower,
        "siglip": {"model_type": "siglip_vision_model", **tower},
        "dinov2": tower,
        "pix2struct": {"model_type": "pix2struct_vision_model", "seq_len": 9},
    }
    for name, fields in made.items():
        kind = fields.get("model_type") or {"clip": "clip_vision_model"}.get(name, name)
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps(fields | {"model_type": kind}))
        more = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.4, 0.3]}
        (folder / name / "preprocessor_config.json").write_text(json.dumps(more))


def of_configs(folder):
    """Every family reads its file; what a sentence refuses must not hide the others' faults."""
    refused = []
    for file in sorted(folder.rglob("config.json")):
        family = importlib.import_module(f"omni_smola.pretrained.{file.parent.name}")
        try:
            family.read_config(file.parent)
        except UserError as error:
            refused.append(error)
    if refused:
        raise refused[0]


LLAMA_CONFIG = T5_WANTED = VIT_WANTED = LLAMA_WANTED = None


def prepare():
    """The shapes that good files have."""
    global LLAMA_CONFIG, LLAMA_WANTED, T5_WANTED, VIT_WANTED
    with tempfile.TemporaryDirectory() as place:
        (pathlib.Path(place) / "config.json").write_text(json.dumps(LLAMA))
        LLAMA_CONFIG = llama.read_config(place)
    LLAMA_WANTED = shapes(lambda: LanguageModel(LLAMA_CONFIG, rngs=nnx.Rngs(0)))
    T5_WANTED = shapes(lambda: T5(SMALL_T5, rngs=nnx.Rngs(0)))
    VIT_WANTED = shapes(lambda: ViT(VIT, precision=Precision(), rngs=nnx.Rngs(0)))


# Kind -> (writes a good folder, opens it, its share of the cases).
KINDS = {
    "llama": (lambda f: write_llama(f, False), of_llama, 4),
    "llama in two files": (lambda f: write_llama(f, True), of_llama, 3),
    "sentence encoder": (write_bert, of_bert, 2),
    "npz": (write_npz, of_npz, 2),
    "ours": (
        lambda f: (f / "ours.safetensors").write_bytes(save(arrays([("a/b", (2, 3))]))),
        of_ours,
        2,
    ),
    "zarr": (lambda f: write_t5x(f, "zarr"), of_t5x, 2),
    "zarr3": (lambda f: write_t5x(f, "zarr3"), of_t5x, 1),
    "ocdbt": (lambda f: write_t5x(f, "ocdbt"), of_t5x, 2),
    "configs": (write_configs, of_configs, 5),
    "pieces": (write_pieces, of_tokenizer, 4),
    "tokenizer": (write_tokenizer, of_tokenizer, 4),
}
