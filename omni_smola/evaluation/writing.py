"""The files that an evaluation leaves: predictions, submissions and scores."""

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from etils import epath

from omni_smola.errors import UserError
from omni_smola.evaluation import submissions

Unwritten = Callable[[OSError], None]


def predictions_dir(out_dir: str | os.PathLike, label: str, step: int) -> epath.Path:
    """Where `Evaluator.run` writes predictions; raises UserError for a label with a slash."""
    if not label or "/" in label or label in (".", ".."):
        raise UserError(f"the label is {label!r}; it names a folder, so it must be a plain name.")
    return epath.Path(out_dir) / "predictions" / f"{label}-{int(step)}"


def write_predictions(path: str | os.PathLike, predictions: Iterable[Mapping[str, Any]]) -> None:
    """Writes one JSON object per line, UTF-8; the file appears when it is complete."""
    lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in predictions]
    write(epath.Path(path), "".join(lines))


def write_submission(
    folder: epath.Path, task: str, submission: str, predictions: Iterable[Mapping[str, Any]]
) -> None:
    """The file that a task's official server takes, beside the predictions; none for ""."""
    if submission:
        text = submissions.text(submission, predictions)
        write(folder / f"{task}.submission{submissions.FORMATS[submission].suffix}", text)


@contextlib.contextmanager
def written_or_told(unwritten: Unwritten | None) -> Iterator[None]:
    """Hands an OSError of what is inside to `unwritten`, if there is one."""
    try:
        yield
    except OSError as error:
        if unwritten is None:
            raise
        unwritten(error)


def write(path: epath.Path, text: str) -> None:
    """Writes a text file, which appears when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.tmp"
    temporary.write_bytes(text.encode())
    temporary.replace(path)
