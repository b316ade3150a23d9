"""Text-only pretraining: copy a text, fill in its blank, or write a sentence with given words.

The texts have the form of every family's targets, and of plain English, and are made up on the
spot: no text is taken from a validation or test example.
"""

from collections.abc import Callable

import numpy as np

from omni_smola.data.builders.mini_suite import everyday, prose, tables
from omni_smola.data.builders.mini_suite.ingredients import COLORS, SHAPES
from omni_smola.data.builders.mini_suite.records import Record, pick, record

BLANK = "_"
_LONGEST = 32  # characters: rarely more than 12 pieces


def _object(rng: np.random.Generator) -> str:
    return f"{pick(tuple(COLORS), rng)} {pick(SHAPES, rng)}"


def _caption(side: str, rng: np.random.Generator) -> str:
    forms = (
        "a {} above a {}",
        "a {} below a {}",
        "the {} is left of the {}",
        "a {} right of a {}",
        "a {} beside a {}",
    )
    return pick(forms, rng).format(_object(rng), _object(rng))


def _expression(side: str, rng: np.random.Generator) -> str:
    place = pick(("", "left ", "right ", "top ", "bottom "), rng)
    return f"the {place}{pick((_object(rng), pick(SHAPES, rng), 'shape'), rng)}"


def _box(side: str, rng: np.random.Generator) -> str:
    x1, y1, x2, y2 = np.sort(rng.integers(0, 25, (2, 2)), axis=0).ravel() / 24
    return f"[{x1:.3f},{y1:.3f},{x2:.3f},{y2:.3f}]"


def _letter(side: str, rng: np.random.Generator) -> str:
    """An option alone, or after its letter as in a prompt."""
    letter = "ABCD"[int(rng.integers(4))]
    return letter if rng.integers(2) else f"({letter}) {_object(rng)}"


def _number(side: str, rng: np.random.Generator) -> str:
    whole = rng.integers(10 ** int(rng.integers(1, 5)))
    return f"{whole}" if rng.integers(2) else f"{whole}.{rng.integers(10)}"


def _cells(side: str, rng: np.random.Generator) -> str:
    """A field or two of a table row."""
    row = pick(tables.rows(pick(tables.TABLES, rng), side), rng)
    names = tuple(row)
    chosen = np.sort(rng.permutation(len(names))[: int(rng.integers(1, 3))])
    return " ".join(f"{names[i]} {row[names[i]]}" for i in chosen)


def _answer(side: str, rng: np.random.Generator) -> str:
    return pick(("yes", "no", "yeah", "nope", "box", "disc", "grey", pick(tuple(COLORS), rng)), rng)


def _english(side: str, rng: np.random.Generator) -> str:
    """Consecutive words of a sentence, as many as fit."""
    words = pick(prose.of_side(side), rng).split()
    start = int(rng.integers(max(len(words) - 5, 1)))
    text = words[start]
    for word in words[start + 1 :]:
        if len(text) + len(word) + 1 > _LONGEST:
            break
        text = f"{text} {word}"
    return text[:_LONGEST]


def _everyday(side: str, rng: np.random.Generator) -> str:
    return everyday.sentence(rng)


_TEXTS: tuple[Callable[[str, np.random.Generator], str], ...] = (
    _caption,
    _expression,
    _box,
    _letter,
    _number,
    _cells,
    _answer,
    _english,
    _english,
    *(_everyday,) * 6,
)


def pretrain_text(side: str, index: int, rng: np.random.Generator) -> Record:
    """Half "copy: x" -> x, half "fill: x with a blank" -> the words of the blank; no image.

    Two thirds of the everyday sentences are asked for by key words instead: "write: man bike".
    """
    make = _TEXTS[(index // 2) % len(_TEXTS)]
    text = make(side, rng)
    if make is _everyday and rng.integers(3):
        return record(question=f"write: {everyday.key_words(text, rng)}", references=[text])
    words = text.split()
    if index % 2 or len(words) < 2:
        return record(question=f"copy: {text}", references=[text])
    length = 1 if len(words) < 4 else int(rng.integers(1, 3))
    start = int(rng.integers(len(words) - length + 1))
    blanked = [*words[:start], BLANK, *words[start + length :]]
    hidden = " ".join(words[start : start + length])
    return record(question=f"fill: {' '.join(blanked)}", references=[hidden])
