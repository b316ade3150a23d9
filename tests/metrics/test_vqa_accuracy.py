"""VQA accuracy: the official closed form and each quirk of the official processing."""

import json

import pytest

from omni_smola.errors import UserError
from omni_smola.metrics import (
    direct_answer_accuracy,
    vqa_accuracy,
    vqa_accuracy_evalai,
    vqa_accuracy_lavis,
)
from omni_smola.metrics.vqa_accuracy import normalize, normalize_evalai


def score(prediction: str, answers: list[str]) -> float:
    return vqa_accuracy([prediction], [answers])["vqa_accuracy"]


@pytest.mark.parametrize(
    ("matches", "expected"), [(0, 0), (1, 30), (2, 60), (3, 90), (4, 100), (7, 100), (10, 100)]
)
def test_score_of_n_matches_among_ten(matches, expected):
    answers = ["red"] * matches + [f"other {i}" for i in range(10 - matches)]
    assert score("red", answers) == pytest.approx(expected)
    assert vqa_accuracy_evalai(["red"], [answers])["vqa_accuracy_evalai"] == pytest.approx(expected)


def test_mean_over_questions():
    references = [["yes"] * 10, ["no"] * 10]
    assert vqa_accuracy(["yes", "yes"], references)["vqa_accuracy"] == pytest.approx(50)


def test_normalised_only_where_annotators_disagree():
    assert score("A dog.", ["dog"] * 10) == 0
    assert score("A dog.", ["dog"] * 9 + ["cat"]) == pytest.approx(100)
    # Line breaks and surrounding spaces are taken away in any case.
    assert score(" hot\ndog\t", ["hot dog"] * 10) == pytest.approx(100)


# Outputs of the official script for each input.
OFFICIAL = {
    "The Two dogs": "2 dogs",
    "none": "0",
    "ten": "10",
    "eleven": "eleven",
    "dont": "don't",
    "somebody'd": "somebodyd",
    "left-hand": "left hand",
    "left -hand": "left hand",
    "and/or": "and or",
    "red/blue, green": "red blue green",
    "3.50": "3.50",
    "3. 50": "3 50",
    "U.S.": "us",
    # A comma between digits deletes every mark, elsewhere it would leave a space.
    "1,000": "1000",
    "1,000 left-hand": "1000 lefthand",
    "it's": "it's",
    "what?": "what",
    "5:30": "5:30",
    "a": "",
    # Only the first 32 periods go.
    "." * 40 + "x": "." * 8 + "x",
    # What models write: other blanks, control and full-width characters, signs, other scripts.
    "\u3000the dog": "dog",
    "Two\x1cdogs": "2 dogs",
    "a\xa0an the": "",
    "dog\r\ncat": "dog cat",
    "a\u200bdog": "a\u200bdog",
    "red\x00dog": "red\x00dog",
    "ＤＯＧ": "ｄｏｇ",
    "１，０００": "１，０００",
    "١,٢٣": "١٢٣",
    "5% ": "5%",
    "+5": "5",
    "-0": "0",
    "−5": "−5",
    "1,\u200b000": "1 \u200b000",
    "ΣΚΎΛΟΣ": "σκύλος",
    "“the”": "“the”",
}


@pytest.mark.parametrize("text", OFFICIAL)
def test_official_processing(text):
    assert normalize(text) == OFFICIAL[text]


def test_evalai_processing_differs():
    assert normalize_evalai("Dog's, bone?") == "dog 's bone"
    assert normalize_evalai("1,000 left-hand") == "1000 left hand"
    # It also normalises where all annotators agree.
    result = vqa_accuracy_evalai(["The dog."], [["dog"] * 10])
    assert result["vqa_accuracy_evalai"] == pytest.approx(100)


def test_lavis_processes_answers_half():
    def score(prediction, answers):
        return vqa_accuracy_lavis([prediction], [answers])["vqa_accuracy_lavis"]

    assert score("The dog.", ["dog"] * 10) == pytest.approx(100)  # always normalised
    assert score("two", ["two"] * 10) == 0  # the answers are not
    assert score("red dog", ["red-dog"] * 9 + ["cat"]) == pytest.approx(100)
    assert score("red dog", ["red-dog"] * 10) == 0  # all agree
    assert score("dog", ["the dog"] * 9 + ["cat"]) == 0


def test_direct_answers_are_compared_as_they_are():
    answers = ["red"] * 2 + ["blue"] * 8
    assert direct_answer_accuracy(["red"], [answers]) == {
        "direct_answer_accuracy": pytest.approx(200 / 3)
    }
    assert direct_answer_accuracy(["Blue"], [answers])["direct_answer_accuracy"] == 0


def test_one_reference_is_refused_with_the_way_out():
    with pytest.raises(UserError, match="at least 4"):
        vqa_accuracy(["yes"], [["yes"]])


def test_majority_answer_of_official_records_scores_high(shared_dir):
    folder = shared_dir / "data/official/vqav2"
    records = json.loads((folder / "v2_mscoco_train2014_annotations.json").read_text())
    references = [[a["answer"] for a in r["answers"]] for r in records["annotations"]]
    majority = [r["multiple_choice_answer"] for r in records["annotations"]]
    # Computed with the official processing functions over the same records.
    assert vqa_accuracy(majority, references)["vqa_accuracy"] == pytest.approx(95.91370558375631)
