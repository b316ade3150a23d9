"""What the routers of a trained MoME do: a table and a picture (arXiv 2407.12709, figures 4, 5).

The share of a vision expert is the mean magnitude of its weighted features over that of all; the
share of a language expert is how often it is chosen, layer by layer.
"""

import csv
import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from omni_smola.errors import UserError

Batch = Mapping[str, np.ndarray]
# batch -> {"vision": (b, encoders)} and {path: (layers, b, experts)} probabilities of choice.
Measure = Callable[[Batch], Mapping[str, np.ndarray]]
VISION = "vision"
COLUMNS = ("router", "layer", "family", "expert", "share")


@dataclasses.dataclass(frozen=True)
class Row:
    """One share: of `expert` among all at one router, for the examples of one family."""

    router: str
    layer: int
    family: str
    expert: str
    share: float


def measure(
    tasks: Sequence[Any],
    batches: Callable[[str], Iterable],
    shares: Measure,
    names: Sequence[str],
) -> list[Row]:
    """Shares by family, over all examples of its tasks.

    Args:
      tasks: with `name` and `group`, the family.
      batches: name of a task -> pairs of a batch with `example_mask` (b,) and its examples.
      shares: what the routers do with a batch.
      names: of the vision experts, in the order of their shares.

    Raises:
      UserError: the model has no routers.
    """
    sums: dict[tuple[str, str], np.ndarray] = {}
    counts: dict[str, int] = {}
    for task in tasks:
        for batch, _ in batches(task.name):
            real = np.asarray(batch["example_mask"], bool)
            counts[task.group] = counts.get(task.group, 0) + int(real.sum())
            for router, values in shares(batch).items():
                values = np.asarray(values, np.float64)
                if router == VISION:
                    values = values[None]
                else:
                    chosen = values.argmax(-1)
                    values = np.eye(values.shape[-1])[chosen]
                key = (router, task.group)
                sums[key] = sums.get(key, 0.0) + values[:, real].sum(1)
    if not sums:
        raise UserError(
            "The model of this config has no routers of vision or language experts to look at: "
            "give the config of a MoME run, such as --config=configs/mome.py."
        )
    rows = []
    for (router, family), total in sums.items():
        for layer, values in enumerate(total / counts[family]):
            experts = names if router == VISION else [str(i + 1) for i in range(len(values))]
            rows += [
                Row(router, layer, family, expert, float(share))
                for expert, share in zip(experts, values, strict=True)
            ]
    return rows


def write_csv(path: str | os.PathLike, rows: Iterable[Row]) -> None:
    """Writes one line per share, with the header `COLUMNS`."""
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for row in rows:
            writer.writerow((row.router, row.layer, row.family, row.expert, f"{row.share:.6f}"))


def draw(path: str | os.PathLike, rows: Sequence[Row]) -> None:
    """Draws one panel per router into a PNG: bars for vision, layers x families for language."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    routers = list(dict.fromkeys(row.router for row in rows))
    heights = [2.4 if router == VISION else 3.2 for router in routers]
    figure = Figure(figsize=(9, sum(heights) + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(routers), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axis, router in zip(axes, routers, strict=True):
        own = [row for row in rows if row.router == router]
        (_bars if router == VISION else _grid)(axis, router, own)
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    figure.savefig(path, dpi=150)


def table(rows: Sequence[Row]) -> str:
    """The vision experts' shares and each layer's most chosen language expert, as text."""
    families = list(dict.fromkeys(row.family for row in rows))
    width = max(map(len, families)) + 2
    lines = []
    for router in dict.fromkeys(row.router for row in rows):
        own = [row for row in rows if row.router == router]
        lines.append(router)
        for family in families:
            mine = [row for row in own if row.family == family]
            if router == VISION:
                texts = [f"{row.expert} {100 * row.share:.0f}%" for row in mine]
            else:
                texts = [f"{row.expert} ({100 * row.share:.0f}%)" for row in _favourites(mine)]
            lines.append(f"  {family:<{width}}{'  '.join(texts)}")
    return "\n".join(lines)


def _favourites(rows: Sequence[Row]) -> list[Row]:
    """Of every layer, the row of the expert with the largest share."""
    best: dict[int, Row] = {}
    for row in rows:
        if row.layer not in best or row.share > best[row.layer].share:
            best[row.layer] = row
    return [best[layer] for layer in sorted(best)]


def _bars(axis: Any, router: str, rows: Sequence[Row]) -> None:
    families = list(dict.fromkeys(row.family for row in rows))
    start = np.zeros(len(families))
    for expert in dict.fromkeys(row.expert for row in rows):
        shares = np.array([row.share for row in rows if row.expert == expert])
        axis.barh(families, shares, left=start, label=expert)
        for y, (left, share) in enumerate(zip(start, shares, strict=True)):
            if share > 0.06:
                axis.text(left + share / 2, y, f"{100 * share:.0f}%", ha="center", va="center")
        start = start + shares
    axis.set_title("share of each vision expert")
    axis.set_xlim(0, 1)
    axis.invert_yaxis()
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))


def _grid(axis: Any, router: str, rows: Sequence[Row]) -> None:
    families = list(dict.fromkeys(row.family for row in rows))
    best = [_favourites([row for row in rows if row.family == family]) for family in families]
    experts = list(dict.fromkeys(row.expert for row in rows))
    chosen = np.array([[experts.index(row.expert) for row in line] for line in best])
    colours = 0.25 + 0.75 * np.array([[row.share for row in line] for line in best])
    axis.imshow(chosen, cmap="tab10", vmin=0, vmax=9, alpha=colours, aspect="auto")
    for y, line in enumerate(best):
        for x, row in enumerate(line):
            axis.text(x, y, f"{row.expert}\n{100 * row.share:.0f}%", ha="center", va="center")
    axis.set_yticks(range(len(families)), families)
    axis.set_xticks(range(len(best[0])), [f"layer {i}" for i in range(len(best[0]))])
    axis.set_title(f"most chosen language expert: {router}")
