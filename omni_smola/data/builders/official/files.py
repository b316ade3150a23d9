"""Official annotation files: which there are, where they come from, and what can be wrong in them.

A file that cannot be read as a whole is a UserError. A single bad record is a BadRecord, so that a
builder can leave it out and count it where the user wants that.
"""

import csv
import dataclasses
import io
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omni_smola.data.text import check_encoding, short
from omni_smola.errors import UserError, first_line

_LARGEST = (1 << 63) - 1  # what is stored of a whole number
_HALF = re.compile("[\ud800-\udfff]")


class BadRecord(UserError):
    """One record of an official file that is not as it should be; names the file and the record."""


@dataclasses.dataclass(frozen=True)
class SourceFile:
    """A file or folder that a user downloads.

    Attributes:
      path: below the download folder, such as "vqav2/v2_mscoco_val2014_annotations.json". A path
        that ends with "/" is a folder.
      origin: the page where it is offered, or the archive it is in.
    """

    path: str
    origin: str

    def found(self, folder: Path) -> Path | None:
        """Where it is below the download folder; None where it is not."""
        path = folder / self.path
        return path if (path.is_dir() if self.path.endswith("/") else path.is_file()) else None

    def is_in(self, folder: Path) -> bool:
        """Whether it is there."""
        return self.found(folder) is not None


def missing_files(name: str, folder: Path, files: Sequence[SourceFile]) -> UserError | None:
    """The sentence that lists the missing ones of a dataset's files; None where all are there."""
    missing = [file for file in dict.fromkeys(files) if not file.is_in(folder)]
    if not missing:
        return None
    lines = "".join(f"\n  {file.path}  from {file.origin}" for file in missing)
    return UserError(
        f"{name} lacks {len(missing)} of its {len(set(files))} files in the download folder "
        f"{folder}; put there{lines}"
    )


class Fields:
    """The fields of one record, each read with a check of its type.

    A record that is no object at all is told apart only when a field of it is read, so that going
    through a file never stops at a bad record.

    Attributes:
      values: the decoded record.
      where: file and record in words, the start of every message.
    """

    def __init__(self, values: Any, where: str):
        self.values = values
        self.where = where

    def __contains__(self, name: str) -> bool:
        return isinstance(self.values, Mapping) and name in self.values

    def bad(self, what: str) -> BadRecord:
        """An error about this record."""
        return BadRecord(f"{self.where}: {what}")

    def get(self, name: str) -> Any:
        """The field as it is; raises BadRecord where it is missing."""
        if not isinstance(self.values, Mapping):
            raise self.bad(f"{short(self.values)} is no object of fields.")
        if name not in self.values:
            names = ", ".join(map(repr, self.values))
            raise self.bad(f"the field '{name}' is missing; there are {names or 'none'}.")
        return self.values[name]

    def text(self, name: str, empty: bool = False) -> str:
        """A string, stripped; raises BadRecord for another type, or for nothing unless `empty`."""
        value = self.get(name)
        if not isinstance(value, str):
            raise self.bad(f"'{name}' must be a text, but is {short(value)}.")
        if not value.strip() and not empty:
            raise self.bad(f"'{name}' is empty.")
        return value.strip()

    def label(self, name: str) -> str:
        """A string or a whole number, as text: identifiers and answers come as either."""
        value = self.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        return self.text(name)

    def integer(self, name: str, least: int = 0, most: int | None = None) -> int:
        """A whole number from `least` to `most`."""
        value = self.get(name)
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole or not least <= value <= (_LARGEST if most is None else most):
            to = "" if most is None else f" to {most}"
            raise self.bad(
                f"'{name}' must be a whole number from {least}{to}, but is {short(value)}."
            )
        return value

    def numbers(self, name: str, count: int) -> list[float]:
        """A list of `count` finite numbers."""
        values = self.items(name)
        for value in values:
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise self.bad(f"'{name}' must hold numbers, but holds {short(value)}.")
        if len(values) != count or not all(map(_is_finite, values)):
            raise self.bad(f"'{name}' must be {count} numbers, but is {short(values)}.")
        return [float(value) for value in values]

    def items(self, name: str) -> list:
        """A list, which may be empty."""
        value = self.get(name)
        if not isinstance(value, list):
            raise self.bad(f"'{name}' must be a list, but is {short(value)}.")
        return value

    def texts(self, name: str, at_least: int = 1) -> list[str]:
        """A list of `at_least` non-empty strings, stripped; empty ones among them are left out."""
        values = self.items(name)
        for value in values:
            if not isinstance(value, str):
                raise self.bad(f"'{name}' must hold texts, but holds {short(value)}.")
        texts = [value.strip() for value in values if value.strip()]
        if len(texts) < at_least:
            raise self.bad(f"'{name}' must hold {at_least} or more texts, but is {short(values)}.")
        return texts

    def records(self, name: str) -> list["Fields"]:
        """A list of objects as Fields of their own."""
        return [
            Fields(value, f"{self.where}, '{name}' {i}") for i, value in enumerate(self.items(name))
        ]


