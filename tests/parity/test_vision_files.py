"""Files of vision towers: whole models, big_vision's archives, and what config.json leaves out."""

import dataclasses
import json

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file

from omni_smola.models.pix2struct import PIX2STRUCT
from omni_smola.models.vit_sizes import VIT
from omni_smola.pretrained import big_vision_vit, clip, dinov2, eva_clip, pix2struct, siglip

from .vision_models import MODELS, PATCHES, WITH_MLP, arrays, make

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TEXT = dict(hidden_size=24, intermediate_size=40, num_attention_heads=3, num_hidden_layers=1)
SMALL_TEXT = TEXT | dict(vocab_size=30, bos_token_id=1, eos_token_id=2)


WHOLE = {
    "siglip": (siglip, "Siglip", dict(vision_config=WITH_MLP, text_config=SMALL_TEXT), ""),
    "clip": (clip, "CLIP", dict(vision_config=WITH_MLP, text_config=SMALL_TEXT), ""),
    "dinov2": (dinov2, "Dinov2ForImageClassification", MODELS["dinov2_giant"][2], "dinov2."),
    "registers": (
        dinov2,
        "Dinov2WithRegistersForImageClassification",
        MODELS["dinov2_registers"][2],
        "dinov2_with_registers.",
    ),
    "pix2struct": (
        pix2struct,
        "Pix2StructForConditionalGeneration",
        dict(
            vision_config=PATCHES,
            text_config=dict(
                hidden_size=20, d_kv=4, d_ff=24, num_layers=1, num_heads=2, vocab_size=30
            ),
        ),
        "",
    ),
    "eva_clip": (
        eva_clip,
        "Blip2",
        dict(
            vision_config=WITH_MLP,
            qformer_config=TEXT | {"vocab_size": 30, "encoder_hidden_size": 24},
            text_config=dict(
                model_type="opt",
                hidden_size=24,
                ffn_dim=40,
                num_hidden_layers=1,
                num_attention_heads=3,
                vocab_size=30,
                word_embed_proj_dim=24,
            ),
        ),
        "",
    ),
}


def whole(name):
    _, model, config, _ = WHOLE[name]
    cls = getattr(transformers, model, None) or getattr(transformers, f"{model}Model")
    kind = model.replace("ForImageClassification", "").replace("ForConditionalGeneration", "")
    torch.manual_seed(1)
    return cls(getattr(transformers, f"{kind}Config")(**config))


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_model_has_the_same_tower(name, tmp_path):
    family, _, _, prefix = WHOLE[name]
    model = whole(name)
    model.save_pretrained(tmp_path / "whole")
    bare = {
        "dinov2": lambda: model.dinov2,
        "registers": lambda: model.dinov2_with_registers,
        "pix2struct": lambda: model.encoder,
    }.get(name, lambda: model.vision_model)()
    bare.save_pretrained(tmp_path / "bare")
    config = family.read_config(tmp_path / "whole")
    assert config == family.read_config(tmp_path / "bare")
    got = arrays(tmp_path / "whole", family, config)
    want = arrays(tmp_path / "bare", family, config)
    assert got.keys() == want.keys()
    assert all(np.array_equal(got[path], want[path]) for path in want)
    names = load_file(tmp_path / "whole" / "model.safetensors")
    assert any(each.startswith(prefix or ("encoder.", "vision_model.")) for each in names)


PUBLISHED = {
    "siglip_b16_224": (siglip, "SiglipVision"),
    "clip_b32": (clip, "CLIPVision"),
    "eva_clip_g14": (eva_clip, "Blip2Vision"),
    "pix2struct_base": (pix2struct, "Pix2StructVision"),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_named_sizes_are_those_that_transformers_defaults_to(name, tmp_path):
    family, model = PUBLISHED[name]
    getattr(transformers, f"{model}Config")().save_pretrained(tmp_path)
    found = family.read_config(tmp_path)
    assert found == (VIT | PIX2STRUCT)[name]
    # A file that leaves out what is default, as those of the hub do, means the same.
    fields = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({"model_type": fields["model_type"]}))
    assert family.read_config(tmp_path) == found


