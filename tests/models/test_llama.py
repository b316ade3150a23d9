"""Llama's sizes, and its head of its own."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx

from omni_smola.errors import UserError
from omni_smola.models import llama
from omni_smola.models.decoder_only import LanguageModel

from ..framed import framed

PARAMETERS = {
    "smollm2_135m": 134_515_008,
    "tinyllama_1b": 1_100_048_384,
    "llama2_7b": 6_738_415_616,
    "llama2_13b": 13_015_864_320,
    "llama2_70b": 68_976_648_192,
    "vicuna_7b": 6_738_415_616,
    "vicuna_13b": 13_015_864_320,
}


@pytest.mark.parametrize("name", llama.LLAMA)
def test_named_sizes_have_the_published_numbers_of_parameters(name):
    model = nnx.eval_shape(lambda: LanguageModel(llama.llama(name), rngs=nnx.Rngs(0)))
    found = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(nnx.state(model)))
    assert found == PARAMETERS[name]


def test_an_unknown_name_names_the_known_ones():
    with pytest.raises(UserError, match="called 'llama9': choose one of smollm2_135m, tinyllama"):
        llama.llama("llama9")


class Seeing(LanguageModel):
    """A language model with visual tokens that are given."""

    def visual_tokens(self, batch, instruction):
        return batch["visual"], batch["visual_kinds"]


def test_visual_tokens_stand_in_their_place(batch):
    stack = dataclasses.replace(
        llama.llama("vicuna_7b").stack,
        d_model=8,
        heads=2,
        key_heads=2,
        d_head=4,
        d_ff=12,
        sliding=(False,),
    )
    config = dataclasses.replace(llama.llama("vicuna_7b"), vocabulary=40, stack=stack)
    model = Seeing(config, rngs=nnx.Rngs(0))
    kinds = np.array([[2, 2, 2], [2, 2, 0], [0, 0, 0], [0, 0, 0]], np.int32)
    visual = np.random.default_rng(0).normal(size=(4, 3, 8)).astype(np.float32)
    batch = framed(batch, [llama.BOS], seen=[llama.BOS, 7], place=1)
    x, found, _ = model.prefix(batch | {"visual": visual, "visual_kinds": kinds})
    np.testing.assert_array_equal(
        found,
        [
            [1, 2, 2, 2, 1, 1, 1, 1, 1, 1],
            [1, 2, 2, 0, 1, 1, 1, 1, 0, 0],
            [0, 0, 0, 1, 1, 1, 1, 1, 0, 0],
            [0, 0, 0, 1, 0, 0, 0, 0, 0, 0],
        ],
    )
    embedded = model.embed(batch["prompt"])
    np.testing.assert_array_equal(x[:2, 1:4], visual[:2])
    np.testing.assert_array_equal(x[2:, :3], visual[2:])
    np.testing.assert_array_equal(x[:2, :1], embedded[:2, :1])
    np.testing.assert_array_equal(x[:2, 4:], embedded[:2, 1:])
    np.testing.assert_array_equal(x[2:, 3:], embedded[2:])
