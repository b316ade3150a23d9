"""Tokens added to a SentencePiece model or a tokenizer.json, by whichever file names them."""

import json
import shutil

import numpy as np
import pytest
import seqio
import tensorflow as tf

from omni_smola.data import vocabulary
from omni_smola.data.vocabulary.pieces import ExtendedPieces
from omni_smola.errors import UserError

from .test_vocabulary_hugging_face import write as write_tokenizer

SIZE = 3072  # of the shipped model
LOC = {"<loc0000>": SIZE, "<loc1023>": SIZE + 1}


def token(content, **flags):
    return {"content": content, "special": False} | flags


def write(folder, model="tokenizer.model", **files):
    folder.mkdir(exist_ok=True)
    shutil.copy(vocabulary.SHIPPED, folder / model)
    for name, fields in files.items():
        (folder / f"{name}.json").write_text(json.dumps(fields))
    return folder


IN_ANY_FILE = {
    "added_tokens.json": dict(added_tokens=LOC),
    "tokenizer_config.json": dict(
        tokenizer_config={"added_tokens_decoder": {str(i): token(t) for t, i in LOC.items()}}
    ),
    "both": dict(
        added_tokens=LOC,
        tokenizer_config={"added_tokens_decoder": {str(SIZE): token("<loc0000>")}},
    ),
    "with pieces among them": dict(
        added_tokens=LOC | {"</s>": 1, "<unk>": 2},
        special_tokens_map={"eos_token": {"content": "</s>", "lstrip": False}},
    ),
}


@pytest.mark.parametrize("model", ["tokenizer.model", "spiece.model"])
@pytest.mark.parametrize("files", IN_ANY_FILE.values(), ids=IN_ANY_FILE)
def test_one_piece_each(tmp_path, files, model):
    loaded = vocabulary.load(write(tmp_path, model, **files))
    assert (loaded.vocab_size, loaded.eos_id, loaded.pad_id) == (SIZE + 2, 1, 0)
    assert loaded.encode("<loc0000>") == [SIZE]
    assert loaded.decode([SIZE, SIZE + 1]) == "<loc0000><loc1023>"
    plain = vocabulary.load()
    for text in ("the cat", "", " two  spaces ", "<loc00001>", "</s>", "Größe 7 ☃"):
        assert loaded.encode(text) == plain.encode(text)
        assert loaded.decode(plain.encode(text)) == plain.decode(plain.encode(text))
    cat, dog = plain.encode("a cat"), plain.encode("a dog")
    assert loaded.encode("a cat<loc0000><loc1023>a dog") == [*cat, SIZE, SIZE + 1, *dog]
    assert loaded.decode([*cat, SIZE, *dog]) == "a cat<loc0000> a dog"
    assert loaded.decode([SIZE, *cat]) == "<loc0000> a cat"


def test_tensorflow_and_python_agree(tmp_path):
    loaded = vocabulary.load(write(tmp_path, added_tokens=LOC))
    assert loaded == vocabulary.load(tmp_path) != vocabulary.load()
    texts = ["a <loc0000>b", "", "<loc1023>", "ß <loc0000> ☃"]
    data = tf.data.Dataset.from_tensor_slices(texts).map(loaded.encode_tf)
    for got, text in zip(data.as_numpy_iterator(), texts, strict=True):
        assert got.tolist() == loaded.encode(text)
        if len(got):
            assert loaded.decode_tf(tf.constant(got)).numpy().decode() == loaded.decode(got)
    feature = {"target": seqio.Feature(loaded, add_eos=True)}
    data = tf.data.Dataset.from_tensors({"target": "<loc0000>"})
    data = seqio.preprocessors.tokenize(data, feature, copy_pretokenized=False)
    (example,) = seqio.preprocessors.append_eos(data, feature).as_numpy_iterator()
    assert example["target"].tolist() == [SIZE, 1]


def test_flags(tmp_path):
    flags = {
        "<l>": dict(lstrip=True),
        "<r>": dict(rstrip=True),
        "word": dict(single_word=True),
        "<image>": dict(special=True),
        "<r><r>": {},
    }
    listed = {str(SIZE + i): token(t, **f) for i, (t, f) in enumerate(flags.items())}
    loaded = vocabulary.load(write(tmp_path, tokenizer_config={"added_tokens_decoder": listed}))
    plain = vocabulary.load()
    left, right, word, image, longer = range(SIZE, SIZE + 5)
    a, b = plain.encode("a"), plain.encode("b")
    assert loaded.encode("a  <l>b") == [*a, left, *b]
    assert loaded.encode("a<r>  b") == [*a, right, *b]
    assert loaded.encode("<r><r><r>") == [longer, right]
    assert loaded.encode("a word b") == [*plain.encode("a "), word, *plain.encode(" b")]
    assert word not in loaded.encode("swords words sword") and word in loaded.encode("(word)")
    # A mark that no text holds is spelled, and decodes to nothing.
    assert loaded.encode("<image>") == plain.encode("<image>")
    assert loaded.decode([image, *a, image]) == "a"


