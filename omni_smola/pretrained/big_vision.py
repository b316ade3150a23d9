"""Checkpoints of big_vision: one .npz file with names such as params/img/pos_embedding.

NumPy has no bfloat16: such arrays are stored as two bytes of unknown type, |V2.
"""

import math
import pathlib
import zipfile
import zlib
from typing import IO

import numpy as np

from omni_smola.errors import UserError
from omni_smola.pretrained.reader import FLOATING, Entry

_BLOCK = 16 << 20


class NpzFile:
    """A Reader of one .npz file.

    A member of a zip is a stream: rows are cheap when they are asked for in their order, as the
    stream is gone on with, and are sought from the beginning otherwise.

    Raises:
      UserError: there is no such file, it is no .npz or cut short, or it holds a pickle.
    """

    def __init__(self, path: pathlib.Path):
        self.path = path
        self.entries: dict[str, Entry] = {}
        self._fortran: set[str] = set()
        self._stream: IO[bytes] | None = None
        self._at = ("", 0)  # the member that is streamed, and its next row
        try:
            self._zip = zipfile.ZipFile(path)
        except FileNotFoundError as error:
            raise UserError(
                f"There is no weight file {path}: give the path of an .npz file."
            ) from error
        except (zipfile.BadZipFile, OSError) as error:
            raise UserError(self._broken(error)) from error
        try:
            for member in self._zip.namelist():
                self._index(member.removesuffix(".npy"))
        except BaseException:
            self._zip.close()
            raise

    def read(self, name: str, rows: slice | None = None) -> np.ndarray:
        """See `Reader.read`."""
        entry = self.entries[name]
        if name in self._fortran:  # the whole tensor in one go, columns first
            flat = self._rows(name, 0, 1, (1, math.prod(entry.shape)), FLOATING[entry.dtype])
            return flat.reshape(entry.shape[::-1]).T[slice(None) if rows is None else rows]
        if not entry.shape:
            return self._rows(name, 0, 1, (1,), FLOATING[entry.dtype]).reshape(())
        start, stop = (0, entry.shape[0]) if rows is None else (rows.start, rows.stop)
        return self._rows(name, start, stop, entry.shape, FLOATING[entry.dtype])

    def close(self) -> None:
        """Closes the file."""
        if self._stream is not None:
            self._stream.close()
        self._zip.close()

    def _index(self, name: str) -> None:
        stream = self._open(name)
        with stream:
            shape, fortran, dtype = self._header(name, stream)
        if dtype.hasobject:
            raise UserError(
                f"The file {self.path} holds Python objects ({name}), which are a pickle and can "
                "run any code when they are read: save plain arrays, or use safetensors."
            )
        if dtype == np.dtype("V2"):
            word = "bfloat16"
        else:
            word = dtype.name if dtype.isnative else str(dtype)
        self.entries[name] = Entry(shape, word)
        if fortran and len(shape) > 1:
            self._fortran.add(name)

    def _rows(
        self, name: str, start: int, stop: int, shape: tuple[int, ...], dtype: np.dtype
    ) -> np.ndarray:
        size = math.prod(shape[1:]) * dtype.itemsize
        if self._at[0] != name or start < self._at[1]:
            if self._stream is not None:
                self._stream.close()
            self._stream = self._open(name)
            self._header(name, self._stream)
            self._at = (name, 0)
        skipped = (start - self._at[1]) * size
        while skipped:
            skipped -= len(self._exactly(name, min(skipped, _BLOCK)))
        data = np.empty((stop - start) * size, np.uint8)
        for first in range(0, data.size, _BLOCK):
            last = min(first + _BLOCK, data.size)
            data[first:last] = np.frombuffer(self._exactly(name, last - first), np.uint8)
        self._at = (name, stop)
        return data.view(dtype).reshape(stop - start, *shape[1:])

    def _exactly(self, name: str, size: int) -> bytes:
        try:
            data = self._stream.read(size)
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError) as error:
            raise UserError(self._broken(error)) from error
        if len(data) != size:
            raise UserError(self._broken(f"{name} ends early"))
        return data

    def _open(self, name: str) -> IO[bytes]:
        members = self._zip.NameToInfo
        try:
            return self._zip.open(f"{name}.npy" if f"{name}.npy" in members else name)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError) as error:
            raise UserError(self._broken(error)) from error

    def _header(self, name: str, stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
        try:
            version = np.lib.format.read_magic(stream)
            if version == (1, 0):
                return np.lib.format.read_array_header_1_0(stream)
            return np.lib.format.read_array_header_2_0(stream)
        except (ValueError, zipfile.BadZipFile, zlib.error, OSError, EOFError) as error:
            raise UserError(self._broken(f"{name}: {error}")) from error

    def _broken(self, error: object) -> str:
        return f"The file {self.path} is not a complete .npz file ({error}): copy it again."
