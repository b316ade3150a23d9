"""Batches for training and evaluation, as plain NumPy.

The training stream is a pure function of (seed, position), see `schedule`: nothing but the step
has to be saved to resume it, and it is the same on any number of hosts.
"""

import itertools
import os
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

from omni_smola.data import tasks as task_table
from omni_smola.data.features import Converter
from omni_smola.data.instruction import InstructionTokenizer
from omni_smola.data.schedule import Schedule
from omni_smola.data.sources import mapped, parse_record
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
) -> Iterator[Batch]:
    """The endless stream of this host's training batches, from step `start_step` on.

    Args:
      rates: registered task -> relative rate; see `mixtures.resolve`.
      seed: of the order of examples and of the choice among several references.
      batch_size: of all hosts together; this host gets batch_size / host_count contiguous rows.
      prompt_length, target_length: token ids per row, the final EOS included.
      resolution: side of the square image.
      start_step: the first step to yield; opening at any step costs the same.
      split: the split of every task.
      host_index, host_count: which rows of the global batch are this host's.
      views: name -> how a vision encoder sees the image; each adds its fields, see `views`.
      instruction: of the encoder that embeds prompts for routers; it adds instruction (b, n) int32
        and instruction_mask (b, n) bool, the prompt's text in its own tokens.

    Yields:
      With b = batch_size / host_count, p = prompt_length, t = target_length, r = resolution:
      image (b, r, r, 3) uint8, image_mask (b,) bool, prompt (b, p) int32, prompt_mask (b, p) bool,
      target (b, t) int32, target_mask (b, t) bool, task (b,) int32, an index into `rates`.

    Raises:
      UserError: an argument out of range, an unknown task or split, a rate too small; while
        iterating, an image that does not decode, by its name.
    """
    _check_sizes(batch_size, prompt_length, target_length, resolution)
    if start_step < 0:
        raise UserError(f"start_step is {start_step}; it must be 0 or more.")
    if host_count < 1 or batch_size % host_count or not 0 <= host_index < host_count:
        raise UserError(
            f"Host {host_index} of {host_count} cannot share a batch of {batch_size}; the batch "
            "must be a multiple of the hosts, and hosts count from 0."
        )
    stream = _Stream(rates, seed, split, batch_size, host_index, host_count)
    lengths = {"prompt": prompt_length, "target": target_length, "image": 1}
    extras = {"task": _Spec(tf.int32, rank=0)}
    if instruction is not None:
        extras["prompt_text"] = _Spec(tf.string, rank=0)
    converter = Converter(resolution, extras, _CORES, views)
    dataset = converter(stream.mixed(start_step, lengths), lengths | dict.fromkeys(extras, 1))
    dataset = dataset.batch(batch_size // host_count, drop_remainder=True).prefetch(2)
    batches = _explained(_Reader(dataset), stream, start_step)
    if instruction is None:
        return batches
    return (batch | _instructed(batch.pop("prompt_text"), instruction) for batch in batches)


def _instructed(texts: np.ndarray, instruction: InstructionTokenizer) -> Batch:
    """The prompts (b,) as bytes -> the fields of a batch that a sentence encoder reads."""
    tokens, mask = instruction(texts)
    return {"instruction": tokens, "instruction_mask": mask}


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
    ):
        self.tasks = [task_table.get(name) for name in rates]
        self.splits = [task.row.split(split) for task in self.tasks]
        sizes = [
            task.source.num_input_examples(own)
            for task, own in zip(self.tasks, self.splits, strict=True)
        ]
        self.schedule = Schedule(seed, rates, sizes)
        self._batch_size = batch_size
        self._rows = batch_size // host_count
        self._first_row = host_index * self._rows

    def draws(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """The tasks and draws of this host's rows of a step: two (rows,) int64."""
        start = step * self._batch_size + self._first_row
        return self.schedule.draws(start, start + self._rows)

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
            records = task.source.read(
                self.splits[index], self.schedule.examples(index, draws).tolist()
            )
            return np.array(records, object), self.schedule.example_seeds(index, draws)

        def read_step(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            records, seeds = tf.numpy_function(read, [step], [tf.string, tf.int32])
            return tf.ensure_shape(records, (None,)), tf.ensure_shape(seeds, (None, 2))

        def parse(record: tf.Tensor, seed: tf.Tensor) -> dict[str, tf.Tensor]:
            return parse_record(record) | {"_seed": seed}

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
    views: Mapping[str, View] | None = None,
    instruction: InstructionTokenizer | None = None,
) -> Iterator[tuple[Batch, list[dict[str, Any]]]]:
    """One pass over a split of a task, in order.

    Args:
      task_name: a registered task.
      split: the split.
      batch_size, prompt_length, target_length, resolution, views, instruction: as in
        `train_batches`.
      limit: only the first so many examples.
      task_index: the value of `task` in the batches.

    Yields:
      (batch, examples). The batch is that of `train_batches` plus example_mask (b,) bool, False
      for the rows that only fill up the last batch; every batch has b rows. `examples` has one
      dict for every row that counts: id str, prompt str, references list[str], groups str.

    Raises:
      UserError: as `train_batches`.
    """
    _check_sizes(batch_size, prompt_length, target_length, resolution)
    if limit is not None and limit < 1:
        raise UserError(f"limit is {limit}; it must be 1 or more, or None for all examples.")
    task = task_table.get(task_name)
    split = task.row.split(split)
    size = task.source.num_input_examples(split)
    count = size if limit is None else min(limit, size)
    lengths = {"prompt": prompt_length, "target": target_length, "image": 1}
    dataset = task.source.dataset_at(split, np.arange(count))
    dataset = task.preprocess_postcache(task.preprocess_precache(dataset), lengths)
    converter = Converter(resolution, _EVAL_EXTRAS, _CORES, views)
    dataset = converter(dataset, lengths | dict.fromkeys(_EVAL_EXTRAS, 1))
    rows = _Reader(dataset.prefetch(batch_size))
    batches = _batched(rows, task, split, batch_size, task_index)
    if instruction is None:
        return batches
    return (
        (batch | _prompted(batch, examples, instruction), examples) for batch, examples in batches
    )


def _prompted(
    batch: Batch, examples: list[dict[str, Any]], instruction: InstructionTokenizer
) -> Batch:
    fill = len(batch["example_mask"]) - len(examples)
    return _instructed([example["prompt"] for example in examples] + [""] * fill, instruction)


def _batched(
    rows: Iterator[dict[str, Any]], task: task_table.Task, split: str, batch_size: int, index: int
) -> Iterator[tuple[Batch, list[dict[str, Any]]]]:
    for start in itertools.count(step=batch_size):
        try:
            chunk = list(itertools.islice(rows, batch_size))
        except tf.errors.OpError as error:
            stop = min(start + batch_size, task.source.num_input_examples(split))
            for i in range(start, stop):
                _check_record(task, split, i)
            raise error
        if not chunk:
            return
        examples = [
            {
                "id": row.pop("id").decode(),
                "prompt": row.pop("prompt_text").decode(),
                "references": [reference.decode() for reference in row.pop("references")],
                "groups": row.pop("groups").decode(),
            }
            for row in chunk
        ]
        batch = {key: np.stack([row[key] for row in chunk]) for key in chunk[0]}
        fill = batch_size - len(chunk)
        batch = {
            key: np.pad(value, [(0, fill)] + [(0, 0)] * (value.ndim - 1))
            for key, value in batch.items()
        }
        batch["task"] = np.full(batch_size, index, np.int32)
        batch["example_mask"] = np.arange(batch_size) < len(chunk)
        yield batch, examples


def _explained(batches: Iterator[Batch], stream: _Stream, start: int) -> Iterator[Batch]:
    """The same batches; an error of TensorFlow becomes a sentence about the example at fault."""
    for step in itertools.count(start):
        try:
            batch = next(batches)
        except tf.errors.OpError as error:
            tasks, draws = stream.draws(step)
            for task, draw in zip(tasks, draws, strict=True):
                index = stream.schedule.examples(task, draw[np.newaxis])[0]
                _check_record(stream.tasks[task], stream.splits[task], int(index))
            raise error
        yield batch


def _check_record(task: task_table.Task, split: str, index: int) -> None:
    """Raises UserError if the record cannot be read or its image not decoded."""
    record = parse_record(task.source.read(split, [index])[0])
    for encoded in record["image"]:
        try:
            tf.io.decode_image(encoded, channels=3, expand_animations=False)
        except tf.errors.InvalidArgumentError as error:
            raise UserError(
                f"The image of {task.source.where(split, index)} does not decode; replace it or "
                f"remove the example from task '{task.name}'."
            ) from error


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


class _Reader(Iterator[dict[str, Any]]):
    """Iterates over a dataset in NumPy, with a bounded number of threads of its own.

    The dataset is let go before the interpreter shuts down: destroying it waits for its threads,
    and those that call Python could then never finish.
    """

    def __init__(self, dataset: tf.data.Dataset):
        options = tf.data.Options()
        options.deterministic = True
        options.threading.private_threadpool_size = max(4, min(_CORES, 32))
        options.threading.max_intra_op_parallelism = 1
        self._held = [dataset.with_options(options).as_numpy_iterator()]
        weakref.finalize(self, self._held.clear)

    def __next__(self) -> dict[str, Any]:
        return next(self._held[0])
