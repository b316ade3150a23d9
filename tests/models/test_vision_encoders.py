"""Vision encoders: maps and their sizes, views, and the protocol."""

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
from omni_smola.models import vision_encoders, vit
from omni_smola.models.layers import Precision
from omni_smola.models.pix2struct import Pix2StructConfig
from omni_smola.models.vision_encoders import (
    Pix2StructEncoder,
    VisionEncoder,
    ViTEncoder,
    vision_encoder,
)
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


# Towers that others have published.


def abstract(name):
    return nnx.eval_shape(lambda: vision_encoder(name, precision=Precision(), rngs=nnx.Rngs(0)))


def test_the_views_of_published_towers():
    views = {name: vision_encoders.view(name) for name in vision_encoders.PUBLIC}
    assert views["clip_l14"] == views["eva_clip_g14"] == Square(224, "bicubic")
    assert views["clip_l14_336"] == Square(336, "bicubic")
    for size in ("small", "base", "large", "giant", "large_registers"):
        assert views[f"dinov2_{size}"] == Square(448, "bicubic")
    assert views["pix2struct_base"] == Patches(16, 2048, standardize=True)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("dinov2_small@", "no resolution behind its @: write NAME@PIXELS"),
        ("dinov2_small@-14", "no resolution behind its @"),
        ("dinov2_small@\u00b2", "no resolution behind its @"),
        ("dinov2_small@100", "do not tile 100: choose a multiple of 14 .*dinov2_small@98"),
        ("dinov2_small@0", "do not tile 0: .*dinov2_small@14"),
        ("dinov2_small@140000000", "up to 4096, such as dinov2_small@448"),
        ("pix2struct_base@160", "only those of published ViTs"),
        ("semantic@120", "only those of published ViTs"),
        ("dinov3@168", "no vision encoder 'dinov3'"),
    ],
)
def test_resolutions_that_cannot_be(name, why):
    with pytest.raises(UserError, match=why):
        vision_encoders.view(name)


@pytest.mark.parametrize(
    ("name", "tokens", "width", "has_cls"),
    [
        ("dinov2_small@168", 144, 384, True),
        ("siglip_so400m14_384@224", 256, 1152, False),
        ("eva_clip_g14", 256, 1408, True),
        ("clip_l14", 256, 1024, True),
        ("dinov2_large", 1024, 1024, True),
        ("dinov2_base_registers", 1024, 768, True),
        ("siglip_so400m14_384", 729, 1152, False),
        ("pix2struct_base", 2048, 768, False),
    ],
)
def test_published_towers_see_as_the_paper_says(name, tokens, width, has_cls):
    encoder = abstract(name)
    assert isinstance(encoder, VisionEncoder)
    assert (encoder.name, encoder.width) == (name, width)
    fields = {
        field: jax.ShapeDtypeStruct((2, *shape), dtype)
        for field, (shape, dtype) in encoder.view.fields(name).items()
    }
    batch = fields | {"image_mask": jax.ShapeDtypeStruct((2,), bool)}

    def look(batch):
        return vision_encoder(name, precision=Precision(), rngs=nnx.Rngs(0))(batch)

    got = jax.eval_shape(look, batch)
    assert got.tokens.shape == (2, tokens, width)
    assert got.sizes.shape == (2, 2)
    assert (got.cls is not None) == has_cls
    assert not has_cls or got.cls.shape == (2, width)


PAGE = Pix2StructConfig(2, width=8, depth=2, mlp=12, heads=2, d_head=3, positions=9)


def make_page(view=None):
    make = partial(Pix2StructEncoder, "page", PAGE, view=view, precision=Precision())
    return randomized(nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0))))


def test_maps_of_every_shape_in_one_batch():
    encoder = make_page(Patches(2, 6))
    sizes = np.array([[2, 3], [1, 4], [2, 3], [0, 0]], np.int32)
    patches = np.random.default_rng(0).normal(size=(4, 6, 12)).astype(np.float32)
    mask = np.array([True, True, False, False])
    batch = {"patches:page": patches, "sizes:page": sizes, "image_mask": mask}
    got = encode(encoder, batch)
    np.testing.assert_array_equal(got.sizes, [[2, 3], [1, 4], [0, 0], [0, 0]])
    assert got.tokens.shape == (4, 6, 8)
    assert got.cls is None
    assert np.isfinite(got.tokens).all()
    # A map is the same whatever its neighbours are, and whatever its padding holds.
    batch["patches:page"] = np.where(got.mask()[..., None], patches, 7.0).astype(np.float32)
    np.testing.assert_array_equal(encode(encoder, batch).visible(), got.visible())
    # Its shape counts, not only its patches: rows and columns have embeddings of their own.
    batch["sizes:page"] = sizes[:, ::-1]
    turned = encode(encoder, batch)
    assert np.abs(turned.tokens[0] - got.tokens[0]).max() > 0.01


def test_more_patches_than_positions_are_refused():
    batch = {
        "patches:page": jnp.zeros((1, 9, 12)),
        "sizes:page": jnp.ones((1, 2), jnp.int32),
        "image_mask": jnp.ones((1,), bool),
    }
    with pytest.raises(UserError, match="got 9 patches, but knows rows and columns 1 to 8: set"):
        make_page()(batch)


def test_pixels_are_normalized_as_the_tower_was_trained(micro, seen):
    config = dataclasses.replace(micro.vision, mean=(0.1, 0.4, 0.7), std=(0.5, 0.2, 0.25))
    encoder = make_encoder(config)
    pixels = (seen["image:eye"] / 255 - np.array(config.mean)) / np.array(config.std)
    want = nnx.jit(lambda tower, x: tower(x))(encoder.vit, jnp.asarray(pixels, jnp.float32))
    np.testing.assert_allclose(encode(encoder, seen).tokens, want, rtol=0, atol=1e-4)
