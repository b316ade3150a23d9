"""Evaluates tasks: batches -> generated ids -> text -> predictions on disk and scores.

Knows neither TensorFlow nor the model: the batches, the vocabulary and the generation are given as
functions, so one task can be evaluated on its own, from any source, with any model:

    result = evaluate_task(task, batches, generate, detokenize, metrics)
"""

import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TextIO

import numpy as np
from etils import epath

from omni_smola.errors import UserError
from omni_smola.evaluation import submissions, writing
from omni_smola.evaluation.constant import best_constant
from omni_smola.evaluation.progress import NO_REFERENCES, TaskLine
from omni_smola.evaluation.writing import Unwritten

Batch = Mapping[str, np.ndarray]
# id, prompt, references; groups and question where there are such.
Example = Mapping[str, Any]
Batches = Iterable[tuple[Batch, Sequence[Example]]]
Generate = Callable[[Batch], np.ndarray]
Detokenize = Callable[[Sequence[int]], str]
# The records of every batch on this host -> those of all hosts, in the order of the examples.
Gather = Callable[[list[list[dict[str, Any]]]], list[dict[str, Any]]]
Metric = Callable[[Sequence[str], Sequence[Sequence[str]]], Mapping[str, float]]

# These weigh an example by the whole set, so that one example has no score of its own.
CORPUS_METRICS = frozenset({"cider", "cider_tokens", "bleu4", "meteor", "due_f1"})


@dataclasses.dataclass(frozen=True)
class Task:
    """What to evaluate; any object with these attributes will do, as `data.tasks.TaskRow`.

    Attributes:
      name: of the task. group: its family in reports. metric: a key of the metrics.
      submission: a key of `submissions.FORMATS`, the file that its official server takes, or "".
    """

    name: str
    group: str
    metric: str
    submission: str = ""


@dataclasses.dataclass(frozen=True)
class Result:
    """A task's evaluation.

    Attributes:
      scores: what the metric returned, the first of which is the task's score, and after it that
        of each group of examples (`metrics.groups`). Empty where no example has references, as in
        the test splits of official servers.
      predictions: one dict per example, {id, prompt, prediction, references} and, unless the
        metric is one of `CORPUS_METRICS`, the example's own score; the question where the
        submission wants it back.
      seconds: for batches and generation, metric left out.
    """

    task: Task
    scores: dict[str, float]
    predictions: list[dict[str, Any]]
    seconds: float

    @property
    def reported(self) -> str:
        """The name of the value that stands for the task in reports; "" without any."""
        return next(iter(self.scores), "")


def evaluate_task(
    task: Task,
    batches: Batches,
    generate: Generate,
    detokenize: Detokenize,
    metrics: Mapping[str, Metric] | None = None,
    eos_id: int = 1,
    progress: Callable[[int, float], None] | None = None,
    gather: Gather | None = None,
) -> Result:
    """Evaluates one task.

    Args:
      batches: pairs of a batch, whose `example_mask` (b,) bool tells the real rows, and one dict
        {id, prompt, references} for each of these rows, in their order.
      generate: batch -> (b, t) integer ids; what follows the first EOS of a row is ignored.
      detokenize: ids without EOS and padding -> text.
      metrics: by name; None for `omni_smola.metrics.METRICS`.
      progress: told the number of examples and the seconds so far, after every batch.
      gather: where each of many hosts evaluates its share: called once, on all of them, so that all
        have all predictions and scores.

    Raises:
      UserError: an unknown metric, or a task without examples.
      ValueError: generated ids or examples that do not match the batch.
    """
    metric = _metric(task, metrics)
    asks = submissions.needs_question(getattr(task, "submission", ""))
    told: list[list[dict[str, Any]]] = []
    count = 0
    start = time.perf_counter()
    for batch, examples in batches:
        texts = _texts(task, batch, examples, generate(batch), detokenize, eos_id)
        told.append([])
        for example, text in zip(examples, texts, strict=True):
            record = {"id": example["id"], "prompt": example["prompt"], "prediction": text}
            record["references"] = list(example["references"])
            if example.get("groups"):
                record["groups"] = example["groups"]
            if asks:
                record["question"] = example["question"]
            told[-1].append(record)
        count += len(examples)
        if progress is not None:
            progress(count, time.perf_counter() - start)
    predictions = gather(told) if gather else [record for group in told for record in group]
    seconds = time.perf_counter() - start
    if not predictions:
        raise UserError(
            f"task {task.name} has no examples to evaluate; check its data and the limit of "
            "examples, or leave it out of the evaluation."
        )
    scores = _score(task, metric, predictions)
    return Result(task, scores, predictions, seconds)


