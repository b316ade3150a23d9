"""What metrics share: the check of what they are given, the mean, and matching by normal form."""

from collections.abc import Callable, Sequence

from omni_smola.errors import UserError


def check_inputs(
    metric: str, predictions: Sequence[str], references: Sequence[Sequence[str]], at_least: int = 1
) -> None:
    """Checks that there is one list of references for each of at least one predictions.

    Args:
      metric: its name, for the message.
      predictions: n strings.
      references: n lists of strings.
      at_least: how many references each example must have.

    Raises:
      UserError: an empty split, unequal lengths, strings in place of lists, too few references.
    """
    if len(predictions) != len(references):
        raise UserError(
            f"{metric} got {len(predictions)} predictions for {len(references)} examples: give one "
            f"prediction for each example, in the same order."
        )
    if not len(predictions):
        raise UserError(
            f"{metric} got no predictions: check that the split has examples and that its filter "
            f"or example limit leaves some."
        )
    for i, answers in enumerate(references):
        if isinstance(answers, str):
            raise UserError(
                f"{metric} got the string {answers!r} as the references of example {i}: give a "
                f"list of strings for each example, even where there is one reference."
            )
        if len(answers) < at_least:
            raise UserError(
                f"{metric} got {len(answers)} references for example {i} and needs at least "
                f"{at_least}: check the record, or choose another metric for this task."
            )


def mean_percent(scores: Sequence[float]) -> float:
    """Mean of scores in [0, 1], times 100."""
    return 100.0 * sum(scores) / len(scores)


def matches(
    metric: str,
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    normalize: Callable[[str], str],
) -> dict[str, float]:
    """{metric: share of predictions that equal one of their references, both normalised, x 100}.

    Raises:
      UserError: see `check_inputs`.
    """
    check_inputs(metric, predictions, references)
    hits = [
        normalize(prediction) in map(normalize, answers)
        for prediction, answers in zip(predictions, references, strict=True)
    ]
    return {metric: mean_percent(hits)}
