"""The other metrics, by hand-computed values, and what all metrics have in common."""

import builtins
import shutil

import pytest

from omni_smola import metrics
from omni_smola.errors import UserError
from omni_smola.metrics import METRICS, PRIMARY, anls, anls_rrc, exact_match, iou, relaxed_accuracy
from omni_smola.metrics.iou import box_iou, parse_box


@pytest.mark.parametrize("name", METRICS)
class TestEveryMetric:
    @pytest.mark.filterwarnings("ignore:CIDEr of one image")
    def test_primary_is_the_first_value_and_a_percentage(self, name):
        if name == "meteor" and not shutil.which("java"):
            pytest.skip("needs a java command")
        if name == "meteor":
            pytest.importorskip("pycocoevalcap")
        # LAVIS processes the prediction and not the answers.
        text = "dog" if name == "vqa_accuracy_lavis" else "[0.1, 0.1, 0.5, 0.5]"
        result = METRICS[name]([text], [[text] * 10])
        assert next(iter(result)) == PRIMARY[name]
        assert result[PRIMARY[name]] == (0 if name.startswith("cider") else pytest.approx(100))

    def test_refuses_unequal_lengths(self, name):
        with pytest.raises(UserError, match=f"{name} got 1 predictions for 2 examples"):
            METRICS[name](["a"], [["a"] * 10] * 2)

    def test_refuses_an_empty_split(self, name):
        with pytest.raises(UserError, match=f"{name} got no predictions"):
            METRICS[name]([], [])

    def test_refuses_a_bare_string_as_references(self, name):
        with pytest.raises(UserError, match="references of example 0"):
            METRICS[name](["a"], ["a"])

    def test_refuses_an_example_without_references(self, name):
        with pytest.raises(UserError, match="0 references for example 0"):
            METRICS[name](["a"], [[]])


@pytest.mark.parametrize("missing", ["package", "java"])
def test_meteor_says_what_it_needs(monkeypatch, missing):
    if missing == "java":
        pytest.importorskip("pycocoevalcap")
        monkeypatch.setenv("PATH", "")
    else:
        real = builtins.__import__

        def refuse(name, *args, **kwargs):
            if name.startswith("pycocoevalcap"):
                raise ImportError(f"no {name}")
            return real(name, *args, **kwargs)

        monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(
        UserError, match=f"meteor runs a Java program, and .*{missing}.* is missing"
    ):
        METRICS["meteor"](["a dog"], [["a dog"]])


def test_exact_match_strips_and_ignores_case_only():
    predictions = [" Yes ", "yes.", "12", "b"]
    references = [["yes"], ["yes"], ["twelve", "12"], ["a"]]
    assert exact_match(predictions, references) == {"exact_match": 50}


@pytest.mark.parametrize(
    ("prediction", "reference", "correct"),
    [
        ("105", "100", True),
        ("95", "100", True),
        ("105.1", "100", False),
        # Just at 5% the official division decides: 0.05000000000000005.
        ("-24.415", "-25.70", False),
        ("-105", "-100", True),
        ("12%", "0.12", True),
        ("12%", "12", False),
        ("12 %", "0.12", True),
        ("0", "0", True),
        ("0.0", "0", False),
        ("0.01", "0", False),
        ("Red", "red", True),
        ("Red", "red ", False),
        (" red", "red", False),
        ("red\n", "red", False),
        (" 5\t", "5", True),
        ("red", "blue", False),
        ("1,000", "1000", False),
        ("1,000", "1,000", True),
        ("1_000", "1000", True),
        ("+5", "5", True),
        ("-0", "0", False),
        ("٥", "5", True),
        ("５％", "0.05", False),
        ("5", "nan", False),
        ("nan", "nan", False),
        ("inf", "inf", False),
        ("5", "infinity", False),
        ("5", "-inf", False),
        ("12%%", "0.12", True),
        ("", "5", False),
        ("", "", True),
        ("%", "%", True),
    ],
)
def test_relaxed_accuracy(prediction, reference, correct):
    assert relaxed_accuracy([prediction], [[reference]])["relaxed_accuracy"] == 100 * correct


def test_relaxed_accuracy_stripped_strips_the_prediction_alone():
    predictions, references = [" Red\n", "red", "\u3000nan "], [["red"], ["red "], ["nan"]]
    scores = metrics.relaxed_accuracy_stripped(predictions, references)
    assert scores == {"relaxed_accuracy_stripped": pytest.approx(100 / 3)}


