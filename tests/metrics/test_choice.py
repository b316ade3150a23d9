"""Choices in free text, against the rules of ScienceQA's and LLaVA's scripts."""

import re

import pytest

from omni_smola.metrics import choice_accuracy
from omni_smola.metrics.choice import chosen

LETTERS = "ABCDE"


def scienceqa(text: str) -> str:
    """As `run_gpt3.py` reads it: exactly one match of its pattern, whose last dot is anything."""
    found = re.findall(r"The answer is ([A-Z]).", text)
    return found[0] if len(found) == 1 else ""


def llava(text: str) -> str:
    """As `eval_science_qa.py` of LLaVA reads it: a letter alone, "B. ", or a statement."""
    text = text.replace("\n", ". ")
    if text.strip() in tuple(LETTERS):
        return text.strip()
    if len(text) >= 3 and text[0] in LETTERS and text[1:3] == ". ":
        return text[0]
    stated = re.search(r"The answer is ([A-E])\.", text) or re.search(
        r"The answer is ([A-E])", text
    )
    return stated[1] if stated else ""


# @ is the letter, ^ another one. Read as the scripts do: as either of them, where one reads it.
AS_OFFICIAL = """\
@| @ |@\\n|@. the cat|@. A cat
@. T-shirt|@. U.S. states|@. ^. elegans|@. Vitamin ^|@. x|@. m/s|@. I see it
The answer is @.|The answer is @|The answer is @!|The answer is @, because it is red
The answer is @ because it is red|The answer is @; it is|The answer is @: the cat|The answer is @?
The answer is @)|The answer is @ - it is red|The answer is @\\nBECAUSE: it is red|The answer is @"
Sample ^ is colder. So ^ is wrong. The answer is @.|(^) and (^) differ. The answer is @.
It has four legs. The answer is @.|A cat sits there. The answer is @.|I see it. The answer is @.
@. The answer is @.|The answer is @, because (^) is wrong.|The answer is @, not ^.
The answer is @.\\nThe cat is ^.|so: The answer is @ (the cat)|The answer is @. So the answer is @.
The cat|A cat is on the mat|I think so|It is red|Because of (|... |the dog^|not @|^@|Bee|@2|@ cat
The answer is not @.|The answer is either @ or ^.|The answer is both @ and ^.|the cat, (not @)"""
# Where we deviate: name -> what we read ("" for nothing) and the texts.
DEVIATIONS = {
    "two letters side by side are no answer": (
        "",
        "The answer is @ or ^.|The answer is @, ^|The answer is @ and ^.|The answer is @/^"
        "|The answer is @ & ^|@. ^|@. ^.",
    ),
    "an opening letter that contradicts the statement": ("", "^. The answer is @."),
    "a letter that begins a word is none": (
        "",
        "The answer is @lue.|The answer is @'s.|The answer is @-rays.|The answer is @2.",
    ),
    "choices listed line by line are no answer": ("", "@. the cat\\n^. the dog"),
    "brackets, stars and quotes": (
        "@",
        "(@)|[@]|**@**|@)|`@`|(@) the cat|@) the cat|**@.** the cat|The answer is (@).|(@"
        '|The answer is **@**.|The answer is "@".|The answer is: @',
    ),
    "other marks behind the letter": ("@", "@.|@:|@: the cat|@, because|@ - the cat|@!|@;"),
    "labels": ("@", "Option @|option @.|Answer: @|Answer: (@)|The correct answer is @|Choice @:"),
    "full-width forms": ("@", "@WIDE|（@）|The answer is @WIDE。"),
    "any case": ("@", "the answer is @.|THE ANSWER IS @.|so the answer is @"),
    "the same letter stated twice": ("@", "The answer is @. Yes. The answer is @."),
}


def made(templates: str) -> list[tuple[str, str]]:
    """(letter, text) of every template, separated by bars or lines, for every letter."""
    pairs = []
    for template in templates.replace("\n", "|").split("|"):
        for letter in LETTERS:
            wide = chr(ord(letter) + 0xFEE0)
            other = LETTERS[(LETTERS.index(letter) + 1) % 5]
            text = template.replace("\\n", "\n").replace("@WIDE", wide)
            pairs.append((letter, text.replace("@", letter).replace("^", other)))
    return pairs


def test_read_as_the_official_scripts_do():
    sentences = made(AS_OFFICIAL)
    assert len(sentences) > 200
    read = 0
    for letter, text in sentences:
        official = {scienceqa(text), llava(text)} - {""}
        assert chosen(text).upper() == (official.pop() if official else ""), text
        read += chosen(text) == letter.lower()
    assert read > 120


@pytest.mark.parametrize("name", DEVIATIONS)
def test_every_deviation_has_a_name(name):
    wanted, templates = DEVIATIONS[name]
    deviating = 0
    for letter, text in made(templates):
        assert chosen(text) == wanted.replace("@", letter).lower(), text
        deviating += chosen(text).upper() not in (scienceqa(text), llava(text)) or (
            scienceqa(text) != llava(text)
        )
    assert deviating


@pytest.mark.parametrize(
    "text",
    """(A) or (B)|A, B|A and B|both A and C|A B|A/B|A & B|(A)(B)|(A) (B)|A or B|A, B and C|a or b
    Neither A nor B|Options A and C|A) the cat B) the dog|(A) the cat, and (B) the dog|[A], [B]
    A. the cat. B. the dog|**A** and **B**|Ａ、Ｂ|A; B|The answer is both (A) and (C)|A - B|AB
    (B) or A because of it""".replace("\n", "|").split("|"),
)
def test_two_letters_are_no_answer_whichever_is_right(text):
    assert chosen(text.strip()) == ""
    for letter in LETTERS:
        assert choice_accuracy([text], [[letter]]) == {"choice_accuracy": 0}


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("A cat is on the mat", ""),
        ("a cat", ""),
        ("A", "a"),
        ("a.", "a"),
        ("(A) A cat", "a"),
        ("B. A cat", "b"),
        ("the answer is a cat", ""),
        ("The answer is A cat", "a"),  # as ScienceQA's script reads it
        ("I think B", ""),
        ("I", "i"),
        ("(C) I think so", "c"),
        ("A, a cat", "a"),
        ("В", ""),  # Cyrillic
        ("B\u3000", "b"),
        ("", ""),
        (" \t", ""),
        ("(B", "b"),
        ("(B) m/s", "b"),
        ("(B) x, y", "b"),
        ("B, e.g. this", "b"),
        ("(A) or (b)", ""),
        ("()", ""),
    ],
)
def test_articles_pronouns_and_other_scripts(text, letter):
    assert chosen(text) == letter


@pytest.mark.parametrize(
    ("prediction", "reference", "right"),
    [
        ("the cat", "the cat", True),
        (" The Cat\n", "the cat", True),
        ("the cat and the dog", "the cat", False),
        ("(B) the cat", "the cat", False),
        ("(B) the cat", "B", True),
        ("the cat", "B", False),
        ("B", "the cat", False),
    ],
)
def test_a_text_as_reference_is_met_by_the_text(prediction, reference, right):
    assert choice_accuracy([prediction], [[reference]])["choice_accuracy"] == 100 * right


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("A" + "\n" * 20_000 + "b", ""),
        ("the answer is" + " " * 20_000, ""),
        ("A, " * 5000, "a"),
        ("(" * 20_000, ""),
    ],
)
def test_long_texts(text, letter):
    assert chosen(text) == letter
