"""Vocabularies from a checkpoint's own files: SentencePiece models, or tokenizer.json alone."""

import builtins
import json
import shutil

import numpy as np
import pytest
import sentencepiece
import seqio
import tensorflow as tf

from omni_smola.data import vocabulary
from omni_smola.data.vocabulary.hugging_face import HuggingFaceTokenizer
from omni_smola.errors import UserError

tokenizers = pytest.importorskip("tokenizers")

TEXTS = ["the cat sat on the mat", "a hat, a bat!", "Größe 7 ☃", "", " two  spaces ", "x</s>y"]
SPECIAL = ["<pad>", "</s>", "<unk>"]


def write(folder, special=SPECIAL, added=(), **settings):
    """A byte-level BPE of few merges, which puts </s> behind a text where it is let to."""
    folder.mkdir(exist_ok=True)
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=280, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS * 5, trainer)
    if added:
        tokenizer.add_tokens(list(added))
    if "</s>" in special:
        end = tokenizer.token_to_id("</s>")
        tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
            single="$A </s>", special_tokens=[("</s>", end)]
        )
    # As sentence encoders save theirs; a vocabulary neither cuts nor pads.
    tokenizer.enable_truncation(5)
    tokenizer.enable_padding(length=5)
    tokenizer.save(str(folder / "tokenizer.json"))
    for name, fields in settings.items():
        (folder / f"{name}.json").write_text(json.dumps(fields))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint")
    return write(path, tokenizer_config={"eos_token": "</s>", "pad_token": "<pad>"})


@pytest.fixture(scope="module")
def loaded(folder):
    return vocabulary.load(folder)


def test_ids_are_the_tokenizers(folder, loaded):
    assert isinstance(loaded.python, HuggingFaceTokenizer)
    original = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    original.no_truncation()
    original.no_padding()
    for text in TEXTS[:-1]:
        assert loaded.encode(text) == original.encode(text).ids[:-1]
        assert loaded.encode(text.encode()) == loaded.encode(text)
    assert (loaded.pad_id, loaded.eos_id) == (0, 1)
    assert loaded.vocab_size == original.get_vocab_size() == 280
    assert loaded == vocabulary.load(folder / "tokenizer.json")
    assert loaded != vocabulary.load()


@pytest.mark.parametrize("text", TEXTS)
def test_round_trip(loaded, text):
    """The name of a special token in a text is text."""
    ids = loaded.encode(text)
    assert loaded.eos_id not in ids
    assert loaded.decode(ids) == text
    assert loaded.decode([*ids, 1, *ids, 0]) == text
    assert loaded.decode([*ids, 280, 5000]) == text


def test_tensorflow_and_python_agree(loaded):
    data = tf.data.Dataset.from_tensor_slices(TEXTS).map(loaded.encode_tf)
    assert data.element_spec == tf.TensorSpec((None,), tf.int32)
    for got, text in zip(data.as_numpy_iterator(), TEXTS, strict=True):
        assert got.tolist() == loaded.encode(text)
        assert loaded.decode_tf(tf.constant(got)).numpy().decode() == text
    ids = loaded.encode("the cat")
    rows = np.array([[*ids, 1, *ids], [*ids[::-1], 1, *ids]], np.int32)
    want = [b"the cat", loaded.decode(ids[::-1]).encode()]
    assert loaded.decode_tf(tf.constant(rows)).numpy().tolist() == want


def test_seqio_takes_it(loaded):
    feature = {"prompt": seqio.Feature(loaded, add_eos=True)}
    data = tf.data.Dataset.from_tensors({"prompt": "the cat"})
    data = seqio.preprocessors.tokenize(data, feature, copy_pretokenized=False)
    data = seqio.preprocessors.append_eos(data, feature)
    (example,) = data.as_numpy_iterator()
    assert example["prompt"].tolist() == [*loaded.encode("the cat"), 1]


