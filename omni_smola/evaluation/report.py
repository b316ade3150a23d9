"""The table a user reads at the end: every task with the frozen and the tuned model."""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from statistics import fmean

from etils import epath

from omni_smola.errors import UserError

MISSING = "-"
_NO_SCORES = (
    "No task has public references on this split: the files to submit lie with the predictions."
)


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the report; a score is None where there was no evaluation.

    constant: what the best constant answer would score on the same examples (`constant`).
    """

    task: str
    family: str
    metric: str
    frozen: float | None
    tuned: float | None
    examples: int
    constant: float | None = None

    @property
    def difference(self) -> float | None:
        """Tuned minus frozen, None without both."""
        if self.frozen is None or self.tuned is None:
            return None
        return self.tuned - self.frozen


def load(frozen: str | os.PathLike | None, tuned: str | os.PathLike | None) -> list[Row]:
    """Rows from the files of `Evaluator.write_scores`, in the order of the tuned model's tasks.

    Args:
      frozen: scores of the frozen backbone; None, or a file that does not exist, leaves its column
        empty. tuned: the same of the tuned model.

    Raises:
      UserError: neither file exists, a file is not one of scores, or the two do not compare: a
        task with another metric or another number of examples.
    """
    before, after = _tasks(frozen), _tasks(tuned)
    if before is None and after is None:
        raise UserError(
            f"there are no scores to report: neither {tuned} nor {frozen} exists; evaluate first, "
            "with --mode=eval."
        )
    before, after = before or {}, after or {}
    return [_row(name, before.get(name), after.get(name)) for name in after | before]


def identity(path: str | os.PathLike) -> str | None:
    """What a file of scores says that its scores follow from (`Evaluator.identity`); None where
    there is no such file, "" where it does not say."""
    try:
        return str(json.loads(epath.Path(path).read_bytes()).get("identity", ""))
    except (OSError, ValueError, AttributeError):
        return None


def _tasks(path: str | os.PathLike | None) -> dict[str, dict] | None:
    if path is None or not epath.Path(path).exists():
        return None
    try:
        tasks = json.loads(epath.Path(path).read_bytes())["tasks"]
        for task in tasks.values():
            float(task["scores"][task["metric"]]), int(task["examples"]), str(task["family"])
            float(task.get("constant", {"score": 0})["score"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{os.fspath(path)} is not a file of scores ({error!r}); evaluate again to replace it."
        ) from error
    return tasks


def _row(name: str, before: dict | None, after: dict | None) -> Row:
    either = after or before
    for field in ("metric", "examples"):
        if before and after and before[field] != after[field]:
            raise UserError(
                f"task {name} was scored with {field} {before[field]} frozen and {after[field]} "
                "tuned, which do not compare; evaluate both in the same way."
            )
    frozen, tuned = (
        None if task is None else float(task["scores"][task["metric"]]) for task in (before, after)
    )
    constant = float(either["constant"]["score"]) if "constant" in either else None
    names = (name, either["family"], either["metric"])
    return Row(*names, frozen, tuned, int(either["examples"]), constant)


def mean(rows: Sequence[Row], family: str = "") -> Row:
    """The mean over tasks, each counted once, as a row whose examples are the sum.

    Compares like with like: where some tasks have both scores, the mean is over these alone, and
    its name says of how many, as in "mean of 6". Without any, it is of the one column there is.
    """
    both = [row for row in rows if row.difference is not None]
    name = f"mean of {len(both)}" if 0 < len(both) < len(rows) else "mean"
    rows = both or rows
    columns = zip(*((row.frozen, row.tuned, row.constant) for row in rows), strict=True)
    frozen, tuned, constant = (None if None in column else fmean(column) for column in columns)
    metrics = {row.metric for row in rows}
    return Row(
        name,
        family,
        metrics.pop() if len(metrics) == 1 else "",
        frozen,
        tuned,
        sum(row.examples for row in rows),
        constant,
    )


def families(rows: Sequence[Row]) -> list[Row]:
    """A row per family, in the order in which they first appear: its mean, or its only task."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.family, []).append(row)
    return [
        mean(members, family) if len(members) > 1 else members[0]
        for family, members in groups.items()
    ]


def table(
    rows: Sequence[Row],
    markdown: bool = False,
    frozen: str = "frozen",
    tuned: str = "Omni-SMoLA",
) -> str:
    """The rows as an aligned table, plain or Markdown, without a newline at the end.

    The column "constant", what the best constant answer would score, is there where a row has it.

    Args:
      frozen, tuned: the headings of the two columns of scores.
    """
    header = ["task", "family", "metric", "constant", frozen, tuned, "difference", "examples"]
    body = [_cells(row) for row in [*rows, mean(rows)]]
    if all(row.constant is None for row in rows):
        header, *body = ([*cells[:3], *cells[4:]] for cells in [header, *body])
    widths = [max(len(line[i]) for line in [header, *body]) for i in range(len(header))]
    texts = 3  # the columns on the left hold text, the others numbers

    def line(cells: Sequence[str]) -> str:
        pairs = enumerate(zip(cells, widths, strict=True))
        padded = [cell.ljust(w) if i < texts else cell.rjust(w) for i, (cell, w) in pairs]
        return f"| {' | '.join(padded)} |" if markdown else "  ".join(padded).rstrip()

    if markdown:
        marks = ["-" * w if i < texts else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
        return "\n".join([line(header), line(marks), *map(line, body)])
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    lines = [line(header), rule, *map(line, body)]
    lines.insert(-1, rule)
    return "\n".join(lines)


def _cells(row: Row) -> list[str]:
    columns = (row.constant, row.frozen, row.tuned)
    scores = [MISSING if score is None else f"{score:.2f}" for score in columns]
    # Adding zero turns a rounded -0.0 into 0.0.
    difference = MISSING if row.difference is None else f"{round(row.difference, 2) + 0.0:+.2f}"
    return [row.task, row.family, row.metric, *scores, difference, str(row.examples)]


def report(
    rows: Sequence[Row],
    places: Mapping[str, str | os.PathLike],
    markdown: bool = False,
    frozen: str = "frozen",
    tuned: str = "Omni-SMoLA",
) -> str:
    """The table of tasks, that of families, and where things lie.

    The first ends with the mean over tasks. The second ends with the mean over families, in which a
    family counts the same however many tasks it has, as MoME reports its suite (arXiv 2407.12709,
    tables 1 and 2).

    Args:
      places: what lies where, as {"checkpoint": ..., "predictions": ..., "logs": ...}.
    """
    parts = [table(rows, markdown, frozen, tuned)] if rows else [_NO_SCORES]
    by_family = families(rows)
    if len(by_family) < len(rows):  # otherwise the table says it already
        parts.append(table(by_family, markdown, frozen, tuned))
    width = max((len(name) for name in places), default=0)
    quote, bullet = ("`", "- ") if markdown else ("", "")
    parts.append(
        "\n".join(
            f"{bullet}{name.ljust(0 if markdown else width)}  {quote}{os.fspath(path)}{quote}"
            for name, path in places.items()
        )
    )
    return "\n\n".join(part for part in parts if part) + "\n"
