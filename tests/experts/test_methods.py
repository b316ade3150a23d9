"""Experts by their config, and a model that says which ones it has."""

import functools

import jax
import numpy as np
import pytest
from flax import nnx

from omni_smola.errors import UserError
from omni_smola.experts import attach
from omni_smola.experts.adapter import AdapterConfig
from omni_smola.experts.lora import LoraConfig
from omni_smola.experts.methods import Attached, attach_again, attach_experts, attached
from omni_smola.experts.mole import MoleConfig
from omni_smola.experts.param import ExpertParam
from omni_smola.experts.smola import SmolaConfig, SmolaExperts

SMOLA = SmolaConfig(2, 1, 3, rank=2, router_rank=2, share_router=True)
QKV = "encoder/stack/layers/attention/qkv/"
MLP = "encoder/stack/layers/mlp"


def shapes(model):
    state = nnx.to_pure_dict(nnx.state(model, ExpertParam))
    return jax.tree.map(lambda x: (x.shape, x.dtype), state)


@pytest.mark.parametrize(
    ("config", "where", "found"),
    [
        (SMOLA, f"{QKV}[qk]", [f"{QKV}q", f"{QKV}k"]),
        (LoraConfig(2, alpha=3.0), [f"{QKV}v", f"{QKV}q"], [f"{QKV}q", f"{QKV}v"]),
        (AdapterConfig(3), "encoder/.*", [MLP]),
        (MoleConfig(2, rank=3, route="token"), "encoder/.*", [MLP]),
    ],
)
def test_a_model_says_what_it_has_and_another_gets_the_same(make_pali, config, where, found):
    model, again = make_pali(), make_pali()
    assert attach_experts(model, config, where, rngs=nnx.Rngs(0)) == found
    (one,) = attached(model)
    assert list(one.paths) == found
    attach_again(again, [one], rngs=nnx.Rngs(0))
    assert shapes(again) == shapes(model) and attached(again) == [one]
    assert nnx.graphdef(again) == nnx.graphdef(model)


def test_experts_on_experts_are_attached_in_their_order(make_pali):
    model, again = make_pali(), make_pali()
    attach_experts(model, LoraConfig(2), f"{QKV}[qv]", rngs=nnx.Rngs(0))
    attach_experts(model, LoraConfig(3), MLP + "/wo/wo", rngs=nnx.Rngs(0))
    attach_experts(model, LoraConfig(2), f"{QKV}base/v", rngs=nnx.Rngs(0))
    found = attached(model)
    assert [one.paths for one in found] == [
        (f"{QKV}q", f"{QKV}v"),
        (f"{MLP}/wo/wo",),
        (f"{QKV}base/v",),
    ]
    attach_again(again, found, rngs=nnx.Rngs(0))
    assert shapes(again) == shapes(model)


class Net(nnx.Module):
    """Somebody else's model."""

    def __init__(self):
        rngs = nnx.Rngs(0)
        self.blocks = nnx.List([nnx.Linear(4, 6, rngs=rngs), nnx.Linear(6, 4, rngs=rngs)])


def test_linears_of_another_model():
    model, again = Net(), Net()
    attach_experts(model, SMOLA, r"blocks/\d", rngs=nnx.Rngs(0))
    (one,) = attached(model)
    assert one.paths == ("blocks/0", "blocks/1") and one.config["router_rank"] == 2
    attach_again(again, [one], rngs=nnx.Rngs(0))
    assert shapes(again) == shapes(model)
    with pytest.raises(UserError, match="instruction_width of the model, but Net has none"):
        attach_experts(again, MoleConfig(2), "blocks/0", rngs=nnx.Rngs(0))


class Doubled(nnx.Module):
    """An expert that is in no table."""

    def __init__(self, d_in, outputs, *, rngs):
        self.names = tuple(outputs)
        self.factor = ExpertParam(jax.numpy.ones(()))

    def __call__(self, x, kinds):
        return dict.fromkeys(self.names, self.factor[...] * x)


def test_an_expert_of_the_users_own_is_named_but_not_attached():
    model = Net()
    attach.attach_to_linears(model, "blocks/0", Doubled, rngs=nnx.Rngs(0), routed=False)
    assert attached(model) == [Attached("Doubled", {}, ("blocks/0",))]
    with pytest.raises(UserError, match="kind 'Doubled', which is attached by its own code"):
        attach_again(Net(), attached(model), rngs=nnx.Rngs(0))


def test_mistakes_are_sentences(make_pali):
    with pytest.raises(UserError, match="of the class int; choose one of SmolaConfig, LoraConfig"):
        attach_experts(Net(), 4, "blocks/0", rngs=nnx.Rngs(0))
    newer = Attached("lora", {"rank": 2, "alpha": 1.0, "bias": True}, ("blocks/0",))
    with pytest.raises(UserError, match=r"lora experts does not fit this version.*bias"):
        attach_again(Net(), [newer], rngs=nnx.Rngs(0))
    with pytest.raises(UserError, match="matches no linear"):
        attach_again(make_pali(), [Attached("lora", {}, ("blocks/0",))], rngs=nnx.Rngs(0))
    assert attached(Net()) == []


def test_experts_are_drawn_as_they_are_one_by_one():
    """As one program, the numbers are those of the same keys, and the keys move on."""
    make = functools.partial(SmolaExperts, SMOLA, 4, {"out": 6})
    together, one_by_one = nnx.Rngs(3), nnx.Rngs(3)
    found = nnx.state(attach._drawn(lambda rngs: make(rngs=rngs), together))
    wanted = nnx.state(make(rngs=one_by_one))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, wanted)
    assert together.default.count[...] == one_by_one.default.count[...] > 0
