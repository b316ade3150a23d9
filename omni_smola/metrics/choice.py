"""Accuracy of multiple choice."""

import re
import unicodedata
from collections.abc import Sequence

from omni_smola.metrics.exact_match import normalize
from omni_smola.metrics.groups import by_group
from omni_smola.metrics.inputs import check_inputs, mean_percent

_LETTER = re.compile(r"[a-z]")
_STATEMENT = re.compile(r"\bthe answer is\b", re.IGNORECASE)
# What may stand before a letter: "Option B", "Answer: B", "The correct choice is B".
_LABEL = re.compile(
    r"\W*(?:the\s+)?(?:(?:correct|right|best)\s+)?(?:answer|options?|choices?)(?:\s+is|\s+are)?\b",
    re.IGNORECASE,
)
# A letter that is no part of a word ("Blue", "T-shirt", "U.S."), behind brackets, quotes or stars.
_NAMED = re.compile(r"[\W_]*([A-Za-z])(?![^\W_]|[-.&'’][^\W_])")
# Of these two the first may be an article, "A cat", or a pronoun, "I think", unless a word follows
# that continues a sentence about a letter.
_WORD = re.compile(r"\s+(?!(?:and|or|is|are|but|because|since|as)\b)[^\W_]", re.IGNORECASE)
# A letter is set off from what follows: "B", "B. It", "(B) the cat", "B - it", "**B**".
_SET_OFF = re.compile(r"\s*$|\s*[)\]}*_`\"'”’.,:;!?]|\s+[-–—]|\s*\n")
# What stands between letters side by side: a mark or a word as in "A, B", "A/B", "A and B"; or
# brackets around the next letter, "(A) (B)"; or nothing at all where there are only letters, "A B".
_JOINT = re.compile(r"(?:[\W_]*[,;/&+|][\W_]*)?(?:[\W_]*\b(?:and|or|nor)\b)?", re.IGNORECASE)
_BRACKETED = re.compile(r"[\W_]{0,9}[(\[]\s?[A-Za-z]\s?[)\]]")
_ONLY_LETTERS = re.compile(r"(?:[\W_]+[A-Za-z](?![^\W_]))+[\W_]*")
# A choice marked further on: "(C)", and "C." or "C:" where a line or a sentence begins.
_MARKED = re.compile(
    r"[(\[]\s?([A-Za-z])\s?[)\]]|(?<!\w)([A-Za-z])\)"
    r"|(?:[^\W_]{2}[.;!?,]\s+|\n\s?)([A-Za-z])[.:]\s"
)


def choice_accuracy(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    groups: Sequence[str] | None = None,
) -> dict[str, float]:
    """Share of right choices, by their letter or by their text.

    A reference of one letter wants a prediction that names this letter and no other one, as
    `chosen` reads it. Any other reference must be met as in `exact_match`: a letter before the
    text, "(B) the cat", does not meet "the cat". Whatever cannot be read is wrong; ScienceQA's own
    baseline draws a choice instead.

    Args:
      predictions: n strings.
      references: n lists of at least one string.
      groups: see `by_group`.

    Returns:
      `choice_accuracy` and, with groups, `choice_accuracy/group`, in [0, 100].

    Raises:
      UserError: see `check_inputs` and `by_group`.
    """
    if groups is not None:
        return by_group(choice_accuracy, predictions, references, groups)
    check_inputs("choice_accuracy", predictions, references)
    hits = [
        any(_right(prediction, normalize(answer)) for answer in answers)
        for prediction, answers in zip(predictions, references, strict=True)
    ]
    return {"choice_accuracy": mean_percent(hits)}


def chosen(text: str) -> str:
    """The letter, in lower case, of the one choice that a text names; "" for none or several.

    - "The answer is B" anywhere, followed by anything but the rest of a word, as ScienceQA's and
      LLaVA's scripts read it; what the text says before and after does not matter, unless it opens
      with another letter.
    - Else a letter at the start that is set off from what follows: "B", "(B) the cat", "B. the
      cat", "**B**", "[B]", "Option B", "Answer: B".
    - Letters side by side, "A or B", "A, B", "(A)(B)", and other letters marked as choices further
      on name several.
    - Full-width forms count as plain ones; "A cat" and "I think" name nothing.
    """
    text = unicodedata.normalize("NFKC", text).strip()
    stated = {letter for m in _STATEMENT.finditer(text) for letter in _run(text, m.end(), True)[0]}
    label = _LABEL.match(text)
    opening, end = _run(text, label.end() if label else 0)
    if len(opening) == 1 and not _SET_OFF.match(text, end):
        opening = []
    if stated:
        named = stated | set(opening if len(opening) == 1 else ())
    elif opening:
        marks = (letter for mark in _MARKED.findall(text[end:]) for letter in mark if letter)
        named = {*opening, *map(str.lower, marks)}
    else:
        named = set()
    return named.pop() if len(named) == 1 else ""


def _run(text: str, start: int, stated: bool = False) -> tuple[list[str], int]:
    """The letters named side by side from a position on, in lower case, and where the last ends.

    stated: "The answer is" stands before; a capital letter is then no article.
    """
    letters: list[str] = []
    if stated and (label := _LABEL.match(text, start)):
        start = label.end()
    end = start
    while found := _NAMED.match(text, start):
        letter = found[1]
        capital = stated and not letters and letter.isupper()
        if letter in "AaIi" and _WORD.match(text, found.end()) and not capital:
            break
        if letters and letter.islower() and text[end - 1].isupper():
            break  # "B. x", "(B) m/s": no choice beside a capital one
        letters.append(letter.lower())
        end = start = found.end()
        if joint := _JOINT.match(text, end)[0]:
            start += len(joint)
        elif not (_BRACKETED.match(text, end) or _ONLY_LETTERS.fullmatch(text, end)):
            break
    return letters, end


def _right(prediction: str, answer: str) -> bool:
    if _LETTER.fullmatch(answer):
        return chosen(prediction) == answer
    return normalize(prediction) == answer
