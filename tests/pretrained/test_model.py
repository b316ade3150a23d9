"""A backbone by one name: its own weights, a file's, or drawn ones."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.flax import load_file

from omni_smola.errors import UserError
from omni_smola.models import shapes
from omni_smola.models.origin import Origin, origin
from omni_smola.pretrained import native
from omni_smola.pretrained.model import load_backbone
from omni_smola.trees import paths


def weights(model):
    return paths(nnx.to_pure_dict(nnx.state(model)))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_backbone_of_the_package(dtype):
    model = load_backbone("tiny", dtype=dtype)
    stored, found = load_file(native.shipped("tiny")), weights(model)
    assert found.keys() == stored.keys()
    for path, x in found.items():
        assert x.dtype == dtype
        np.testing.assert_array_equal(x, stored[path].astype(dtype))
    assert model.options.precision.dtype == dtype
    assert origin(model) == Origin("tiny", "", dtype, 96, 3072, "shipped", "eos")


@pytest.fixture
def small(micro, monkeypatch):
    monkeypatch.setitem(shapes.PALI, "small", micro)


@pytest.mark.usefixtures("small")
def test_drawn_weights_follow_from_the_seed():
    models = [load_backbone("small", weights="random", seed=seed) for seed in (0, 1)]
    first, other = map(weights, models)
    assert all(x.dtype == jnp.float32 and np.isfinite(x).all() for x in first.values())
    assert (first["embedding"] != other["embedding"]).any()
    assert origin(models[0]) == Origin("small", "random", "float32", 24, 40, "", "eos")


@pytest.mark.usefixtures("small")
def test_a_file_of_ours_and_another_resolution(make_pali, tmp_path):
    model = make_pali()
    native.save(str(tmp_path / "a.safetensors"), model, {}, jnp.float32)
    found = weights(load_backbone("small", weights=str(tmp_path / "a.safetensors")))
    for path, x in weights(model).items():
        np.testing.assert_array_equal(found[path], x)
    larger = load_backbone("small", weights="random", resolution=36)
    assert origin(larger).image_size == larger.config.vision.image_size == 36
    with pytest.raises(UserError, match=r"resolution is 30, but small cuts images into patches"):
        load_backbone("small", weights="random", resolution=30)


@pytest.mark.parametrize(
    ("name", "how", "said"),
    [
        ("tinny", {}, "There is no backbone 'tinny': give the folder .* names tiny, pali3"),
        ("", {}, "There is no backbone ''"),
        ("pali3", {}, "weights of 'pali3' are not part of this package, only those of tiny"),
        ("hf://a", {"weights": "random"}, "was given the checkpoint 'hf://a' and weights='random'"),
        ("hf://a/b+hf://c/d", {}, "names two checkpoints.*so400m_t5_base"),
        ("tiny", {"dtype": "float16"}, "dtype is 'float16': choose float32 or bfloat16"),
        ("tiny", {"frame": "haiku"}, "There is no frame of prompts called 'haiku'"),
        ("tiny", {"weights": "nowhere.safetensors"}, "There is no backbone file nowhere"),
    ],
)
def test_mistakes_are_sentences(name, how, said):
    with pytest.raises(UserError, match=said):
        load_backbone(name, **how)


def test_a_folder_with_a_plus_sign_is_one_checkpoint(tmp_path):
    (tmp_path / "C++").mkdir()
    with pytest.raises(UserError, match=r"There is no .*C\+\+/config\.json: give"):
        load_backbone(str(tmp_path / "C++"))
