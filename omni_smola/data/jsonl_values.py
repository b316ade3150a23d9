"""Values of a record's fields: what a text is, and what is no value."""

import math
from collections.abc import Iterable
from typing import Any

from omni_smola.data.text import clean, is_blank, short
from omni_smola.errors import UserError


def text_of(value: Any, field: str, where: str) -> str:
    """A text, or a number as its text, cleaned (`text.clean`) and stripped.

    Args:
      value: of the field.
      field: its name.
      where: file and line in words, the start of the error message.

    Raises:
      UserError: it is blank, NaN, infinite, or of another type.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise UserError(
            f"{where}: '{field}' must be a text or a list of texts, but holds {short(value)}."
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(
            f"{where}: '{field}' holds {value!r}, which is no value: write the text that belongs "
            "there, or remove the line."
        )
    text = clean(str(value), f"{where}: '{field}'").strip()
    if is_blank(text):
        raise UserError(f"{where}: '{field}' holds empty text: {short(value)}.")
    return text


def texts_of(value: Any, field: str, where: str) -> tuple[str, ...]:
    """One text or a list of texts, none of them blank; raises UserError as `text_of`."""
    values = value if isinstance(value, list | tuple) else [value]
    if not values:
        raise UserError(f"{where}: '{field}' is empty; give at least one text.")
    return tuple(text_of(text, field, where) for text in values)


def list_names(names: Iterable[Any]) -> str:
    """The first names of a list, quoted, with commas between."""
    names = list(names)
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return ", ".join(short(name, 60) for name in names[:20]) + more