def test_the_end_of_a_text_may_be_an_added_token(tmp_path):
    files = dict(added_tokens={"<|im_end|>": SIZE}, tokenizer_config={"eos_token": "<|im_end|>"})
    loaded = vocabulary.load(write(tmp_path, **files))
    assert loaded.eos_id == SIZE
    assert loaded.encode("<|im_end|>") == vocabulary.load().encode("<|im_end|>")
    (tmp_path / "added_tokens.json").unlink()
    with pytest.raises(UserError, match=r"ends a text by '<\|im_end\|>', which is no piece .*copy"):
        vocabulary.load(tmp_path)


def test_marks_of_the_model_itself_change_nothing(tmp_path):
    listed = {"0": token("<pad>", special=True), "1": token("</s>", special=True)}
    loaded = vocabulary.load(write(tmp_path, tokenizer_config={"added_tokens_decoder": listed}))
    assert isinstance(loaded, seqio.SentencePieceVocabulary)
    extra = {str(SIZE + i): token(f"<extra_id_{i}>", special=True) for i in range(100)}
    t5 = vocabulary.load(write(tmp_path, tokenizer_config={"added_tokens_decoder": extra}))
    assert isinstance(t5.python, ExtendedPieces) and t5.vocab_size == SIZE + 100


CONTRADICTIONS = {
    "two ids": (
        dict(
            added_tokens={"<a>": SIZE},
            tokenizer_config={"added_tokens_decoder": {str(SIZE + 1): token("<a>")}},
        ),
        r"gives '<a>' the id 3073, but added_tokens\.json gives it 3072",
    ),
    "two tokens": (
        dict(
            added_tokens={"<a>": SIZE},
            tokenizer_config={"added_tokens_decoder": {str(SIZE): token("<b>")}},
        ),
        r"gives 3072 to '<b>', but added_tokens\.json gives it '<a>'",
    ),
    "two of one file": (dict(added_tokens={"<a>": SIZE, "<b>": SIZE}), "gives 3072 to '<a>'"),
    "a piece's id": (dict(added_tokens={"<a>": 17}), "id 17, but tokenizer.model of 3072 pieces"),
    "another id of a piece": (dict(added_tokens={"</s>": SIZE}), "'</s>' has the id 3072, .* it 1"),
    "a hole": (dict(added_tokens={"<a>": SIZE + 2}), "no token for the id 3072.*leaves 2 ids open"),
    "no number": (dict(added_tokens={"<a>": "7"}), "the id of '<a>' is '7'"),
    "a huge id": (dict(added_tokens={"<a>": 10**15}), "the id of '<a>' is 10000000"),
    "truth as an id": (dict(added_tokens={"<a>": True}), "the id of '<a>' is True"),
    "no text": (dict(added_tokens={"": SIZE}), "an added token is ''"),
    "half a letter": (dict(added_tokens={"\ud800": SIZE}), "an added token is"),
    "no object": (dict(tokenizer_config={"added_tokens_decoder": ["<a>"]}), "added_tokens_decoder"),
    "no content": (dict(tokenizer_config={"added_tokens_decoder": {"3072": {}}}), "added token is"),
    "no flag": (
        dict(tokenizer_config={"added_tokens_decoder": {"3072": token("<a>", lstrip="yes")}}),
        "the added token '<a>' is",
    ),
    "no list": (dict(tokenizer={"added_tokens": {"id": 3}}), "added_tokens is"),
}


@pytest.mark.parametrize(("files", "why"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_files_that_contradict_each_other_are_refused(tmp_path, files, why):
    with pytest.raises(UserError, match=why) as error:
        vocabulary.load(write(tmp_path, **files))
    assert len(str(error.value)) < 600 and "opy" in str(error.value)


def test_a_tokenizer_json_and_what_was_added_to_it_later(tmp_path):
    settings = {"tokenizer_config": {"eos_token": "</s>"}, "added_tokens": {"<new>": 280}}
    loaded = vocabulary.load(write_tokenizer(tmp_path, **settings))
    assert loaded.vocab_size == 281
    assert loaded.encode("<new>") == [280] and loaded.decode([280]) == "<new>"
    listed = {"280": token("<new>"), "281": token("<mark>", special=True)}
    settings["tokenizer_config"]["added_tokens_decoder"] = listed
    loaded = vocabulary.load(write_tokenizer(tmp_path, **settings))
    assert loaded.vocab_size == 282 and 281 not in loaded.encode("<mark>")
    for number, why in ((5, "gives it 1|does not have it"), (300, "does not have it and has 280")):
        settings = {"tokenizer_config": {"eos_token": "</s>"}, "added_tokens": {"<new>": number}}
        with pytest.raises(UserError, match=why):
            vocabulary.load(write_tokenizer(tmp_path, **settings))


def test_ids_fit_in_an_array(tmp_path):
    loaded = vocabulary.load(write(tmp_path, added_tokens=LOC))
    ids = np.array(loaded.encode("<loc1023> a"), np.int32)
    assert loaded.decode(ids) == loaded.decode(ids.tolist())
