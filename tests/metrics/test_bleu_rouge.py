"""BLEU and ROUGE-L, by hand and against the caption evaluators' own classes."""

import math

import numpy as np
import pytest

from omni_smola.metrics import bleu4, rouge_l


def random_captions(items: int, words: int, shortest: int):
    rng = np.random.default_rng(0)

    def caption() -> str:
        return " ".join(rng.choice([f"w{i}" for i in range(words)], rng.integers(shortest, 13)))

    predictions = [caption() for _ in range(items)]
    references = [[caption() for _ in range(rng.integers(1, 6))] for _ in range(items)]
    return predictions, references


@pytest.mark.parametrize(("words", "shortest"), [(4, 0), (8, 1), (8, 4), (400, 1)])
def test_equal_the_official_classes_on_random_captions(words, shortest):
    bleu = pytest.importorskip("pycocoevalcap.bleu.bleu")
    rouge = pytest.importorskip("pycocoevalcap.rouge.rouge")
    predictions, references = random_captions(1000, words, shortest)
    targets, results = dict(enumerate(references)), {i: [p] for i, p in enumerate(predictions)}
    expected, _ = bleu.Bleu(4).compute_score(targets, results, verbose=0)
    ours = bleu4(predictions, references, str.split)
    assert [ours[f"bleu{n}"] for n in (1, 2, 3, 4)] == pytest.approx(
        [100 * score for score in expected], abs=1e-9
    )
    expected, _ = rouge.Rouge().compute_score(targets, results)
    ours = rouge_l(predictions, references, str.split)
    assert ours["rouge_l"] == pytest.approx(100 * expected, abs=1e-9)


def test_bleu_by_hand():
    # Words 5 of 6, pairs 3 of 5, triples 1 of 4, fours 0 of 3.
    scores = bleu4(["the cat sat on the mat"], [["the cat is on the mat"]])
    assert list(scores) == ["bleu4", "bleu3", "bleu2", "bleu1"]
    assert scores["bleu1"] == pytest.approx(100 * 5 / 6)
    assert scores["bleu2"] == pytest.approx(100 * math.sqrt(5 / 6 * 3 / 5))
    assert scores["bleu3"] == pytest.approx(100 * (5 / 6 * 3 / 5 * 1 / 4) ** (1 / 3))
    assert 0 < scores["bleu4"] < 0.05


def test_bleu_clips_at_the_best_reference():
    # "a" may count twice, as often as in the second reference, and not three times.
    scores = bleu4(["a a a a"], [["a b c d", "a a b c"]])
    assert scores["bleu1"] == pytest.approx(50)


@pytest.mark.parametrize(
    ("prediction", "references", "expected"),
    [
        ("a b c", ["a b c d"], math.exp(1 - 4 / 3)),
        ("a b c d", ["a b c"], 3 / 4),
        # The closest reference sets the length, the shorter of two equally close ones.
        ("a b c", ["a b c d", "a b x y z u"], math.exp(1 - 4 / 3)),
        ("a b c", ["a b c d", "a b"], 1),
    ],
)
def test_bleu_of_short_and_long_captions(prediction, references, expected):
    assert bleu4([prediction], [references])["bleu1"] == pytest.approx(100 * expected)


def test_bleu_is_of_the_whole_split():
    # Four words of five, where the mean over captions would be 5/6.
    scores = bleu4(["a b", "c d x"], [["a b"], ["c d y"]])
    assert scores["bleu1"] == pytest.approx(80)


def test_bleu_of_fewer_than_four_words_is_the_official_one():
    # No n-grams of four words: the scorer's 1e-15 over its 1e-9.
    assert bleu4(["a b c"], [["a b c"]])["bleu4"] == pytest.approx(100 * 1e-6**0.25)
    assert bleu4(["", ""], [["a b"], ["c"]])["bleu4"] == 0


def test_words_are_those_of_cider():
    texts = ["A man, riding: a horse!"], [["a man riding a horse."]]
    assert bleu4(*texts)["bleu4"] == pytest.approx(100)
    assert rouge_l(*texts)["rouge_l"] == pytest.approx(100)


@pytest.mark.parametrize(
    ("prediction", "references", "precision", "recall"),
    [
        ("the cat sat on the mat", ["the cat is on the mat"], 5 / 6, 5 / 6),
        ("a b c d", ["d c b a"], 1 / 4, 1 / 4),
        ("a b", ["a x b y"], 1, 1 / 2),
        # Precision of the first reference, recall of the second.
        ("a b c d", ["a b c x y z u v", "a"], 3 / 4, 1),
    ],
)
def test_rouge_by_hand(prediction, references, precision, recall):
    expected = (1 + 1.44) * precision * recall / (recall + 1.44 * precision)
    assert rouge_l([prediction], [references])["rouge_l"] == pytest.approx(100 * expected)


def test_rouge_is_a_mean_and_no_words_are_the_empty_word():
    assert rouge_l(["a", "b"], [["a"], ["c"]])["rouge_l"] == pytest.approx(50)
    assert rouge_l(["", "", "a"], [["a"], ["."], [""]])["rouge_l"] == pytest.approx(100 / 3)
