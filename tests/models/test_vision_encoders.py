"""Vision encoders: maps and their sizes, the protocol, and a tower's way from a PaLI to MoME."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from omni_smola.errors import UserError
from omni_smola.experts.param import ExpertParam
from omni_smola.experts.vision_map import VisionMap
from omni_smola.models import vit
from omni_smola.models.layers import Precision
from omni_smola.models.vision_encoders import (
    VisionEncoder,
    ViTEncoder,
    load_tower,
    save_tower,
    vision_encoder,
)
from omni_smola.pretrained import native
from omni_smola.views import Patches, Square

from .conftest import randomized


def make_encoder(config, precision=None, seed=0):
    make = partial(ViTEncoder, "eye", config, precision=precision or Precision())
    return randomized(nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0))), seed)


@nnx.jit
def encode(encoder, batch):
    return encoder(batch)


@nnx.jit
def tokens_of(tower, image):
    return tower(vit.normalize(image))


@pytest.fixture
def seen(micro):
    side = micro.vision.image_size
    pixels = np.random.default_rng(0).integers(0, 256, (3, side, side, 3)).astype(np.uint8)
    return {"image:eye": pixels, "image_mask": np.array([True, False, True])}


def test_a_vit_encoder_gives_the_patch_map_of_its_vit(micro, seen):
    encoder = make_encoder(micro.vision)
    assert encoder.view == Square(24)
    assert encoder.width == micro.vision.width
    got = encode(encoder, seen)
    want = tokens_of(encoder.vit, seen["image:eye"])
    np.testing.assert_allclose(got.tokens, want, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(got.sizes, [[2, 2], [0, 0], [2, 2]])
    assert got.sizes.dtype == jnp.int32
    assert got.cls is None
    np.testing.assert_array_equal(got.mask(), np.array([[1], [0], [1]]) * np.ones((1, 4)))


def test_it_reads_only_its_own_view(micro, seen):
    encoder = make_encoder(micro.vision)
    other = {"image": seen["image:eye"][:, :8], "image:ear": seen["image:eye"][::-1]}
    np.testing.assert_array_equal(
        encode(encoder, seen | other).tokens, encode(encoder, seen).tokens
    )
    with pytest.raises(KeyError, match="image:eye"):
        encoder(other | {"image_mask": seen["image_mask"]})


def test_it_computes_in_the_given_precision(micro, seen):
    precision = Precision(jnp.bfloat16, jnp.float32)
    encoder = make_encoder(micro.vision, precision=precision)
    assert jax.eval_shape(lambda: encoder(seen)).tokens.dtype == jnp.bfloat16
    assert {x.dtype for x in jax.tree.leaves(nnx.state(encoder))} == {jnp.dtype("float32")}


@pytest.mark.parametrize(("name", "side"), [("semantic", 8), ("spatial", 8), ("reading", 8)])
def test_the_small_encoders(name, side):
    encoder = nnx.eval_shape(lambda: vision_encoder(name, precision=Precision(), rngs=nnx.Rngs(0)))
    assert isinstance(encoder, VisionEncoder)
    assert encoder.name == name
    size = encoder.view.size

    def look():
        batch = {
            f"image:{name}": jnp.zeros((2, size, size, 3), jnp.uint8),
            "image_mask": jnp.ones((2,), bool),
        }
        return vision_encoder(name, precision=Precision(), rngs=nnx.Rngs(0))(batch)

    got = jax.eval_shape(look)
    assert got.tokens.shape == (2, side**2, encoder.width)
    assert got.sizes.shape == (2, 2)
    # Plain parameters: frozen wherever only experts are trained.
    kinds = {type(variable) for _, variable in nnx.state(encoder).flat_state()}
    assert kinds == {nnx.Param}
    assert not nnx.state(encoder, ExpertParam).flat_state()


def test_an_unknown_encoder_is_told():
    with pytest.raises(UserError, match="no vision encoder 'clip': choose one of semantic, spati"):
        vision_encoder("clip", precision=Precision(), rngs=nnx.Rngs(0))


class PatchEncoder(nnx.Module):
    """A linear map of the patches and of their places: the least that has maps of all sizes."""

    def __init__(self, name: str, view: Patches, width: int, rngs: nnx.Rngs):
        self.name, self.view, self.width = name, view, width
        self.project = nnx.Linear(3 * view.patch**2, width, rngs=rngs)
        self.rows = nnx.Embed(view.max_patches, width, rngs=rngs)
        self.columns = nnx.Embed(view.max_patches, width, rngs=rngs)

    def __call__(self, batch):
        patches, sizes = batch[f"patches:{self.name}"], batch[f"sizes:{self.name}"]
        place, columns = jnp.arange(patches.shape[1]), jnp.maximum(sizes[:, 1:], 1)
        x = self.project(patches) + self.rows(place // columns) + self.columns(place % columns)
        return VisionMap(tokens=x, sizes=sizes, cls=None)


def test_the_protocol_fits_an_encoder_of_variable_resolution():
    encoder = PatchEncoder("page", Patches(patch=2, max_patches=6), 5, nnx.Rngs(0))
    assert isinstance(encoder, VisionEncoder)
    assert not isinstance(nnx.Linear(1, 1, rngs=nnx.Rngs(0)), VisionEncoder)
    sizes = np.array([[2, 3], [1, 4], [0, 0]], np.int32)
    patches = np.random.default_rng(0).normal(size=(3, 6, 12)).astype(np.float32)
    patches *= (np.arange(6) < sizes.prod(axis=1)[:, None])[..., None]
    batch = {"patches:page": patches, "sizes:page": sizes, "image_mask": sizes[:, 0] > 0}
    got = encode(encoder, batch)
    assert got.tokens.shape == (3, 6, 5)
    np.testing.assert_array_equal(got.mask().sum(axis=1), [6, 4, 0])
    # The patch at row 1, column 0 of the first image is its fourth, of three columns.
    linear = patches[0, 3] @ encoder.project.kernel[...] + encoder.project.bias[...]
    want = linear + encoder.rows.embedding[...][1] + encoder.columns.embedding[...][0]
    np.testing.assert_allclose(got.tokens[0, 3], want, rtol=0, atol=1e-5)


# A tower's way from the PaLI that trained it.


def test_the_tower_of_a_pali_becomes_an_encoder(make_pali, micro, tmp_path):
    pali, path = make_pali(), str(tmp_path / "tower.safetensors")
    save_tower(path, pali.vision, {"steps": "7"}, jnp.float32)
    encoder = make_encoder(micro.vision, seed=5)
    load_tower(path, encoder)
    got, want = (nnx.to_pure_dict(nnx.state(module)) for module in (encoder.vit, pali.vision))
    jax.tree.map(np.testing.assert_array_equal, got, want)


def test_a_tower_is_kept_in_bfloat16_unless_told(micro, tmp_path):
    path = str(tmp_path / "tower.safetensors")
    saved, read = make_encoder(micro.vision), make_encoder(micro.vision, seed=5)
    save_tower(path, saved.vit, {})
    load_tower(path, read)
    kept, got = saved.vit.position[...], read.vit.position[...]
    np.testing.assert_array_equal(got, kept.astype(jnp.bfloat16).astype(jnp.float32))


def test_a_tower_of_other_sizes_is_refused_and_changes_nothing(micro, tmp_path):
    path = str(tmp_path / "tower.safetensors")
    # The number of heads changes no shape at all.
    save_tower(path, make_encoder(dataclasses.replace(micro.vision, heads=4)).vit, {})
    encoder = make_encoder(micro.vision)
    before = np.asarray(encoder.vit.position[...])
    with pytest.raises(UserError, match=r"encoder 'eye': it has heads 4 instead of 2\."):
        load_tower(path, encoder)
    np.testing.assert_array_equal(encoder.vit.position[...], before)


def test_a_file_that_is_no_tower_is_refused(micro, make_pali, tmp_path):
    encoder = make_encoder(micro.vision)
    with pytest.raises(UserError, match=r"missing\.safetensors"):
        load_tower(str(tmp_path / "missing.safetensors"), encoder)
    (tmp_path / "short.safetensors").write_bytes(b"12")
    with pytest.raises(UserError, match="not a complete safetensors file"):
        load_tower(str(tmp_path / "short.safetensors"), encoder)
    native.save(str(tmp_path / "whole.safetensors"), make_pali(), {}, jnp.float32)
    with pytest.raises(UserError, match="does not fit the vision tower"):
        load_tower(str(tmp_path / "whole.safetensors"), encoder)
