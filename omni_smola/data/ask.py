"""One image and one prompt from the command line as a batch."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf

from omni_smola.data import images, sources
from omni_smola.data.features import no_image, seen
from omni_smola.data.framing import FIELD, Framing
from omni_smola.data.instruction import InstructionTokenizer
from omni_smola.errors import UserError
from omni_smola.views import View


def make_batch(
    image: str | None,
    prompt: str,
    *,
    framing: Framing,
    prompt_length: int,
    resolution: int,
    rows: int = 1,
    views: Mapping[str, View] | None = None,
    instruction: InstructionTokenizer | None = None,
    max_pixels: int = images.MAX_PIXELS,
) -> dict[str, np.ndarray]:
    """A batch of `rows` equal rows.

    Args:
      image: a file in one of `images.FORMATS`, or None for a prompt without an image.
      prompt: text; it is cut so that it has `prompt_length` tokens with its frame.
      framing: makes token ids, as for training.
      resolution, views, instruction, max_pixels: as in `pipeline.train_batches`.

    Raises:
      UserError: the file does not exist, or does not decode.
    """
    ids = framing.prompt(prompt, prompt_length, image=image is not None)
    tokens = np.zeros((rows, prompt_length), np.int32)
    tokens[:, : len(ids)] = ids
    spans = framing.spans(ids, image=image is not None)
    framed = {} if framing.frame.bare else {FIELD: np.array([spans] * rows, np.int32)}
    sources.keep_off_accelerators()
    if image is None:
        pictured = no_image(resolution, views)
    else:
        pixels = _decoded(image, max_pixels)
        pictured = seen(tf.constant(pixels), resolution, views)
    instructed = {}
    if instruction is not None:
        names = ("instruction", "instruction_mask")
        instructed = dict(zip(names, instruction([prompt] * rows), strict=True))
    return {
        **instructed,
        **{name: np.repeat(field.numpy()[None], rows, axis=0) for name, field in pictured.items()},
        "image_mask": np.full((rows,), image is not None),
        "prompt": tokens,
        "prompt_mask": np.arange(prompt_length)[None] < np.full((rows, 1), len(ids)),
        **framed,
    }


@contextlib.contextmanager
def _explained(path: str) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise UserError(
            f"The image {path} cannot be read ({error}): give a JPEG, PNG, GIF, BMP, TIFF or WebP "
            "file by --image=PATH."
        ) from error


def _read(path: str, max_pixels: int = images.MAX_PIXELS) -> bytes:
    """The image as it is stored."""
    with _explained(path):
        return images.read_file(Path(os.path.expanduser(path)), max_pixels)


def _decoded(path: str, max_pixels: int) -> np.ndarray:
    """The pixels of an image file, (h, w, 3) uint8."""
    encoded = _read(path, max_pixels)
    with _explained(path):
        return images.decode(encoded, max_pixels)
