"""F1 of extracted fields, by hand."""

import pytest

from omni_smola.errors import UserError
from omni_smola.metrics import due_f1
from omni_smola.metrics.groups import by_group


def scores(predictions: list[str], references: list[list[str]], **options) -> list[float]:
    result = due_f1(predictions, references, **options)
    assert list(result) == ["due_f1", "precision", "recall"]
    return list(result.values())


def test_counts_are_of_the_whole_split():
    # 2 of 3 predicted values are right, 2 of 4 expected ones found.
    predictions = ["WNYT", "2016-01-05", "7", "None"]
    references = [["WNYT"], ["2016-01-05"], ["8"], ["x"]]
    expected = [100 * 4 / 7, 100 * 2 / 3, 50]
    assert scores(predictions, references) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("prediction", "variants", "right"),
    [
        ("1200", ["$1,200", "1200"], True),
        ("$1,200", ["$1,200", "1200"], True),
        ("1,200", ["$1,200", "1200"], False),
        ("wnyt", ["WNYT"], True),
        (" wnyt\n", ["WNYT "], True),
        ("straße", ["STRASSE"], True),  # DUE compares upper case
        ("", ["WNYT"], False),
    ],
)
def test_variants_and_case(prediction, variants, right):
    assert scores([prediction], [variants]) == [100 * right] * 3


def test_case_can_count():
    assert scores(["wnyt"], [["WNYT"]], ignore_case=False) == [0, 0, 0]
    assert scores(["none", "a"], [["None"], ["a"]], ignore_case=False) == pytest.approx(
        [200 / 3, 50, 100]
    )


@pytest.mark.parametrize(
    ("prediction", "reference", "expected"),
    [
        ("None", "None", [100, 100, 100]),  # counts for nothing
        ("none", "None", [100, 100, 100]),
        ("7", "None", [200 / 3, 50, 100]),  # costs precision
        ("None", "7", [200 / 3, 100, 50]),  # costs recall
        ("8", "7", [50, 50, 50]),  # costs both
        ("", "None", [200 / 3, 50, 100]),  # an empty value is a value
    ],
)
def test_absent_fields(prediction, reference, expected):
    assert scores(["x", prediction], [["x"], [reference]]) == pytest.approx(expected)


def test_nothing_to_count_scores_0():
    assert scores(["None"], [["None"]]) == [0, 0, 0]


@pytest.mark.parametrize(
    ("prediction", "references", "expected"),
    [
        ("b|a", ["a|b"], [100, 100, 100]),
        ("a|a", ["a|b"], [50, 50, 50]),  # a value is found once
        ("a|a", ["a|a"], [100, 100, 100]),
        ("1|b", ["a|b", "1|2"], [100, 100, 100]),  # variants stand in the same place
        ("a", ["a|b|c"], [50, 100, 100 / 3]),
    ],
)
def test_several_values(prediction, references, expected):
    assert scores([prediction], [references]) == pytest.approx(expected)


def test_unequal_numbers_of_values_are_refused():
    with pytest.raises(UserError, match=r"references of \[1, 2\] values for example 1"):
        due_f1(["a", "a"], [["a"], ["a|b", "a"]])


def test_the_unit_test_of_due():
    """Of four values one differs in case, which counts there."""
    predictions = ["2017-02-24", "Ohio", "Lsi Industries Inc.|DEnnis W. Wells"]
    references = [["2017-02-24"], ["Ohio"], ["Dennis W. Wells|Lsi Industries Inc."]]
    assert scores(predictions, references, ignore_case=False) == [75, 75, 75]


def test_equals_accuracy_where_every_field_has_one_value():
    predictions, references = ["1", "0", "1"], [["1"], ["1"], ["1"]]
    assert due_f1(predictions, references)["due_f1"] == pytest.approx(200 / 3)


def test_by_field():
    result = by_group(due_f1, ["a", "b"], [["a"], ["c"]], ["advertiser", "flight_from"])
    assert result["due_f1/advertiser"] == 100 and result["due_f1/flight_from"] == 0
