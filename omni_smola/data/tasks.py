"""The registration of tasks with SeqIO.

Nothing is registered at import: `register` does it, once or again, from what the config says.
"""

import difflib
import itertools
import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import seqio
import tensorflow as tf

from omni_smola.config_tasks import SOURCE_OPTIONS, task_name
from omni_smola.data import frames, images
from omni_smola.data import vocabulary as vocabularies
from omni_smola.data.framing import Framing
from omni_smola.data.framing import load as load_framing
from omni_smola.data.jsonl import JsonlFolder, JsonlSource
from omni_smola.data.official_source import OfficialSource
from omni_smola.data.preprocessors import preprocessor
from omni_smola.data.sources import IndexedSource, TfdsSource, keep_off_accelerators
from omni_smola.data.task_table import SUITE, TASKS, TaskRow
from omni_smola.errors import UserError
from omni_smola.metrics import METRICS

_DEFAULT_METRIC = {
    "caption": "cider",
    "question": "exact_match",
    "choice": "exact_match",
    "choice_text": "exact_match",
    "box": "iou",
    "describe": "cider",
}
# Answers longer than these on average are texts: no two people write the same.
_LONG_ANSWER = {"words": 5, "characters": 30}
_LOOKED_AT = 2000  # records whose answers are measured
_NAME = re.compile(r"[\w:#]+")  # SeqIO allows a dot too, but the config does not


class Task(seqio.Task):
    """A SeqIO task that knows its line of the table.

    Output features: prompt and target, (n,) int32 in the frame of the model's family, of which the
    target ends with EOS; image, (n,) string, n in {0, 1}.

    Attributes:
      row: the TaskRow.
      framing: makes the token ids.
    """

    def __init__(
        self,
        row: TaskRow,
        source: IndexedSource,
        vocabulary: seqio.Vocabulary,
        prompts: str = "pali",
        ocr: int = 0,
        framing: Framing | None = None,
    ):
        framing = framing or load_framing(frames.AUTO, vocabulary)
        prompt = seqio.Feature(vocabulary, add_eos=framing.frame.ends_prompt)
        target = seqio.Feature(vocabulary, add_eos=True)
        image = seqio.ContinuousFeature(dtype=tf.string, rank=1)
        super().__init__(
            row.name,
            source=source,
            output_features={"prompt": prompt, "target": target, "image": image},
            # What is cached are the source's records, so that prompts and lengths stay free.
            preprocessors=[
                seqio.CacheDatasetPlaceholder(),
                preprocessor(row.kind, prompts, ocr, framing),
            ],
            postprocess_fn=_postprocess,
            metric_fns=[_seqio_metric(row.metric)],
            shuffle_buffer_size=None,
        )
        self.row = row
        self.framing = framing


def register(
    sources: Mapping[str, str | Mapping[str, Any]] | None = None,
    *,
    data_dir: str | None = None,
    vocabulary: seqio.Vocabulary | None = None,
    manual_dir: str | None = None,
    on_error: str = "fail",
    prompts: str = "pali",
    ocr: int = 0,
    max_pixels: int = images.MAX_PIXELS,
    told: Callable[[str], None] | None = None,
    framing: Framing | None = None,
) -> list[str]:
    """Registers the table's tasks and those of the user's folders with SeqIO.

    May be called again: tasks of the same name are replaced.

    Args:
      sources: task name -> JSONL folder, or a mapping with "path" and any of "kind", "adapter",
        "metric", "group". A folder of kind box gives two tasks, `name` (expression to box) and
        `name_describe` (box to expression, always scored by CIDEr). Kind "choice_text" asks for
        the text of the right choice in place of its letter.
      data_dir: where prepared datasets are kept; None for the TFDS default. The mini suite is built
        on first use, a public dataset too where `manual_dir` has its files.
      vocabulary: of prompts and targets; None for the mini suite's own.
      manual_dir: the folder of official downloads.
      on_error: "fail" at a bad record of an official file or a folder, or "skip" it and count.
      prompts, ocr: see `preprocessors.texts_of`.
      max_pixels: of an image of a folder, see `images`.
      told: of every folder, what is made of it and how it is scored; None for nobody.
      framing: what makes token ids with this vocabulary; None for a T5's.

    Returns:
      The names of all tasks registered, in order.

    Raises:
      UserError: a mistake in `sources` or in the files of a folder.
    """
    keep_off_accelerators()
    vocabulary = vocabularies.load() if vocabulary is None else vocabulary
    tfds_sources = {row.source: TfdsSource(row.source, data_dir) for row in TASKS}
    public = {
        row.source: OfficialSource(row.source, data_dir, manual_dir, on_error) for row in SUITE
    }
    framing = framing or load_framing(frames.AUTO, vocabulary)
    how = {"vocabulary": vocabulary, "prompts": prompts, "ocr": ocr, "framing": framing}
    tasks = [Task(row, tfds_sources[row.source], **how) for row in TASKS]
    tasks += [Task(row, public[row.source], **how) for row in SUITE]
    for name, options in (sources or {}).items():
        if any(name in (task.name, f"{task.name}_describe") for task in tasks):
            raise UserError(
                f"The name '{name}' of a data source is a task's already; choose another, by "
                "--config.data.sources.NAME=PATH or by renaming the folder."
            )
        options = {"path": options} if isinstance(options, str) else dict(options)
        tasks.extend(_folder_tasks(name, options, how, on_error, max_pixels, told))
    for task in tasks:
        seqio.TaskRegistry.remove(task.name)
        seqio.TaskRegistry.add_provider(task.name, task)
    return [task.name for task in tasks]


