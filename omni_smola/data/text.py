"""Text as it comes in: lines of a user's files, texts in their records, prompts.

- Files are UTF-8; a byte order mark at their beginning is left out. A file in UTF-16 or UTF-32 is
  refused as a whole. Of a file in any other encoding every line with a byte that is not UTF-8 is a
  bad line.
- Lines end with LF, CRLF or CR. No other character ends one, so that U+0085 and U+2028 may stand
  inside of a JSON text.
- In a text, control characters other than newline and tab become blanks, and so do the line and
  paragraph separators U+2028 and U+2029. A lone surrogate, as in the JSON escape "\\ud83d" without
  its other half, has no UTF-8 and is refused.
"""

import codecs
import collections
import json
import os
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omni_smola.errors import UserError

LONGEST_LINE = 1 << 25  # characters
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")
_HALF = re.compile("[\ud800-\udfff]")
_MARKS = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_LOOKED_AT = 4096  # bytes at the beginning of a file


def lines(path: str | Path) -> Iterator[tuple[int, str | UserError]]:
    """The lines of a text file by number, from 1, without their ends.

    A line that is too long or is not UTF-8 comes as the error that says so.

    Raises:
      UserError: the file cannot be read, or is in UTF-16 or UTF-32.
    """
    check_encoding(path)
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
            number = 0
            while line := file.readline(LONGEST_LINE):
                number += 1
                where = f"{path}, line {number}"
                if len(line) == LONGEST_LINE and not line.endswith("\n"):
                    while (rest := file.readline(LONGEST_LINE)) and not rest.endswith("\n"):
                        pass
                    yield (
                        number,
                        UserError(f"{where}: a line of more than {LONGEST_LINE:,} characters."),
                    )
                elif bad := _HALF.search(line):
                    yield number, _not_utf8(where, bad)
                else:
                    # Files that were joined have a mark at the beginning of each.
                    yield number, line.removesuffix("\n").removeprefix("\ufeff")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from error


def check_encoding(path: str | Path) -> None:
    """Raises UserError for a file that cannot be read, or is in UTF-16 or UTF-32."""
    try:
        with open(path, "rb") as file:
            head = file.read(_LOOKED_AT)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from error
    # Without a mark the zero bytes beside their first character give them away.
    encoding = json.detect_encoding(head).upper()
    if head.startswith(_MARKS) or not encoding.startswith("UTF-8"):
        raise UserError(f"{path} is not UTF-8, but looks like {encoding}: save it as UTF-8.")


def parse_json(text: str, where: str) -> Any:
    """The value of a JSON text; raises UserError, which begins with `where`.

    An object that has a field twice is refused, because one of the two would be lost in silence.
    """
    try:
        return json.loads(text, object_pairs_hook=_once_each)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    except json.JSONDecodeError as error:
        raise UserError(
            f"{where}: not valid JSON ({error.msg}: column {error.colno}); a line must hold one "
            "whole JSON object."
        ) from error
    except RecursionError as error:
        raise UserError(f"{where}: JSON that is nested too deeply to be read.") from error
    except ValueError as error:  # a number of thousands of digits
        raise UserError(f"{where}: a number that is too long to be read ({error}).") from error


def clean(text: str, what: str) -> str:
    """The text, its control characters as blanks.

    Args:
      what: the text in words, the start of the error message.

    Raises:
      UserError: it contains a lone surrogate.
    """
    if half := _HALF.search(text):
        raise UserError(
            f"{what} contains a lone surrogate (U+{ord(half.group()):04X}, at character "
            f"{half.start() + 1}), which UTF-8 cannot encode: {short(text)}."
        )
    return _CONTROL.sub(" ", text)


def is_blank(text: str) -> bool:
    """Whether a text shows nothing: white space and format characters (U+200B) alone."""
    return all(c.isspace() or unicodedata.category(c) == "Cf" for c in text)


def from_command_line(text: str, flag: str) -> str:
    """A text that a user typed, cleaned as `clean` does.

    Raises:
      UserError: its bytes are not UTF-8.
    """
    # What Python could not decode of the arguments is in them as halves of characters.
    try:
        text = text.encode("utf-8", "surrogateescape").decode()
    except UnicodeEncodeError:  # from another program, not from a terminal
        return clean(text, flag)
    except UnicodeDecodeError as error:
        raise UserError(
            f"{flag}: byte 0x{error.object[error.start]:02X} in {short(error.object)} is not "
            "UTF-8: use a terminal that is set to UTF-8."
        ) from error
    return clean(text, flag)


def file_name(name: str, what: str) -> str:
    """A path that a record names, checked to be one that a file can have.

    Raises:
      UserError: it is blank, too long, or holds what no path can hold.
    """
    if _HALF.search(name):
        raise UserError(
            f"{what} contains a lone surrogate in its path, {short(name)}: rename the file, in "
            "UTF-8."
        )
    encoded = os.fsencode(name)
    if not name.strip() or b"\0" in encoded:
        raise UserError(f"{what} must be a path, not {short(name)}.")
    # Of the 4,096 bytes that a whole path may have, the folder before it takes some.
    if max(map(len, encoded.split(b"/"))) > 255 or len(encoded) > 2000:
        raise UserError(
            f"{what} is a text of {len(name):,} characters, too long for a path: {short(name)}. If "
            "it is the image itself, save that as a file and write its path."
        )
    return name


def short(value: Any, length: int = 80) -> str:
    """`repr` of a value, the middle left out if it is long."""
    if isinstance(value, str | bytes | list | tuple) and len(value) > 4 * length:
        half = value[: 2 * length]  # the whole may be of megabytes
        return f"{repr(half)[: length - 4]} ..."
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested deeply, or a number of thousands of digits
        return f"a {type(value).__name__}"
    return text if len(text) <= length else f"{text[: length - 20]} ... {text[-15:]}"


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        twice, _ = collections.Counter(name for name, _ in pairs).most_common(1)[0]
        raise UserError(f"the field {short(twice)} stands twice in one object; keep one of them.")
    return fields


def _not_utf8(where: str, bad: re.Match) -> UserError:
    byte = ord(bad.group()) & 0xFF
    return UserError(
        f"{where}: byte 0x{byte:02X} at character {bad.start() + 1} is not UTF-8: save the file as "
        "UTF-8."
    )
