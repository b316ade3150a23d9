"""Images and texts in memory, as a batch: without TensorFlow, tasks or files of records."""

import os
import pathlib
from collections.abc import Sequence

import numpy as np
from flax import nnx
from PIL import Image

from omni_smola.data import images as image_files
from omni_smola.data.framing import FIELD
from omni_smola.data.model_text import framing_of
from omni_smola.data.tokenizer import Tokenizer
from omni_smola.errors import UserError
from omni_smola.models.origin import origin

Batch = dict[str, np.ndarray]
ImageLike = np.ndarray | Image.Image | bytes | str | os.PathLike[str] | None
_MULTIPLE = 8  # lengths are multiples of it, so that fewer programs are compiled


def make_batch(
    model: nnx.Module,
    images: Sequence[ImageLike] | None,
    prompts: Sequence[str],
    targets: Sequence[str] | None = None,
    *,
    prompt_length: int = 0,
    target_length: int = 0,
    tokenizer: Tokenizer | None = None,
    resolution: int = 0,
) -> Batch:
    """A batch for a model: to train on where there are targets, else to generate from.

    Prompts and targets stand in the model's frame, as on the command line, and are padded with 0.
    Images are read as there, too (`omni_smola.data.images`), and resized to a square without
    keeping their aspect ratio. There TensorFlow resizes, here Pillow in float32: values differ by
    at most 1 of 255, fewer than 2 of 100 do, and none where an image has the model's resolution.

    Args:
      model: of `load_backbone`, with or without experts; any other needs `tokenizer` and
        `resolution`.
      images: one for each prompt: an array (h, w, 3) uint8, a Pillow image, the name or the bytes
        of a file in one of `omni_smola.data.images.FORMATS`, or None for a prompt without an image.
        None instead of a list is no image at all.
      prompts: texts, such as "Answer in en: What colour is the car?".
      targets: the wanted answers, one for each prompt.
      prompt_length: tokens of a prompt, without those that its frame adds, as
        `config.data.prompt_length`; a longer one is cut, never its frame. 0 is as many as the
        longest needs, and rows are then a multiple of 8 tokens long.
      target_length: the same of targets, what ends them included.
      tokenizer: where it is not the one beside the model's weights.
      resolution: side of the square in pixels, where it is not the model's.

    Returns:
      image (b, side, side, 3) uint8, image_mask (b,) bool, prompt (b, p) int32, prompt_mask (b, p)
      bool; where a frame stands before prompts, frame (b, 3) int32, see `omni_smola.data.framing`;
      with targets also target (b, t) int32 and target_mask (b, t) bool.

    Raises:
      UserError: lists of different lengths or none at all, an image that cannot be read, or a model
        of which the tokenizer or the resolution is not known.
    """
    texts = _texts("prompts", prompts)
    if not texts:
        raise UserError("make_batch was given no prompts: a batch has one or more.")
    framing = framing_of(model, tokenizer)
    side = resolution or _image_size(model)
    seen = [None] * len(texts) if images is None else list(images)
    _check_count("images", len(seen), len(texts))
    pixels = [None if image is None else _square(_pixels(image), side) for image in seen]
    nothing = np.zeros((side, side, 3), np.uint8)
    _check_length("prompt_length", prompt_length)
    width = framing.width(prompt_length) if prompt_length else None
    rows = [
        framing.prompt(text, width, image=image is not None)
        for text, image in zip(texts, seen, strict=True)
    ]
    prompt, prompt_mask = _padded(rows, width)
    batch = {
        "image": np.stack([nothing if image is None else image for image in pixels]),
        "image_mask": np.array([image is not None for image in pixels]),
        "prompt": prompt,
        "prompt_mask": prompt_mask,
    }
    if not framing.frame.bare:
        spans = zip(rows, seen, strict=True)
        framed = [framing.spans(row, image=image is not None) for row, image in spans]
        batch[FIELD] = np.array(framed, np.int32)
    if targets is not None:
        answers = _texts("targets", targets)
        _check_count("targets", len(answers), len(texts))
        _check_length("target_length", target_length)
        rows = [framing.answer(text, target_length or None) for text in answers]
        batch["target"], batch["target_mask"] = _padded(rows, target_length or None)
    return batch


def _image_size(model: nnx.Module) -> int:
    known = origin(model)
    if known is None:
        raise UserError(
            "The resolution of this model is not known, as load_backbone has not made it: pass "
            "resolution=, the side of its images in pixels."
        )
    return known.image_size


def _texts(what: str, texts: Sequence[str]) -> list[str]:
    found = [] if isinstance(texts, str) else list(texts)
    wrong = [text for text in found if not isinstance(text, str)]
    if isinstance(texts, str) or wrong:
        seen = texts if isinstance(texts, str) else wrong[0]
        raise UserError(f"{what} has {seen!r}, but it is a list of strings, one for each row.")
    return found


def _check_count(what: str, count: int, rows: int) -> None:
    if count != rows:
        raise UserError(
            f"make_batch was given {count} {what} and {rows} prompts: give one for each prompt."
        )


def _check_length(name: str, length: int) -> None:
    if length and length < 2:
        raise UserError(f"{name} is {length}, but a text and its end take 2 tokens or more.")


def _padded(rows: list[list[int]], width: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Ids (b, width) int32, padded with 0, and where they are, bool: an id may be 0, too."""
    width = width or max(1, -(-max(map(len, rows)) // _MULTIPLE)) * _MULTIPLE
    tokens = np.zeros((len(rows), width), np.int32)
    for row, ids in zip(tokens, rows, strict=True):
        row[: len(ids)] = ids
    return tokens, np.arange(width) < np.array([[len(ids)] for ids in rows])


def _pixels(image: ImageLike) -> np.ndarray:
    """(h, w, 3) uint8 of an image in memory or in a file."""
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise UserError(
                f"An image has the shape {image.shape} and the dtype {image.dtype}, but it is "
                "(height, width, 3) uint8, red, green and blue from 0 to 255: convert it first."
            )
        return image
    if not isinstance(image, Image.Image | bytes | str | os.PathLike):
        raise UserError(
            f"An image is a {type(image).__name__}, but it may be a NumPy array, a Pillow image, "
            "the name or the bytes of a file, or None."
        )
    try:
        if isinstance(image, Image.Image):
            return image_files.of_pillow(image)
        if isinstance(image, bytes):
            return image_files.decode(image)
        return image_files.decode(image_files.read_file(pathlib.Path(image).expanduser()))
    except UserError as error:
        name = f" {os.fspath(image)}" if isinstance(image, str | os.PathLike) else ""
        raise UserError(
            f"The image{name} cannot be read ({error}): give a JPEG, PNG, GIF, BMP, TIFF or WebP "
            "file."
        ) from error


def _square(image: np.ndarray, side: int) -> np.ndarray:
    """(h, w, 3) -> (side, side, 3) uint8: bilinear, antialiased, rounded once at the end."""
    if image.shape[:2] == (side, side):
        return image
    channels = [
        Image.fromarray(channel).resize((side, side), Image.Resampling.BILINEAR)
        for channel in image.astype(np.float32).transpose(2, 0, 1)
    ]
    return np.clip(np.rint(np.stack([np.asarray(c) for c in channels], axis=-1)), 0, 255).astype(
        np.uint8
    )
