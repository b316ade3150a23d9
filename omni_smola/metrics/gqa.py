"""Accuracy of GQA."""

from collections.abc import Sequence

from omni_smola.metrics.inputs import matches
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
    return matches("gqa_accuracy", predictions, references, str)


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
    return matches("gqa_accuracy_lavis", predictions, references, normalize)
