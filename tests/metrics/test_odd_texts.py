"""Metrics on what models write, against the rules of the scorers that they name.

The rules are written anew here, from the description in each function's docstring. Where a package
holds the scorer itself, `third_party/official_scorers.py` runs it on the same texts.
"""

import json
import math
import re

import numpy as np
import pytest

from omni_smola import metrics
from omni_smola.metrics.wtq import normalize

from . import odd_texts

ITEMS = 2000


def as_float(text):
    """Pix2Struct: what `float` reads, or that of the text before its per cent signs, over 100."""
    percent = text[-1:] == "%"
    try:
        value = float(re.sub("%+$", "", text) if percent else text)
    except ValueError:
        return math.nan, False
    return (value / 100 if percent else value), True


def pix2struct(prediction, target):
    (value, one), (wanted, other) = as_float(prediction), as_float(target)
    if one and other and wanted != 0:
        return abs(value - wanted) / abs(wanted) <= 0.05
    return prediction.lower() == target.lower()


def qwen_vl(prediction, target):
    return pix2struct(prediction.strip(), target)


def qwen_vl_exact(prediction, target):
    return prediction.strip().lower() == target.strip().lower()


def big_vision_count(prediction, target):
    """TallyQA: number words up to twenty, in any case, become digits; then texts are compared."""
    words = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen
        fifteen sixteen seventeen eighteen nineteen twenty""".split()

    def digits(text):
        word = "zero" if text.lower() == "none" else text.lower()
        return str(words.index(word)) if word in words else text

    return digits(prediction) == digits(target)


def equal(prediction, target):
    """GQA's and A-OKVQA's scripts, letter for letter."""
    return prediction == target


def edits(a, b):
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]


def spaced(text):
    return " ".join(text.strip().lower().split())


def package_anls(prediction, target):
    a, b = spaced(prediction), spaced(target)
    length = max(len(a.upper()), len(b.upper()))
    distance = edits(a, b) / length if length else 0.0
    return 1 - distance if distance < 0.5 else 0.0


def rrc_anls(prediction, target):
    length = max(len(prediction.upper()), len(target.upper()))
    similarity = 1 - (edits(spaced(prediction), spaced(target)) / length if length else 0.0)
    return similarity if similarity >= 0.5 else 0.0


def verdicts(prediction, target):
    words = {"true": "yes", "1": "yes", "false": "no", "0": "no"}
    a, b = (text.strip().lower() for text in (prediction, target))
    return words.get(a, a) == words.get(b, b)


def denotation(prediction, target):
    """WikiTableQuestions, one item each: equal texts, numbers, or dates with xx for the unknown."""

    def value(text):
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if math.isfinite(number):
            return math.trunc(number) if abs(number - round(number)) < 1e-6 else number
        parts = text.lower().split("-")
        unknown = (("xx", "xxxx"), ("xx",), ("xx",))
        try:
            pairs = zip(parts, unknown, strict=True)
            year, month, day = (None if part in marks else int(part) for part, marks in pairs)
        except ValueError:
            return None
        if month is None and day is None:
            return year
        right = month in (None, *range(1, 13)) and day in (None, *range(1, 32))
        return (year, month, day) if right else None

    a, b = (text.replace("\\\\", "\\") for text in (prediction, target))
    if normalize(a) == normalize(b):
        return True
    a, b = value(a), value(b)
    if isinstance(a, tuple) or isinstance(b, tuple) or a is None or b is None:
        return a is not None and a == b
    return abs(a - b) < 1e-6


RULES = {
    "relaxed_accuracy": pix2struct,
    "relaxed_accuracy_stripped": qwen_vl,
    "exact_match": qwen_vl_exact,
    "tallyqa_accuracy": big_vision_count,
    "gqa_accuracy": equal,
    "yes_no_accuracy": verdicts,
    "wtq": denotation,
    "anls": package_anls,
    "anls_rrc": rrc_anls,
}
DRAWS = {
    "tallyqa_accuracy": lambda rng: odd_texts.framed(
        rng, odd_texts.pick(rng, ["two", "2", "None", "0", "zero", "TWO", "twenty", "20", "many"])
    ),
    "yes_no_accuracy": lambda rng: odd_texts.framed(
        rng, odd_texts.pick(rng, ["yes", "True", "1", "no", "FALSE", "0", "１", "maybe", ""])
    ),
}


def draws(name, references):
    rng = np.random.default_rng(0)
    for _ in range(ITEMS):
        plain = odd_texts.number if rng.integers(2) else odd_texts.text
        prediction, answers = odd_texts.answers(rng, DRAWS.get(name, plain), references)
        # A tab divides a reference of WikiTableQuestions, and no text of its tables has one.
        yield prediction, [text.replace("\t", " ") if name == "wtq" else text for text in answers]


@pytest.mark.parametrize("name", RULES)
def test_every_item_as_the_source_scores_it(name):
    expected, found = [], []
    for prediction, references in draws(name, 2):
        expected.append(100 * max(float(RULES[name](prediction, text)) for text in references))
        found.append(metrics.METRICS[name]([prediction], [references])[name])
    assert 5 < np.mean(expected) < 95, "a comparison in which all is alike shows nothing"
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_direct_answers_as_aokvqa_counts_them():
    for prediction, references in draws("", 10):
        expected = 100 * min(1.0, sum(equal(prediction, text) for text in references) / 3)
        found = metrics.direct_answer_accuracy([prediction], [references])
        assert found["direct_answer_accuracy"] == pytest.approx(expected)


def test_fields_as_due_counts_them():
    """DUE's F1 in upper case: a value is right where it is a variant of one not yet found."""
    rng = np.random.default_rng(0)
    predictions, references = [], []
    for _ in range(ITEMS):
        prediction, variants = odd_texts.answers(rng, odd_texts.text, 2)
        variants = ["5" if text.strip().upper() == "NONE" else text for text in variants]
        predictions.append("None" if rng.integers(5) == 0 else prediction)
        references.append(["None"] if rng.integers(5) == 0 else variants)
    right = predicted = expected = 0
    for prediction, variants in zip(predictions, references, strict=True):
        wanted = {text.upper().strip() for text in variants}
        predicted += prediction.upper().strip() != "NONE"
        expected += wanted != {"NONE"}
        right += prediction.upper().strip() in wanted - {"NONE"}
    scores = metrics.due_f1(predictions, references)
    assert scores["precision"] == pytest.approx(100 * right / predicted)
    assert scores["recall"] == pytest.approx(100 * right / expected)
    assert 5 < scores["due_f1"] < 95


