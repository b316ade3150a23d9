"""WikiTableQuestions: every rule of the official evaluator, by hand and on official records."""

import csv

import pytest

from omni_smola.errors import UserError
from omni_smola.metrics import wtq
from omni_smola.metrics.wtq import normalize


def correct(prediction: str, *references: str) -> bool:
    return wtq([prediction], [references])["wtq"] == 100


# Equal to the official function on these and on 400,000 random strings.
NORMALIZED = {
    "São Tomé": "sao tome",
    "‘a’ `b` “c” d–e—f−g‑h": "'a' 'b' \"c\" d-e-f-g-h",
    "´": "",  # an acute accent alone decomposes to a space and a diacritic
    "ﬁne": "fine",
    "university of virginia†‡*": "university of virginia",
    "Paris[1][note 2]": "paris",
    "[12]": "",
    "[note]": "[note]",
    "a [b [c]": "a",
    "Smith (born 1950) (died 2000)": "smith",
    "(2000)": "(2000)",
    "f(x)": "f(x)",
    '"Hey Jude"': "hey jude",
    '"a" and "b"': '"a" and "b"',
    '"Song" (live)[3]*': "song",
    "Inc.": "inc",
    "wait..": "wait.",
    "No. (x).": "no. (x)",
    "  Two \n  Words ": "two words",
    "": "",
}


@pytest.mark.parametrize("text", NORMALIZED)
def test_official_normalisation(text):
    assert normalize(text) == NORMALIZED[text]


@pytest.mark.parametrize(
    ("prediction", "reference", "expected"),
    [
        ("Italy", "italy", True),
        ("Itali", "italy", False),
        # Numbers, where both texts are numbers to Python.
        ("5", "5.0", True),
        ("5e0", "5", True),
        ("5.0000009", "5", True),
        ("5.000002", "5", False),
        ("2.9999999", "3", False),  # within 1e-6, but the evaluator cuts it to 2
        ("1000", "1,000", False),
        ("1,000", "1,000", True),
        ("5 km", "5", False),
        ("nan", "nan", True),
        ("nan", "inf", False),
        ("9" * 400, "2.5", False),
        # Dates.
        ("1990-5-2", "1990-05-02", True),
        ("xx-05-02", "XXXX-5-2", True),
        ("xx-05-02", "1990-05-02", False),
        ("1990-05-xx", "1990-5-xx", True),
        ("1990-xx-xx", "1990", True),  # a year alone is a number
        ("1990-13-01", "1990-13-1", False),
        ("1990-12-32", "1990-12-032", False),
        ("xx-xx-xx", "xxxx-xx-xx", False),
        ("May 2, 1990", "1990-05-02", False),
        ("1990", "1990-05-02", False),
        # Sets of items.
        ("a|b", "b|a", True),
        ("a | b", "a|b", True),
        ("a", "a|b", False),
        ("a|b|c", "a|b", False),
        ("a|a|b", "a|b", True),
        ("5|5.0|x", "5|x", True),
        ("a, b", "a|b", False),
        ("x", "X (1)|x", True),
        # Escapes of the official tables.
        (r"a\pb", r"a\pb", True),
        (r"a\pb", "a|b", False),
        (r"a\nb", "a b", True),
        (r"a\\b", r"a\\b", True),
        ("", "a", False),
    ],
)
def test_rules(prediction, reference, expected):
    assert correct(prediction, reference) == expected


@pytest.mark.parametrize(
    ("prediction", "reference", "expected"),
    [
        ("100000", "100,000\t100000.0", True),
        ("100,000", "100,000\t100000.0", True),
        ("1990-05-02", "May 2, 1990\t1990-05-02", True),
        ("may 2, 1990", "May 2, 1990\t1990-05-02", True),
        ("2,000|1000", "1,000|2,000\t1000.0|2000.0", True),
        # What was tagged as a text stays the text.
        ("usa", "U.S.A.\tusa", False),
        # Two texts of one value are one item.
        ("3", "3|three\t3.0|3.0", True),
    ],
)
def test_canonical_values_after_a_tab(prediction, reference, expected):
    assert correct(prediction, reference) == expected


def test_the_best_reference_counts_as_a_whole():
    assert correct("b", "a", "b")
    assert not correct("a|d", "a|b", "c|d")


def test_canonical_values_must_be_as_many_as_items():
    with pytest.raises(UserError, match=r"2 items but 1 canonical values .* example 0"):
        wtq(["a"], [["a|b\ta"]])


def test_official_records(shared_dir):
    path = shared_dir / "data/official/wikitablequestions/tagged/data/pristine-unseen-tables.tagged"
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    texts = [row["targetValue"] for row in rows]
    canonical = [row["targetCanon"] for row in rows]
    tagged = [[f"{text}\t{canon}"] for text, canon in zip(texts, canonical, strict=True)]
    assert any("|" in text for text in texts)
    assert wtq(texts, tagged) == {"wtq": 100}
    assert wtq(canonical, tagged) == {"wtq": 100}
    # As the official functions score the canonical values without those of the references.
    assert wtq(canonical, [[text] for text in texts])["wtq"] == pytest.approx(91)
