"""Accuracy of multiple choice."""

import re
from collections.abc import Sequence

from omni_smola.metrics.exact_match import normalize
from omni_smola.metrics.groups import by_group
from omni_smola.metrics.inputs import check_inputs, mean_percent

_LETTER = re.compile(r"[a-z]")
# "b", "(b)", "b.", "b) the cat", but not "a cat".
_LEADING = re.compile(r"\(?([a-z])(?:[).:,]|$)")
_STATED = re.compile(r"the answer is \(?([a-z])\)?(?:\.|$)")


def choice_accuracy(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    groups: Sequence[str] | None = None,
) -> dict[str, float]:
    """Share of right choices, by their letter or by their text.

    A reference of one letter wants a prediction of that letter, with or without brackets and what
    follows them, or one that says "the answer is B." once and no more. Any other reference must be
    met as in `exact_match`. Whatever cannot be read is wrong; ScienceQA's own baseline draws a
    choice instead.

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
        any(_chosen(normalize(prediction), normalize(answer)) for answer in answers)
        for prediction, answers in zip(predictions, references, strict=True)
    ]
    return {"choice_accuracy": mean_percent(hits)}


def _chosen(prediction: str, answer: str) -> bool:
    if not _LETTER.fullmatch(answer):
        return prediction == answer
    leading = _LEADING.match(prediction)
    return ([leading[1]] if leading else _STATED.findall(prediction)) == [answer]
