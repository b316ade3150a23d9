"""Accuracy of GQA."""

from collections.abc import Sequence

from omni_smola.metrics.inputs import check_inputs, mean_percent
from omni_smola.metrics.vqa_accuracy import normalize


def gqa_accuracy(
    predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, float]:
    """Share of predictions that equal their answer letter for letter, as in the official script.

    Source: GQA (Hudson and Manning, 2019), whose answers are in lower case.

    Args:
      predictions: n strings.
      references: n lists of at least one string.

    Returns:
      `gqa_accuracy`, in [0, 100].

    Raises:
      UserError: see `check_inputs`.
    """
    check_inputs("gqa_accuracy", predictions, references)
    hits = [p in list(answers) for p, answers in zip(predictions, references, strict=True)]
    return {"gqa_accuracy": mean_percent(hits)}


def gqa_accuracy_lavis(
    predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, float]:
    """GQA accuracy as LAVIS computes it: both sides get the processing of the VQA script.

    Its release 1.0.2 still processes the prediction alone, so that no answer "t-shirt" can be met.

    Args:
      predictions: n strings.
      references: n lists of at least one string.

    Returns:
      `gqa_accuracy_lavis`, in [0, 100].

    Raises:
      UserError: see `check_inputs`.
    """
    check_inputs("gqa_accuracy_lavis", predictions, references)
    hits = [
        normalize(prediction) in map(normalize, answers)
        for prediction, answers in zip(predictions, references, strict=True)
    ]
    return {"gqa_accuracy_lavis": mean_percent(hits)}
