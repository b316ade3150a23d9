"""The everyday English of the text pretraining: well-formed, varied, and written from key words."""

import re

import numpy as np

from omni_smola.data.builders.mini_suite import everyday, families


def _sentences(count: int) -> list[str]:
    rng = np.random.default_rng(3)
    return [everyday.sentence(rng) for _ in range(count)]


def test_sentences_are_plain_and_agree():
    for text in _sentences(4000):
        assert re.fullmatch(r"[A-Za-z -]+( \.)?", text), text
        assert "  " not in text and not text.startswith(" "), text
        assert 3 <= len(text.split()) <= 18, text
        assert text[0].isupper() == text.endswith(" ."), text
        assert not re.search(r"\b[Aa] [aeio]\w|\b[Aa]n [^aeiou]", text), text
        assert not re.search(r"\b(men|women|children|dogs|people) is\b", text), text


def test_sentences_hardly_repeat():
    texts = _sentences(4000)
    assert len(set(texts)) > 0.9 * len(texts)
    assert len({word.lower() for text in texts for word in text.split()}) > 330


def test_key_words_are_words_of_the_sentence():
    rng = np.random.default_rng(0)
    for text in _sentences(500):
        words = everyday.key_words(text, rng).split()
        assert words and set(words) <= set(text.lower().split())
        assert not {"a", "an", "the", "."} & set(words)


def test_pretraining_asks_to_write_them():
    asked = [families.example("pretrain_text", "train", i) for i in range(400)]
    written = [r for r in asked if r["question"].startswith("write: ")]
    assert 0.2 < len(written) / len(asked) < 0.4
    for record in written:
        target = record["references"][0].lower().split()
        assert set(record["question"].removeprefix("write: ").split()) <= set(target)
