"""Batches for training and evaluation, as plain NumPy.

The training stream is a pure function of (seed, position), see `schedule`: nothing but the step
has to be saved to resume it, and it is the same on any number of hosts.
"""

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

from omni_smola.data import damage as damages
from omni_smola.data import images
from omni_smola.data import tasks as task_table
from omni_smola.data.damage import Damage
from omni_smola.data.features import Converter
from omni_smola.data.framing import FIELD
from omni_smola.data.instruction import InstructionTokenizer, fields
from omni_smola.data.reader import Reader
from omni_smola.data.schedule import Schedule
from omni_smola.data.sources import IndexedSource, checked, mapped, parse_record
from omni_smola.errors import UserError
from omni_smola.views import View

Batch = dict[str, np.ndarray]

_CORES = os.cpu_count() or 1
_Spec = seqio.FeatureConverter.FeatureSpec
_EVAL_EXTRAS = {
    "id": _Spec(tf.string, rank=0),
    "prompt_text": _Spec(tf.string, rank=0),
    "references": _Spec(tf.string, rank=1),
    "groups": _Spec(tf.string, rank=0),
    "question": _Spec(tf.string, rank=0),
}


def train_batches(
    rates: Mapping[str, float],
    *,
    seed: int,
    batch_size: int,
    prompt_length: int,
    target_length: int,
    resolution: int,
    start_step: int = 0,
    split: str = "train",
    host_index: int = 0,
    host_count: int = 1,
    views: Mapping[str, View] | None = None,
    instruction: InstructionTokenizer | None = None,
    damage: Damage | None = None,
    max_pixels: int = images.MAX_PIXELS,
) -> Iterator[Batch]:
    """The endless stream of this host's training batches, from step `start_step` on.

    Args:
      rates: registered task -> relative rate; see `mixtures.resolve`.
      seed: of the order of examples and of the choice among several references.
      batch_size: of all hosts together; this host gets batch_size / host_count contiguous rows.
      prompt_length, target_length: token ids per row, those of the frame included
        (`Framing.width`).
      resolution: side of the square image.
      start_step: the first step to yield; opening at any step costs the same.
      split: the split of every task.
      host_index, host_count: which rows of the global batch are this host's.
      views: name -> how a vision encoder sees the image; each adds its fields, see `views`.
      instruction: of the encoder that embeds prompts for routers; it adds instruction (b, n) int32
        and instruction_mask (b, n) bool, the prompt's text in its own tokens.
      damage: where damaged examples are counted, whose rows then have no image and no target; None
        for an error at the first.
      max_pixels: of an image, see `images`.

    Yields:
      With b = batch_size / host_count, p = prompt_length, t = target_length, r = resolution:
      image (b, r, r, 3) uint8, image_mask (b,) bool, prompt (b, p) int32, prompt_mask (b, p) bool,
      target (b, t) int32, target_mask (b, t) bool, task (b,) int32, an index into `rates`; and
      frame (b, 3) int32 where a frame stands around prompts, see `models.prompts`.

    Raises:
      UserError: an argument out of range, an unknown task or split, a rate too small; while
        iterating, a damaged example, by its name.
    """
    _check_sizes(batch_size, prompt_length, target_length, resolution)
    if start_step < 0:
        raise UserError(f"start_step is {start_step}; it must be 0 or more.")
    _check_share(batch_size, host_index, host_count)
    skip = damage is not None
    stream = _Stream(rates, seed, split, batch_size, host_index, host_count, skip)
    lengths = {"prompt": prompt_length, "target": target_length, "image": 1}
    extras = {"task": _Spec(tf.int32, rank=0)} | _framed(stream.tasks)
    if instruction is not None:
        extras["prompt_text"] = _Spec(tf.string, rank=0)
    converter = Converter(resolution, extras, _CORES, views, skip, max_pixels)
    dataset = converter(stream.mixed(start_step, lengths), lengths | dict.fromkeys(extras, 1))
    dataset = dataset.batch(batch_size // host_count, drop_remainder=True).prefetch(2)
    batches = _explained(Reader(dataset), stream, start_step, damage, max_pixels)
    if instruction is None:
        return batches
    return (batch | fields(instruction, batch.pop("prompt_text")) for batch in batches)


class _Stream:
    """One host's share of the stream of examples."""

    def __init__(
        self,
        rates: Mapping[str, float],
        seed: int,
        split: str,
        batch_size: int,
        host_index: int,
        host_count: int,
        skip: bool,
    ):
        self.tasks = [task_table.get(name) for name in rates]
        self.splits = [task.row.split(split) for task in self.tasks]
        sizes = [
            task.source.num_input_examples(own)
            for task, own in zip(self.tasks, self.splits, strict=True)
        ]
        self.schedule = Schedule(seed, rates, sizes)
        self._skip = skip
        self._batch_size = batch_size
        self._rows = batch_size // host_count
        self._first_row = host_index * self._rows

    def draws(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """The tasks and draws of this host's rows of a step: two (rows,) int64."""
        start = step * self._batch_size + self._first_row
        return self.schedule.draws(start, start + self._rows)

    def sources(self, step: int) -> list[tuple[IndexedSource, str, int]]:
        """Source, split and index of this host's rows of a step."""
        rows = []
        for task, draw in zip(*self.draws(step), strict=True):
            index = self.schedule.examples(task, draw[np.newaxis])[0]
            rows.append((self.tasks[task].source, self.splits[task], int(index)))
        return rows

    def mixed(self, start_step: int, lengths: Mapping[str, int]) -> tf.data.Dataset:
        """The task features of this host's examples in order, with their `task`."""
        steps = tf.data.Dataset.range(start_step, np.iinfo(np.int64).max)

        def choices(step: tf.Tensor) -> tf.Tensor:
            chosen = tf.numpy_function(lambda step: self.draws(step)[0], [step], tf.int64)
            return tf.ensure_shape(chosen, (self._rows,))

        chosen = mapped(steps, choices).unbatch()
        datasets = [self._one_task(i, steps, lengths) for i in range(len(self.tasks))]
        mixed = tf.data.Dataset.choose_from_datasets(datasets, chosen, stop_on_empty_dataset=False)

        def with_task(example: Mapping[str, tf.Tensor], task: tf.Tensor) -> dict[str, tf.Tensor]:
            return example | {"task": tf.cast(task, tf.int32)}

        return mapped(tf.data.Dataset.zip(mixed, chosen), with_task)

    def _one_task(
        self, index: int, steps: tf.data.Dataset, lengths: Mapping[str, int]
    ) -> tf.data.Dataset:
        task = self.tasks[index]

        def read(step: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            tasks, draws = self.draws(step)
            draws = draws[tasks == index]
            indices = self.schedule.examples(index, draws).tolist()
            records = task.source.read_each(self.splits[index], indices, self._skip)
            return np.array(records, object), self.schedule.example_seeds(index, draws)

        def read_step(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            records, seeds = tf.numpy_function(read, [step], [tf.string, tf.int32])
            return tf.ensure_shape(records, (None,)), tf.ensure_shape(seeds, (None, 2))

        def parse(record: tf.Tensor, seed: tf.Tensor) -> dict[str, tf.Tensor]:
            return checked(parse_record(record), self._skip) | {"_seed": seed}

        records = mapped(mapped(steps, read_step).unbatch(), parse)
        return task.preprocess_postcache(task.preprocess_precache(records), lengths)


def eval_batches(
    task_name: str,
    split: str,
    *,
    batch_size: int,
    prompt_length: int,
    target_length: int,
    resolution: int,
    limit: int | None = None,
    task_index: int = 0,
    host_index: int = 0,
    host_count: int = 1,
    views: Mapping[str, View] | None = None,
    instruction: InstructionTokenizer | None = None,
    damage: Damage | None = None,
    max_pixels: int = images.MAX_PIXELS,
) -> Iterator[tuple[Batch, list[dict[str, Any]]]]:
    """One pass over a split of a task, in order.

    Args:
      task_name: a registered task.
      split: the split.
      batch_size, prompt_length, target_length, resolution, views, instruction, max_pixels: as in
        `train_batches`.
      limit: only the first so many examples.
      task_index: the value of `task` in the batches.
      host_index, host_count: as in `train_batches`: this host's rows of every batch. All hosts get
        equally many batches, the last of which may be empty on some.
      damage: where damaged examples are counted, which are then left out; None for an error.

    Yields:
      (batch, examples). The batch is that of `train_batches` plus example_mask (b,) bool, False
      for the rows that only fill up the last batch; every batch has b rows. `examples` has one
      dict for every row that counts: id str, prompt str, references list[str], groups str, question
      str.

    Raises:
      UserError: as `train_batches`.
    """
    _check_sizes(batch_size, prompt_length, target_length, resolution)
    _check_share(batch_size, host_index, host_count)
    if limit is not None and limit < 1:
        raise UserError(f"limit is {limit}; it must be 1 or more, or None for all examples.")
    task = task_table.get(task_name)
    split = task.row.split(split)
    size = task.source.num_input_examples(split)
    count = size if limit is None else min(limit, size)
    rows = batch_size // host_count
    indices = task.source.first(split, count)
    first = host_index * rows
    own = [indices[i + first :][:rows] for i in range(0, count, batch_size)]
    lengths = {"prompt": prompt_length, "target": target_length, "image": 1}
    # A host that has no example at all reads one, to know what a batch looks like.
    read = np.concatenate(own) if any(map(len, own)) else indices[:1]
    skip = damage is not None
    dataset = task.source.dataset_at(split, read, skip=skip)
    dataset = task.preprocess_postcache(task.preprocess_precache(dataset), lengths)
    extras = _EVAL_EXTRAS | _framed([task])
    converter = Converter(resolution, extras, _CORES, views, skip, max_pixels)
    dataset = converter(dataset, lengths | dict.fromkeys(extras, 1))
    reader = Reader(dataset.prefetch(rows))
    batches = _batched(reader, task, split, own, rows, task_index, damage, max_pixels)
    if instruction is None:
        return batches
    return (
        (batch | fields(instruction, [e["prompt"] for e in examples], rows), examples)
        for batch, examples in batches
    )


def _batched(
    rows: Iterator[dict[str, Any]],
    task: task_table.Task,
    split: str,
    own: Sequence[np.ndarray],
    size: int,
    task_index: int,
    damage: Damage | None,
    max_pixels: int,
) -> Iterator[tuple[Batch, list[dict[str, Any]]]]:
    """Batches of `size` rows; own: the indices of the examples of each."""
    like: dict[str, Any] = {}
    for indices in own:
        try:
            chunk = list(itertools.islice(rows, len(indices)))
            like = chunk[0] if chunk else like or next(rows)
        except tf.errors.OpError as error:
            _blame(error, [(task.source, split, int(i)) for i in indices], max_pixels)
            raise
        if damage is not None:
            bad = [row.pop("damaged") for row in chunk]
            left = zip(indices, bad, strict=True)
            damage.note(len(chunk), [(task.source, split, int(i)) for i, b in left if b])
            chunk = [row for row, b in zip(chunk, bad, strict=True) if not b]
        examples = [
            {
                "id": row["id"].decode(),
                "prompt": row["prompt_text"].decode(),
                "references": [reference.decode() for reference in row["references"]],
                "groups": row["groups"].decode(),
                "question": row["question"].decode(),
            }
            for row in chunk
        ]
        batch = {}
        for key in (key for key in like if key not in _EVAL_EXTRAS and key != "damaged"):
            batch[key] = np.zeros((size, *like[key].shape), like[key].dtype)
            for i, row in enumerate(chunk):
                batch[key][i] = row[key]
        batch["task"] = np.full(size, task_index, np.int32)
        batch["example_mask"] = np.arange(size) < len(chunk)
        yield batch, examples


def _explained(
    batches: Iterator[Batch],
    stream: _Stream,
    start: int,
    damage: Damage | None,
    max_pixels: int,
) -> Iterator[Batch]:
    """The same batches; an error of TensorFlow becomes a sentence about the example at fault."""
    for step in itertools.count(start):
        try:
            batch = next(batches)
        except tf.errors.OpError as error:
            _blame(error, stream.sources(step), max_pixels)
            raise
        if damage is not None:
            rows = zip(stream.sources(step), batch.pop("damaged"), strict=True)
            damage.note(len(batch["target"]), [where for where, bad in rows if bad])
        yield batch


def _blame(error: Exception, rows: list[tuple[IndexedSource, str, int]], max_pixels: int) -> None:
    """Raises UserError about the first row that is damaged, if one is."""
    for row in rows:
        what = damages.why(*row, max_pixels)
        if what:
            raise damages.error(*row, what) from error


def _framed(tasks: Sequence[task_table.Task]) -> dict[str, _Spec]:
    """The field that models read of framed prompts, if prompts have a frame."""
    bare = all(task.framing.frame.bare for task in tasks)
    return {} if bare else {FIELD: _Spec(tf.int32)}


def _check_sizes(batch_size: int, prompt_length: int, target_length: int, resolution: int) -> None:
    sizes = {
        "batch_size": batch_size,
        "prompt_length": prompt_length,
        "target_length": target_length,
        "resolution": resolution,
    }
    for name, size in sizes.items():
        if size < 1:
            raise UserError(f"{name} is {size}; it must be 1 or more.")


def _check_share(batch_size: int, host_index: int, host_count: int) -> None:
    if host_count < 1 or batch_size % host_count or not 0 <= host_index < host_count:
        raise UserError(
            f"Host {host_index} of {host_count} cannot share a batch of {batch_size}; the batch "
            "must be a multiple of the hosts, and hosts count from 0."
        )