@pytest.mark.parametrize(
    ("settings", "eos"),
    [
        ({"special_tokens_map": {"eos_token": {"content": "<unk>", "lstrip": False}}}, 2),
        ({"tokenizer_config": {"eos_token": None}, "generation_config": {"eos_token_id": 1}}, 1),
        ({"generation_config": {"eos_token_id": [2, 1]}, "config": {"eos_token_id": 1}}, 2),
        ({"config": {"eos_token_id": 1}}, 1),
    ],
    ids=str,
)
def test_which_token_ends_a_text(tmp_path, settings, eos):
    assert vocabulary.load(write(tmp_path, **settings)).eos_id == eos


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"tokenizer_config": {"eos_token": "<end>"}},
        {"generation_config": {"eos_token_id": 999}},
        {"config": {"eos_token_id": []}},
    ],
    ids=str,
)
def test_no_token_ends_a_text(tmp_path, settings):
    with pytest.raises(UserError, match="says which token ends a text: copy"):
        vocabulary.load(write(tmp_path, **settings))


def test_a_piece_of_text_where_padding_is(tmp_path):
    """Byte-level vocabularies without special tokens in front begin with '!'."""
    with pytest.raises(UserError, match="gives the id 0 to '!', a piece of text, but 0 is padding"):
        vocabulary.load(write(tmp_path, special=[], config={"eos_token_id": 5}))
    settings = {"eos_token": "\u010a", "pad_token": "!"}  # unless the files say it is padding
    assert vocabulary.load(write(tmp_path, [], tokenizer_config=settings)).pad_id == 0


@pytest.fixture(scope="module")
def pieces(tmp_path_factory):
    """A SentencePiece model as T5's: pad 0, eos 1, unk 2."""
    prefix = tmp_path_factory.mktemp("pieces") / "made"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS[:4] * 20),
        model_prefix=str(prefix),
        vocab_size=40,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return prefix.with_suffix(".model")


@pytest.mark.parametrize("name", ["spiece.model", "tokenizer.model"])
def test_a_folder_with_sentencepiece(tmp_path, pieces, name):
    shutil.copy(pieces, tmp_path / name)
    loaded = vocabulary.load(tmp_path)
    assert loaded == vocabulary.load(tmp_path / name)
    original = sentencepiece.SentencePieceProcessor(model_file=str(pieces))
    assert loaded.encode("the cat sat") == original.encode("the cat sat")
    assert loaded.eos_id == 1


def test_a_folder_with_both(tmp_path, pieces):
    """The model, unless the other file adds pieces of text, such as places in an image."""
    settings = {"tokenizer_config": {"eos_token": "</s>"}}
    shutil.copy(pieces, write(tmp_path, **settings) / "tokenizer.model")
    assert isinstance(vocabulary.load(tmp_path), seqio.SentencePieceVocabulary)
    write(tmp_path, added=["<loc0000>", "<loc0001>"], **settings)
    loaded = vocabulary.load(tmp_path)
    assert loaded.encode("<loc0001><loc0000>") == [281, 280]
    assert loaded.decode([281, 280, 1]) == "<loc0001><loc0000>"


def test_mistakes_are_sentences(tmp_path, pieces, monkeypatch):
    with pytest.raises(UserError, match=r"has no tokenizer: copy the checkpoint's spiece\.model"):
        vocabulary.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match=r"tokenizer\.json is not a tokenizer"):
        vocabulary.load(tmp_path)
    shutil.copy(pieces, tmp_path / "tokenizer.model")
    for text, why in (("{", "is not JSON"), ("[]", "is not a JSON object")):
        (tmp_path / "tokenizer.json").write_text(text)
        with pytest.raises(UserError, match=why):
            vocabulary.load(tmp_path)
    real = builtins.__import__

    def without(name, *args, **options):
        if name == "tokenizers":
            raise ImportError(name)
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match=r"tokenizers, which is not installed: pip .*\[hf\]"):
        vocabulary.load(tmp_path / "tokenizer.json")


def test_sentencepiece_without_an_end_or_with_text_as_padding(tmp_path):
    options = dict(vocab_size=40, hard_vocab_limit=False, minloglevel=2, bos_id=-1)
    for ids in (dict(pad_id=0, unk_id=1, eos_id=-1), dict(pad_id=-1, unk_id=1, eos_id=2)):
        prefix = tmp_path / f"made{ids['eos_id']}"
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(TEXTS[:4] * 20), model_prefix=str(prefix), **options, **ids
            )
        except Exception as error:  # it may refuse to leave id 0 open
            pytest.skip(str(error))
        with pytest.raises(UserError, match="has no piece that ends a text, or its piece 0"):
            vocabulary.load(prefix.with_suffix(".model"))
