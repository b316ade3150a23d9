"""The fields of ViTConfig that CLIP, DINOv2 and ViT-22B need, against float64 numpy; and sizes.

tests/parity/test_vision.py compares whole flavours with transformers.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from omni_smola.errors import UserError
from omni_smola.models import shapes, vit, vit_sizes
from omni_smola.models.layers import Precision

from . import test_vit
from .test_vit import PARALLEL, PLAIN, layer_norm, linear, random_vit

RICH = dataclasses.replace(
    PLAIN,
    activation="silu",
    gated=True,
    patch_bias=False,
    class_token=True,
    registers=3,
    input_norm=True,
    layer_scale=True,
    skip=1,
    final_norm=False,
    depth=3,
)
ERF = np.vectorize(math.erf)
ACTIVATIONS = {
    "gelu": lambda x: x * 0.5 * (1 + ERF(x / math.sqrt(2))),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "quick_gelu": lambda x: x / (1 + np.exp(-1.702 * x)),
    "silu": lambda x: x / (1 + np.exp(-x)),
}


def block(x, p):
    x = x + test_vit.attention(layer_norm(x, p["norm_1"]), p, RICH) * p["scale_1"]
    y, mlp = layer_norm(x, p["norm_2"]), p["mlp"]
    hidden = ACTIVATIONS["silu"](linear(y, mlp["wi"], "wi_0")) * linear(y, mlp["wi"], "wi_1")
    return x + linear(hidden, mlp["wo"], "wo") * p["scale_2"]


def test_tokens_before_the_patches_layer_scale_and_gate_equal_numpy():
    model = random_vit(RICH)
    image = np.random.default_rng(1).uniform(-1, 1, (2, 6, 6, 3))
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), nnx.to_pure_dict(nnx.state(model)))
    assert "norm" not in p
    assert "bias" not in p["patch"]
    tokens, cls = nnx.jit(lambda model, image: model.features(image))(
        model, jnp.asarray(image, jnp.float32)
    )
    for index in range(2):
        cut = np.asarray(vit.patches(jnp.asarray(image[index : index + 1], jnp.float32), 3))[0]
        first = p["class_token"] + p["class_position"]
        x = [first[None], p["registers"], linear(cut, p["patch"], "patch") + p["position"]]
        x = layer_norm(np.concatenate(x), p["input_norm"])
        for layer in range(2):
            x = block(x, jax.tree.map(lambda a, n=layer: a[n], p["encoder"]["layers"]))
        np.testing.assert_allclose(cls[index], x[0], rtol=0, atol=1e-4)
        np.testing.assert_allclose(tokens[index], x[4:], rtol=0, atol=1e-4)


def test_root_mean_square_norms(monkeypatch):
    def rms(x, p):
        assert "bias" not in p
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * p["scale"]

    monkeypatch.setattr(test_vit, "layer_norm", rms)
    test_vit.test_the_whole_vit_equals_numpy(dataclasses.replace(PARALLEL, norm="rms"))


@pytest.mark.parametrize("name", vit.ACTIVATIONS)
def test_activations(name):
    x = np.linspace(-6, 6, 41)
    got = vit.ACTIVATIONS[name](jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(got, ACTIVATIONS[name](x), rtol=0, atol=2e-6)


def test_what_is_left_of_whole_patches_is_not_seen():
    image = np.random.default_rng(0).normal(size=(1, 8, 7, 3)).astype(np.float32)
    got = vit.patches(jnp.asarray(image), 3)
    np.testing.assert_array_equal(got, vit.patches(jnp.asarray(image[:, :6, :6]), 3))
    assert got.shape == (1, 4, 27)


def test_each_channel_has_a_mean_and_a_deviation_of_its_own():
    image = np.random.default_rng(0).integers(0, 256, (2, 3, 3, 3)).astype(np.uint8)
    config = dataclasses.replace(PLAIN, **vit_sizes.CLIP_PIXELS)
    got = random_vit(config).normalize(jnp.asarray(image))
    want = (image / 255 - np.array([0.48145466, 0.4578275, 0.40821073])) / np.array(
        [0.26862954, 0.26130258, 0.27577711]
    )
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-6)
    plain = random_vit(PLAIN).normalize(jnp.asarray(image))
    np.testing.assert_array_equal(plain, vit.normalize(jnp.asarray(image)))


def count(name):
    config = vit_sizes.vit(name)
    model = nnx.eval_shape(lambda: vit.ViT(config, precision=Precision(), rngs=nnx.Rngs(0)))
    return sum(math.prod(x.shape) for x in jax.tree.leaves(nnx.state(model)))


# Of clip_l14, what is published has a last block, its norm and a projection more than ours; of
# DINOv2 a mask token.
BLOCK = 4 * 1024 * 1025 + 2 * 1024 * 4096 + 4096 + 1024 + 4 * 1024
PUBLISHED = {
    "clip_l14": 303_966_208 - BLOCK - 2 * 1024 - 1024 * 768,
    "dinov2_small": 22_056_576 - 384,
    "dinov2_base": 86_580_480 - 768,
    "dinov2_large": 304_368_640 - 1024,
    "dinov2_giant": 1_136_480_768 - 1536,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_numbers_of_parameters(name):
    assert count(name) == PUBLISHED[name]


@pytest.mark.parametrize(
    ("name", "billions"),
    [("siglip_so400m14_224", 0.41), ("vit_g14", 1.84), ("vit_22b", 21.75), ("eva_clip_g14", 0.99)],
)
def test_published_billions_of_parameters(name, billions):
    assert round(count(name) / 1e9, 2) == billions


def test_published_numbers_of_tokens():
    tokens = {name: vit_sizes.vit(name).tokens for name in vit_sizes.VIT}
    assert tokens["siglip_so400m14_384"] == 729  # 384 is no multiple of 14
    assert tokens["clip_l14_336"] == 576
    assert tokens["dinov2_large"] == 37 * 37
    assert tokens["eva_clip_g14"] == 256


def test_the_tower_of_pali_3_is_the_named_one():
    named = dataclasses.replace(vit_sizes.vit("vit_g14"), image_size=812)
    assert shapes.pali("pali3").vision == named


def test_an_unknown_size_is_told():
    with pytest.raises(UserError, match="no ViT called 'vit_h': choose one of siglip_b16_224, "):
        vit_sizes.vit("vit_h")
