"""Screen2Words: summaries of the screens of RICO."""

import pytest

from omni_smola.errors import UserError

SUMMARIES = "screen2words/screen_summaries.csv"
CSV = """screenId,summary
9,display of a login page
300,"page with ""sign up"", and more"
9,login screen
21,a screen of no split here
9,page shows login, which is cut at its comma
300,sign up page
"""


@pytest.fixture
def screens(downloads):
    downloads.write(SUMMARIES, CSV)
    downloads.write("screen2words/split/train_screens.txt", "21\n")
    downloads.write("screen2words/split/dev_screens.txt", "300\n9\n")
    downloads.write("screen2words/split/test_screens.txt", "\n21\n")
    downloads.images(*(f"rico/combined/{screen}.jpg" for screen in (9, 21, 300, 4000)))
    downloads.write("rico/combined/9.json", {})
    return downloads


def test_all_summaries_of_the_listed_screens(screens, source, examples):
    found = examples("screen2words", "validation")
    assert [record["id"] for record in found] == ["300", "9"]
    assert found[0]["references"] == ['page with "sign up", and more', "sign up page"]
    assert found[1]["references"][:2] == ["display of a login page", "login screen"]
    assert found[1]["image"] == [(screens.folder / "rico/combined/9.jpg").read_bytes()]
    # Of all screens of RICO, only those of the lists.
    assert sorted(source("screen2words")._store.positions) == ["21", "300", "9"]


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ("4000,\n", "line 8, 'rows' 0: 'summary' is empty"),
        (",a summary of nothing\n", "line 8: 'screenId' is empty"),
    ],
)
def test_a_screen_without_summaries(screens, read, lines, sentence):
    screens.write("screen2words/split/dev_screens.txt", "300\n9\n4000\n")
    screens.write(SUMMARIES, CSV + lines)
    good, (told,) = read("screen2words", "validation")
    assert f"{SUMMARIES}, {sentence}" in told
    assert [example.id for example in good if example.references] == ["300", "9"]


def test_a_list_that_is_none(screens, read):
    screens.write("screen2words/split/dev_screens.txt", "300\nscreenId\n")
    with pytest.raises(
        UserError, match=r"dev_screens.txt, line 2: 'screenId' is no id of a screen"
    ):
        read("screen2words", "validation")


def test_a_row_that_is_not_utf8_is_told_or_left_out(screens, examples, capsys):
    screens.write(SUMMARIES, CSV.encode().replace(b"login screen", b"caf\xe9"))
    sentence = rf"{SUMMARIES}, line 2: 'caf\\udce9' is not UTF-8"
    with pytest.raises(UserError, match=sentence):
        examples("screen2words", "validation")
    assert [r["id"] for r in examples("screen2words", "validation", "skip")] == ["300"]
    assert "left out 1 bad records" in capsys.readouterr().err