def test_the_examples_of_pix2struct():
    predictions = ["abc", "abc", "Abc", "100%", "100%", "100%", "100%", "Don't"]
    targets = ["abc", "Abc", "abc", "96%", "94%", "0.96", "0.94", "Won't"]
    scores = metrics.relaxed_accuracy(predictions, [[text] for text in targets])
    assert scores == {"relaxed_accuracy": 62.5}  # its own test expects this


def test_answers_of_charts_lose_by_their_blanks(shared_dir):
    """ChartQA's labels as a model writes them: a blank costs nothing in a number, all in a word."""
    folder = shared_dir / "data/official/chartqa/test"
    labels = [
        record["label"]
        for name in ("human", "augmented")
        for record in json.loads((folder / f"test_{name}.json").read_text())
    ]
    rng = np.random.default_rng(0)
    ends = ["", "", "", *odd_texts.BLANKS, "nan", "%"]
    written = [label + odd_texts.pick(rng, ends) for label in labels]
    references = [[label] for label in labels]
    plain = metrics.relaxed_accuracy(written, references)["relaxed_accuracy"]
    stripped = metrics.relaxed_accuracy_stripped(written, references)["relaxed_accuracy_stripped"]
    pairs = list(zip(written, labels, strict=True))
    assert plain == pytest.approx(100 * np.mean([pix2struct(*pair) for pair in pairs]))
    assert stripped == pytest.approx(100 * np.mean([qwen_vl(*pair) for pair in pairs]))
    assert plain < stripped - 5
