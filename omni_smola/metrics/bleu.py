"""BLEU, as the caption evaluators report it."""

import functools
import math
import operator
from collections.abc import Callable, Sequence

from omni_smola.metrics.cider import MAX_N, count_ngrams
from omni_smola.metrics.inputs import check_inputs
from omni_smola.metrics.tokenizer import ptb_tokenize

# Added by the COCO scorer, so that a split without a common 4-gram, or without words, has a score.
_TINY, _SMALL = 1e-15, 1e-9


def bleu4(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    tokenize: Callable[[str], list[str]] = ptb_tokenize,
) -> dict[str, float]:
    """BLEU of a whole split: geometric mean of its n-gram precisions, less if it is too short.

    An n-gram may match as often as it stands in one reference; the length to reach is that of the
    closest reference, of two equally close the shorter. Sources: Papineni et al. (2002), with the
    constants of the COCO caption scorer: no caption of fewer than four words gets far.

    Args:
      predictions: n captions.
      references: n lists of at least one caption.
      tokenize: splits a caption into words. Captions that come tokenised: `str.split`.

    Returns:
      `bleu4`, `bleu3`, `bleu2`, `bleu1`, for n-grams of up to so many words, in [0, 100].

    Raises:
      UserError: see `check_inputs`.
    """
    check_inputs("bleu4", predictions, references)
    matches, ngrams = [0] * MAX_N, [0] * MAX_N
    length = target_length = 0
    for prediction, texts in zip(predictions, references, strict=True):
        words, targets = tokenize(prediction), [tokenize(text) for text in texts]
        length += len(words)
        target_length += min((abs(len(t) - len(words)), len(t)) for t in targets)[1]
        allowed = functools.reduce(operator.or_, map(count_ngrams, targets))
        for ngram, count in (count_ngrams(words) & allowed).items():
            matches[len(ngram) - 1] += count
        for n in range(MAX_N):
            ngrams[n] += max(0, len(words) - n)
    ratio = (length + _TINY) / (target_length + _SMALL)
    brevity = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
    precisions = [(m + _TINY) / (g + _SMALL) for m, g in zip(matches, ngrams, strict=True)]
    return {
        f"bleu{n}": 100.0 * brevity * math.prod(precisions[:n]) ** (1 / n)
        for n in range(MAX_N, 0, -1)
    }
