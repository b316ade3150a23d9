"""SentencePiece without TensorFlow: the ids and texts that SeqIO's class gives."""

import json
import shutil

import numpy as np
import pytest
from sentencepiece import sentencepiece_model_pb2

from omni_smola.data import vocabulary
from omni_smola.data.tokenizer import load_tokenizer
from omni_smola.data.vocabulary import SHIPPED
from omni_smola.data.vocabulary.segments import Segments
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
    added = [{"id": 1, "content": "</s>", "special": True}]
    (folder / "tokenizer.json").write_text(json.dumps({"added_tokens": added}))
    assert load_tokenizer(folder).vocab_size == 3072


LOC = {"<loc0000>": 3072, "<loc0001>": 3073}
SPECIAL = {"3072": {"content": "<|im_start|>", "special": True}}
IN_OTHER_FILES = {
    "added_tokens.json": ("added_tokens", LOC),
    "tokenizer_config.json": ("tokenizer_config", {"added_tokens_decoder": SPECIAL}),
}


@pytest.mark.parametrize(("name", "fields"), IN_OTHER_FILES.values(), ids=IN_OTHER_FILES)
def test_added_tokens_are_those_of_the_pipeline(tmp_path, name, fields):
    shutil.copy(SHIPPED, tmp_path / "tokenizer.model")
    (tmp_path / f"{name}.json").write_text(json.dumps(fields))
    ours, theirs = load_tokenizer(tmp_path), vocabulary.load(tmp_path)
    assert ours.vocab_size == theirs.vocab_size > 3072
    for text in (*TEXTS, "a <loc0000><loc0001> b", "<|im_start|>user", "é<loc0000>"):
        ids = ours.encode(text)
        assert ids == list(theirs.encode(text)) and ours.decode(ids) == theirs.decode(ids)
    assert (3072 in ours.encode("a <loc0000>")) == (name == "added_tokens")
    assert Segments(ours).specials == Segments(theirs).specials
    assert set(fields.get("added_tokens_decoder", LOC)) and 3072 in Segments(ours).specials.values()


def test_a_tokenizer_json_is_read(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581a", -1.0), ("b", -1.0)]
    model = tokenizers.Tokenizer(tokenizers.models.Unigram(pieces, unk_id=2))
    model.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    model.decoder = tokenizers.decoders.Metaspace()
    model.add_special_tokens(["<pad>", "</s>", "<unk>"])
    model.save(str(tmp_path / "tokenizer.json"))
    settings = {"eos_token": "</s>", "pad_token": "<pad>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    ours, theirs = load_tokenizer(tmp_path), vocabulary.load(tmp_path)
    assert ours.encode("ab a") == theirs.encode("ab a") == [3, 4, 3]
    assert ours.decode([3, 4, 3, 1, 3]) == theirs.decode([3, 4, 3, 1, 3]) == "ab a"
    assert (ours.eos_id, ours.vocab_size) == (theirs.eos_id, theirs.vocab_size) == (1, 5)
    assert load_tokenizer(tmp_path / "tokenizer.json") == ours


def test_files_that_contradict_each_other_are_refused(tmp_path):
    shutil.copy(SHIPPED, tmp_path / "tokenizer.model")
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<loc0000>": 5}))
    with pytest.raises(UserError, match="contradicts itself"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not JSON .*: copy it again"),
        ("{", "is not JSON .*: copy it again"),
        ("[]", "is not a JSON object: copy it again"),
        ('{"added_tokens": [{}]}', "which no tokenizer writes: copy the file again"),
        ('{"added_tokens": 3}', "which no tokenizer writes: copy the file again"),
    ],
)
def test_a_damaged_tokenizer_json(tmp_path, text, said):
    shutil.copy(SHIPPED, tmp_path / "tokenizer.model")
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(UserError, match=said):
        load_tokenizer(tmp_path)


def test_what_is_no_tokenizer(tmp_path):
    with pytest.raises(UserError, match=r"has no tokenizer: .*spiece\.model or tokenizer\.model"):
        load_tokenizer(tmp_path)
    with pytest.raises(UserError, match=r"no vocabulary file '.*nowhere'"):
        load_tokenizer(tmp_path / "nowhere")
    for content in (b"", b"\x80\x04K\x01.", SHIPPED.read_bytes()[:1000]):
        (tmp_path / "a.model").write_bytes(content)
        with pytest.raises(UserError, match="is not a SentencePiece model"):
            load_tokenizer(tmp_path / "a.model")


@pytest.mark.parametrize("piece", [b"", b"\0sion", b"f\xefod"], ids=["empty", "zero byte", "bytes"])
def test_pieces_that_are_no_text_are_refused(tmp_path, piece):
    """SentencePiece ends the process at the first two."""
    proto = sentencepiece_model_pb2.ModelProto.FromString(SHIPPED.read_bytes())
    proto.pieces[300].piece = "@" * len(piece)
    damaged = proto.SerializeToString()
    (tmp_path / "a.model").write_bytes(damaged.replace(b"@" * len(piece), piece, 1))
    with pytest.raises(UserError, match="one of its pieces is empty or no text"):
        load_tokenizer(tmp_path / "a.model")
