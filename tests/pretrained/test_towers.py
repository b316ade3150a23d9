"""What config.json and preprocessor_config.json of a vision tower may say, and what not."""

import json

import pytest

from omni_smola.errors import UserError
from omni_smola.pretrained import clip, dinov2, eva_clip, pix2struct, siglip

CLIP = {"model_type": "clip_vision_model", "hidden_size": 24, "num_attention_heads": 3}


def write(folder, fields, name="config.json"):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(fields))
    return folder


@pytest.mark.parametrize(
    ("family", "fields", "message"),
    [
        (clip, CLIP | {"hidden_act": "relu"}, "hidden_act is 'relu', but only 'gelu' or"),
        (clip, CLIP | {"hidden_size": 25}, "hidden_size is no multiple of num_attention_heads"),
        (clip, CLIP | {"image_size": [24, 30]}, r"image_size is \[24, 30\]"),
        (clip, CLIP | {"layer_norm_eps": 0}, "layer_norm_eps is 0"),
        (clip, CLIP | {"num_channels": 4, "patch_size": "x"}, "patch_size is 'x'; num_channels is"),
        (clip, {"model_type": "siglip"}, "of type 'siglip', but a CLIP is one of clip_vision_mod"),
        (siglip, {"model_type": "siglip2"}, "of type 'siglip2', but a SigLIP is one of"),
        (dinov2, {"model_type": "dinov2", "image_size": 28}, "patch_size is 'missing'"),
        (
            dinov2,
            {"model_type": "dinov2_with_registers", "image_size": 28, "patch_size": 7}
            | {"num_register_tokens": 0},
            "num_register_tokens is 0",
        ),
        (eva_clip, {"model_type": "blip-2", "vision_config": {"qkv_bias": False}}, "qkv_bias is F"),
        (
            pix2struct,
            {"model_type": "pix2struct", "vision_config": {"patch_embed_hidden_size": 700}},
            "patch_embed_hidden_size is 700, no square",
        ),
        (
            pix2struct,
            {"model_type": "pix2struct_vision_model", "dense_act_fn": "relu"},
            "dense_act_fn is 'relu'",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_computed_is_told(family, fields, message, tmp_path):
    with pytest.raises(UserError, match=message):
        family.read_config(write(tmp_path, fields))


def test_sizes_pixels_and_old_files_of_clip(tmp_path):
    plain = clip.read_config(write(tmp_path, CLIP))
    assert plain.mean == (0.48145466, 0.4578275, 0.40821073)
    assert (plain.width, plain.depth, plain.skip, plain.epsilon) == (24, 12, 1, 1e-5)
    values = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.1, 0.2, 0.3]}
    write(tmp_path, values, "preprocessor_config.json")
    read = clip.read_config(tmp_path)
    assert (read.mean, read.std) == (0.5, (0.1, 0.2, 0.3))
    write(tmp_path, {"image_mean": [0.5, 0.5]}, "preprocessor_config.json")
    with pytest.raises(UserError, match=r"image_mean is \[0\.5, 0\.5\] in .*list of three numbers"):
        clip.read_config(tmp_path)
    # The files of 2021 say it twice, and what ends with _dict is what counts.
    old = {"model_type": "clip", "vision_config": {"hidden_size": 8}, "vision_config_dict": CLIP}
    assert clip.read_config(write(tmp_path / "old", old)) == plain
