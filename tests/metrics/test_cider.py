"""CIDEr-D and its tokeniser, against the official scorer's numbers."""

import shutil

import numpy as np
import pytest

from omni_smola.errors import UserError
from omni_smola.metrics import cider, cider_tokens
from omni_smola.metrics.tokenizer import ptb_tokenize, stanford_tokenize

PREDICTIONS = [
    "A man rides a red bicycle down the street.",
    "two dogs are playing in the grass",
    "a a a a plate of food",
    "A cat isn't sleeping on the couch",
    "a sign that says stop",
    "people stand near the U.S. flag",
]
REFERENCES = [
    ["A man riding a red bicycle down a street.", "The cyclist rides his bike on the road!"],
    ["Two dogs are playing in the grass.", "A pair of dogs run on a lawn", "dogs play"],
    ["A plate of food on a wooden table.", "Some food, on a plate"],
    ["A cat that isn't asleep lies on the couch.", "the cat's on a sofa - it can't sleep"],
    ['A red "STOP" sign (old) at 10:30 p.m.', "a sign costs $3.50 on Sunset Blvd."],
    ["A group of people standing near a flag.", "people by the U.S. flag; it waves"],
]
# pycocoevalcap 1.2: PTBTokenizer (Java), then Cider, times 100.
OFFICIAL = 233.20897403279847


def test_equals_official_scorer():
    assert cider(PREDICTIONS, REFERENCES)["cider"] == pytest.approx(OFFICIAL, abs=1e-9)


def test_equals_official_class_on_random_captions():
    official = pytest.importorskip("pycocoevalcap.cider.cider").Cider()
    rng = np.random.default_rng(0)

    def caption() -> str:
        return " ".join(rng.choice(list("abcdefgh"), size=rng.integers(1, 12)))

    predictions = [caption() for _ in range(1000)]
    references = [[caption() for _ in range(rng.integers(1, 5))] for _ in range(1000)]
    expected, _ = official.compute_score(
        dict(enumerate(references)), {i: [text] for i, text in enumerate(predictions)}
    )
    assert cider(predictions, references, str.split)["cider"] == pytest.approx(
        100 * expected, abs=1e-9
    )
    tokens = cider_tokens(predictions, references)["cider_tokens"]
    assert tokens == pytest.approx(100 * expected, abs=1e-9)


def test_perfect_captions_score_1000_and_unrelated_ones_0():
    captions = ["a man rides a horse", "two dogs play ball outside", "the blue train is late"]
    assert cider(captions, [[text] for text in captions])["cider"] == pytest.approx(1000)
    assert cider(["x y z"] * 3, [[text] for text in captions])["cider"] == 0


def test_empty_caption_scores_0():
    assert cider(["", "a dog"], [["a cat"], ["a dog"]])["cider"] == pytest.approx(250)


def test_one_image_scores_0_and_warns():
    with pytest.warns(UserWarning, match="one image"):
        assert cider(["a dog"], [["a dog"]]) == {"cider": 0.0}


def test_image_without_captions_is_named():
    with pytest.raises(UserError, match="example 1"):
        cider(["a", "b"], [["a"], []])


# What PTBTokenizer 3.4.1 and the scorer's punctuation list leave of each text.
TOKENS = {
    "Two dogs, running!": "two dogs running",
    "The dog's ball isn't here": "the dog 's ball is n't here",
    "I cannot; she can’t": "i can not she ca n't",
    "a t-shirt and an X-ray - at 5 o'clock": "a t-shirt and an x-ray at 5 o'clock",
    "“quoted” and 'quoted' text (old)": "quoted and quoted text -lrb- old -rrb-",
    "Mr. Smith at 10 p.m. on Sunset Blvd.": "mr. smith at 10 p.m. on sunset blvd.",
    "$3.50 or 1,000 or 50% at 10:30": "$ 3.50 or 1,000 or 50 % at 10:30",
    "and/or AT&T... wait -- what?!": "and/or at&t wait what ?!",
    "The letter A.": "the letter a.",
    "a sign says no. the dog leaves": "a sign says no the dog leaves",
    "Ein süßer »Hund«": "ein süßer hund",
    "": "",
}


@pytest.mark.parametrize("text", TOKENS)
def test_tokens(text):
    assert " ".join(ptb_tokenize(text)) == TOKENS[text]


def test_stanford_tokenizer_agrees():
    pytest.importorskip("pycocoevalcap")
    if not shutil.which("java"):
        pytest.skip("needs a java command")
    texts = [text for text in TOKENS if text]
    # An ordinary caption follows each: at the end of a line, Java looks at the next one.
    lines = [line for text in texts for line in (text, "some people .")]
    assert [" ".join(tokens) for tokens in stanford_tokenize(lines)[::2]] == [
        TOKENS[text] for text in texts
    ]
