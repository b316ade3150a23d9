"""Trees of arrays as T5X and Orbax write them: a folder of zarr arrays, or one OCDBT database.

T5X and older Orbax keep one folder per array, its name the path in the tree joined by dots
(target.encoder.layers_0.mlp.wi.kernel); newer Orbax keeps the same names in a database. Here a name
is that path joined by slashes. T5X keeps arrays that it did not divide over devices in a msgpack
file beside the others, `checkpoint`, which is data and no pickle.
"""

import pathlib
from collections.abc import Iterator
from typing import Any

import msgpack
import numpy as np
import tensorstore as ts
from flax import serialization

from omni_smola.errors import UserError
from omni_smola.pretrained.reader import FLOATING, Entry

_DATABASE = "manifest.ocdbt"
_MSGPACK = "checkpoint"
_DRIVERS = {".zarray": "zarr", "zarr.json": "zarr3"}  # the file that describes an array


def is_tree(folder: pathlib.Path) -> bool:
    """Whether a folder is such a tree."""
    return (folder / _DATABASE).is_file() or any(True for _ in _folders(folder))


class ArrayTree:
    """A Reader of one folder.

    Raises:
      UserError: the folder's arrays cannot be read.
    """

    def __init__(self, folder: pathlib.Path):
        self.path = folder
        self.entries: dict[str, Entry] = {}
        self._arrays: dict[str, ts.TensorStore] = {}
        self._small: dict[str, np.ndarray] = {}
        self._whole: tuple[str, np.ndarray] | None = None
        try:
            for key, spec in sorted(self._specs(), key=lambda found: found[0]):
                array = ts.open(spec, open=True, read=True).result()
                name = key.replace(".", "/")
                self._arrays[name] = array
                self.entries[name] = Entry(tuple(array.shape), array.dtype.name)
            if (folder / _MSGPACK).is_file():
                tree = serialization.msgpack_restore((folder / _MSGPACK).read_bytes())
                self._small = dict(_leaves(tree.get("optimizer", tree)))
        except (ValueError, OSError, msgpack.UnpackException, AttributeError) as error:
            raise UserError(self._broken(error)) from error
        self.entries |= {name: Entry(x.shape, x.dtype.name) for name, x in self._small.items()}

    def read(self, name: str, rows: slice | None = None) -> np.ndarray:
        """See `Reader.read`."""
        if name in self._small:
            return self._small[name][... if rows is None else rows].copy()
        array = self._arrays[name]
        if rows is None:
            return self._read(array)
        if array.chunk_layout.read_chunk.shape[0] == 1:
            return self._read(array[rows.start : rows.stop])
        # Rows that share a chunk are unpacked once, not once for each.
        if self._whole is None or self._whole[0] != name:
            self._whole = None  # before the next is read
            self._whole = (name, self._read(array))
        return self._whole[1][rows].copy()

    def close(self) -> None:
        """Nothing is kept open."""
        self._whole = None

    def _read(self, array: ts.TensorStore) -> np.ndarray:
        try:
            data = np.asarray(array.read().result())
        except (ValueError, OSError) as error:
            raise UserError(self._broken(error)) from error
        return data.astype(FLOATING[array.dtype.name], copy=False)

    def _specs(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Name joined by dots, and where the array is."""
        file = {"driver": "file", "path": f"{self.path.resolve()}/"}
        if not (self.path / _DATABASE).is_file():
            for folder, driver in _folders(self.path):
                kvstore = {"driver": "file", "path": f"{folder.resolve()}/"}
                yield folder.name, {"driver": driver, "kvstore": kvstore}
            return
        database = {"driver": "ocdbt", "base": file}
        for key in ts.KvStore.open(database).result().list().result():
            folder, _, last = key.decode().rpartition("/")
            if last in _DRIVERS:
                kvstore = {**database, "path": f"{folder}/"}
                yield folder, {"driver": _DRIVERS[last], "kvstore": kvstore}

    def _broken(self, error: object) -> str:
        why = str(error).split(" [", 1)[0]  # what follows are places in TensorStore's own source
        return f"The folder {self.path} holds arrays that cannot be read ({why}): copy it again."


def _folders(folder: pathlib.Path) -> Iterator[tuple[pathlib.Path, str]]:
    """The folders of single arrays, and their drivers."""
    for child in folder.iterdir():
        for described, driver in _DRIVERS.items():
            if (child / described).is_file():
                yield child, driver


def _leaves(tree: dict[str, Any], above: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """The arrays of a tree; in place of one that has a folder stands how to open it."""
    for name, value in tree.items():
        if isinstance(value, dict) and not {"driver", "kvstore"} <= value.keys():
            yield from _leaves(value, f"{above}{name}/")
        elif isinstance(value, np.ndarray):
            yield f"{above}{name}", value
