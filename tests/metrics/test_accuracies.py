"""GQA, TallyQA, multiple choice and ScienceQA, statements; scores by group; means of a suite."""

import json

import pytest

from omni_smola.errors import UserError
from omni_smola.metrics import (
    choice_accuracy,
    cider,
    exact_match,
    gqa_accuracy,
    gqa_accuracy_lavis,
    iou,
    relaxed_accuracy,
    tallyqa_accuracy,
    yes_no_accuracy,
)
from omni_smola.metrics.groups import by_group
from omni_smola.metrics.scienceqa import scienceqa_groups


def right(metric, prediction: str, answer: str) -> bool:
    return next(iter(metric([prediction], [[answer]]).values())) == 100


@pytest.mark.parametrize(
    ("prediction", "answer", "official", "lavis"),
    [
        ("picture", "picture", True, True),
        ("Picture", "picture", False, True),
        ("picture ", "picture", False, True),
        ("a picture.", "picture", False, True),
        ("two", "2", False, True),
        ("t-shirt", "t-shirt", True, True),
        ("t shirt", "t-shirt", False, True),
        ("photo", "picture", False, False),
    ],
)
def test_gqa(prediction, answer, official, lavis):
    assert right(gqa_accuracy, prediction, answer) == official
    assert right(gqa_accuracy_lavis, prediction, answer) == lavis


def test_gqa_on_official_records(shared_dir):
    path = shared_dir / "data/official/gqa/testdev_balanced_questions.json"
    answers = [question["answer"] for question in json.loads(path.read_text()).values()]
    assert gqa_accuracy(answers, [[answer] for answer in answers]) == {"gqa_accuracy": 100}


@pytest.mark.parametrize(
    ("prediction", "answer", "expected"),
    [
        ("2", "2", True),
        ("two", "2", True),
        ("Two", "2", True),
        (" two ", "2", False),  # big_vision strips nothing
        ("Many", "many", False),
        ("none", "0", True),
        ("zero", "0", True),
        ("twenty", "20", True),
        ("twenty one", "21", False),
        ("2.0", "2", False),
        ("12", "2", False),
        ("a", "1", False),
        ("2", "two", True),
    ],
)
def test_tallyqa(prediction, answer, expected):
    assert right(tallyqa_accuracy, prediction, answer) == expected


def test_tallyqa_simple_and_complex_apart():
    predictions, references = ["one", "2", "3", "4"], [["1"], ["2"], ["0"], ["4"]]
    groups = ["simple", "simple", "complex", ""]
    assert tallyqa_accuracy(predictions, references, groups) == {
        "tallyqa_accuracy": 75,
        "tallyqa_accuracy/complex": 0,
        "tallyqa_accuracy/simple": 100,
    }


@pytest.mark.parametrize(
    ("prediction", "answer", "expected"),
    [
        ("B", "B", True),
        ("b", "B", True),
        ("(B)", "B", True),
        ("(B) the cat", "B", True),
        ("B. the cat", "B", True),
        ("B: the cat", "B", True),
        ("The answer is B.", "B", True),
        ("Because ... the answer is (b)", "B", True),
        ("The answer is B. The answer is C.", "B", False),
        ("C. The answer is B.", "B", False),
        ("A", "B", False),
        ("a cat", "A", False),
        ("the answer is a cat", "A", False),
        ("", "B", False),
        ("the cat", "the cat", True),
        ("The Cat ", "the cat", True),
        ("B", "the cat", False),
    ],
)
def test_choice(prediction, answer, expected):
    assert right(choice_accuracy, prediction, answer) == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (("natural science", "", "image.png", "grade2"), "NAT IMG G1-6"),
        (("social science", "A hint.", None, "grade7"), "SOC TXT G7-12"),
        (("language science", "", None, "grade12"), "LAN NO G7-12"),
        (("natural science", "A hint.", "image.png", "grade6"), "NAT TXT IMG G1-6"),
        (("history", "", "", "kindergarten"), "NO"),
    ],
)
def test_scienceqa_groups(fields, expected):
    assert scienceqa_groups(*fields) == expected


