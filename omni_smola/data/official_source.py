"""A public dataset as a source: its records, and its images from their shared collection."""

import functools
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from omni_smola.data.builders.official import builder as official
from omni_smola.data.builders.official import images
from omni_smola.data.sources import IndexedSource, data_dir, file_of


class OfficialSource(IndexedSource):
    """A dataset of `data/builders/NAME.py`; built on first use where a download folder is given.

    Nothing is read before the first use.
    """

    def __init__(
        self,
        name: str,
        data_dir: str | None = None,
        manual_dir: str | None = None,
        on_error: str = "fail",
    ):
        """As `builders.official.builder.prepare`; data_dir None for the TFDS default."""
        super().__init__(name)
        self._data_dir = data_dir
        self._manual_dir = manual_dir
        self._on_error = on_error
        self._opened = {}
        self._lock = threading.Lock()

    @functools.cached_property
    def _builder(self) -> official.OfficialBuilder:
        folder = data_dir(self._data_dir)
        return official.prepare(self.name, folder, self._manual_dir, self._on_error)

    @functools.cached_property
    def _store(self) -> images.ImageStore | None:
        collection = self._builder.IMAGES
        if collection is None:
            return None
        return images.prepare(collection, data_dir(self._data_dir), self._manual_dir)

    @property
    def splits(self) -> Sequence[str]:
        return tuple(self._builder.info.splits)

    def builder_info(self) -> Any:
        """The `tfds.core.DatasetInfo` of the prepared files."""
        return self._builder.info

    def _records(self, split: str):
        """Of a split, or of several joined by "+"."""
        if split not in self._opened:
            for part in split.split("+"):
                if part not in self.splits:
                    raise self.unknown_split(part)
            self._opened[split] = self._builder.as_data_source(split).data_source
        return self._opened[split]

    def num_input_examples(self, split: str) -> int:
        return len(self._records(split))

    def first(self, split: str, count: int) -> np.ndarray:
        """As the base class; of splits joined by "+" the first of each, in turn."""
        sizes = [self.num_input_examples(part) for part in split.split("+")]
        # Place in its part, then which part: the order in which examples are taken.
        places = np.concatenate([np.arange(size) for size in sizes])
        return np.sort(np.argsort(places, kind="stable")[:count])

    def read(self, split: str, indices: Sequence[int]) -> list[bytes]:
        records = self._records(split)
        if not len(indices):  # array_record refuses that
            return []
        with self._lock:  # the readers of array_record do not promise to be safe among threads
            found = [
                tf.train.Example.FromString(record)
                for record in records.__getitems__(list(indices))
            ]
            positions = [_integer(example, "image_position") for example in found]
            wanted = sorted({position for position in positions if position >= 0})
            encoded = dict(zip(wanted, self._store.read(wanted) if wanted else (), strict=True))
        for example, position in zip(found, positions, strict=True):
            image = [encoded[position]] if position >= 0 else []
            example.features.feature["image"].bytes_list.value.extend(image)
        return [example.SerializeToString(deterministic=True) for example in found]

    def where(self, split: str, index: int) -> str:
        file = file_of(self._records(split), index)
        try:
            record = tf.train.Example.FromString(self._records(split).__getitems__([index])[0])
        except Exception:  # whatever a damaged file makes of it
            return f"record {index} of split '{split}' of {self.name} ({file})"
        name = record.features.feature["id"].bytes_list.value[0].decode()
        return f"example '{name}' (record {index} of split '{split}') of {self.name} ({file})"


def _integer(example: tf.train.Example, name: str) -> int:
    return example.features.feature[name].int64_list.value[0]
