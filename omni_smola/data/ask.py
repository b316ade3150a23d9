"""One image and one prompt from the command line as a batch."""

import io
import os
from collections.abc import Mapping

import numpy as np
import tensorflow as tf
from PIL import Image, UnidentifiedImageError

from omni_smola.data import sources
from omni_smola.data.features import decode_views, no_image
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
) -> dict[str, np.ndarray]:
    """A batch of `rows` equal rows.

    Args:
      image: a file that Pillow reads, or None for a prompt without an image.
      prompt: text; it is cut so that it has `prompt_length` tokens with its frame.
      framing: makes token ids, as for training.
      resolution, views, instruction: as in `pipeline.train_batches`.

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
        seen = no_image(resolution, views)
    else:
        seen = decode_views(tf.constant(_read(image)), resolution, views)
    instructed = {}
    if instruction is not None:
        names = ("instruction", "instruction_mask")
        instructed = dict(zip(names, instruction([prompt] * rows), strict=True))
    return {
        **instructed,
        **{name: np.repeat(field.numpy()[None], rows, axis=0) for name, field in seen.items()},
        "image_mask": np.full((rows,), image is not None),
        "prompt": tokens,
        "prompt_mask": np.arange(prompt_length)[None] < np.full((rows, 1), len(ids)),
        **framed,
    }


def _read(path: str) -> bytes:
    """The image as PNG bytes, whatever its format."""
    try:
        with Image.open(os.path.expanduser(path)) as opened:
            out = io.BytesIO()
            opened.convert("RGB").save(out, format="PNG")
    except (UnidentifiedImageError, OSError, ValueError) as error:
        raise UserError(
            f"The image {path} cannot be read ({error}): give an existing JPEG, PNG, GIF, BMP or "
            "WebP file by --image=PATH."
        ) from error
    return out.getvalue()
