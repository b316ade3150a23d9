"""What every reader of a public checkpoint gives: names and shapes first, then tensor by tensor."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Protocol

import ml_dtypes
import numpy as np

# Of the tensors that can be read, by the names that `Entry.dtype` gives them.
FLOATING = {
    "float64": np.dtype(np.float64),
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}


@dataclasses.dataclass(frozen=True)
class Entry:
    """A tensor of a checkpoint that has not been read.

    Attributes:
      shape: as stored.
      dtype: a key of FLOATING, or the file's own word for anything else, such as "I8".
    """

    shape: tuple[int, ...]
    dtype: str


class Reader(Protocol):
    """A checkpoint that is open.

    Attributes:
      path: the file or folder.
      entries: name -> Entry of every tensor; known without reading any.
    """

    path: pathlib.Path
    entries: Mapping[str, Entry]

    def read(self, name: str, rows: slice | None = None) -> np.ndarray:
        """One tensor, or a part of it, as a new array that nothing else writes to.

        Args:
          name: a key of `entries` whose dtype is in FLOATING.
          rows: which part of the first axis, start and stop given; None for all of it.

        Raises:
          UserError: the file is damaged.
        """

    def close(self) -> None:
        """Ends the reading; files that were kept open are closed."""
