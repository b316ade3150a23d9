"""Tokens that were added to a tokenizer, in whichever of its files transformers wrote them to.

Releases differ: added_tokens.json has content -> id, tokenizer_config.json has under
added_tokens_decoder id -> content and flags, and tokenizer.json lists them beside its model.
special_tokens_map.json names special ones without ids.
"""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from omni_smola.errors import UserError
from omni_smola.json_object import read_if_there

TOKENIZER = "tokenizer.json"
ADDED = "added_tokens.json"
# Where special tokens are named, in the order in which they count.
SETTINGS = ("tokenizer_config.json", "special_tokens_map.json")
FLAGS = ("lstrip", "rstrip", "single_word", "normalized", "special")
LARGEST_ID = 10_000_000  # of any token; vocabularies have at most some hundred thousand
_LONGEST = 10_000  # characters of a token


@dataclasses.dataclass(frozen=True)
class Token:
    """One added token.

    Attributes:
      lstrip, rstrip: blanks before and behind it are its own.
      single_word: it is none where a letter or other sign touches it.
      normalized: it is looked for in the text as the model normalises it; not followed here.
      special: a mark that no text holds: it is never read from a text, and decodes to nothing.
    """

    content: str
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False
    normalized: bool = False
    special: bool = False


def read(folder: pathlib.Path) -> dict[int, Token]:
    """Id -> token, of added_tokens.json and tokenizer_config.json together.

    Raises:
      UserError: a file is damaged; or one token has two ids, or one id two tokens.
    """
    special = named_special(folder)
    found: dict[int, tuple[Token, str]] = {}
    ids: dict[str, tuple[int, str]] = {}
    for file, number, token in (*_of_settings(folder), *_of_added(folder, special)):
        for known, value, other in (
            (found.get(number), token.content, f"{number} to"),
            (ids.get(token.content), number, f"{token.content!r} the id"),
        ):
            if known is not None:
                before = known[0].content if isinstance(known[0], Token) else known[0]
                if before != value:
                    raise UserError(
                        f"The tokenizer in {folder} contradicts itself: {known[1]} gives {other} "
                        f"{before!r}, but {file} gives it {value!r}. Copy all its files again from "
                        "one model."
                    )
        found.setdefault(number, (token, file))
        ids.setdefault(token.content, (number, file))
    return {number: token for number, (token, _) in sorted(found.items())}


def named_special(folder: pathlib.Path) -> set[str]:
    """Contents of the tokens that the settings call special."""
    found = set()
    for name in SETTINGS:
        for key, value in read_if_there(folder / name).items():
            listed = value if isinstance(value, list) else [value]
            if key.endswith(("_token", "_special_tokens")):
                found |= {word(each) for each in listed}
    return found - {None}


def word(token: Any) -> str | None:
    """A special token as the files write it, a string or an object with its content, if it is."""
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) and _is_text(content) else None


def of_tokenizer(file: pathlib.Path) -> dict[int, Token]:
    """Id -> token, of what a tokenizer.json adds to its model; raises UserError if damaged."""
    listed = read_if_there(file).get("added_tokens") or []
    if not isinstance(listed, list):
        raise _damaged(file, "added_tokens", listed)
    found = {}
    for each in listed:
        token = _token(file, each)
        found[_id(file, each.get("id"), token.content)] = token
    return found


def _of_settings(folder: pathlib.Path) -> Iterator[tuple[str, int, Token]]:
    file = folder / SETTINGS[0]
    listed = read_if_there(file).get("added_tokens_decoder") or {}
    if not isinstance(listed, dict):
        raise _damaged(file, "added_tokens_decoder", listed)
    for number, value in listed.items():
        token = _token(file, value)
        whole = int(number) if number.isascii() and number.isdigit() and len(number) < 9 else number
        yield file.name, _id(file, whole, token.content), token


def _of_added(folder: pathlib.Path, special: set[str]) -> Iterator[tuple[str, int, Token]]:
    file = folder / ADDED
    for content, number in read_if_there(file).items():
        token = _token(file, {"content": content, "special": content in special})
        yield file.name, _id(file, number, content), token


def _token(file: pathlib.Path, value: Any) -> Token:
    if not isinstance(value, Mapping) or not isinstance(value.get("content"), str):
        raise _damaged(file, "an added token", value)
    content, flags = value["content"], {name: value.get(name, False) for name in FLAGS}
    if not content or len(content) > _LONGEST or not _is_text(content):
        raise _damaged(file, "an added token", content)
    if not all(isinstance(flag, bool) for flag in flags.values()):
        raise _damaged(file, f"the added token {content!r}", flags)
    return Token(content, **flags)


def _is_text(content: str) -> bool:
    """Whether it can be written: no half of a surrogate pair."""
    return not any(0xD800 <= ord(letter) < 0xE000 for letter in content)


def _id(file: pathlib.Path, number: Any, content: str) -> int:
    if type(number) is not int or not 0 <= number <= LARGEST_ID:
        raise _damaged(file, f"the id of {content!r}", number)
    return number


def _damaged(file: pathlib.Path, what: str, value: Any) -> UserError:
    shown = repr(value) if len(repr(value)) < 80 else f"{repr(value)[:70]} ..."
    return UserError(
        f"In {file} {what} is {shown}, which no tokenizer writes: copy the file again."
    )
