"""Relaxed accuracy of chart questions: numbers may be off by 5%."""

from collections.abc import Callable, Sequence

from omni_smola.metrics.inputs import check_inputs, mean_percent

TOLERANCE = 0.05


def relaxed_accuracy(
    predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, float]:
    """Share of predictions within 5% of a numeric reference, or equal to one that is no number.

    A number is what Python's `float` reads, "nan" and "inf" included; "12%" is 0.12. So a reference
    of "nan" or "inf" is never met, and one of zero, having no 5%, must be met as a text. Texts are
    compared in lower case and with their blanks: "yes " is not "yes". ChartQA reports the mean of
    this over its human and its augmented half. Source: ChartQA (Masry et al., 2022), section 5.1,
    as Pix2Struct computes it.

    Args:
      predictions: n strings.
      references: n lists of at least one string; the best one counts.

    Returns:
      `relaxed_accuracy`, in [0, 100].

    Raises:
      UserError: see `check_inputs`.
    """
    return _score("relaxed_accuracy", predictions, references, str)


def relaxed_accuracy_stripped(
    predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, float]:
    """The same with blanks around a prediction taken away first, as Qwen-VL's evaluation does it.

    References stay as they are. Takes and raises what `relaxed_accuracy` does.

    Returns:
      `relaxed_accuracy_stripped`, in [0, 100].
    """
    return _score("relaxed_accuracy_stripped", predictions, references, str.strip)


def _score(
    metric: str,
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    prepare: Callable[[str], str],
) -> dict[str, float]:
    check_inputs(metric, predictions, references)
    hits = [
        any(_correct(prepare(prediction), answer) for answer in answers)
        for prediction, answers in zip(predictions, references, strict=True)
    ]
    return {metric: mean_percent(hits)}


def _correct(prediction: str, reference: str) -> bool:
    value, target = _number(prediction), _number(reference)
    if value is not None and target:
        return abs(value - target) / abs(target) <= TOLERANCE
    return prediction.lower() == reference.lower()


def _number(text: str) -> float | None:
    try:
        return float(text.rstrip("%")) / 100.0 if text.endswith("%") else float(text)
    except ValueError:
        return None