def test_scienceqa_categories_of_official_records(shared_dir):
    path = shared_dir / "data/official/scienceqa/problems.json"
    problems = list(json.loads(path.read_text()).values())
    fields = ("subject", "hint", "image", "grade")
    groups = [scienceqa_groups(*(p[field] for field in fields)) for p in problems]
    references = [["ABCDE"[p["answer"]]] for p in problems]
    scores = choice_accuracy(["A"] * len(problems), references, groups)

    def share_of_first(keep) -> float:
        answers = [p["answer"] for p in problems if keep(p)]
        return pytest.approx(100 * answers.count(0) / len(answers))

    assert scores["choice_accuracy"] == share_of_first(lambda p: True)
    assert scores["choice_accuracy/NAT"] == share_of_first(
        lambda p: p["subject"] == "natural science"
    )
    assert scores["choice_accuracy/TXT"] == share_of_first(lambda p: p["hint"])
    assert scores["choice_accuracy/IMG"] == share_of_first(lambda p: p["image"])
    assert scores["choice_accuracy/NO"] == share_of_first(
        lambda p: not p["hint"] and not p["image"]
    )
    low = [f"grade{i}" for i in range(1, 7)]
    assert scores["choice_accuracy/G1-6"] == share_of_first(lambda p: p["grade"] in low)
    assert len(scores) == 9


@pytest.mark.parametrize(
    ("prediction", "answer", "expected"),
    [
        ("yes", "1", True),
        ("True", "yes", True),
        ("no", "0", True),
        ("false ", "no", True),
        ("yes", "0", False),
        ("yes, it is", "1", False),
        ("maybe", "1", False),
        ("maybe", "maybe", True),
    ],
)
def test_yes_no(prediction, answer, expected):
    assert right(yes_no_accuracy, prediction, answer) == expected


def test_yes_no_on_official_records(shared_dir):
    path = shared_dir / "data/official/vsr/data/splits/random/test.jsonl"
    labels = [json.loads(line)["label"] for line in path.read_text().splitlines()]
    references = [[str(label)] for label in labels]
    result = yes_no_accuracy(["Yes"] * len(labels), references)
    assert result["yes_no_accuracy"] == pytest.approx(100 * sum(labels) / len(labels))


class TestByGroup:
    def test_without_groups_is_the_metric(self):
        assert by_group(exact_match, ["a"], [["a"]], None) == {"exact_match": 100}

    def test_halves_of_any_metric(self):
        result = by_group(
            relaxed_accuracy, ["7", "8", "9"], [["7"], ["8"], ["1"]], ["human", "x", "human"]
        )
        assert result == {
            "relaxed_accuracy": pytest.approx(200 / 3),
            "relaxed_accuracy/human": 50,
            "relaxed_accuracy/x": 100,
        }

    def test_first_value_of_a_metric_with_several(self):
        result = by_group(iou, ["[0,0,1,1]"], [["[0,0,1,1]"]], ["large"])
        assert list(result) == ["accuracy@0.5", "mean_iou", "accuracy@0.5/large"]

    def test_a_group_is_a_split_of_its_own(self):
        captions = ["a man rides", "two dogs play", "a red bus"]
        references = [["a man rides"], ["dogs"], ["a red bus"]]
        part = cider(captions[::2], references[::2])["cider"]
        result = by_group(cider, captions, references, ["in", "", "in"])
        assert result["cider/in"] == part

    def test_an_example_of_several_groups_counts_once_in_each(self):
        result = by_group(exact_match, ["a", "b"], [["a"], ["c"]], ["x y y", "x"])
        assert result["exact_match/x"] == 50 and result["exact_match/y"] == 100

    @pytest.mark.parametrize("groups", [["x"], "xy"])
    def test_refuses_another_number_of_groups(self, groups):
        with pytest.raises(UserError, match="one string for each of 2 examples"):
            by_group(exact_match, ["a", "b"], [["a"], ["b"]], groups)
