"""Accuracy of statements that hold or do not: VSR, TabFact."""

from collections.abc import Sequence

from omni_smola.metrics.exact_match import normalize
from omni_smola.metrics.inputs import matches

_VERDICTS = dict.fromkeys(["yes", "true", "1"], "yes") | dict.fromkeys(["no", "false", "0"], "no")


def yes_no_accuracy(
    predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, float]:
    """Share of right verdicts, where yes, true and 1 are one word, and no, false and 0 another.

    Both sides are stripped and lower-cased; other words are compared as in `exact_match`, so "yes,
    it is" is wrong. Sources: InstructBLIP's words for VSR (2023); the labels 0 and 1 of VSR,
    TabFact and DUE, whose F1 over TabFact's statements, each with one label, is this accuracy.

    Args:
      predictions: n strings.
      references: n lists of at least one string.

    Returns:
      `yes_no_accuracy`, in [0, 100].

    Raises:
      UserError: see `check_inputs`.
    """
    return matches("yes_no_accuracy", predictions, references, verdict)


def verdict(text: str) -> str:
    """ "yes", "no", or the text where it is neither."""
    text = normalize(text)
    return _VERDICTS.get(text, text)
