"""From task features to model features: decodes the image, pads the token ids.

Decoding comes last, after mixing, so that every buffer before it holds encoded bytes. An image is
decoded once, however many encoders see it, each in its own view.
"""

from collections.abc import Mapping

import numpy as np
import seqio
import tensorflow as tf

from omni_smola import views as view_table
from omni_smola.data import images
from omni_smola.data.sources import mapped
from omni_smola.errors import UserError
from omni_smola.views import Patches, Square, View

_Spec = seqio.FeatureConverter.FeatureSpec


def decode_image(
    encoded: tf.Tensor, resolution: int, max_pixels: int = images.MAX_PIXELS
) -> tf.Tensor:
    """Decodes one image, as `images.decode` does, to (resolution, resolution, 3) uint8.

    An image of another size is resized without keeping its aspect ratio (bilinear, antialiased):
    boxes are relative to width and height, so they stay right.
    """
    return _square(_decoded(encoded, max_pixels), Square(resolution))


def decode_views(
    encoded: tf.Tensor,
    resolution: int,
    views: Mapping[str, View] | None,
    max_pixels: int = images.MAX_PIXELS,
) -> dict[str, tf.Tensor]:
    """Decodes one image to `image`, as `decode_image` gives it, and to the fields of all views."""
    return seen(_decoded(encoded, max_pixels), resolution, views)


def seen(
    image: tf.Tensor, resolution: int, views: Mapping[str, View] | None
) -> dict[str, tf.Tensor]:
    """Pixels, (h, w, 3) uint8, -> the fields of `decode_views`."""
    views, plain = views or {}, Square(resolution)
    # Equal views, and the usual one among them, are made once.
    made = {view: _made(image, view) for view in dict.fromkeys([plain, *views.values()])}
    fields = {"image": made[plain][0]}
    for name, view in views.items():
        fields |= zip(view.fields(name), made[view], strict=True)
    return fields


def no_image(resolution: int, views: Mapping[str, View] | None) -> dict[str, tf.Tensor]:
    """The zeros that stand in for `decode_views` where an example has no image."""
    fields = {"image": view_table.Field((resolution, resolution, 3), "uint8")}
    return {
        name: tf.zeros(field.shape, field.dtype)
        for name, field in (fields | view_table.fields(views)).items()
    }


def _decoded(encoded: tf.Tensor, max_pixels: int, skip: bool = False) -> tf.Tensor:
    """The pixels (h, w, 3) uint8 of one image.

    One that does not decode raises InvalidArgumentError; with `skip` it has the shape (0, 0, 3).
    """

    def decode(encoded: bytes | np.ndarray) -> np.ndarray:
        try:
            return images.decode(np.asarray(encoded, object).item(), max_pixels)
        except UserError:
            if not skip:
                raise
            return np.zeros((0, 0, 3), np.uint8)

    pixels = tf.numpy_function(decode, [encoded], tf.uint8)
    return tf.ensure_shape(pixels, (None, None, 3))


def _made(image: tf.Tensor, view: View) -> tuple[tf.Tensor, ...]:
    """(h, w, 3) uint8 -> the arrays of the view's fields, in their order."""
    return _patches(image, view) if isinstance(view, Patches) else (_square(image, view),)


def _square(image: tf.Tensor, view: Square) -> tf.Tensor:
    """(h, w, 3) uint8 -> (size, size, 3) uint8."""
    side, size = view.size, tf.shape(image)

    def resized() -> tf.Tensor:
        floats = tf.image.resize(image, (side, side), view.method, antialias=view.antialias)
        return _pixels(floats)

    same = tf.logical_and(size[0] == side, size[1] == side)
    return tf.ensure_shape(tf.cond(same, lambda: image, resized), (side, side, 3))


def _patches(image: tf.Tensor, view: Patches) -> tuple[tf.Tensor, tf.Tensor]:
    """(h, w, 3) uint8 -> (max_patches, patch * patch * 3), and rows and columns (2,) int32."""
    # In Python and not in TensorFlow, whose graph optimiser is free to reorder the arithmetic.
    sizes = tf.numpy_function(
        lambda shape: np.array(view.grid(*shape[:2]), np.int32), [tf.shape(image)], tf.int32
    )
    sizes = tf.ensure_shape(sizes, (2,))
    pixels = tf.cast(image, tf.float32)
    if view.standardize:
        pixels = tf.image.per_image_standardization(pixels)
    pixels = tf.image.resize(pixels, sizes * view.patch, antialias=True)
    if not view.standardize:
        pixels = _pixels(pixels)
    count = sizes[0] * sizes[1]
    grid = tf.reshape(pixels, (sizes[0], view.patch, sizes[1], view.patch, 3))
    flat = tf.reshape(tf.transpose(grid, (0, 2, 1, 3, 4)), (count, 3 * view.patch**2))
    flat = tf.pad(flat, [[0, view.max_patches - count], [0, 0]])
    return tf.ensure_shape(flat, (view.max_patches, 3 * view.patch**2)), sizes


def _pixels(floats: tf.Tensor) -> tf.Tensor:
    return tf.saturate_cast(tf.round(floats), tf.uint8)


def _padded(tokens: tf.Tensor, length: int) -> tf.Tensor:
    return tf.ensure_shape(tf.pad(tokens, [[0, length - tf.size(tokens)]]), (length,))


