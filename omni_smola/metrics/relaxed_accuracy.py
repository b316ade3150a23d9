"""Relaxed accuracy of chart questions: numbers may be off by 5%."""

import math
from collections.abc import Sequence

from omni_smola.metrics.exact_match import normalize
from omni_smola.metrics.inputs import check_inputs, mean_percent

TOLERANCE = 0.05


def relaxed_accuracy(
    predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, float]:
    """Share of predictions within 5% of a numeric reference, or equal to one that is no number.

    "12%" reads as 0.12. A reference of zero, having no 5%, must be met as a string. ChartQA reports
    the mean of this over its human and its augmented half. Source: ChartQA (Masry et al., 2022),
    section 5.1, as Pix2Struct computes it.

    Args:
      predictions: n strings.
      references: n lists of at least one string; the best one counts.

    Returns:
      `relaxed_accuracy`, in [0, 100].

    Raises:
      UserError: see `check_inputs`.
    """
    check_inputs("relaxed_accuracy", predictions, references)
    hits = [
        any(_correct(prediction, answer) for answer in answers)
        for prediction, answers in zip(predictions, references, strict=True)
    ]
    return {"relaxed_accuracy": mean_percent(hits)}


def _correct(prediction: str, reference: str) -> bool:
    value, target = _number(prediction), _number(reference)
    if value is not None and target:
        return abs(value - target) / abs(target) <= TOLERANCE
    return normalize(prediction) == normalize(reference)


def _number(text: str) -> float | None:
    text = text.strip()
    try:
        value = float(text.rstrip("%")) / 100.0 if text.endswith("%") else float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None  # "nan" and "infinity" are words here
