"""Accuracy of counts."""

from collections.abc import Sequence

from omni_smola.metrics.groups import by_group
from omni_smola.metrics.inputs import matches

_WORDS = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen
    fifteen sixteen seventeen eighteen nineteen twenty""".split()
_NUMERALS = {"none": "0"} | {word: str(value) for value, word in enumerate(_WORDS)}


def tallyqa_accuracy(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    groups: Sequence[str] | None = None,
) -> dict[str, float]:
    """Share of predictions that are the right count, in digits or, up to twenty, as a word.

    A number word counts in any case ("none" is 0); all else must be equal letter for letter, blanks
    included. Source: TallyQA (Acharya et al., 2019), as big_vision's evaluator for PaliGemma
    computes it.

    Args:
      predictions: n strings.
      references: n lists of at least one string.
      groups: for each example "simple" or "complex", the halves that papers report apart; the
        training split does not tell. See `by_group`.

    Returns:
      `tallyqa_accuracy` and, with groups, `tallyqa_accuracy/simple` and so on, in [0, 100].

    Raises:
      UserError: see `check_inputs` and `by_group`.
    """
    if groups is not None:
        return by_group(tallyqa_accuracy, predictions, references, groups)
    return matches("tallyqa_accuracy", predictions, references, _numeral)


def _numeral(text: str) -> str:
    return _NUMERALS.get(text.lower(), text)
