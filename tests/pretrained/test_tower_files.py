"""A tower's way from the PaLI that trained it to MoME."""

import dataclasses
from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file

from omni_smola.errors import UserError
from omni_smola.models import vision_encoders
from omni_smola.models.layers import Precision
from omni_smola.models.pix2struct import Pix2Struct, Pix2StructConfig
from omni_smola.models.vit import ViT
from omni_smola.pretrained import native
from omni_smola.pretrained.tower_files import FAMILIES, read_tower, save_tower
from omni_smola.training import state

from ..models.conftest import randomized


def make_tower(config):
    make = Pix2Struct if isinstance(config, Pix2StructConfig) else ViT
    make = partial(make, config, precision=Precision())
    return randomized(nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0))))


def weights(tower):
    return state.paths(nnx.to_pure_dict(nnx.state(tower)))


@pytest.fixture
def named(monkeypatch):
    """(name, config): makes an encoder of ours of that name."""
    return partial(monkeypatch.setitem, vision_encoders.SMALL)


@pytest.mark.parametrize("kind", ["squares", "patches"])
def test_a_tower_that_was_saved_is_read(named, micro, tmp_path, kind):
    page = Pix2StructConfig(2, width=8, depth=2, mlp=12, heads=2, d_head=3, positions=9)
    config = page if kind == "patches" else micro.vision
    named("eye", config)
    wanted = weights(make_tower(config))
    save_tower(str(tmp_path / "eye.safetensors"), make_tower(config), {"steps": "7"}, jnp.float32)
    read = read_tower(tmp_path, "eye", wanted)
    assert read.keys() == wanted.keys()
    assert all(np.array_equal(read[path], wanted[path]) for path in wanted)


def test_the_tower_of_a_pali_becomes_an_encoder(named, make_pali, micro, tmp_path):
    named("eye", micro.vision)
    pali = make_pali()
    save_tower(str(tmp_path / "eye.safetensors"), pali.vision, {}, jnp.float32)
    wanted = weights(pali.vision)
    read = read_tower(tmp_path, "eye", wanted)
    assert all(np.array_equal(read[path], wanted[path]) for path in wanted)


def test_a_tower_is_kept_in_bfloat16_unless_told(named, micro, tmp_path):
    named("eye", micro.vision)
    tower = make_tower(micro.vision)
    save_tower(str(tmp_path / "eye.safetensors"), tower, {})
    assert {str(x.dtype) for x in load_file(tmp_path / "eye.safetensors").values()} == {"bfloat16"}
    got = read_tower(tmp_path, "eye", weights(tower))["position"]
    kept = tower.position[...].astype(jnp.bfloat16).astype(jnp.float32)
    np.testing.assert_array_equal(got, kept)


def test_a_tower_of_other_sizes_is_refused(named, micro, tmp_path):
    # The number of heads changes no shape at all.
    other = dataclasses.replace(micro.vision, heads=4)
    save_tower(str(tmp_path / "eye.safetensors"), make_tower(other), {})
    named("eye", micro.vision)
    with pytest.raises(UserError, match=r"encoder 'eye': it has heads 4 instead of 2\."):
        read_tower(tmp_path, "eye", weights(make_tower(micro.vision)))


def test_a_file_that_is_no_tower_is_refused(named, micro, make_pali, tmp_path):
    named("eye", micro.vision)
    wanted = weights(make_tower(micro.vision))
    with pytest.raises(UserError, match=r"eye\.safetensors"):
        read_tower(tmp_path, "eye", wanted)
    (tmp_path / "eye.safetensors").write_bytes(b"12")
    with pytest.raises(UserError, match="not a complete safetensors file"):
        read_tower(tmp_path, "eye", wanted)
    native.save(str(tmp_path / "eye.safetensors"), make_pali(), {}, jnp.float32)
    with pytest.raises(UserError, match="does not fit the vision tower"):
        read_tower(tmp_path, "eye", wanted)


def test_a_published_tower_may_be_kept_in_a_file_of_ours(monkeypatch, micro, tmp_path):
    config = dataclasses.replace(micro.vision, mean=(0.1, 0.4, 0.7), class_token=True)
    monkeypatch.setitem(vision_encoders.PUBLIC, "eye", config)
    wanted = weights(make_tower(config))
    with pytest.raises(UserError, match="neither eye/, a Hugging Face folder"):
        read_tower(tmp_path, "eye", wanted)
    save_tower(str(tmp_path / "eye.safetensors"), make_tower(config), {}, jnp.float32)
    read = read_tower(tmp_path, "eye", wanted)
    assert all(np.array_equal(read[path], wanted[path]) for path in wanted)
    with pytest.raises(UserError, match="No weights of the vision encoder 'eye' are shipped"):
        read_tower("shipped", "eye", wanted)


def test_every_published_encoder_has_one_family():
    for name in vision_encoders.PUBLIC:
        assert sum(name.startswith(start) for start in FAMILIES) == 1, name


@pytest.mark.parametrize("name", ["semantic", "spatial", "reading"])
def test_the_shipped_towers_are_read(name):
    config = vision_encoders.config_of(name)
    tower = nnx.eval_shape(lambda: ViT(config, precision=Precision(), rngs=nnx.Rngs(0)))
    wanted = weights(tower)
    read = read_tower("shipped", name, wanted)
    assert {path: x.shape for path, x in read.items()} == {p: x.shape for p, x in wanted.items()}


def test_shipped_encoders_beside_a_folder_of_others(tmp_path, capsys):
    """Without renaming: what the folder lacks and this package ships is the package's."""
    config = vision_encoders.config_of("semantic")
    tower = nnx.eval_shape(lambda: ViT(config, precision=Precision(), rngs=nnx.Rngs(0)))
    wanted, want = weights(tower), read_tower("shipped", "semantic", weights(tower))
    assert not capsys.readouterr().err
    read = read_tower(tmp_path, "semantic", wanted)
    assert all(np.array_equal(read[path], want[path]) for path in want)
    assert "semantic starts from the weights that omni_smola ships" in capsys.readouterr().err
    save_tower(str(tmp_path / "semantic.safetensors"), make_tower(config), {}, jnp.float32)
    read = read_tower(tmp_path, "semantic", wanted)
    assert not np.array_equal(read["position"], want["position"])
    assert not capsys.readouterr().err
    with pytest.raises(UserError, match="There is no vision tower file"):
        read_tower(tmp_path / "absent", "semantic", wanted)
    with pytest.raises(UserError, match="neither dinov2_small/, a Hugging Face folder"):
        read_tower(tmp_path, "dinov2_small@168", {})
