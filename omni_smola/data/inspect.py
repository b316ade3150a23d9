"""What a mixture is made of: sizes, rates, token lengths, and a picture of its examples."""

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from omni_smola.data import damage as damages
from omni_smola.data import images
from omni_smola.data import tasks as task_table
from omni_smola.errors import UserError


@dataclasses.dataclass(frozen=True)
class Lengths:
    """Token lengths of the examples looked at, EOS included, frame left out, nothing cut.

    Attributes:
      mean, p95, longest: in tokens.
      p99: the least length that 99% of the examples fit.
      limit: of the config.
      cut: share of the examples that are longer.
    """

    mean: float
    p95: float
    p99: int
    longest: int
    limit: int
    cut: float

    @classmethod
    def of(cls, lengths: Sequence[int], limit: int) -> "Lengths":
        """Of the lengths of some examples."""
        array = np.asarray(lengths)
        p95 = float(np.percentile(array, 95))
        p99 = int(np.percentile(array, 99, method="higher"))
        cut = float(np.mean(array > limit))
        return cls(float(array.mean()), p95, p99, int(array.max()), limit, cut)


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a task contributes to a mixture.

    Attributes:
      name: of the task. size: examples of the split. share: of the draws of the mixture.
      prompt, target: lengths of the examples looked at.
      samples: some of them: {prompt, target, image}; image is encoded, or None.
    """

    name: str
    size: int
    share: float
    prompt: Lengths
    target: Lengths
    samples: tuple[Mapping[str, Any], ...]

    def cut_lines(self) -> list[str]:
        """A line for the prompts and one for the targets, where some of them are cut."""
        lines = []
        for what, lengths in (("prompt", self.prompt), ("target", self.target)):
            if not lengths.cut:
                continue
            few = lengths.p99 <= lengths.limit
            fits, share = (lengths.longest, "all") if few else (lengths.p99, "99%")
            lines.append(
                f"{self.name}: {_percent(lengths.cut)} of the {what}s are cut at {lengths.limit} "
                f"tokens; {fits} would fit {share}: --config.data.{what}_length={fits}"
            )
        return lines


def summarize(
    rates: Mapping[str, float],
    *,
    split: str,
    prompt_length: int,
    target_length: int,
    frame_length: int = 0,
    seed: int = 0,
    examples: int = 512,
    samples: int = 4,
    skip: bool = False,
) -> Iterator[Summary]:
    """Looks at some examples of every task of a mixture.

    Args:
      rates: registered task -> relative rate. split: as the config names it.
      prompt_length: limit of the config, of a prompt's own tokens.
      target_length: limit of the config.
      frame_length: tokens that stand around a prompt, see `framing.Framing.extra`.
      seed: of the choice of examples. examples: at most so many of each task.
      samples: how many of them to keep for a picture.
      skip: whether damaged examples are left out.

    Raises:
      UserError: an unknown task or split; a task without examples, or a damaged example.
    """
    total = sum(rates.values())
    for name, rate in rates.items():
        task = task_table.get(name)
        own = task.row.split(split)
        size = task.source.num_input_examples(own)
        if not size:
            raise UserError(f"The split '{own}' of task '{name}' has no examples.")
        chosen = np.random.default_rng(seed).permutation(size)[:examples]
        lengths: dict[str, list[int]] = {"prompt": [], "target": []}
        kept = []
        for example in _examples(task, own, np.sort(chosen), seed, skip):
            lengths["prompt"].append(max(len(example["prompt"]) - frame_length, 0))
            lengths["target"].append(len(example["target"]))
            if len(kept) < samples:
                kept.append(_sample(task, example))
        if not lengths["prompt"]:
            raise UserError(
                f"All of the {len(chosen)} examples of task '{name}' that were looked at, of the "
                f"split '{own}', are damaged: mend the data."
            )
        yield Summary(
            name,
            size,
            rate / total,
            Lengths.of(lengths["prompt"], prompt_length),
            Lengths.of(lengths["target"], target_length),
            tuple(kept),
        )


def table(summaries: Sequence[Summary]) -> str:
    """The summaries as an aligned table."""
    header = [
        "task",
        "examples",
        "share",
        "prompt mean/95%/max",
        "cut",
        "target mean/95%/max",
        "cut",
    ]
    lines = [header]
    for summary in summaries:
        line = [summary.name, f"{summary.size:,}", f"{100 * summary.share:.1f}%"]
        for lengths in (summary.prompt, summary.target):
            line += [
                f"{lengths.mean:.1f}/{lengths.p95:.0f}/{lengths.longest} of {lengths.limit}",
                f"{100 * lengths.cut:.1f}%",
            ]
        lines.append(line)
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    texts = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    total = sum(summary.size for summary in summaries)
    return "\n".join([texts[0], "-" * len(texts[0]), *texts[1:], f"{total:,} examples in all"])


def contact_sheet(
    path: str | os.PathLike, summaries: Sequence[Summary], max_pixels: int = images.MAX_PIXELS
) -> None:
    """Draws a PNG: one row per task, some of its images with their prompts and targets."""
    import textwrap

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = max(len(summary.samples) for summary in summaries)
    figure = Figure(figsize=(3.2 * columns, 3.4 * len(summaries)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(summaries), columns, squeeze=False)
    for axes, summary in zip(grid, summaries, strict=True):
        for axis in axes:
            axis.axis("off")
        for axis, sample in zip(axes, summary.samples, strict=False):
            text = f"{sample['prompt']}\n-> {sample['target']}"
            lines = [line for part in text.split("\n") for line in textwrap.wrap(part, 40) or [""]]
            # A $ would begin mathematics.
            axis.set_title("\n".join(lines[:6]).replace("$", r"\$"), fontsize=8, loc="left")
            if sample["image"] is None:
                axis.text(0.5, 0.5, "no image", ha="center", va="center")
                continue
            try:
                axis.imshow(images.decode(sample["image"], max_pixels))
            except UserError as error:
                what = "\n".join(textwrap.wrap(f"does not decode: {error}", 40))
                axis.text(0.5, 0.5, what, ha="center", va="center", fontsize=8, parse_math=False)
        axes[0].text(
            -0.02,
            0.5,
            summary.name,
            transform=axes[0].transAxes,
            rotation=90,
            ha="right",
            va="center",
        )
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    figure.savefig(path, dpi=100)


def _examples(
    task: task_table.Task, split: str, indices: np.ndarray, seed: int, skip: bool
) -> Iterator[Mapping[str, Any]]:
    """The features of some examples, nothing cut; raises UserError for a damaged one."""
    records = task.source.dataset_at(split, indices, seed, skip)
    made = task.preprocess_postcache(task.preprocess_precache(records), None)
    try:
        for example in made.as_numpy_iterator():
            # What stands in for a record that cannot be read has an image of no bytes.
            if not (skip and len(example["image"]) and not example["image"][0]):
                yield example
    except tf.errors.OpError as error:
        for index in indices:
            if what := damages.why(task.source, split, int(index)):
                raise damages.error(task.source, split, int(index), what) from error
        raise


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%" if share >= 0.01 else f"{100 * share:.1f}%"


def _sample(task: task_table.Task, example: Mapping[str, Any]) -> dict[str, Any]:
    vocabulary = task.output_features["target"].vocabulary
    image = example["image"]
    return {
        "prompt": example["prompt_text"].decode(),
        "target": vocabulary.decode([int(i) for i in example["target"]]),
        "image": bytes(image[0]) if len(image) else None,
    }