def _metric(task: Task, metrics: Mapping[str, Metric] | None) -> Metric:
    if metrics is None:
        from omni_smola.metrics import METRICS as metrics  # scorers load when first needed
    if task.metric not in metrics:
        raise UserError(
            f"task {task.name} asks for the metric {task.metric!r}; there are "
            f"{', '.join(sorted(metrics))}."
        )
    return metrics[task.metric]


def _texts(
    task: Task,
    batch: Batch,
    examples: Sequence[Example],
    ids: np.ndarray,
    detokenize: Detokenize,
    eos_id: int,
) -> list[str]:
    """The generated text of every real row."""
    real = np.asarray(batch["example_mask"], bool)
    ids = np.asarray(ids)
    if ids.ndim != 2 or len(ids) != len(real):
        raise ValueError(
            f"task {task.name}: generated ids have the shape {ids.shape} for a batch of "
            f"{len(real)}; it must be ({len(real)}, length)."
        )
    if len(examples) != real.sum():
        raise ValueError(
            f"task {task.name}: {len(examples)} examples came with a batch of {real.sum()} rows."
        )
    return [detokenize(until_eos(row, eos_id)) for row in ids[real]]


def until_eos(ids: np.ndarray, eos_id: int = 1, pad_id: int = 0) -> list[int]:
    """The ids (t,) before the first EOS, without padding, as Python ints for a tokenizer."""
    ends = np.flatnonzero(ids == eos_id)
    ids = ids[: ends[0]] if len(ends) else ids
    return [int(i) for i in ids if i != pad_id]


def _score(task: Task, metric: Metric, predictions: list[dict[str, Any]]) -> dict[str, float]:
    """The metric on all predictions; writes each example's own score into its record."""
    from omni_smola.metrics.groups import by_group

    texts = [record["prediction"] for record in predictions]
    references = [record["references"] for record in predictions]
    if not any(references):
        return {}
    groups = [record.get("groups", "") for record in predictions]
    scores = by_group(metric, texts, references, groups if any(groups) else None)
    scores = {name: float(value) for name, value in scores.items()}
    if task.metric not in CORPUS_METRICS:
        for record in predictions:
            own = metric([record["prediction"]], [record["references"]])
            record["score"] = float(next(iter(own.values())))
    return scores


