"""ROUGE-L, as the caption evaluators report it."""

from collections.abc import Callable, Sequence

from omni_smola.metrics.inputs import check_inputs, mean_percent
from omni_smola.metrics.tokenizer import ptb_tokenize

BETA = 1.2


def rouge_l(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    tokenize: Callable[[str], list[str]] = ptb_tokenize,
) -> dict[str, float]:
    """Mean over examples of the F-measure of the longest common subsequence of words.

    Precision and recall are the best over the references, each for itself: they may come from two
    different ones. Sources: Lin (2004), with the beta and the maxima of the COCO caption scorer.

    Args:
      predictions: n captions.
      references: n lists of at least one caption.
      tokenize: splits a caption into words. Captions that come tokenised: `str.split`.

    Returns:
      `rouge_l`, in [0, 100].

    Raises:
      UserError: see `check_inputs`.
    """
    check_inputs("rouge_l", predictions, references)
    return {
        "rouge_l": mean_percent(
            [
                _f_measure(tokenize(prediction), [tokenize(text) for text in texts])
                for prediction, texts in zip(predictions, references, strict=True)
            ]
        )
    }


def _f_measure(words: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    # The scorer splits at each space, so that no words at all are one word, the empty one.
    words, references = words or [""], [reference or [""] for reference in references]
    common = [_common_subsequence(words, reference) for reference in references]
    precision = max(common) / len(words)
    recall = max(c / len(reference) for c, reference in zip(common, references, strict=True))
    if not precision:
        return 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def _common_subsequence(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(b) + 1)  # of the words of `a` so far with each beginning of `b`
    for word in a:
        before = row
        row = [0]
        for i, other in enumerate(b):
            row.append(before[i] + 1 if word == other else max(before[i + 1], row[i]))
    return row[-1]
