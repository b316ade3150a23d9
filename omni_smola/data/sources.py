"""Sources of examples with random access, as SeqIO data sources.

A source hands out the common record, one dict of tensors:

  id            ()    string   unique within the split
  image         (n,)  string   encoded, in a format of `images`, n in {0, 1}
  question      ()    string   "" where the kind has none; kind box: the referring expression
  choices       (c,)  string   kind choice only, else empty
  references    (r,)  string   captions, answers, expressions, or the text of the right choice
  answer_index  ()    int32    kind choice: index of the right choice, else -1
  box           (4,)  float32  x1, y1, x2, y2 divided by width and height, else -1s
  groups        ()    string   names of groups to score apart, with spaces between, or ""
  ocr           (w,)  string   the words on the image, where the dataset gives them
  language      ()    string   of the references, "en" where the dataset does not say

and beside it `_seed`, (2,) int32, for the stateless random choices of the preprocessors.

Every source can be read at any index in any order. That is what lets the pipeline open the stream
of examples at any step without having saved anything but the step.
"""

import abc
import functools
import itertools
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

from omni_smola.errors import UserError

_READ_AT_ONCE = 64
_SHARD = 4096  # examples

_RECORD_SPEC = {
    "id": tf.io.FixedLenFeature((), tf.string),
    "image": tf.io.RaggedFeature(tf.string),
    "question": tf.io.FixedLenFeature((), tf.string),
    "choices": tf.io.RaggedFeature(tf.string),
    "references": tf.io.RaggedFeature(tf.string),
    "answer_index": tf.io.FixedLenFeature((), tf.int64),
    "box": tf.io.FixedLenFeature((4,), tf.float32),
    "groups": tf.io.FixedLenFeature((), tf.string, ""),
    "ocr": tf.io.RaggedFeature(tf.string),
    "language": tf.io.FixedLenFeature((), tf.string, "en"),
}


def keep_off_accelerators() -> None:
    """Hides the GPUs from TensorFlow, which only reads data here but would take their memory."""
    try:
        tf.config.set_visible_devices([], "GPU")
    except RuntimeError:  # TensorFlow is running already and has whatever it has
        pass


def data_dir(folder: str | None) -> Path:
    """The TFDS data directory: `folder`, else TFDS_DATA_DIR, else TFDS's default."""
    return Path(folder or os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser()


def mapped(dataset: tf.data.Dataset, function: Callable, parallel: int = 1) -> tf.data.Dataset:
    """dataset.map in order, without AutoGraph: no function here branches in Python on a tensor,
    and its rewriting would take most of the time a pipeline needs to open."""
    plain = tf.autograph.experimental.do_not_convert(function)
    return dataset.map(plain, num_parallel_calls=parallel, deterministic=True)


def parse_record(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
    """Turns one serialised tf.train.Example, () string, into the common record."""
    record = tf.io.parse_single_example(serialized, _RECORD_SPEC)
    record["answer_index"] = tf.cast(record["answer_index"], tf.int32)
    return record


def serialize_record(
    *,
    id: str,
    image: bytes | None = None,
    question: str = "",
    choices: Sequence[str] = (),
    references: Sequence[str] = (),
    answer_index: int = -1,
    box: Sequence[float] | None = None,
) -> bytes:
    """The common record as a serialised tf.train.Example; the inverse of `parse_record`."""

    def strings(*values: str | bytes) -> tf.train.Feature:
        encoded = [v if isinstance(v, bytes) else v.encode() for v in values]
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=encoded))

    feature = {
        "id": strings(id),
        "image": strings(*([] if image is None else [image])),
        "question": strings(question),
        "choices": strings(*choices),
        "references": strings(*references),
        "answer_index": tf.train.Feature(int64_list=tf.train.Int64List(value=[answer_index])),
        "box": tf.train.Feature(float_list=tf.train.FloatList(value=box or (-1.0,) * 4)),
    }
    example = tf.train.Example(features=tf.train.Features(feature=feature))
    return example.SerializeToString(deterministic=True)


# What stands in for a record that cannot be read: every kind of task can make a prompt of it, and
# its image, of no bytes, does not decode.
PLACEHOLDER = serialize_record(
    id="",
    image=b"",
    choices=("", ""),
    references=("",),
    answer_index=0,
    box=(0.0, 0.0, 1.0, 1.0),
)


def box_lies_inside(box: tf.Tensor) -> tf.Tensor:
    """() bool of x1, y1, x2, y2 as fractions; all -1 where there is no box."""
    x1, y1, x2, y2 = tf.unstack(box)
    inside = (x1 >= 0) & (y1 >= 0) & (x1 <= x2) & (y1 <= y2) & (x2 <= 1) & (y2 <= 1)
    return inside | tf.reduce_all(box == -1)


def checked(record: dict[str, tf.Tensor], skip: bool) -> dict[str, tf.Tensor]:
    """The record; one whose box is out of range raises InvalidArgumentError, or with `skip` gets an
    image that does not decode."""
    inside = box_lies_inside(record["box"])
    if skip:
        image = tf.cond(inside, lambda: record["image"], lambda: tf.constant([b""]))
        return record | {"image": image}
    with tf.control_dependencies([tf.debugging.Assert(inside, [record["box"]])]):
        return record | {"box": tf.identity(record["box"])}


def file_of(records: Any, index: int) -> str:
    """The file that holds record `index` of an array_record data source."""
    ends = itertools.accumulate(part.num_records for part in records._read_instructions)
    return next(
        str(part.filename)
        for part, end in zip(records._read_instructions, ends, strict=True)
        if index < end
    )


