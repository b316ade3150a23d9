"""MoLE in whole models: stacks, loops, the two stages, noise, and what pictures are made of."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from omni_smola.errors import UserError
from omni_smola.experts import attach
from omni_smola.experts.adapter import Adapter, AdapterConfig
from omni_smola.experts.mole import (
    Mole,
    MoleConfig,
    balance_penalty,
    router_probabilities,
)
from omni_smola.experts.param import ExpertParam
from omni_smola.models.layers import FeedForward, Precision, Stack
from omni_smola.training import state as states

from .test_mole import (
    INSTRUCTION,
    KINDS,
    PARAMETERS,
    ROUTES,
    WEIGHT,
    B,
    D,
    E,
    M,
    X,
    chosen_of,
    loss_gradient,
    make,
    numbers,
    oracle_experts,
    oracle_p,
    output,
    randomized,
    router_by_hand,
    softmax64,
    told,
)


class Block(nnx.Module):
    """A layer of a transformer without attention."""

    def __init__(self, rngs):
        self.mlp = FeedForward(
            D, 8, activation=nnx.relu, gated=False, precision=Precision(), rngs=rngs
        )

    def __call__(self, x, kinds):
        return x + self.mlp(x, kinds)


class Model(nnx.Module):
    """A stack of three, and a layer outside of it."""

    def __init__(self, make_experts, remat=False):
        rngs = nnx.Rngs(0)
        self.remat = remat
        self.stack = Stack(Block, 3, rngs=rngs)
        self.last = Block(rngs)
        attach.attach_to_feed_forwards(self, ".*", make_experts, rngs=nnx.Rngs(1))

    def __call__(self, x, kinds):
        x, _ = self.stack.scan(
            lambda layer, x, _: (layer(x, kinds), None), jnp.asarray(x), remat=self.remat
        )
        return self.last(x, kinds)

    def unrolled(self, x, kinds):
        graphdef, state = nnx.split(self.stack.layers)
        for i in range(3):
            x = nnx.merge(graphdef, jax.tree.map(lambda value, i=i: value[i], state))(x, kinds)
        return self.last(x, kinds)


@cache
def _model(route, remat, gumbel):
    config = MoleConfig(rank=3, route=route, gumbel=gumbel)
    return randomized(lambda: Model(partial(Mole, config, instruction_width=E), remat))


def make_model(route="instance", remat=False, gumbel=False):
    return nnx.merge(*nnx.split(_model(route, remat, gumbel)))


@cache
def adapter_model():
    return randomized(lambda: Model(partial(Adapter, AdapterConfig(3))))


@pytest.mark.usefixtures("optimized")
@pytest.mark.parametrize("route", ROUTES)
def test_stacked_is_unstacked(route):
    model = told(make_model(route))
    experts = model.stack.layers.mlp.experts
    assert experts.down.shape == (3, 4, D, 3)
    if route != "token":
        assert experts.instruction.shape == (3, B, E)
        assert model.last.mlp.experts.instruction.shape == (B, E)
    want = jax.jit(lambda: model.unrolled(X, KINDS))()
    np.testing.assert_allclose(output(model), want, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("route", "gumbel"), [("instance", False), ("instance", True), ("token", True), ("both", False)]
)
def test_divided_models_are_told_inside_jit_grad_and_scan(route, gumbel):
    model = make_model(route, gumbel=gumbel)
    assemble, trainable, frozen = states.divide(model, ExpertParam)
    names = {path.split("/")[-1] for path in states.paths(trainable)}
    assert "router_in" in names and not names & {"instruction", "key"}
    assert all("experts" not in path for path in states.paths(frozen))
    rematted, *_ = states.divide(make_model(route, remat=True, gumbel=gumbel), ExpertParam)
    results = []
    for build in (assemble, rematted):

        @jax.jit
        def gradient(trainable, frozen, instruction, key, build=build):
            def loss(trainable):
                model = told(build(trainable, frozen), instruction, key)
                return jnp.mean(model(X, KINDS) ** 2)

            return jax.value_and_grad(loss)(trainable)

        results.append(gradient(trainable, frozen, INSTRUCTION, jax.random.key(0)))
    assert jax.tree.structure(results[0][1]) == jax.tree.structure(trainable)
    for got, want in zip(*map(jax.tree.leaves, results), strict=True):
        assert np.all(np.isfinite(want))
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5 * np.abs(want).max())
    routers = [v for k, v in states.paths(results[0][1]).items() if "router" in k]
    assert all(np.any(value != 0) for value in routers)
    # What was told left the outer model as it was, which still divides.
    states.divide(model, ExpertParam)


def test_a_loop_tells_a_copy_of_a_model_made_outside_of_it():
    """As in decoding with beams: the instruction travels with the state of its hypothesis."""
    model = make_model()
    rows = jnp.asarray([2, 0, 0, 1])

    @jax.jit
    def decode(x, instruction):
        def step(carry):
            i, x, instruction = carry
            copy = told(nnx.merge(*nnx.split(model)), instruction)
            return i + 1, jnp.tanh(copy(x, KINDS))[rows], instruction[rows]

        return jax.lax.while_loop(lambda carry: carry[0] < 3, step, (0, x, instruction))[1]

    x, instruction = X, INSTRUCTION
    for _ in range(3):
        x = np.tanh(output(model, x, instruction=instruction))[rows]
        instruction = instruction[rows]
    np.testing.assert_allclose(decode(X, INSTRUCTION), x, rtol=0, atol=1e-5)
    with pytest.raises(UserError, match="before its instruction was set"):
        model(X, KINDS)  # the one outside was never told
    # One that was, as another batch's, is no obstacle.
    told(model, -INSTRUCTION[:2])
    jax.clear_caches()
    np.testing.assert_allclose(decode(X, INSTRUCTION), x, rtol=0, atol=1e-5)


@pytest.mark.usefixtures("optimized")
def test_copies_give_the_bits_of_the_single_expert():
    """Stage 2 of MoME starts so, whatever its fresh routers choose."""
    rng = np.random.default_rng(8)
    for m, d, rank in ((1, 64, 16), (33, 96, 16), (9, 48, 8)):
        x = rng.normal(size=(4, m, d)).astype(np.float32)
        single, mole = make(experts=1, d=d, rank=rank), make(d=d, rank=rank)
        copies = {n: np.repeat(getattr(single, n)[...], 4, 0) for n in PARAMETERS}
        nnx.update(mole, copies)
        np.testing.assert_array_equal(output(mole, x, None), output(single, x, None))


def test_gumbel_draws_experts_by_their_probability_and_only_with_a_key():
    many = np.repeat(INSTRUCTION[:1], 4000, axis=0)
    mole = make(gumbel=True, temperature=0.7)
    mole.router_out = ExpertParam(mole.router_out[...] / 8)
    # An expert's output tells its number.
    mole.up, mole.up_bias = ExpertParam(jnp.zeros((4, 3, D))), ExpertParam(jnp.eye(4, D))
    mole.scale = ExpertParam(jnp.ones(4))
    p = oracle_p(numbers(mole), INSTRUCTION[0])

    def choices(key):
        x, kinds = np.zeros((4000, 1, D), np.float32), np.ones((4000, 1), np.int32)
        return output(mole, x, kinds, many, key)[:, 0, :4]

    drawn = choices(jax.random.key(1))
    np.testing.assert_array_equal(drawn.sum(-1), 1)
    np.testing.assert_allclose(drawn.mean(0), p, atol=0.03)  # four standard deviations
    np.testing.assert_array_equal(choices(jax.random.key(1)), drawn)
    assert np.any(choices(jax.random.key(2)) != drawn)
    np.testing.assert_array_equal(choices(None), np.tile(np.eye(4)[p.argmax()], (4000, 1)))


def test_gumbel_learns_from_the_soft_sample():
    mole = make(gumbel=True, temperature=0.7)
    params, key = numbers(mole), jax.random.key(3)
    noise = np.asarray(jax.random.gumbel(jax.random.fold_in(key, 0), (B, 4)), np.float64)
    logits = np.log(oracle_p(params, INSTRUCTION)) + noise
    p = softmax64(logits / 0.7)
    y = chosen_of(oracle_experts(params, X), np.repeat(p[:, None], M, axis=1))
    np.testing.assert_allclose(output(mole, key=key), y, rtol=0, atol=2e-5)
    of_p = np.where(np.arange(4) == p.argmax(-1)[:, None], (y * WEIGHT).sum((1, 2))[:, None], 0)
    got, _ = loss_gradient(mole, key=key)
    want = router_by_hand(params, INSTRUCTION.astype(np.float64), p, of_p / 0.7)
    for name, value in want.items():
        np.testing.assert_allclose(got[name], value, rtol=1e-4, atol=1e-4, err_msg=name)


def test_every_layer_draws_noise_of_its_own_until_the_key_is_taken_away():
    model = told(make_model(gumbel=True), key=jax.random.key(0))
    stacked, last = model.stack.layers.mlp.experts, model.last.mlp.experts
    keys = jnp.concatenate([stacked.key[...], last.key[...][None]])
    assert len(np.unique(jax.random.key_data(keys), axis=0)) == 4
    told(model)
    assert stacked.key is None and last.key is None
    assert told(make_model(), key=jax.random.key(0)).last.mlp.experts.key is None


def test_probabilities_for_pictures_are_those_of_the_layers():
    model = make_model()
    got = router_probabilities(model, INSTRUCTION)
    assert {path: p.shape for path, p in got.items()} == {
        "last/mlp": (B, 4),
        "stack/layers/mlp": (3, B, 4),
    }
    params = nnx.to_pure_dict(nnx.state(model))["stack"]["layers"]["mlp"]["experts"]
    for layer in range(3):
        layer_params = {name: np.asarray(v[layer], np.float64) for name, v in params.items()}
        want = oracle_p(layer_params, INSTRUCTION.astype(np.float64))
        np.testing.assert_allclose(got["stack/layers/mlp"][layer], want, rtol=0, atol=1e-5)


def test_the_balance_penalty_is_that_of_the_switch_transformer():
    model = make_model()
    want = []
    for p in router_probabilities(model, INSTRUCTION).values():
        for layer in np.asarray(p, np.float64).reshape(-1, B, 4):
            chosen = layer.argmax(-1)
            want.append(4 * sum(np.mean(chosen == k) * np.mean(layer[:, k]) for k in range(4)))
    got = balance_penalty(model, INSTRUCTION)
    assert got.dtype == jnp.float32 and got.shape == ()
    assert got == pytest.approx(np.mean(want), rel=1e-5)


def test_the_balance_penalty_pushes_down_the_expert_that_gets_everything():
    mole = make()
    mole.router_out_bias = ExpertParam(jnp.asarray([0.0, 9.0, 0.0, 0.0]))
    graphdef, state = nnx.split(mole)
    penalty, gradient = jax.value_and_grad(
        lambda state: balance_penalty(nnx.merge(graphdef, state), INSTRUCTION)
    )(state)
    assert 1 < penalty <= 4
    gradient = nnx.to_pure_dict(gradient)
    assert gradient["router_out_bias"][1] > 0 > np.delete(gradient["router_out_bias"], 1).max()
    assert np.all(np.asarray(gradient["down"]) == 0)
    # Even in every respect, it is 1: four instances, one for each of four experts.
    eye = Mole(MoleConfig(rank=3), D, instruction_width=4, rngs=nnx.Rngs(0))
    eye.router_in, eye.router_out = ExpertParam(jnp.eye(4)), ExpertParam(jnp.eye(4))
    assert balance_penalty(eye, np.eye(4, dtype=np.float32)) == pytest.approx(1)


@pytest.mark.parametrize("function", [balance_penalty, router_probabilities])
@pytest.mark.parametrize("options", [{"route": "token"}, {"route": "both"}, {"experts": 1}])
def test_only_routing_by_instance_is_known_from_the_instructions(function, options):
    with pytest.raises(UserError, match="Routing by instance was asked of"):
        function(make(**options), INSTRUCTION)
    with pytest.raises(UserError, match="read: nothing"):
        function(adapter_model(), INSTRUCTION)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"experts": 0}, r"language\.experts is 0"),
        ({"rank": 0}, r"language\.rank is 0"),
        ({"route": "task"}, r"language\.route is 'task'.*instance, token, both"),
        ({"temperature": 0.0}, r"language\.temperature is 0\.0"),
        ({"temperature": float("nan")}, r"language\.temperature is nan"),
    ],
)
def test_bad_configs_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        MoleConfig(**options)
