"""Exact match."""

from collections.abc import Sequence

from omni_smola.metrics.inputs import matches


def normalize(text: str) -> str:
    """The only normalisation of exact match: no spaces around, lower case."""
    return text.strip().lower()


def exact_match(
    predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, float]:
    """Share of predictions that equal one of their references, both stripped and lower-cased.

    Nothing else is done: "yes." is not "yes", and "1,000" is not "1000". This is the exact match of
    Qwen-VL's evaluation.

    Args:
      predictions: n strings.
      references: n lists of at least one string.

    Returns:
      `exact_match`, in [0, 100].

    Raises:
      UserError: see `check_inputs`.
    """
    return matches("exact_match", predictions, references, normalize)