def test_relaxed_accuracy_takes_the_best_reference():
    assert relaxed_accuracy(["7"], [["red", "7.2"]])["relaxed_accuracy"] == 100


@pytest.mark.parametrize(
    ("prediction", "answers", "expected"),
    [
        ("Invoice", ["invoice"], 100),
        (" invoice ", ["invoice"], 100),
        ("invoise", ["invoice"], 100 * 6 / 7),
        ("invoise", ["bill", "invoice"], 100 * 6 / 7),
        ("abc", ["xyz"], 0),
        # A similarity of exactly one half does not count.
        ("ab", ["ax"], 0),
        ("abc", ["abx"], 100 * 2 / 3),
        ("", ["a"], 0),
        ("", [""], 100),
    ],
)
def test_anls(prediction, answers, expected):
    assert anls([prediction], [answers])["anls"] == pytest.approx(expected)


def test_anls_rrc_keeps_one_half():
    assert anls_rrc(["ab"], [["ax"]])["anls_rrc"] == 50


@pytest.mark.parametrize("metric", [anls, anls_rrc])
def test_anls_joins_white_space_of_any_kind(metric):
    for text in ("a  b", "\ta\u3000b\n", "A\x1cB"):
        assert list(metric([text], [["a b"]]).values()) == [100]
    # The official scripts measure in upper case: STRASSE has seven.
    assert anls(["strase"], [["straße"]])["anls"] == pytest.approx(100 * 6 / 7)
    assert anls_rrc(["  abcd  "], [["abcx"]])["anls_rrc"] == pytest.approx(100 * 7 / 8)


@pytest.mark.parametrize(
    ("text", "box"),
    [
        ("[0.125,0.250,0.500,0.750]", (0.125, 0.25, 0.5, 0.75)),
        (" [ .1 , 0.2,1 ,1. ] ", (0.1, 0.2, 1, 1)),
        ("0.1,0.2,0.3,0.4", (0.1, 0.2, 0.3, 0.4)),
        ("the box is [0.1,0.2,0.3,0.4].", (0.1, 0.2, 0.3, 0.4)),
        ("[-0.1,0,0.5,1.5]", (-0.1, 0, 0.5, 1.5)),
        ("box 2: [0.1,0.2,0.3,0.4], or [0,0,1,1]", (0.1, 0.2, 0.3, 0.4)),
        ("[0.1,0.2,0.3]", None),
        ("[0.1,0.2,0.3,0.4,0.5]", None),
        ("[0.1 0.2 0.3 0.4]", None),
        ("[1e-1,0.2,0.3,0.4]", None),
        ("[0.1,0.2,0.3,0.4px]", None),
        ("[0.1,0.2,0.3,0.4.5]", None),
        ("[[0.1,0.2],[0.3,0.4]]", None),
        ("[0.1,0.2,nan,0.4]", None),
        ("a red cube", None),
        ("", None),
    ],
)
def test_parse_box(text, box):
    assert parse_box(text) == box


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((0, 0, 1, 1), (0, 0, 1, 1), 1),
        ((0, 0, 1, 1), (0.5, 0, 1.5, 1), 1 / 3),
        ((0, 0, 1, 1), (0, 0, 1, 0.5), 0.5),
        ((0, 0, 1, 1), (1, 0, 2, 1), 0),
        ((0, 0, 1, 1), (2, 2, 3, 3), 0),
        ((1, 1, 0, 0), (0, 0, 1, 1), 0),
        ((0.5, 0.5, 0.5, 0.5), (0.5, 0.5, 0.5, 0.5), 0),
    ],
)
def test_box_iou(a, b, expected):
    assert box_iou(a, b) == pytest.approx(expected)
    assert box_iou(b, a) == pytest.approx(expected)


def test_iou_counts_boxes_above_one_half():
    truth = ["[0,0,1,1]"]
    predictions = ["[0,0,1,0.6]", "[0,0,1,0.5]", "nothing", "[0,0,1,1]"]
    result = iou(predictions, [truth] * 4)
    assert result == {"accuracy@0.5": 50, "mean_iou": pytest.approx(100 * 2.1 / 4)}


def test_iou_refuses_a_reference_that_is_no_box():
    with pytest.raises(UserError, match="'the red cube' of example 1"):
        iou(["[0,0,1,1]"] * 2, [["[0,0,1,1]"], ["the red cube"]])
