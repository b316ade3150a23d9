"""Instructions as WordPiece ids of one length."""

import json
import sys

import numpy as np
import pytest

from omni_smola.data import instruction
from omni_smola.errors import UserError

pytest.importorskip("tokenizers")

WORDS = (
    "[PAD] [UNK] [CLS] [SEP] [MASK] how many cat ##s cafe ? 中 国 ##y man Cat é ##fé caf".split()
)
PAD, UNK, CLS, SEP = range(4)


def write(folder, words=WORDS, **files):
    folder.mkdir(exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    for name, fields in files.items():
        (folder / f"{name}.json").write_text(json.dumps(fields))
    return folder


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "encoder")


def pieces(tokenizer, text):
    tokens, mask = tokenizer(np.array([text], object))
    return [WORDS[i] for i in tokens[0][mask[0]]][1:-1]


def test_a_batch_is_framed_and_padded(folder):
    tokens, mask = instruction.load(folder, 8)(np.array(["How many cats?", "", "cat"]))
    assert (tokens.dtype, mask.dtype) == (np.int32, bool)
    ids = {word: i for i, word in enumerate(WORDS)}
    how = [ids[word] for word in ("how", "many", "cat", "##s", "?")]
    want = [
        [CLS, *how, SEP, PAD],
        [CLS, SEP, *[PAD] * 6],
        [CLS, ids["cat"], SEP, *[PAD] * 5],
    ]
    np.testing.assert_array_equal(tokens, want)
    np.testing.assert_array_equal(mask, tokens != PAD)


def test_a_long_text_is_cut_and_keeps_its_end_mark(folder):
    tokens, mask = instruction.load(folder, 4)(["many " * 3, "many " * 2, "many"])
    many = WORDS.index("many")
    np.testing.assert_array_equal(
        tokens, [[CLS, many, many, SEP], [CLS, many, many, SEP], [CLS, many, SEP, PAD]]
    )
    assert mask.sum() == 11


def test_the_default_length_is_64_and_no_text_is_a_batch_too(folder):
    tokenizer = instruction.load(folder)
    assert tokenizer.length == 64
    tokens, mask = tokenizer(np.array([], object))
    assert tokens.shape == mask.shape == (0, 64)
    assert tokenizer(["cat " * 100])[1].sum() == 64


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("Café CAFE\u0301", ["cafe", "cafe"]),
        ("cat中国s", ["cat", "中", "国", "[UNK]"]),
        ("cat?cat", ["cat", "?", "cat"]),
        ("manyx", ["[UNK]"]),  # a word is known as a whole or not at all
        ("c\x00at\u200b\tcat\ufffd", ["cat", "cat"]),
    ],
)
def test_normalisation(folder, text, want):
    tokenizer = instruction.load(folder)
    assert pieces(tokenizer, text) == want
    assert pieces(tokenizer, text.encode()) == want  # as TensorFlow hands it out


def test_text_that_is_not_unicode_does_not_stop_a_run(folder):
    tokenizer = instruction.load(folder)
    assert pieces(tokenizer, b"cat\xff many") == ["cat", "many"]
    assert pieces(tokenizer, "cat \ud800 many") == ["cat", "?", "many"]


@pytest.mark.parametrize(
    ("options", "want"),
    [
        ({}, ["cat", "cafe"]),
        ({"do_lower_case": False}, ["Cat", "caf", "é"]),
        ({"strip_accents": False}, ["cat", "caf", "é"]),
        ({"do_lower_case": False, "strip_accents": True}, ["Cat", "cafe"]),
    ],
)
def test_options_of_a_folder(tmp_path, options, want):
    words = [word.replace("##fé", "##é") for word in WORDS]
    tokenizer = instruction.load(write(tmp_path / "encoder", words, tokenizer_config=options))
    assert [piece.replace("##fé", "é") for piece in pieces(tokenizer, "Cat café")] == want


def test_tokenizer_json_comes_first_and_its_own_lengths_do_not_count(folder, tmp_path):
    import tokenizers

    ready = tokenizers.Tokenizer(
        tokenizers.models.WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]")
    )
    ready.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()  # and no lower case
    ready.post_processor = tokenizers.processors.BertProcessing(("[SEP]", SEP), ("[CLS]", CLS))
    ready.enable_truncation(5)
    ready.enable_padding(length=128)
    ready.save(str(folder / "tokenizer.json"))
    tokenizer = instruction.load(folder, 16)
    assert tokenizer(["many"])[0].shape == (1, 16)
    assert pieces(tokenizer, "Cat cat cat cat cat") == ["Cat", *["cat"] * 4]


@pytest.mark.parametrize(("words", "told"), [(WORDS[4:], "lacks .PAD., .UNK., .CLS., .SEP.")])
def test_a_vocabulary_without_special_tokens(tmp_path, words, told):
    with pytest.raises(UserError, match=told):
        instruction.load(write(tmp_path / "encoder", words))


def test_a_tokenizer_json_of_another_kind_of_model(folder):
    import tokenizers

    vocabulary = {word: i for i, word in enumerate(WORDS)}
    tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]")).save(
        str(folder / "tokenizer.json")
    )
    with pytest.raises(UserError, match=r"tokenizer\.json .* does not give \[CLS\] \.\.\. \[SEP\]"):
        instruction.load(folder)


def test_more_ids_than_the_model_embeds(tmp_path):
    size = len(WORDS)
    folder = write(tmp_path / "encoder", config={"vocab_size": size})
    assert instruction.load(folder).vocab_size == size
    write(folder, config={"vocab_size": size - 1})
    with pytest.raises(UserError, match=f"gives {size} ids, .* embeds {size - 1}"):
        instruction.load(folder)


@pytest.mark.parametrize(("name", "data"), [("tokenizer.json", b"{}"), ("vocab.txt", b"\xff\xfe")])
def test_a_broken_file(folder, name, data):
    (folder / name).write_bytes(data)
    with pytest.raises(UserError, match=rf"{name} is not a tokenizer"):
        instruction.load(folder)


def test_options_that_are_not_json(folder):
    (folder / "tokenizer_config.json").write_text("{")
    with pytest.raises(UserError, match=r"tokenizer_config\.json is not JSON"):
        instruction.load(folder)


def test_what_is_missing(tmp_path, folder, monkeypatch):
    with pytest.raises(UserError, match=r"neither tokenizer\.json nor vocab\.txt"):
        instruction.load(tmp_path)
    with pytest.raises(UserError, match="length is 2; it must be 3 or more"):
        instruction.load(folder, 2)
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(UserError, match=r"pip install 'omni_smola\[minilm\]'"):
        instruction.load(folder)
