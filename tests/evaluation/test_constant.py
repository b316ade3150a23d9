"""The best constant answer, by hand."""

import numpy as np
import pytest

from omni_smola.evaluation.constant import best_constant
from omni_smola.metrics import METRICS


def best(name, references):
    return best_constant(name, METRICS[name], references)


def test_the_most_frequent_answer():
    assert best("exact_match", [["red"], ["blue"], ["red"], ["green"]]) == ("red", 50)
    assert best("exact_match", [["b"], ["a"]]) == ("a", 50)  # of equal ones the first by letter


def test_the_metric_decides_and_not_the_count():
    # "yes" is in fewer references than "no", but many annotators say it.
    references = [["no"] * 4 + ["maybe"] * 6] * 2 + [["yes"] * 10] * 3
    assert best("vqa_accuracy", references).answer == "yes"
    # 100 is within 5% of all, though 96 is as frequent.
    charts = [["96"], ["96"], ["104"], ["104"], ["100"]]
    assert best("relaxed_accuracy", charts) == ("100", 100)


def test_a_caption_that_is_true_of_most_images():
    references = [
        ["a dog runs on grass", "a brown dog"],
        ["a dog runs on the beach"],
        ["a cat sleeps on a bed"],
        ["a dog sleeps on grass"],
    ]
    found = best("cider", references)
    texts = sorted(text for group in references for text in group)
    scores = {text: METRICS["cider"]([text] * 4, references)["cider"] for text in texts}
    assert found == (max(scores, key=scores.get), max(scores.values()))


@pytest.mark.parametrize(
    "name", ["bleu4", "rouge_l", "cider_tokens", "due_f1", "anls", "tallyqa_accuracy"]
)
def test_every_kind_of_metric_has_one(name):
    references = [["two red dogs run"], ["two red cats run"], ["two red dogs run"]]
    found = best(name, references)
    assert found.answer == "two red dogs run"
    scores = METRICS[name]([found.answer] * 3, references)
    assert found.score == next(iter(scores.values())) > 50


def test_boxes_have_a_middle_and_the_whole_image():
    around = [["[0.200,0.200,0.700,0.700]"], ["[0.300,0.300,0.800,0.800]"]] * 2
    middle = best("iou", around)
    assert middle == ("[0.250,0.250,0.750,0.750]", 100)
    large = [["[0.000,0.000,1.000,0.600]"], ["[0.000,0.400,1.000,1.000]"]]
    assert best("iou", large)[1] == 100


def test_an_answer_is_no_canonical_value():
    references = [["1,000\t1000.0"], ["1,000\t1000.0"], ["7"]]
    assert best("wtq", references).answer == "1,000"


def test_one_example_has_no_constant():
    assert best("exact_match", [["red"]]) is None


def test_a_large_set_costs_a_bounded_number_of_answers():
    rng = np.random.default_rng(0)
    references = [[str(int(n))] for n in rng.zipf(1.5, 4000)]
    scored = []

    def metric(predictions, references):
        scored.append(len(predictions))
        return METRICS["exact_match"](predictions, references)

    found = best_constant("exact_match", metric, references)
    assert found == ("1", pytest.approx(100 * np.mean([texts == ["1"] for texts in references])))
    assert scored == [500] * 20 + [4000] * 3
    assert best_constant("exact_match", metric, references) == found
