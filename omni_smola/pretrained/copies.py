"""One matrix under several names: a tied head beside its embedding, or two layouts in one file.

transformers ties a head to the embedding where config.json says so, and where the file holds both
only if they are equal; with values of their own they are two matrices. Files of
safetensors.torch.save_model keep one of the names, whichever comes first in the alphabet.
"""

import contextlib
import math
import pathlib
from collections.abc import Iterator, Mapping

import numpy as np

from omni_smola.errors import UserError
from omni_smola.pretrained import huggingface
from omni_smola.pretrained.plan import Part
from omni_smola.pretrained.reader import FLOATING, Reader
from omni_smola.pretrained.sentences import cut

_BLOCK = 16 << 20  # bytes that are compared at once


def tied(folder: pathlib.Path, embedding: str, head: str) -> bool:
    """Whether a folder's weights let its head be the embedding; nothing else is read of them.

    Args:
      folder: of a Hugging Face model.
      embedding: how the embedding's names end, whatever stands before them.
      head: how the head's name ends.

    Returns:
      False where both are there and differ; True also where there are no weights.

    Raises:
      UserError: the weights are damaged.
    """
    weights = huggingface.find(folder)
    if weights is None:
        return True
    with contextlib.closing(weights) as reader:
        found = [
            next((name for name in reader.entries if _ends(name, end)), None)
            for end in (embedding, head)
        ]
        return None in found or equal(reader, *((name, None) for name in found))


def check(reader: Reader, plan: Mapping[str, list[Part]]) -> None:
    """Raises UserError if tensors that are to be one parameter hold different values."""
    for part in (part for parts in plan.values() for part in parts):
        for copy in part.copies:
            if not equal(reader, (part.name, part.row), copy):
                raise UserError(
                    f"The checkpoint {reader.path} holds two unlike tensors, {cut(part.name, 90)} "
                    f"and {cut(copy[0], 90)}, which are one matrix in this config: have the sizes "
                    "read from the checkpoint by --config.backbone.name=auto, which gives a model "
                    "a head of its own, or choose a file that holds one of them."
                )


def equal(reader: Reader, a: tuple[str, int | None], b: tuple[str, int | None]) -> bool:
    """Whether two tensors, or rows of them, (name, row), hold the same values in the same shape."""
    shapes = [_shape(reader, *which) for which in (a, b)]
    if shapes[0] != shapes[1]:
        return False
    if any(reader.entries[name].dtype not in FLOATING for name, _ in (a, b)):
        return reader.entries[a[0]] == reader.entries[b[0]]  # refused elsewhere
    blocks = zip(_blocks(reader, *a), _blocks(reader, *b), strict=True)
    return all(np.array_equal(_wide(x), _wide(y), equal_nan=True) for x, y in blocks)


def _ends(name: str, end: str) -> bool:
    return name.endswith(end) and name.removesuffix(end)[-1:] in ("", ".", "/")


def _shape(reader: Reader, name: str, row: int | None) -> tuple[int, ...]:
    shape = reader.entries[name].shape
    return shape if row is None else shape[1:]


def _blocks(reader: Reader, name: str, row: int | None) -> Iterator[np.ndarray]:
    """A tensor in the same blocks whatever its dtype."""
    shape = reader.entries[name].shape
    if row is not None:
        yield reader.read(name, slice(row, row + 1))[0]
    elif not shape or not math.prod(shape):
        yield reader.read(name)
    else:
        rows = max(1, _BLOCK * shape[0] // (8 * math.prod(shape)))
        for start in range(0, shape[0], rows):
            yield reader.read(name, slice(start, min(start + rows, shape[0])))


def _wide(x: np.ndarray) -> np.ndarray:
    return x if x.dtype == np.float64 else x.astype(np.float32)
