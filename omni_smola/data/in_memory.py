"""Images and texts in memory, as a batch: without TensorFlow, tasks or files of records."""

import os
import pathlib
from collections.abc import Sequence

import numpy as np
from flax import nnx
from PIL import Image, UnidentifiedImageError

from omni_smola.data.tokenizer import Tokenizer, load_tokenizer
from omni_smola.errors import UserError, first_line
from omni_smola.models.origin import origin

Batch = dict[str, np.ndarray]
ImageLike = np.ndarray | Image.Image | str | os.PathLike[str] | None
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

    Texts end with the tokenizer's end of sequence, and are padded with 0. Images are resized to a
    square without keeping their aspect ratio, as in training by the command line. There the pixels
    come from TensorFlow, here from Pillow in float32. They differ by at most 1 of 255, in fewer
    than 2 of 100 values, and not at all where an image has the model's resolution.

    Args:
      model: of `load_backbone`, with or without experts; any other needs `tokenizer` and
        `resolution`.
      images: one for each prompt: an array (h, w, 3) uint8, a Pillow image, the name of a file, or
        None for a prompt without an image. None instead of a list is no image at all.
      prompts: texts, such as "Answer in en: What colour is the car?".
      targets: the wanted answers, one for each prompt.
      prompt_length: tokens of a prompt, its end included; a longer one is cut. 0 is as many as the
        longest needs, rounded up to a multiple of 8.
      target_length: the same of targets.
      tokenizer: where it is not the one beside the model's weights.
      resolution: side of the square in pixels, where it is not the model's.

    Returns:
      image (b, side, side, 3) uint8, image_mask (b,) bool, prompt (b, p) int32, prompt_mask (b, p)
      bool; with targets also target (b, t) int32 and target_mask (b, t) bool.

    Raises:
      UserError: lists of different lengths or none at all, an image that cannot be read, or a model
        of which the tokenizer or the resolution is not known.
    """
    texts = _texts("prompts", prompts)
    if not texts:
        raise UserError("make_batch was given no prompts: a batch has one or more.")
    tokenizer = tokenizer or tokenizer_of(model)
    side = resolution or _image_size(model)
    seen = [None] * len(texts) if images is None else list(images)
    _check_count("images", len(seen), len(texts))
    pixels = [None if image is None else _square(_pixels(image), side) for image in seen]
    nothing = np.zeros((side, side, 3), np.uint8)
    prompt = _tokens(texts, tokenizer, prompt_length, "prompt_length")
    batch = {
        "image": np.stack([nothing if image is None else image for image in pixels]),
        "image_mask": np.array([image is not None for image in pixels]),
        "prompt": prompt,
        "prompt_mask": prompt != 0,
    }
    if targets is not None:
        answers = _texts("targets", targets)
        _check_count("targets", len(answers), len(texts))
        target = _tokens(answers, tokenizer, target_length, "target_length")
        batch |= {"target": target, "target_mask": target != 0}
    return batch


def tokenizer_of(model: nnx.Module) -> Tokenizer:
    """The tokenizer beside the weights of a model of `load_backbone`.

    Raises:
      UserError: none is known, or it has more pieces than the model embeds.
    """
    known = origin(model)
    if known is None or not known.tokenizer:
        raise UserError(
            "No tokenizer belongs to this model: pass tokenizer=load_tokenizer(PATH), with the "
            "SentencePiece .model file that the model was trained with."
        )
    tokenizer = load_tokenizer(known.tokenizer)
    if tokenizer.vocab_size > known.vocabulary:
        raise UserError(
            f"The tokenizer {known.tokenizer} has {tokenizer.vocab_size} pieces, but the backbone "
            f"{known.name} embeds {known.vocabulary}: pass tokenizer=load_tokenizer(PATH) with the "
            "one that the backbone was trained with."
        )
    return tokenizer


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


def _tokens(texts: list[str], tokenizer: Tokenizer, length: int, name: str) -> np.ndarray:
    """(b, length) int32: ids with the end of sequence, cut before it and padded with 0."""
    if length and length < 2:
        raise UserError(f"{name} is {length}, but a text and its end take 2 tokens or more.")
    rows = [list(tokenizer.encode(text)) for text in texts]
    longest = max(len(row) for row in rows) + 1
    length = length or -(-longest // _MULTIPLE) * _MULTIPLE
    tokens = np.zeros((len(rows), length), np.int32)
    for row, ids in zip(tokens, rows, strict=True):
        ids = [*ids[: length - 1], tokenizer.eos_id]
        row[: len(ids)] = ids
    return tokens


def _pixels(image: ImageLike) -> np.ndarray:
    """(h, w, 3) uint8 of an image in memory or in a file."""
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise UserError(
                f"An image has the shape {image.shape} and the dtype {image.dtype}, but it is "
                "(height, width, 3) uint8, red, green and blue from 0 to 255: convert it first."
            )
        return image
    if isinstance(image, Image.Image):
        return np.asarray(image.convert("RGB"))
    if not isinstance(image, str | os.PathLike):
        raise UserError(
            f"An image is a {type(image).__name__}, but it may be a NumPy array, a Pillow image, "
            "the name of a file, or None."
        )
    return _read(pathlib.Path(image).expanduser())


def _read(path: pathlib.Path) -> np.ndarray:
    """The pixels of an image file."""
    try:
        with Image.open(path) as opened:
            return np.asarray(opened.convert("RGB"))
    except (UnidentifiedImageError, OSError, ValueError) as error:
        raise UserError(
            f"The image {path} cannot be read ({first_line(error)}): give an existing JPEG, PNG, "
            "GIF, BMP or WebP file."
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