# big_vision: a ViT written by the inverse of what transformers' converter of SigLIP does.

ATTENTION = {"q_proj": "query", "k_proj": "key", "v_proj": "value", "out_proj": "out"}


def archive(tensors, heads, width):
    """SiglipVisionModel's tensors -> name in big_vision -> array."""
    made = {}
    for name, x in tensors.items():
        *path, kind = name.split(".")
        if path[0] == "head":
            made[f"params/img/MAPHead_0/{'/'.join(path[1:])}/{kind}"] = x
        elif path[-1] == "patch_embedding":
            flax = "kernel" if kind == "weight" else "bias"
            x = x.transpose(2, 3, 1, 0) if kind == "weight" else x
            made[f"params/img/embedding/{flax}"] = x
        elif path[-1] == "position_embedding":
            made["params/img/pos_embedding"] = x[None]
        elif path[-1] == "post_layernorm":
            flax = "scale" if kind == "weight" else "bias"
            made[f"params/img/Transformer/encoder_norm/{flax}"] = x
        else:
            block = f"params/img/Transformer/encoderblock_{path[2]}"
            if path[-1].startswith("layer_norm"):
                flax = "scale" if kind == "weight" else "bias"
                made[f"{block}/LayerNorm_{int(path[-1][-1]) - 1}/{flax}"] = x
                continue
            flax, x = ("kernel", x.T) if kind == "weight" else ("bias", x)
            if path[-2] == "mlp":
                made[f"{block}/MlpBlock_0/Dense_{int(path[-1][-1]) - 1}/{flax}"] = x
                continue
            if path[-1] == "out_proj":
                x = x.reshape(heads, -1, width) if flax == "kernel" else x
            else:
                x = x.reshape(*x.shape[:-1], heads, -1)
            made[f"{block}/MultiHeadDotProductAttention_0/{ATTENTION[path[-1]]}/{flax}"] = x
    return made


def scanned(tensors, depth):
    """All blocks in one tensor, as big_vision stores a model that it scanned."""
    made = {name: x for name, x in tensors.items() if "encoderblock_" not in name}
    for name in tensors:
        if "encoderblock_0/" in name:
            blocks = [tensors[name.replace("block_0", f"block_{i}")] for i in range(depth)]
            made[name.replace("encoderblock_0", "encoderblock")] = np.stack(blocks)
    return made


@pytest.mark.parametrize("layout", ["blocks", "scanned", "bfloat16"])
def test_archives_of_big_vision(layout, tmp_path):
    model = make("SiglipVision", **WITH_MLP)
    model.save_pretrained(tmp_path)
    config = siglip.read_config(tmp_path)
    want = arrays(tmp_path, siglip, config)
    tensors = archive(load_file(tmp_path / "model.safetensors"), heads=3, width=24)
    tensors |= {"params/t": np.zeros(1), "params/txt/Embed_0/embedding": np.zeros((3, 4))}
    if layout != "blocks":
        tensors = scanned(tensors, depth=3)
    if layout == "bfloat16":  # which NumPy stores as two bytes of no type
        tensors = {name: x.astype(ml_dtypes.bfloat16).view("V2") for name, x in tensors.items()}
        want = {path: x.astype("bfloat16").astype("float32") for path, x in want.items()}
    np.savez(tmp_path / "vit.npz", **tensors)
    got = arrays(tmp_path / "vit.npz", big_vision_vit, config)
    assert got.keys() == want.keys()
    assert all(np.array_equal(got[path], want[path]) for path in want)
    larger = arrays(
        tmp_path / "vit.npz", big_vision_vit, dataclasses.replace(config, image_size=49)
    )
    # The corners of big_vision's grids coincide.
    corners = larger["position"].reshape(7, 7, 24)[::6, ::6]
    np.testing.assert_allclose(
        corners, want["position"].reshape(4, 4, 24)[::3, ::3], rtol=0, atol=1e-6
    )
