"""SentencePiece without TensorFlow: the ids and texts that SeqIO's class gives."""

import json
import shutil

import numpy as np
import pytest

from omni_smola.data import vocabulary
from omni_smola.data.tokenizer import SHIPPED, load_tokenizer
from omni_smola.errors import UserError

TEXTS = [
    "",
    " ",
    "Answer in en: What colour is the car?",
    "  two  spaces\tand a tab\nand a line ",
    "Zürich 25.07.2023, 東京 🚗 e\u0301 \u00a0 \ufb01",
    "<loc0012> </s> <pad> <unk> ▁",
    "a" * 300,
    "\x00\x7f",
]


def test_ids_and_texts_are_those_of_seqio():
    ours, theirs = load_tokenizer(), vocabulary.load()
    assert (ours.eos_id, ours.vocab_size) == (theirs.eos_id, theirs.vocab_size)
    for text in TEXTS:
        ids = ours.encode(text)
        assert ids == list(theirs.encode(text)), text
        assert ours.decode(ids) == theirs.decode(ids)
    rng = np.random.default_rng(0)
    for length in (0, 1, 5, 40):
        for _ in range(20):
            ids = [int(i) for i in rng.integers(0, ours.vocab_size + 30, length)]
            assert ours.decode(ids) == theirs.decode(ids), ids
    assert ours.decode([5, 1, 7]) == theirs.decode([5, 1, 7]) == ours.decode([5])


def test_a_folder_a_file_and_the_shipped_one(tmp_path):
    for name in ("spiece.model", "tokenizer.model"):
        folder = tmp_path / name.split(".")[0]
        folder.mkdir()
        shutil.copy(SHIPPED, folder / name)
        assert load_tokenizer(folder).encode("a car") == load_tokenizer().encode("a car")
        assert load_tokenizer(str(folder / name)).vocab_size == 3072
    added = [{"id": 1, "special": False}, {"id": 4000, "special": True}]
    (folder / "tokenizer.json").write_text(json.dumps({"added_tokens": added}))
    load_tokenizer.cache_clear()
    assert load_tokenizer(folder).vocab_size == 3072


def test_pieces_that_only_tokenizer_json_has_are_not_lost(tmp_path):
    shutil.copy(SHIPPED, tmp_path / "tokenizer.model")
    added = [{"id": 3072, "content": "<loc0000>", "special": False}]
    (tmp_path / "tokenizer.json").write_text(json.dumps({"added_tokens": added}))
    with pytest.raises(UserError, match=r"vocabulary\.load\('.*'\), where SeqIO is installed"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"added_tokens": [{}]}', '{"added_tokens": 3}'])
def test_a_damaged_tokenizer_json(tmp_path, text):
    shutil.copy(SHIPPED, tmp_path / "tokenizer.model")
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(UserError, match=r"is no tokenizer .*: copy it again"):
        load_tokenizer(tmp_path)


def test_what_is_no_tokenizer(tmp_path):
    with pytest.raises(UserError, match=r"no tokenizer at .*spiece\.model or tokenizer\.model"):
        load_tokenizer(tmp_path)
    with pytest.raises(UserError, match=r"no tokenizer at .*nowhere"):
        load_tokenizer(tmp_path / "nowhere")
    for content in (b"", b"\x80\x04K\x01.", SHIPPED.read_bytes()[:1000]):
        (tmp_path / "a.model").write_bytes(content)
        with pytest.raises(UserError, match="is not a SentencePiece model"):
            load_tokenizer(tmp_path / "a.model")
