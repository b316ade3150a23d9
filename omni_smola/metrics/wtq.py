"""Denotation accuracy of WikiTableQuestions: sets of strings, numbers and dates."""

import math
import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from omni_smola.errors import UserError
from omni_smola.metrics.inputs import check_inputs, mean_percent

TOLERANCE = 1e-6

# Year, month, day; None for what the text leaves open.
Date = tuple[int | None, int | None, int | None]

_ASCII = str.maketrans(
    dict.fromkeys("‘’´`", "'") | dict.fromkeys("“”", '"') | dict.fromkeys("‐‑‒–—−", "-")
)
# At the end of a text: [citation] (but not the whole text, unless a number), marks, (details).
_TRAILING = re.compile(r"(?:(?<!^)\[[^\]]*\]|\[\d+\]|[•♦†‡*#+]| \([^)]*\))$")
_QUOTED = re.compile(r'"([^"]*)"')
# The longest text that is read as a number: one that a float can hold.
_MAX_DIGITS = 300


def wtq(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """Share of predictions whose items are those of a reference, in any order and each once.

    Items are separated by "|", with the escapes of the official tables (backslash and n, p for "|",
    or backslash). Two items are the same if their normalised texts are, or if both are numbers less
    than 1e-6 apart, or the same date, written yyyy-mm-dd with xx for what is unknown. Source: the
    official evaluator, version 1.0.2 (Pasupat and Liang, 2015).

    That reads numbers and dates of its references from tagged files; DUE does not, so that the
    reference "100,000" is a text, equal to itself alone. Both can be had: a reference is a
    `targetValue`, or a `targetValue`, a tab and the `targetCanon` of a tagged file.

    Args:
      predictions: n strings.
      references: n lists of at least one such string; the best one counts.

    Returns:
      `wtq`, in [0, 100].

    Raises:
      UserError: unequal numbers of items before and after a tab; see also `check_inputs`.
    """
    check_inputs("wtq", predictions, references)
    hits = []
    for i, (prediction, answers) in enumerate(zip(predictions, references, strict=True)):
        targets = [_reference(answer, i) for answer in answers]
        items = _unique([_Item.read(text) for text in _split(prediction)])
        hits.append(any(_same(items, target) for target in targets))
    return {"wtq": mean_percent(hits)}


def normalize(text: str) -> str:
    """The official normalisation of an item's text.

    No diacritics, plain quotes and dashes; no citations, marks and parentheses at the end, no
    quotes around, no final period; lower case, single spaces.
    """
    decomposed = unicodedata.normalize("NFKD", text)
    text = "".join(c for c in decomposed if unicodedata.category(c) != "Mn").translate(_ASCII)
    before = None
    while text != before:
        before = text
        text = _TRAILING.sub("", text.strip()).strip()
        if quoted := _QUOTED.fullmatch(text):
            text = quoted[1]
    return " ".join(text.removesuffix(".").split()).lower()


class _Item(NamedTuple):
    """One item of a denotation; value is None for a mere text."""

    text: str
    value: float | Date | None

    @classmethod
    def read(cls, text: str, canonical: str = "") -> "_Item":
        """An item from its text and, where it was tagged, its canonical value."""
        value = _number(canonical or text)
        if value is None:
            value = _date(canonical or text)
            if value is not None and value[1:] == (None, None):
                value = value[0]  # a year alone is a number
        return cls(normalize(text), value)

    def matches(self, other: "_Item") -> bool:
        if self.text == other.text:
            return True
        if None in (self.value, other.value):
            return False
        if isinstance(self.value, tuple) or isinstance(other.value, tuple):
            return self.value == other.value
        return abs(self.value - other.value) < TOLERANCE


def _reference(answer: str, example: int) -> list[_Item]:
    value, tab, canonical = answer.partition("\t")
    texts = _split(value)
    canonicals = _split(canonical) if tab else [""] * len(texts)
    if len(texts) != len(canonicals):
        raise UserError(
            f"wtq got {len(texts)} items but {len(canonicals)} canonical values in the reference "
            f"{answer!r} of example {example}: give one for each, separated by '|', or none."
        )
    return _unique([_Item.read(*pair) for pair in zip(texts, canonicals, strict=True)])


def _split(text: str) -> list[str]:
    # In the official order, in which an escaped backslash before an n is a line break.
    return [
        item.replace("\\n", "\n").replace("\\p", "|").replace("\\\\", "\\")
        for item in text.split("|")
    ]


def _unique(items: Sequence[_Item]) -> list[_Item]:
    """The items less repetitions, which for numbers and dates go by value: the first one stays."""
    unique = {}
    for item in items:
        unique.setdefault(item.text if item.value is None else item.value, item)
    return list(unique.values())


def _same(items: Sequence[_Item], targets: Sequence[_Item]) -> bool:
    return len(items) == len(targets) and all(
        any(target.matches(item) for item in items) for target in targets
    )


def _number(text: str) -> float | None:
    if len(text) > _MAX_DIGITS:
        return None
    try:
        return int(text)
    except ValueError:
        pass
    try:
        number = float(text)
    except ValueError:
        return None
    if not math.isfinite(number):
        return None
    # Cut, not rounded, as the official evaluator does it: 2.9999999 is 2.
    return int(number) if abs(number - round(number)) < TOLERANCE else number


def _date(text: str) -> Date | None:
    parts = text.lower().split("-")
    if len(parts) != 3:
        return None
    unknown = [("xx", "xxxx"), ("xx",), ("xx",)]
    try:
        year, month, day = (
            None if part in marks else int(part) for part, marks in zip(parts, unknown, strict=True)
        )
    except ValueError:
        return None
    possible = month in (None, *range(1, 13)) and day in (None, *range(1, 32))
    return (year, month, day) if possible and (year, month, day) != (None,) * 3 else None
