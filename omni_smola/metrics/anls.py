"""Average normalised Levenshtein similarity, the metric of document questions."""

from collections.abc import Sequence

import editdistance

from omni_smola.metrics.inputs import check_inputs, mean_percent

THRESHOLD = 0.5


def anls(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """Mean over examples of the best similarity to a reference; 0.5 and below count as 0.

    similarity = 1 - edit distance / length of the longer string. Both are in lower case, without
    blanks around and with one space in place of any run of white space. Source: Scene Text VQA
    (Biten et al., 2019), equation 1, whose distance must stay below 0.5, with texts prepared as in
    the package anls 0.0.2.

    Args:
      predictions: n strings.
      references: n lists of at least one string.

    Returns:
      `anls`, in [0, 100].

    Raises:
      UserError: see `check_inputs`.
    """
    check_inputs("anls", predictions, references)
    distances = [
        min(_distance(prediction, answer) for answer in answers)
        for prediction, answers in zip(predictions, references, strict=True)
    ]
    scores = [1.0 - distance if distance < THRESHOLD else 0.0 for distance in distances]
    return {"anls": mean_percent(scores)}


def anls_rrc(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """ANLS as the script released with InfographicVQA computes it.

    It keeps a similarity of exactly 0.5, and divides by the length that the longer string had
    before its white space was joined.

    Args:
      predictions: n strings.
      references: n lists of at least one string.

    Returns:
      `anls_rrc`, in [0, 100].

    Raises:
      UserError: see `check_inputs`.
    """
    check_inputs("anls_rrc", predictions, references)
    best = [
        1.0 - min(_distance(prediction, answer, whole=True) for answer in answers)
        for prediction, answers in zip(predictions, references, strict=True)
    ]
    return {"anls_rrc": mean_percent([score if score >= THRESHOLD else 0.0 for score in best])}


def _distance(prediction: str, answer: str, whole: bool = False) -> float:
    """Edit distance in [0, 1], or a little more; `whole` divides by the lengths as given."""
    texts = [" ".join(text.lower().split()) for text in (prediction, answer)]
    # The official scripts measure in upper case, in which a "ß" is two letters.
    length = max(len(text.upper()) for text in ((prediction, answer) if whole else texts))
    return editdistance.eval(*texts) / length if length else 0.0
