"""The shipped vocabulary: its layout, that it loses nothing, and that prompts stay short."""

import pytest

from omni_smola.data import make_vocabulary, vocabulary
from omni_smola.data.builders.mini_suite import families
from omni_smola.errors import UserError


@pytest.fixture(scope="module")
def shipped():
    return vocabulary.load()


def test_layout(shipped):
    pieces = shipped.tokenizer
    assert shipped.vocab_size == 3072
    assert (shipped.pad_id, shipped.eos_id, shipped.unk_id) == (0, 1, 2)
    assert pieces.bos_id() == -1
    assert vocabulary.SHIPPED.stat().st_size < 100_000
    for coordinate in make_vocabulary.COORDINATES:
        assert coordinate in pieces.encode(f"[{coordinate},0.000]", out_type=str)
    prompt = "Answer in en: which color is shown? (A) red"
    assert len(pieces.encode(prompt)) == len(prompt.split()) + 1  # whole words, and "?"
    assert pieces.encode("1932", out_type=str) == ["\u2581", "1", "9", "3", "2"]


@pytest.mark.parametrize("text", ["[0.125,0.250,0.500,0.750]", "Größe 7 ☃", "B", "no 475", "x{y}~"])
def test_round_trip(shipped, text):
    ids = shipped.encode(text)
    assert shipped.decode(ids) == text
    assert shipped.unk_id not in ids


def test_a_no_break_space_is_a_space(shipped):
    assert shipped.encode("a\u00a0cat") == shipped.encode("a cat")


@pytest.mark.parametrize("config", list(families.FAMILIES))
def test_texts_of_every_config_are_short_and_come_back(shipped, config):
    prompts, targets = (22, 16) if config != "pretrain_text" else (30, 24)
    for split in families.FAMILIES[config].sizes:
        for index in range(150):
            record = families.example(config, split, index)
            for text in make_vocabulary.texts_of(record, config):
                ids = shipped.encode(text)
                assert shipped.decode(ids) == text
                assert len(ids) + 1 <= prompts, text
            for text in record["references"]:
                assert len(shipped.encode(text)) + 1 <= targets, text


def test_tensorflow_and_python_agree(shipped):
    for config in families.FAMILIES:
        for text in make_vocabulary.texts_of(families.example(config, "train", 11), config):
            assert shipped.encode_tf(text).numpy().tolist() == shipped.encode(text)


def test_training_is_deterministic():
    texts = ["Answer in en: what is the year 1900?", "[0.125,0.250]", "hello world"] * 50
    first, second = (make_vocabulary.train(texts, size=316) for _ in range(2))
    assert first == second
    assert b".tsv" not in first  # the temporary file of the seeds leaves no trace


def test_the_corpus_is_of_train_splits_only(monkeypatch):
    splits = set()
    real = families.example

    def spy(config, split, index):
        splits.add((config, split))
        return real(config, split, index)

    monkeypatch.setattr(families, "example", spy)
    monkeypatch.setattr(make_vocabulary, "_EXAMPLES", 4)
    assert sum(1 for _ in make_vocabulary.corpus()) > 1000
    assert splits == {(config, "train") for config in families.FAMILIES if config != "pretrain_box"}


def test_mistakes_are_sentences(tmp_path):
    with pytest.raises(UserError, match=r"no vocabulary file '/nowhere/x[.]model'"):
        vocabulary.load("/nowhere/x.model")
    (tmp_path / "bad.model").write_bytes(b"not a model")
    with pytest.raises(UserError, match="is not a SentencePiece model"):
        vocabulary.load(tmp_path / "bad.model")
