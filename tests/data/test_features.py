"""Decoding and padding."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from omni_smola.data.features import Converter, decode_image

LENGTHS = {"prompt": 6, "target": 4, "image": 1}


def encoded(pixels: np.ndarray, form: str, **options) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, form, **options)
    return out.getvalue()


PIXELS = np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)


def test_an_image_of_the_right_size_is_left_as_it_is():
    decoded = decode_image(tf.constant(encoded(PIXELS, "PNG")), 24).numpy()
    np.testing.assert_array_equal(decoded, PIXELS)


def test_a_larger_image_is_averaged_not_sampled():
    stripes = np.zeros((48, 96, 3), np.uint8)
    stripes[:, ::2] = 200
    decoded = decode_image(tf.constant(encoded(stripes, "PNG")), 24).numpy()
    assert decoded.shape == (24, 24, 3)
    assert np.abs(decoded[:, 2:-2].astype(int) - 100).max() <= 1


@pytest.mark.parametrize("form", ["JPEG", "GIF", "BMP"])
def test_other_formats(form):
    flat = np.full((10, 30, 3), (200, 100, 50), np.uint8)
    decoded = decode_image(tf.constant(encoded(flat, form)), 24).numpy()
    assert np.abs(decoded.astype(int) - [200, 100, 50]).max() <= 4


def test_grey_and_transparent_images_become_rgb():
    grey = decode_image(tf.constant(encoded(PIXELS[..., 0], "PNG")), 24).numpy()
    np.testing.assert_array_equal(grey, np.repeat(PIXELS[..., :1], 3, axis=2))
    alpha = np.zeros((24, 24, 1), np.uint8)
    alpha[12:] = 255
    rgba = np.concatenate([PIXELS, alpha], axis=2)
    decoded = decode_image(tf.constant(encoded(rgba, "PNG")), 24).numpy()
    np.testing.assert_array_equal(decoded[12:], PIXELS[12:])
    assert (decoded[:12] == 255).all()  # as on white paper


def examples():
    image = encoded(PIXELS, "PNG")
    yield {"prompt": [5, 6, 1], "target": [7, 1], "image": [image]}
    yield {"prompt": [5, 6, 7, 8, 9, 1], "target": [1], "image": []}


def convert(examples=examples, **options):
    spec = {
        "prompt": tf.TensorSpec((None,), tf.int32),
        "target": tf.TensorSpec((None,), tf.int32),
        "image": tf.TensorSpec((None,), tf.string),
    }
    dataset = tf.data.Dataset.from_generator(examples, output_signature=spec)
    return list(Converter(24, **options)(dataset, LENGTHS).as_numpy_iterator())


def test_rows_are_padded_and_masked():
    row, full = convert()
    np.testing.assert_array_equal(row["prompt"], [5, 6, 1, 0, 0, 0])
    np.testing.assert_array_equal(row["prompt_mask"], [1, 1, 1, 0, 0, 0])
    np.testing.assert_array_equal(row["target"], [7, 1, 0, 0])
    np.testing.assert_array_equal(row["target_mask"], [1, 1, 0, 0])
    assert full["prompt_mask"].all()
    kinds = {key: (value.dtype.name, value.shape) for key, value in row.items()}
    assert kinds == {
        "image": ("uint8", (24, 24, 3)),
        "image_mask": ("bool", ()),
        "prompt": ("int32", (6,)),
        "prompt_mask": ("bool", (6,)),
        "target": ("int32", (4,)),
        "target_mask": ("bool", (4,)),
    }


def test_an_example_without_image_gets_zeros_and_says_so():
    with_image, without = convert()
    assert with_image["image_mask"]
    np.testing.assert_array_equal(with_image["image"], PIXELS)
    assert not without["image_mask"]
    assert not without["image"].any()


@pytest.mark.parametrize("skip", [False, True])
def test_a_token_of_id_0_is_no_padding(skip):
    """Of SmolLM2's base, 0 ends an answer: what ends it is trained, and what pads is not."""
    example = {"prompt": [5, 0, 7], "target": [4, 0], "image": []}
    (row,) = convert(lambda: iter([example]), skip=skip)
    np.testing.assert_array_equal(row["prompt_mask"], [1, 1, 1, 0, 0, 0])
    np.testing.assert_array_equal(row["target_mask"], [1, 1, 0, 0])
