"""CIDEr of captions that come split into words."""

import pytest

from omni_smola.metrics.cider import cider, cider_tokens

PREDICTIONS = ["一 只 狗 。", "two cats sit"]
REFERENCES = [["一 只 狗 。", "一 只 小 狗"], ["two cats sit", "cats on a mat"]]


def test_words_are_what_stands_between_spaces():
    """Where no mark is dropped and no case changed, as in PTB's rules, both are the same."""
    plain = [text.replace(" 。", "") for text in PREDICTIONS]
    references = [[text.replace(" 。", "") for text in texts] for texts in REFERENCES]
    assert cider_tokens(plain, references)["cider_tokens"] == cider(plain, references)["cider"]


def test_case_and_marks_count_as_given():
    perfect = cider_tokens([texts[0] for texts in REFERENCES], [t[:1] for t in REFERENCES])
    upper = cider_tokens(["一 只 狗 。", "Two cats sit"], [t[:1] for t in REFERENCES])
    assert perfect["cider_tokens"] > upper["cider_tokens"] > 0
    assert perfect["cider_tokens"] == pytest.approx(
        cider_tokens(PREDICTIONS, [t[:1] for t in REFERENCES])["cider_tokens"]
    )
