"""Arguments after a config's colon, `name=value,name=value`, and lists in them, `a+b`.

A comma or a plus sign that belongs to a value has a backslash before it, and so has a backslash
before one of the three: `folders=photos\\, 2024+C\\+\\+` names two folders.
"""

import difflib
import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from omni_smola.errors import UserError

if TYPE_CHECKING:
    import ml_collections

_ESCAPED = re.compile(r"\\([,+\\])")


def parse_arg(arg: str | None, **fields: Any) -> "ml_collections.ConfigDict":
    """Parses `name=value,name=value` after a config's colon.

    Args:
      arg: the text after the colon, or None.
      fields: the names allowed and their defaults, whose types (bool, int, float, str, tuple) the
        values get. A tuple is a list of paths, see `paths`.

    Returns:
      A ConfigDict of all fields.

    Raises:
      UserError: an unknown name, a text without "=", or a value of the wrong type.
    """
    import ml_collections  # loading a backbone in Python needs `paths` alone

    values = ml_collections.ConfigDict(fields)
    for part in filter(None, _split(arg or "", ",")):
        name, equals, text = part.partition("=")
        if not equals or name not in fields:
            hint = difflib.get_close_matches(name, fields, n=1)
            raise UserError(
                f"The config argument {part!r} is not one of name=value with a name out of "
                f"{', '.join(fields)}"
                + (f": did you mean {hint[0]}=...?" if hint else ".")
                + (r" A comma inside of a value is written \, there." if "," in arg else "")
            )
        values[name] = _typed(name, text, fields[name])
    return values


def parse_experts(text: str) -> tuple[int, int, int]:
    """`16-16-16` -> visual, text and multimodal experts; raises UserError."""
    parts = text.split("-")
    if len(parts) != 3 or not all(re.fullmatch("[0-9]{1,9}", part) for part in parts):
        raise UserError(
            f"experts={text} is not of the form visual-text-multimodal, three whole numbers of 0 "
            "or more, such as experts=16-16-16."
        )
    return tuple(int(part) for part in parts)


def split_list(text: str) -> list[str]:
    """`a+b` -> its parts, the empty ones left out; `a\\+b` is one part, "a+b"."""
    return [unescaped(part) for part in _split(text, "+") if part]


def paths(text: str | Sequence[str]) -> list[str]:
    """Paths joined by +, as `split_list` reads them.

    A text that is a path as a whole needs no backslash: `C++` is one folder where there is such,
    unless its parts are there too.
    """
    if not isinstance(text, str):
        return list(text)
    parts = split_list(text)
    if len(parts) != 1 or parts[0] != text:
        whole = _exists(text) and not (len(parts) > 1 and all(map(_exists, parts)))
        return [text] if whole else parts
    return parts


def unescaped(text: str) -> str:
    """The text without the backslashes before its commas, plus signs and backslashes."""
    return _ESCAPED.sub(r"\1", text)


def _split(text: str, separator: str) -> list[str]:
    """At separators without a backslash before them; the backslashes stay."""
    parts = re.findall(rf"(?:\\[,+\\]|[^{re.escape(separator)}])+|{re.escape(separator)}", text)
    return [part for part in parts if part != separator]


def _exists(path: str) -> bool:
    return os.path.exists(os.path.expanduser(path))


def _typed(name: str, text: str, default: Any) -> Any:
    if isinstance(default, tuple):
        return tuple(paths(text))
    text = unescaped(text)
    try:
        if isinstance(default, bool):
            return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        return type(default)(text)
    except (ValueError, KeyError) as error:
        raise UserError(
            f"The config argument {name}={text} needs a value of type {type(default).__name__}, "
            f"such as {name}={default}."
        ) from error