def get(name: str) -> Task:
    """The registered task of this name; raises UserError, with the nearest name, if unknown."""
    known = [n for n in seqio.TaskRegistry.names() if isinstance(seqio.TaskRegistry.get(n), Task)]
    if name not in known:
        raise UserError(unknown_name("task", name, known))
    return seqio.TaskRegistry.get(name)


def unknown_name(what: str, name: str, known: Iterable[str]) -> str:
    """The sentence for a name that is not among the known ones."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    return f"The {what} '{name}' is unknown.{hint} Known: {', '.join(known) or 'none'}."


def _folder_tasks(
    name: str,
    options: dict[str, Any],
    how: Mapping[str, Any],
    on_error: str,
    max_pixels: int,
    told: Callable[[str], None] | None,
) -> list[Task]:
    if not _NAME.fullmatch(name):
        raise UserError(
            f"A data source cannot be called {name!r}: a task's name has letters, digits and "
            f"underscores only. Call it {task_name(name)!r}."
        )
    for option in options:
        if option not in SOURCE_OPTIONS:
            known = ", ".join(SOURCE_OPTIONS)
            raise UserError(f"Data source '{name}': option '{option}' is unknown; known: {known}.")
    if "path" not in options:
        raise UserError(f"Data source '{name}' needs a 'path', the folder of its JSONL files.")
    kind = options.get("kind")
    as_text = kind == "choice_text"
    folder = JsonlFolder(
        options["path"],
        kind="choice" if as_text else kind,
        adapter=options.get("adapter"),
        on_error=on_error,
        max_pixels=max_pixels,
    )
    records = [record for split in folder.records.values() for record in split]
    if all(record.damaged for record in records):
        raise UserError(
            f"None of the {len(records)} lines in {folder.path} can be read. The first mistake: "
            f"{records[0].damaged}"
        )
    kind = "choice_text" if as_text else folder.kind
    metric, why = options.get("metric"), "as you chose"
    if metric is None:
        metric, why = _default_metric(kind, folder)
        why += f"; another by --config.data.sources.{name}.metric=METRIC"
    if metric not in METRICS:
        raise UserError(f"Data source '{name}': " + unknown_name("metric", metric, METRICS))
    if told:
        called = os.path.basename(folder.path)
        adapted = f" (of the folder {called!r})" if called != name else ""
        told(f"task {name}{adapted}: kind {kind}, scored by {metric} ({why})")
    source = JsonlSource(folder)
    group = options.get("group", name)
    rows = [TaskRow(name, str(folder.path), kind, metric, group)]
    if kind == "box":
        cider = _DEFAULT_METRIC["describe"]
        rows.append(TaskRow(f"{name}_describe", str(folder.path), "describe", cider, group))
    return [Task(row, source, **how) for row in rows]


def _default_metric(kind: str, folder: JsonlFolder) -> tuple[str, str]:
    """The metric of a folder, and why it is chosen."""
    if kind != "question":
        return _DEFAULT_METRIC[kind], f"the metric of the kind {kind}"
    records = itertools.chain.from_iterable(folder.records.values())
    answers = [record.references for record in records if not record.damaged]
    if all(len(references) == 10 for references in answers):
        return "vqa_accuracy", "every question has ten answers"
    texts = [text for references in answers[:_LOOKED_AT] for text in references]
    words = sum(len(text.split()) for text in texts) / len(texts)
    characters = sum(map(len, texts)) / len(texts)
    said = f"answers have {words:.1f} words and {characters:.0f} characters on average"
    if words > _LONG_ANSWER["words"]:
        return "rouge_l", f"{said}: too long to be matched exactly"
    if characters > _LONG_ANSWER["characters"]:
        # Of scripts that have no blanks between words, letters are compared.
        return "anls", f"{said}: too long to be matched exactly"
    return _DEFAULT_METRIC[kind], said


def _postprocess(output: Any, *, example: Mapping[str, Any], is_target: bool) -> Any:
    """For seqio.Evaluator: the target of an example is all of its references."""
    if not is_target:
        return output
    return [reference.decode() for reference in example["references"]]


def _seqio_metric(name: str):
    """A metric of ours with the signature SeqIO looks for."""

    def metric(targets, predictions):
        return METRICS[name](predictions, targets)

    metric.__name__ = name
    return metric