class Evaluator:
    """Evaluates a list of tasks, again and again on the same examples.

    Args:
      tasks: what to evaluate, in this order; names must differ.
      batches: name of a task -> its batches (see `evaluate_task`), the same at every call.
      detokenize: ids without EOS and padding -> text.
      metrics: by name; None for `omni_smola.metrics.METRICS`.
      memory: bytes of batches to keep between runs; a task that does not fit is read again.
      primary: whether this process writes files and progress: one of many does.
      stream: where progress goes; None for the standard error output.
      gather: see `evaluate_task`.

    Attributes:
      results: of the last run, by task.
      identity: of what the scores follow from beside the trained weights, written with the scores;
        "" where nobody has said.

    Raises:
      UserError: no tasks, or one name twice.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        batches: Callable[[str], Batches],
        detokenize: Detokenize,
        metrics: Mapping[str, Metric] | None = None,
        eos_id: int = 1,
        memory: int = 1 << 30,
        primary: bool = True,
        stream: TextIO | None = None,
        gather: Gather | None = None,
    ) -> None:
        names = [task.name for task in tasks]
        if not names or len(set(names)) < len(names):
            raise UserError(
                f"the tasks to evaluate are {names}; name at least one, and none of them twice."
            )
        self.tasks = tuple(tasks)
        self.results: dict[str, Result] = {}
        self._read, self._detokenize, self._metrics = batches, detokenize, metrics
        self._eos_id, self._primary, self._stream = eos_id, primary, stream
        self._gather = gather
        self._kept: dict[str, list] = {}
        self._memory = memory  # what is left of it
        self._where: dict[str, Any] = {}
        self._constants: dict[str, dict[str, Any]] = {}
        self.identity = ""

    def run(
        self,
        generate: Generate,
        out_dir: str | os.PathLike,
        label: str,
        step: int,
        unwritten: Unwritten | None = None,
    ) -> dict[str, dict[str, float]]:
        """Evaluates every task: {task: {metric: value}}.

        Each task's predictions are written as soon as it is done, to
        `{out_dir}/predictions/{label}-{step}/{task}.jsonl`.

        Args:
          label: names the model in the path, as "frozen" or "tuned".
          unwritten: told every failure to write, which then ends nothing: the scores are those of
            all tasks. One host alone writes, and the others evaluate on with it.

        Raises:
          OSError: predictions cannot be written, and there is no `unwritten`.
        """
        folder = writing.predictions_dir(out_dir, label, step)
        self.results = {}
        self._where = {"label": label, "step": int(step), "predictions": os.fspath(folder)}
        for number, task in enumerate(self.tasks, 1):
            line = TaskLine(
                f"{label} {step}: task {number} of {len(self.tasks)}, {task.name}",
                (self._stream or sys.stderr) if self._primary else None,
            )
            how = (self._detokenize, self._metrics, self._eos_id, line.update, self._gather)
            result = evaluate_task(task, self._batches(task.name), generate, *how)
            reported = result.reported
            score = f"{reported} {result.scores[reported]:.2f}" if reported else NO_REFERENCES
            line.finish(len(result.predictions), result.seconds, score)
            if self._primary:
                with writing.written_or_told(unwritten):
                    writing.write_predictions(folder / f"{task.name}.jsonl", result.predictions)
                    submission = getattr(task, "submission", "")
                    writing.write_submission(folder, task.name, submission, result.predictions)
                self._note_constant(result)
            self.results[task.name] = result
        return {name: result.scores for name, result in self.results.items()}

    def write_scores(self, path: str | os.PathLike, unwritten: Unwritten | None = None) -> None:
        """Writes the scores of the last run as JSON, as `report.load` reads them; see `run`."""
        if not self.results:
            raise ValueError("there are no scores before the first run.")
        tasks = {
            name: {
                "family": result.task.group,
                "metric": result.reported,
                "scores": result.scores,
                "examples": len(result.predictions),
                "seconds": round(result.seconds, 3),
            }
            | self._constants.get(name, {})
            for name, result in self.results.items()
            if result.scores
        }
        if self._primary:
            head = self._where | {"identity": self.identity}
            text = json.dumps(head | {"tasks": tasks}, indent=2, ensure_ascii=False)
            with writing.written_or_told(unwritten):
                writing.write(epath.Path(path), text + "\n")

    def _note_constant(self, result: Result) -> None:
        """Scores the best constant answer, once for a task, whose examples stay the same."""
        task = result.task
        if result.scores and task.name not in self._constants:
            references = [record["references"] for record in result.predictions]
            found = best_constant(task.metric, _metric(task, self._metrics), references)
            self._constants[task.name] = {"constant": found._asdict()} if found else {}

    def _batches(self, name: str) -> Iterator[tuple[Batch, Sequence[Example]]]:
        if name in self._kept:
            yield from self._kept[name]
            return
        held: list | None = []
        size = 0
        for batch, examples in self._read(name):
            size += sum(np.asarray(value).nbytes for value in batch.values())
            if held is not None and size <= self._memory:
                held.append((batch, examples))
            else:
                held = None
            yield batch, examples
        if held is not None:  # reached only when all batches were read
            self._kept[name] = held
            self._memory -= size
