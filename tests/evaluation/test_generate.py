"""Answers of a model to a batch, as ids and as texts."""

import jax
import numpy as np
import pytest
from flax import nnx

from omni_smola.errors import UserError
from omni_smola.evaluation import decode, generate
from omni_smola.evaluation.decode import Decoding
from omni_smola.experts.methods import attach_experts
from omni_smola.experts.mole import MoleConfig

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