def read_json(path: Path) -> Any:
    """The value in a JSON file; raises UserError for one that is not JSON."""
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path} is not complete JSON ({error.msg}, line {error.lineno}): download it again."
        ) from error
    except (ValueError, RecursionError) as error:  # a number or a nesting without end
        raise UserError(f"{path} is JSON that cannot be read ({first_line(error)}).") from error


def read_list(path: Path, key: str | None = None) -> Iterator[Fields]:
    """The records of a JSON file that is a list, or an object with a list under `key`.

    Raises:
      UserError: the file is something else.
    """
    value = read_json(path)
    if key is not None:
        value = value.get(key) if isinstance(value, dict) else None
    if not isinstance(value, list):
        what = "a list of records" if key is None else f"an object with a list '{key}'"
        raise UserError(f"{path} is not {what}: it is another file than this name stands for.")
    for i, record in enumerate(value):
        yield Fields(record, f"{path}, record {i}")


def read_dict(path: Path) -> Iterator[tuple[str, Fields]]:
    """The (key, record) pairs of a JSON file that is one object of records."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise UserError(f"{path} is not an object of records by key: it is another file.")
    for key, record in value.items():
        yield key, Fields(record, f"{path}, record {key!r}")


def read_jsonl(path: Path) -> Iterator[Fields]:
    """The records of a file of one JSON object a line; empty lines are left out.

    A line that is not JSON is a bad record like any other.
    """
    # Not splitlines, which also cuts at characters that may stand inside of a text.
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if line.strip():
            where = f"{path}, line {number}"
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:
                value, where = line, f"{where}, which is not JSON ({first_line(error)})"
            yield Fields(value, where)


def read_table(path: Path, columns: Sequence[str], delimiter: str = ",") -> Iterator[Fields]:
    """The rows of a CSV (quoted as in Excel) or TSV file (not quoted) with a header line.

    Raises:
      UserError: the header lacks a column.
    """
    quoting = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
    rows = read_rows(path, read_text(path), delimiter=delimiter, quoting=quoting)
    _, header = next(rows, (0, []))
    lacking = [name for name in columns if name not in header]
    if lacking:
        raise UserError(
            f"{path} has no column {', '.join(map(repr, lacking))}; its header is "
            f"{', '.join(map(repr, header))}."
        )
    for number, row in rows:
        if row:
            yield Fields(dict(zip(header, row, strict=False)), f"{path}, line {number}")


def read_rows(path: Path, text: str, **layout: Any) -> Iterator[tuple[int, list[str]]]:
    """The rows of a table, each with the number of its last line.

    Args:
      path: of the file, for messages. text: what is in it. layout: as for `csv.reader`.

    Raises:
      UserError: a cell is too long, or ends in a way that no table has.
    """
    rows = csv.reader(io.StringIO(text, newline=""), **layout)
    try:
        for row in rows:
            yield rows.line_num, row
    except csv.Error as error:
        raise UserError(f"{path}, line {rows.line_num}: not a table ({error}).") from error


def not_utf8(text: str) -> bool:
    """Whether a text of these files had bytes that are not UTF-8, or a lone surrogate."""
    return _HALF.search(text) is not None


def read_text(path: Path) -> str:
    """The text of a file in UTF-8; bytes that are not UTF-8 come as halves of characters.

    Raises:
      UserError: it cannot be read, or is in UTF-16 or UTF-32.
    """
    check_encoding(path)
    try:
        # What is not UTF-8 is kept as it is, so that it is told with the record that it stands in.
        return path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from error


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that no float can hold
        return False