def _first(count: tf.Tensor, length: int) -> tf.Tensor:
    """(length,) bool, True at the first `count` places: an id of 0 may also be a token."""
    return tf.range(length) < count


class Converter(seqio.FeatureConverter):
    """SeqIO feature converter to the project's batch.

    Takes prompt (<=p,) int32, target (<=t,) int32, image (n,) string, n in {0, 1}; gives

      image        (resolution, resolution, 3) uint8, zeros where there is no image
      image_mask   () bool
      prompt       (p,) int32, padded with 0      prompt_mask  (p,) bool, where there are tokens
      target       (t,) int32, padded with 0      target_mask  (t,) bool, where the loss counts

    and the fields of the views, see `views`.

    Use it with seqio.get_dataset and task_feature_lengths = {"prompt": p, "target": t, "image": 1}.
    """

    TASK_FEATURES = {
        "prompt": _Spec(tf.int32),
        "target": _Spec(tf.int32),
        "image": _Spec(tf.string),
    }
    MODEL_FEATURES = {
        "image": _Spec(tf.uint8, rank=3),
        "image_mask": _Spec(tf.bool, rank=0),
        "prompt": _Spec(tf.int32),
        "prompt_mask": _Spec(tf.bool),
        "target": _Spec(tf.int32),
        "target_mask": _Spec(tf.bool),
    }
    PACKING_FEATURE_DTYPES = None

    def __init__(
        self,
        resolution: int,
        passthrough_features: Mapping[str, seqio.FeatureConverter.FeatureSpec] | None = None,
        num_parallel_calls: int = 2,
        views: Mapping[str, View] | None = None,
        skip: bool = False,
        max_pixels: int = images.MAX_PIXELS,
    ):
        """The converter of one resolution.

        Args:
          resolution: side of the square image.
          passthrough_features: as in the base class.
          num_parallel_calls: examples converted at once.
          views: name -> how one vision encoder sees the image, beside `image`.
          skip: an image that does not decode makes a row without image and target, in place of an
            error, and every row has the feature `damaged`, () bool.
          max_pixels: of an image, see `images`.
        """
        # The lengths hold by construction (`ensure_shape`); the base class's check costs two maps.
        super().__init__(
            pack=False, apply_length_check=False, passthrough_features=passthrough_features
        )
        self._resolution = resolution
        self._num_parallel_calls = num_parallel_calls
        self._views = dict(views or {})
        self._skip = skip
        self._max_pixels = max_pixels
        if skip:
            self.MODEL_FEATURES = self.MODEL_FEATURES | {"damaged": _Spec(tf.bool, rank=0)}
        self._view_fields = view_table.fields(self._views)
        self.MODEL_FEATURES = self.MODEL_FEATURES | {
            name: _Spec(tf.as_dtype(field.dtype), rank=len(field.shape))
            for name, field in self._view_fields.items()
        }

    def _convert_features(
        self, ds: tf.data.Dataset, task_feature_lengths: Mapping[str, int]
    ) -> tf.data.Dataset:
        side, views, most = self._resolution, self._views, self._max_pixels

        def convert_or_skip(example: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            encoded = example["image"]
            nothing = tf.zeros((0, 0, 3), tf.uint8)
            has_image = tf.size(encoded) > 0
            image = tf.cond(has_image, lambda: _decoded(encoded[0], most, True), lambda: nothing)
            decoded = tf.size(image) > 0
            fields = tf.cond(
                decoded, lambda: seen(image, side, views), lambda: no_image(side, views)
            )
            damaged = has_image & ~decoded
            rest = convert(example | {"image": encoded[:0]})
            target = tf.where(damaged, tf.zeros_like(rest["target"]), rest["target"])
            return rest | {
                **fields,
                "image_mask": decoded,
                "target": target,
                "target_mask": rest["target_mask"] & ~damaged,
                "damaged": damaged,
            }

        def convert(example: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            encoded = example["image"]
            has_image = tf.size(encoded) > 0
            prompt = _padded(example["prompt"], task_feature_lengths["prompt"])
            target = _padded(example["target"], task_feature_lengths["target"])
            fields = tf.cond(
                has_image,
                lambda: decode_views(encoded[0], side, views, most),
                lambda: no_image(side, views),
            )
            return {
                **fields,
                "image_mask": has_image,
                "prompt": prompt,
                "prompt_mask": _first(tf.size(example["prompt"]), task_feature_lengths["prompt"]),
                "target": target,
                "target_mask": _first(tf.size(example["target"]), task_feature_lengths["target"]),
                **{name: example[name] for name in self._passthrough_features},
            }

        return mapped(ds, convert_or_skip if self._skip else convert, self._num_parallel_calls)

    def get_model_feature_lengths(
        self, task_feature_lengths: Mapping[str, int]
    ) -> Mapping[str, int]:
        prompt, target = task_feature_lengths["prompt"], task_feature_lengths["target"]
        return {
            "image": self._resolution,
            "image_mask": 1,
            "prompt": prompt,
            "prompt_mask": prompt,
            "target": target,
            "target_mask": target,
            **({"damaged": 1} if self._skip else {}),
            **{name: field.shape[0] for name, field in self._view_fields.items()},
            **{name: task_feature_lengths[name] for name in self._passthrough_features},
        }
