"""Tokens added to a SentencePiece model against the tokenizers of transformers."""

import json
import shutil

import pytest

from omni_smola.data import vocabulary

transformers = pytest.importorskip("transformers")

SIZE = 3072
TEXTS = [
    "<loc0000>",
    "a <loc0000> b",
    "a<loc0000>b",
    "x<loc0000><loc1023>y",
    "hello world",
    "<loc00001> loc0000>",
    "the cat<loc1023>.",
    "<loc1023>the cat <loc0000> sat",
    "a <left>b",
    "a<right>  b",
    "<right> <left>",
    "",
]
ADDED = {
    "<loc0000>": {},
    "<loc1023>": {},
    "<left>": {"lstrip": True},
    "<right>": {"rstrip": True},
}
NAMES = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}


def write(folder, cls, **settings):
    for name in ("spiece.model", "tokenizer.model"):
        shutil.copy(vocabulary.SHIPPED, folder / name)
    (folder / "tokenizer_config.json").write_text(
        json.dumps(NAMES | {"tokenizer_class": cls} | settings)
    )
    return folder


def decoder():
    base = dict.fromkeys(("special", "lstrip", "rstrip", "single_word", "normalized"), False)
    return {
        str(SIZE + i): base | {"content": content} | flags
        for i, (content, flags) in enumerate(ADDED.items())
    }


@pytest.mark.parametrize("kind", ["slow", "T5"])
def test_ids_of_every_text(tmp_path, kind):
    """A segment of a text is encoded like a text of its own."""
    if kind == "slow":
        from transformers.tokenization_utils_sentencepiece import SentencePieceBackend as Original
    else:
        Original = transformers.T5Tokenizer
    more = {} if kind == "slow" else {"extra_ids": 0}
    folder = write(tmp_path, f"{kind}Tokenizer", added_tokens_decoder=decoder(), **more)
    original = Original.from_pretrained(folder)
    ours = vocabulary.load(folder)
    for text in TEXTS:
        want = original(text, add_special_tokens=False)["input_ids"]
        if kind == "T5" and "<loc00001>" in text:
            continue  # it has no bytes for what no piece covers
        assert ours.encode(text) == want, text
    for text in TEXTS[:4]:
        ids = ours.encode(text)
        assert ours.decode(ids).replace(" ", "") == original.decode(ids).replace(" ", "")


@pytest.mark.parametrize("settings", [{}, {"legacy": False}, {"legacy": True}], ids=str)
def test_ids_of_llama(tmp_path, settings):
    """Only the beginning of a text gets a blank; its own pieces are merged by rank: letters."""
    folder = write(tmp_path, "LlamaTokenizer", added_tokens_decoder=decoder(), **settings)
    original, ours = transformers.LlamaTokenizer.from_pretrained(folder), vocabulary.load(folder)
    for text in ("a<loc0000>b", "x<loc0000><loc1023>y", "<loc0000>", "<loc0000>c", "b<loc1023>."):
        want = original(text, add_special_tokens=False)["input_ids"]
        assert ours.encode(text) == want, text
        assert ours.decode(want) == original.decode(want)


def test_files_that_a_slow_tokenizer_saves(tmp_path):
    """A round trip through transformers' own files."""
    from transformers.tokenization_utils_sentencepiece import SentencePieceBackend

    folder = write(tmp_path, "Slow")
    original = SentencePieceBackend.from_pretrained(folder)
    added = ["<loc0000>", transformers.AddedToken("<mark>", lstrip=True, normalized=False)]
    assert original.add_tokens(added) == 2
    original.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved" / "tokenizer.json").exists()
    ours = vocabulary.load(tmp_path / "saved")
    assert ours.vocab_size == len(original) == SIZE + 2
    for text in ("a <loc0000> b", "a  <mark>b", "<mark>"):
        assert ours.encode(text) == original(text, add_special_tokens=False)["input_ids"]
