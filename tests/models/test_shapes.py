"""The named backbones have the sizes that were published; none of them is built here."""

import dataclasses
import math

import jax
import pytest
from flax import nnx

from omni_smola.errors import UserError
from omni_smola.models import shapes, vision_encoders
from omni_smola.models.pali import Pali


def millions(state):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state)) / 1e6


@pytest.mark.parametrize(
    ("name", "part", "published"),
    [
        ("pali3", "vision", 1_840),  # SigLIP ViT-G/14
        ("pali3", "language", 3_740),  # mT5-XL
        ("pali3", "all", 5_610),
        ("palix", "vision", 21_750),  # ViT-22B
        ("palix", "language", 32_200),  # UL2 32B
        ("palix", "all", 54_100),
        ("tiny", "all", 2.78),
    ],
)
def test_parameter_counts_are_within_two_percent(abstract, name, part, published):
    state = nnx.to_pure_dict(nnx.state(abstract(name), nnx.Param))
    parts = {
        "vision": state["vision"],
        "language": {k: state[k] for k in ("embedding", "encoder", "decoder", "head")},
        "all": state,
    }
    assert millions(parts[part]) == pytest.approx(published, rel=0.02)


@pytest.fixture(scope="module")
def abstract():
    """Name -> the backbone without its arrays, made once."""
    made = {}

    def get(name):
        if name not in made:
            made[name] = nnx.eval_shape(lambda: Pali(shapes.pali(name), rngs=nnx.Rngs(0)))
        return made[name]

    return get


@pytest.mark.parametrize(("name", "tokens"), [("tiny", 64), ("pali3", 3364), ("palix", 2916)])
def test_patch_tokens(name, tokens):
    assert shapes.pali(name).vision.tokens == tokens


@pytest.mark.parametrize(("name", "depth", "layers"), [("pali3", 48, 24), ("palix", 48, 50)])
def test_layers_are_stacked_and_complete(abstract, name, depth, layers):
    model = abstract(name)
    config = shapes.pali(name).language
    inner = config.heads * config.d_head
    assert model.vision.encoder.layers.out.kernel["o"].shape[0] == depth
    kernel = model.encoder.stack.layers.attention.qkv.kernel["q"]
    assert kernel.shape == (layers, config.d_model, inner)
    kernel = model.decoder.stack.layers.cross.kv.kernel["v"]
    assert kernel.shape == (layers, config.d_model, inner)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(UserError, match=r"'pali4'.*tiny, pali3, palix"):
        shapes.pali("pali4")


def test_named_encoders_have_a_backbone_that_trains_them():
    for name, tower in vision_encoders.SMALL.items():
        sizes = shapes.pali(f"tiny_{name}")
        assert sizes.vision == tower
        assert sizes.language == shapes.pali("tiny").language
        assert dataclasses.replace(sizes, vision=shapes.pali("tiny").vision) == shapes.pali("tiny")