class IndexedSource(seqio.DataSource, abc.ABC):
    """A SeqIO data source with random access.

    Subclasses give `splits`, `num_input_examples`, `read` and, for error messages, `where`.
    """

    def __init__(self, name: str, splits: Sequence[str] = ()):
        super().__init__(splits=splits, performs_internal_shuffling=True)
        self.name = name

    @abc.abstractmethod
    def num_input_examples(self, split: str) -> int:
        """The number of records of `split`; raises UserError for a split that is not there."""

    @abc.abstractmethod
    def read(self, split: str, indices: Sequence[int]) -> list[bytes]:
        """The serialised common records at `indices`; may be called from several threads."""

    def first(self, split: str, count: int) -> np.ndarray:
        """Where the examples of an evaluation lie that is limited to so many: (count,) int64."""
        return np.arange(min(count, self.num_input_examples(split)))

    def read_each(self, split: str, indices: Sequence[int], skip: bool) -> list[bytes]:
        """As `read`; with `skip`, PLACEHOLDER for records that cannot be read."""
        try:
            return self.read(split, indices)
        except Exception:
            if not skip:
                raise
        records = []
        for index in indices:
            try:
                records += self.read(split, [index])
            except Exception:  # whatever a reader of files raises of damage
                records.append(PLACEHOLDER)
        return records

    def where(self, split: str, index: int) -> str:
        """Says in words where record `index` comes from, for error messages."""
        return f"record {index} of split '{split}' of {self.name}"

    def dataset_at(
        self, split: str, indices: np.ndarray, seed: int = 0, skip: bool = False
    ) -> tf.data.Dataset:
        """The common records at `indices`, in that order, each with its `_seed`.

        Args:
          split: the split to read.
          indices: (n,) integers.
          seed: first half of every `_seed`; the second half is the index of the record.
          skip: as in `read_each` and `checked`.

        Returns:
          A dataset of n elements.
        """
        indices = np.asarray(indices, np.int64)

        def read(block: np.ndarray) -> np.ndarray:
            return np.array(self.read_each(split, block.tolist(), skip), object)

        def read_block(block: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            serialized = tf.numpy_function(read, [block], tf.string)
            return tf.ensure_shape(serialized, (None,)), block

        def parse(serialized: tf.Tensor, index: tf.Tensor) -> dict[str, tf.Tensor]:
            seeds = tf.stack([np.int32(seed), tf.cast(index, tf.int32)])
            return checked(parse_record(serialized), skip) | {"_seed": seeds}

        blocks = tf.data.Dataset.from_tensor_slices(indices).batch(_READ_AT_ONCE)
        return mapped(mapped(blocks, read_block).unbatch(), parse)

    def get_dataset(
        self,
        split: str = "train",
        shuffle: bool = True,
        seed: int | None = None,
        shard_info: seqio.ShardInfo | None = None,
        *,
        sequence_length: Mapping[str, int] | None = None,
        use_cached: bool = False,
        num_epochs: int | None = 1,
    ) -> tf.data.Dataset:
        """One pass over the split, for use through `seqio.get_dataset`; see the base class."""
        del sequence_length, use_cached, num_epochs
        indices = np.arange(self.num_input_examples(split))
        if seed is None:
            seed = int(np.random.default_rng().integers(2**31)) if shuffle else 0
        if shuffle:
            indices = np.random.default_rng(seed).permutation(indices)
        if shard_info:
            indices = indices[shard_info.index :: shard_info.num_shards]
        return self.dataset_at(split, indices, seed % 2**31)

    @property
    def supports_arbitrary_sharding(self) -> bool:
        return True

    def list_shards(self, split: str) -> Sequence[str]:
        """What Apache Beam shares out among its workers when `seqio_cache_tasks` runs."""
        count = -(-self.num_input_examples(split) // _SHARD) or 1
        return [f"{self.name}:{split}:{i}" for i in range(count)]

    def unknown_split(self, split: str) -> UserError:
        """The error for a split that is not there."""
        have = ", ".join(f"'{s}'" for s in self.splits)
        return UserError(f"{self.name} has no split '{split}'; it has {have}.")


class TfdsSource(IndexedSource):
    """A TFDS builder in array_record format whose features are the common record.

    Nothing is read or built before the first use; the mini suite is then built on the spot if its
    files are not there yet.
    """

    def __init__(self, config: str, data_dir: str | None = None):
        """config: a config of the builder `mini_suite`; data_dir: None for the TFDS default."""
        super().__init__(f"mini_suite/{config}")
        self.config = config
        self.data_dir = data_dir
        self._opened = {}
        self._lock = threading.Lock()

    @functools.cached_property
    def _builder(self):
        from omni_smola.data.builders.mini_suite import mini_suite

        return mini_suite.prepare(self.config, data_dir(self.data_dir))

    def where(self, split: str, index: int) -> str:
        return f"{super().where(split, index)} ({file_of(self._records(split), index)})"

    def builder_info(self) -> Any:
        """The `tfds.core.DatasetInfo` of the prepared files."""
        return self._builder.info

    def _records(self, split: str):
        if split not in self._opened:
            if split not in self.splits:
                raise self.unknown_split(split)
            # The inner data source gives the bytes as they lie on disk, before any decoding.
            self._opened[split] = self._builder.as_data_source(split).data_source
        return self._opened[split]

    @property
    def splits(self) -> Sequence[str]:
        return tuple(self._builder.info.splits)

    def num_input_examples(self, split: str) -> int:
        return len(self._records(split))

    def read(self, split: str, indices: Sequence[int]) -> list[bytes]:
        records = self._records(split)
        if not len(indices):  # a step without a draw of this task; array_record refuses that
            return []
        with self._lock:  # the readers of array_record do not promise to be safe among threads
            return list(records.__getitems__(list(indices)))
