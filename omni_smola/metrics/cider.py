"""CIDEr-D, the metric of captions."""

import math
import warnings
from collections import Counter
from collections.abc import Callable, Sequence

from omni_smola.metrics.inputs import check_inputs
from omni_smola.metrics.tokenizer import ptb_tokenize

MAX_N = 4
SIGMA = 6.0

# N-gram counts of one caption.
Ngrams = Counter[tuple[str, ...]]


def cider(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    tokenize: Callable[[str], list[str]] = ptb_tokenize,
) -> dict[str, float]:
    """Consensus of captions with human ones: cosine similarity of tf-idf n-grams, n = 1 to 4.

    Document frequencies come from the references given, one document an image, so scores of
    different splits cannot be compared and a split of one image scores 0. Source: Vedantam et al.
    (2015), with the clipping and length penalty of the COCO caption server, whose scores (at most
    10) papers report times 100.

    Args:
      predictions: n captions.
      references: n lists of at least one caption.
      tokenize: splits a caption into words. Captions that come tokenised (XM3600): `str.split`.

    Returns:
      `cider`, at least 0; 1000 where every caption equals all its references.

    Raises:
      UserError: see `check_inputs`.
    """
    check_inputs("cider", predictions, references)
    if len(predictions) == 1:
        warnings.warn("CIDEr of one image is 0 by definition: give the whole split.", stacklevel=2)
    hypotheses = [count_ngrams(tokenize(text)) for text in predictions]
    reference_sets = [[count_ngrams(tokenize(text)) for text in texts] for texts in references]
    idf = _Idf(reference_sets)
    scores = [
        sum(_similarity(hypothesis, reference, idf) for reference in refs) / len(refs)
        for hypothesis, refs in zip(hypotheses, reference_sets, strict=True)
    ]
    return {"cider": 1000.0 * sum(scores) / len(scores)}


def count_ngrams(words: Sequence[str]) -> Ngrams:
    """Counts the n-grams of n = 1 to 4 words."""
    return Counter(
        tuple(words[i : i + n]) for n in range(1, MAX_N + 1) for i in range(len(words) - n + 1)
    )


class _Idf:
    """Inverse document frequency of n-grams, a document being all references of one image."""

    def __init__(self, reference_sets: Sequence[Sequence[Ngrams]]):
        self._frequency = Counter(ngram for refs in reference_sets for ngram in set().union(*refs))
        self._log_documents = math.log(len(reference_sets))

    def weigh(self, counts: Ngrams) -> list[dict[tuple[str, ...], float]]:
        """Tf-idf weights of a caption, one dict for each n."""
        weights = [{} for _ in range(MAX_N)]
        for ngram, count in counts.items():
            idf = self._log_documents - math.log(max(1, self._frequency[ngram]))
            weights[len(ngram) - 1][ngram] = count * idf
        return weights


def _similarity(hypothesis: Ngrams, reference: Ngrams, idf: _Idf) -> float:
    """Similarity in [0, 1] of two captions: mean over n, less for unequal lengths."""
    total = 0.0
    for weights, target in zip(idf.weigh(hypothesis), idf.weigh(reference), strict=True):
        # Clipped at the reference, so that repeating a word gains nothing.
        dot = sum(min(w, target[g]) * target[g] for g, w in weights.items() if g in target)
        norm = math.hypot(*weights.values()) * math.hypot(*target.values())
        total += dot / norm if norm else 0.0
    # The server's "length" is the number of bigrams.
    gap = _bigrams(hypothesis) - _bigrams(reference)
    return total / MAX_N * math.exp(-(gap**2) / (2 * SIGMA**2))


def _bigrams(counts: Ngrams) -> int:
    return sum(count for ngram, count in counts.items() if len(ngram) == 2)


def cider_tokens(
    predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, float]:
    """CIDEr-D of captions that are split into words by spaces already, as XM3600 gives its own.

    PTB's rules mean nothing in most of its 36 languages. Predictions in languages without spaces
    must be split as the references are. Takes and raises what `cider` does.
    """
    check_inputs("cider_tokens", predictions, references)
    return {"cider_tokens": cider(predictions, references, str.split)["cider"]}
