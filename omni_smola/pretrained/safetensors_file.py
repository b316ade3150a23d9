"""One .safetensors file, read by position.

The file is not mapped into memory: pages of a mapping count as memory of the process for as long as
it is open, so that a whole checkpoint would lie in host memory beside its parameters. The format is
eight bytes with the length of a JSON header, the header, and the tensors' bytes, rows first, little
end first.
"""

import json
import math
import pathlib
import re
import struct
from typing import Any

import numpy as np

from omni_smola.errors import UserError
from omni_smola.pretrained.reader import FLOATING, Entry

_FLOATING = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_LENGTH = struct.Struct("<Q")
_LONGEST_HEADER = 100_000_000  # the format's own limit


class SafetensorsFile:
    """A Reader of one file.

    Raises:
      UserError: there is no such file, or it is none of safetensors, or is cut short.
    """

    def __init__(self, path: pathlib.Path):
        self.path = path
        self.entries: dict[str, Entry] = {}
        self._starts: dict[str, int] = {}
        try:
            with path.open("rb") as file:
                size = path.stat().st_size
                self._index(*_header(file, size), size)
        except FileNotFoundError as error:
            raise UserError(
                f"There is no weight file {path}: give the path of a .safetensors file."
            ) from error
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(self._broken(error)) from error

    def read(self, name: str, rows: slice | None = None) -> np.ndarray:
        """See `Reader.read`."""
        entry = self.entries[name]
        shape, dtype, start = entry.shape, FLOATING[entry.dtype], self._starts[name]
        if rows is not None:
            start += rows.start * math.prod(shape[1:]) * dtype.itemsize
            shape = (rows.stop - rows.start, *shape[1:])
        size = math.prod(shape) * dtype.itemsize
        try:
            data = np.fromfile(self.path, np.uint8, size, offset=start)
        except OSError as error:
            raise UserError(self._broken(error)) from error
        if data.size != size:
            raise UserError(self._broken(f"{name} ends early"))
        return data.view(dtype).reshape(shape)

    def close(self) -> None:
        """Nothing is kept open."""

    def _index(self, header: dict[str, Any], begin: int, size: int) -> None:
        end = begin
        for name, field in header.items():
            if name == "__metadata__":
                continue
            shape, (first, last) = tuple(field["shape"]), field["data_offsets"]
            dtype = _FLOATING.get(field["dtype"], field["dtype"])
            if min(first, last - first, *shape) < 0:
                raise ValueError(f"{name} has a negative size")
            if dtype in FLOATING and last - first != math.prod(shape) * FLOATING[dtype].itemsize:
                raise ValueError(f"{name} of shape {shape} has {last - first} bytes")
            self.entries[name] = Entry(shape, dtype)
            self._starts[name] = begin + first
            end = max(end, begin + last)
        if end != size:
            raise ValueError(f"its tensors end at byte {end}, but it has {size}")

    def _broken(self, error: object) -> str:
        why = re.sub(r"\s+", " ", str(error))
        return f"The file {self.path} is not a complete safetensors file ({why}): copy it again."


def _header(file: Any, size: int) -> tuple[dict[str, Any], int]:
    """The JSON header, and where the tensors begin."""
    first = file.read(_LENGTH.size)
    if len(first) < _LENGTH.size:
        raise ValueError(f"it has {size} bytes")
    (length,) = _LENGTH.unpack(first)
    if length > min(_LONGEST_HEADER, size - _LENGTH.size):
        raise ValueError("its header is longer than the file, or it begins otherwise")
    header = json.loads(file.read(length))
    if not isinstance(header, dict):
        raise ValueError("its header is no JSON object")
    return header, _LENGTH.size + length
