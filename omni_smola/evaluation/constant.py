"""What the best constant answer would score: the floor that a model has to beat.

A model that answers "yes" to every question, or "a man in a blue shirt" to every photo, has learned
nothing of the images, and still scores.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

Metric = Callable[[Sequence[str], Sequence[Sequence[str]]], Mapping[str, float]]

_CAPTIONS = frozenset({"cider", "cider_tokens", "bleu4", "rouge_l", "meteor"})
_COUNT = {"meteor": 3}  # candidates tried, where that takes a Java program each
_MOST_FREQUENT = 20
_MOST_TYPICAL = 10
# Where there are more examples, candidates are first scored on so many, and only the best on all.
_SAMPLE = 500
_FINALISTS = 3
_RANKED = 2000  # examples whose captions are candidates


class Constant(NamedTuple):
    """An answer and what it scores, as the metric's first value."""

    answer: str
    score: float


def best_constant(
    name: str, metric: Metric, references: Sequence[Sequence[str]]
) -> Constant | None:
    """The best of a few answers that are given to every example; the same at every call.

    Candidates are the 20 most frequent references; for captions the 10 references that share most
    with those of other images; for boxes also the mean and the median box and the whole image. Of
    more than 500 examples, 500 evenly spaced ones choose the three candidates that are scored on
    all: the true best may be a little better.

    Args:
      name: of the metric, a key of `omni_smola.metrics.METRICS`.
      metric: predictions and references -> values, of which the first counts.
      references: of each example.

    Returns:
      The answer and its score on all examples; None for fewer than two examples.
    """
    if len(references) < 2:
        return None
    candidates = _candidates(name, references)[: _COUNT.get(name)]

    def scored(candidates: list[str], references: Sequence[Sequence[str]]) -> list[Constant]:
        n = len(references)
        values = [metric([answer] * n, references) for answer in candidates]
        found = [
            Constant(answer, float(next(iter(value.values()))))
            for answer, value in zip(candidates, values, strict=True)
        ]
        return sorted(found, key=lambda each: -each.score)  # stable: the likelier one first

    if len(references) > _SAMPLE and len(candidates) > _FINALISTS:
        some = scored(candidates, _spaced(references, _SAMPLE))
        candidates = [each.answer for each in some[:_FINALISTS]]
    return scored(candidates, references)[0]


def _candidates(name: str, references: Sequence[Sequence[str]]) -> list[str]:
    if name in _CAPTIONS:
        return _typical(name, _spaced(references, _RANKED))
    counts = Counter(text for texts in references for text in texts)
    if name == "wtq":  # what follows a tab is not part of an answer
        counts = Counter(text.partition("\t")[0] for text in counts.elements())
    frequent = sorted(counts, key=lambda text: (-counts[text], text))[:_MOST_FREQUENT]
    return [*_boxes(references), *frequent] if name == "iou" else frequent


def _typical(name: str, references: Sequence[Sequence[str]]) -> list[str]:
    """The captions whose n-grams, weighted as CIDEr weighs them, are most in other images' ones."""
    from omni_smola.metrics.cider import count_ngrams
    from omni_smola.metrics.tokenizer import ptb_tokenize

    tokenize = str.split if name == "cider_tokens" else ptb_tokenize
    ngrams = {text: set(count_ngrams(tokenize(text))) for texts in references for text in texts}
    images = Counter(
        ngram for texts in references for ngram in set().union(*(ngrams[text] for text in texts))
    )

    def typical(text: str) -> float:
        weights = {ngram: math.log(len(references) / images[ngram]) for ngram in ngrams[text]}
        shared = sum(weight**2 * images[ngram] for ngram, weight in weights.items())
        return shared / (math.hypot(*weights.values()) or 1.0)

    return sorted(ngrams, key=lambda text: (-typical(text), text))[:_MOST_TYPICAL]


def _boxes(references: Sequence[Sequence[str]]) -> list[str]:
    from omni_smola.metrics.iou import parse_box

    boxes = np.array([parse_box(texts[0]) for texts in references])
    whole = [0.0, 0.0, *np.maximum(1.0, boxes.max(axis=0)[2:])]
    kinds = (np.median(boxes, axis=0), boxes.mean(axis=0), whole)
    return [f"[{','.join(f'{side:.3f}' for side in box)}]" for box in kinds]


def _spaced(items: Sequence[Sequence[str]], count: int) -> list[Sequence[str]]:
    """At most so many of the items, evenly spaced."""
    places = np.linspace(0, len(items) - 1, min(count, len(items))).astype(int)
    return [items[place] for place in places]
