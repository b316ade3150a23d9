"""Patches against transformers' image processor of Pix2Struct; torch resizes there."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from omni_smola.data.features import decode_views
from omni_smola.views import Patches

pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

# Portrait, landscape, as small as one patch, thin, and grids whose root is a whole number.
SHAPES = [(480, 640), (333, 500), (97, 31), (16, 16), (5, 300), (300, 5), (96, 96), (64, 128)]


def theirs(image: Image.Image, view: Patches) -> np.ndarray:
    """(max_patches, 2 + patch * patch * 3): row and column from 1, then the pixels."""
    # The processor of that name needs torchvision since version 5, this one only torch.
    processor = transformers.Pix2StructImageProcessorPil(
        max_patches=view.max_patches, patch_size={"height": view.patch, "width": view.patch}
    )
    return np.asarray(processor(image, return_tensors="pt")["flattened_patches"][0])


def check(pixels: np.ndarray, view: Patches) -> None:
    image = Image.fromarray(pixels)
    out = io.BytesIO()
    image.save(out, "PNG")
    seen = decode_views(tf.constant(out.getvalue()), 8, {"v": view})
    want = theirs(image, view)
    rows, columns = seen["sizes:v"].numpy()
    count = rows * columns
    places = np.stack(np.mgrid[1 : rows + 1, 1 : columns + 1], axis=-1).reshape(-1, 2)
    np.testing.assert_array_equal(want[:count, :2], places)
    assert not want[count:].any()
    np.testing.assert_allclose(seen["patches:v"], want[:, 2:], rtol=0, atol=1e-4)


@pytest.mark.parametrize("budget", [64, 2048])
@pytest.mark.parametrize("shape", SHAPES)
def test_patches_and_sizes_are_those_of_transformers(shape, budget):
    rng = np.random.default_rng(0)
    check(rng.integers(0, 256, (*shape, 3), np.uint8), Patches(max_patches=budget))


def test_other_patch_sizes():
    rng = np.random.default_rng(1)
    check(rng.integers(0, 256, (70, 45, 3), np.uint8), Patches(patch=8, max_patches=144))


def test_a_nearly_flat_image():
    pixels = np.full((20, 30, 3), 200, np.uint8)
    pixels[3, 4, 1] += 1
    check(pixels, Patches(max_patches=16))
