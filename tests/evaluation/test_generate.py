"""Answers of a model to a batch, as ids and as texts."""

import jax
import numpy as np
import pytest
from flax import nnx

from omni_smola.data import framing, vocabulary
from omni_smola.errors import UserError
from omni_smola.evaluation import decode, generate
from omni_smola.evaluation.decode import Decoding
from omni_smola.evaluation.evaluator import until_eos
from omni_smola.experts.methods import attach_experts
from omni_smola.experts.mole import MoleConfig
from omni_smola.models.origin import Origin

from ..models.conftest import batch, make_pali, micro

__all__ = ["batch", "make_pali", "micro"]


class Letters:
    """Ids as letters."""

    eos_id, vocab_size = 1, 40

    def encode(self, s):
        return [ord(c) for c in s]

    def decode(self, ids):
        ids = list(ids)
        ids = ids[: ids.index(1)] if 1 in ids else ids
        return "".join(chr(96 + i) for i in ids)


@pytest.mark.parametrize("method", decode.METHODS)
def test_ids_are_those_of_decoding(make_pali, batch, method):
    model, how = make_pali(), Decoding(method, beams=2, alpha=0.6, seed=3)
    found = generate.generate_ids(model, batch | {"task": "mini"}, max_length=5, decoding=how)
    inputs = {name: x for name, x in batch.items() if not name.startswith("target")}
    wanted = jax.jit(
        lambda: decode.decode(model.step, model.init_cache(inputs, 5), 4, 5, how, eos_id=1)
    )()
    assert found.dtype == np.int32 and found.shape == (4, 5)
    np.testing.assert_array_equal(found, wanted)


def test_texts_end_at_their_end(make_pali, batch):
    ids = generate.generate_ids(make_pali(), batch, max_length=5)
    texts = generate.generate(make_pali(), batch, max_length=5, tokenizer=Letters())
    assert texts == [Letters().decode([i for i in row if i]) for row in ids.tolist()]


def test_a_model_is_as_it_was_and_its_program_is_compiled_once(make_pali, batch, monkeypatch):
    model = make_pali()
    attach_experts(model, MoleConfig(2, rank=3), "encoder/.*", rngs=nnx.Rngs(0))
    before = nnx.graphdef(model)
    traced = []
    original = decode.decode
    monkeypatch.setattr(decode, "decode", lambda *a, **k: traced.append(1) or original(*a, **k))
    for seed in range(3):
        generate.generate_ids(model, batch, max_length=3, decoding=Decoding("sample", seed=seed))
    assert nnx.graphdef(model) == before and len(traced) == 1


def test_mistakes_are_sentences(make_pali, batch):
    with pytest.raises(UserError, match="max_length is 0, but an answer has 1 token or more"):
        generate.generate_ids(make_pali(), batch, max_length=0)
    with pytest.raises(UserError, match="No tokenizer belongs to this model"):
        generate.generate(make_pali(), batch)


@pytest.mark.parametrize("family", ["t5", "gemma", "vicuna"])
def test_answers_end_and_read_as_in_prediction(make_pali, monkeypatch, family):
    """Where the frame's own end is, without what stands before an answer."""
    ids = {"bos": 7, "<start_of_turn>": 8, "<end_of_turn>": 9} if family == "gemma" else {"bos": 7}
    model = make_pali()
    fields = dict(frame="auto", family=family, frame_ids=tuple(ids.items()))
    model.origin = Origin("micro", "", "float32", 24, 4000, "shipped", **fields)
    theirs = framing.load("auto", vocabulary.load(), family, ids)
    answer = theirs.answer("two cars")
    assert answer[-1] == theirs.end_id == (9 if family == "gemma" else 1)
    rows = np.array([[*answer, 44, 45], [*theirs.answer("a")[:-1], *[0] * 20][: len(answer) + 2]])
    asked = []
    monkeypatch.setattr(
        generate, "generate_ids", lambda *a, eos_id, **k: asked.append(eos_id) or rows
    )
    texts = generate.generate(model, {}, max_length=9)
    assert texts == ["two cars", "a"] and asked == [theirs.end_id]
    assert texts == [theirs.text(until_eos(row, theirs.end_id)) for row in rows]
