"""Omni-SMoLA's single pass against the equations as loops, and who may influence whom."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from omni_smola.errors import UserError
from omni_smola.experts.param import ExpertParam
from omni_smola.experts.smola import SmolaConfig, SmolaExperts, allowed_slots
from omni_smola.token_kinds import TokenKind

from ..models.conftest import randomized

WIDTH = 6
OUTPUTS = {"q": 5, "v": 7}
MEMBERS = {
    "visual": (TokenKind.VISUAL,),
    "text": (TokenKind.TEXT,),
    "multimodal": (TokenKind.TEXT, TokenKind.VISUAL),
}


def random_experts(config, outputs=OUTPUTS, seed=0):
    """Experts whose every parameter is random, W_out and the scales too."""
    make = partial(SmolaExperts, config, WIDTH, outputs)
    return randomized(nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0))), seed, size=1.0)


def random_batch(seed=1, tokens=9):
    """Random kinds, an example without text, one without an image, one of padding only."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(0, 3, (5, tokens)).astype(np.int32)
    kinds[1] = np.where(kinds[1] == TokenKind.TEXT, TokenKind.PADDING, kinds[1])
    kinds[2] = np.where(kinds[2] == TokenKind.VISUAL, TokenKind.PADDING, kinds[2])
    kinds[3] = TokenKind.PADDING
    return rng.normal(size=(5, tokens, WIDTH)).astype(np.float32), kinds


@nnx.jit
def residuals(experts, x, kinds):
    return experts(x, kinds)


def parameters(experts):
    pure = nnx.to_pure_dict(nnx.state(experts))
    return jax.tree.map(lambda x: np.asarray(x, np.float64), pure)


def by_loops(experts, x, kinds):
    """The equations, set by set, expert by expert, token by token, in float64."""
    config, p = experts.config, parameters(experts)
    result = {n: np.zeros((*kinds.shape, w)) for n, w in OUTPUTS.items()}
    for j, name in enumerate(OUTPUTS):
        r = 0 if config.share_router else j
        phi = p["router"][r] if "router" in p else p["router_in"][r] @ p["router_out"][r]
        for b in range(len(x)):
            slot = 0
            for index, (set_name, kinds_of_set) in enumerate(MEMBERS.items()):
                size = getattr(config, set_name)
                tokens = [t for t in range(x.shape[1]) if kinds[b, t] in kinds_of_set]
                slots, slot = range(slot, slot + size), slot + size
                logit = {}
                for t in tokens:
                    for e in slots:
                        token, column = np.asarray(x[b, t], np.float64), phi[:, e]
                        token = token / np.sqrt(sum(token**2) + 1e-6)
                        column = column / np.sqrt(sum(column**2) + 1e-6)
                        logit[t, e] = p["scale"][r, index] * sum(token * column)
                for e in slots:
                    total = sum(np.exp(logit[t, e]) for t in tokens)
                    read = sum((np.exp(logit[t, e]) / total * x[b, t] for t in tokens), 0.0)
                    if not tokens:
                        continue
                    output = read @ p["w_in"][j, e] @ p["w_out"][name][e]
                    for t in tokens:
                        share = np.exp(logit[t, e]) / sum(np.exp(logit[t, f]) for f in slots)
                        result[name][b, t] += share * output
    return result


@pytest.mark.parametrize(
    "config",
    [
        SmolaConfig(2, 3, 4, rank=2),
        SmolaConfig(2, 3, 4, rank=2, share_router=True),
        SmolaConfig(3, 1, 2, rank=3, router_rank=2),
        SmolaConfig(1, 2, 3, rank=1, router_rank=4, share_router=True),
        SmolaConfig(0, 3, 2, rank=2),
        SmolaConfig(2, 0, 0, rank=2),
        SmolaConfig(0, 0, 4, rank=2, share_router=True),
    ],
    ids=str,
)
def test_the_single_pass_equals_the_equations_as_loops(config):
    experts = random_experts(config)
    x, kinds = random_batch()
    got = residuals(experts, x, kinds)
    assert list(got) == list(OUTPUTS)
    for name, want in by_loops(experts, x, kinds).items():
        assert np.abs(want).max() > 0.1
        np.testing.assert_allclose(got[name], want, rtol=0, atol=1e-5)


def of_one_set(name, **sizes):
    return SmolaConfig(**{**dict(visual=0, text=0, multimodal=0), name: 3}, rank=2, **sizes)


@pytest.mark.parametrize("name", MEMBERS)
def test_tokens_outside_a_set_neither_give_nor_take_exactly(name):
    experts = random_experts(of_one_set(name))
    x, kinds = random_batch()
    member = np.isin(kinds, MEMBERS[name])
    cotangent = np.random.default_rng(2).normal(size=(*kinds.shape, OUTPUTS["q"]))

    @jax.jit
    def gradient(x):
        return jax.grad(lambda x: jnp.sum(experts(x, kinds)["q"] * cotangent))(x)

    for residual in residuals(experts, x, kinds).values():
        assert np.all(residual[~member] == 0)
        assert np.all(np.any(residual[member] != 0, axis=-1))
    of_x = np.asarray(gradient(x))
    assert np.all(of_x[~member] == 0)
    assert np.all(np.any(of_x[member] != 0, axis=-1))


def test_examples_of_a_batch_do_not_meet():
    experts = random_experts(SmolaConfig(2, 2, 2, rank=2))
    x, kinds = random_batch()
    of_x = jax.jit(jax.grad(lambda x: jnp.sum(experts(x, kinds)["v"][0] ** 2)))(x)
    assert np.any(of_x[0] != 0)
    assert np.all(of_x[1:] == 0)


def test_the_residual_follows_a_permutation_of_the_tokens():
    experts = random_experts(SmolaConfig(2, 2, 2, rank=2))
    x, kinds = random_batch()
    order = np.random.default_rng(3).permutation(x.shape[1])
    straight = residuals(experts, x, kinds)
    permuted = residuals(experts, x[:, order], kinds[:, order])
    for name in OUTPUTS:
        np.testing.assert_allclose(permuted[name], straight[name][:, order], rtol=0, atol=1e-5)


def every_gradient(experts, x, kinds):
    """Gradients of a sum of squares of all residuals: of the parameters, and of x."""
    graphdef, state = nnx.split(experts)

    def loss(state, x):
        return sum(jnp.sum(y**2) for y in nnx.merge(graphdef, state)(x, kinds).values())

    of_parameters, of_x = jax.jit(jax.grad(loss, argnums=(0, 1)))(state, x)
    return nnx.to_pure_dict(of_parameters), of_x


@pytest.mark.parametrize("missing", ["text", "image", "everything"])
def test_batches_without_text_image_or_anything_have_finite_gradients(missing):
    experts = random_experts(SmolaConfig(2, 3, 4, rank=2))
    x, _ = random_batch()
    present = {"text": TokenKind.VISUAL, "image": TokenKind.TEXT, "everything": TokenKind.PADDING}[
        missing
    ]
    kinds = np.full(x.shape[:2], present, np.int32)
    kinds[:, -2:] = TokenKind.PADDING
    of_parameters, of_x = every_gradient(experts, x, kinds)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves((of_parameters, of_x)))

    slots = {"text": slice(2, 5), "image": slice(0, 2), "everything": slice(0, 9)}[missing]
    used = np.ones(9, bool)
    used[slots] = False
    of_w_in = np.asarray(of_parameters["w_in"])
    assert np.all(of_w_in[:, ~used] == 0)
    assert np.all(np.any(of_w_in[:, used] != 0, axis=(2, 3)))
    assert np.all(np.asarray(of_parameters["router"])[:, :, ~used] == 0)


def test_tokens_of_zeros_have_finite_gradients():
    experts = random_experts(SmolaConfig(2, 3, 4, rank=2))
    x, kinds = random_batch()
    gradients = every_gradient(experts, np.zeros_like(x), kinds)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradients))


@pytest.mark.parametrize("share_router", [False, True])
def test_routing_weights_sum_to_one(share_router):
    config = SmolaConfig(2, 3, 4, share_router=share_router)
    x, kinds = random_batch()
    dispatch, combine = (np.asarray(w) for w in random_experts(config).routing(x, kinds))
    routers = 1 if share_router else len(OUTPUTS)
    assert dispatch.shape == combine.shape == (*kinds.shape, routers, 9)
    allowed = np.asarray(allowed_slots(jnp.asarray(kinds), config.set_sizes))
    reachable = np.broadcast_to(allowed.any(1)[:, None, :], dispatch.sum(1).shape)
    np.testing.assert_allclose(dispatch.sum(1), reachable, rtol=0, atol=1e-6)
    edges = np.cumsum((0, *config.set_sizes))
    for index, kinds_of_set in enumerate(MEMBERS.values()):
        total = combine[..., edges[index] : edges[index + 1]].sum(-1)
        member = np.isin(kinds, kinds_of_set)[:, :, None]
        np.testing.assert_allclose(total, np.broadcast_to(member, total.shape), rtol=0, atol=1e-6)


def test_allowed_slots_of_the_four_cases():
    kinds = jnp.asarray([[TokenKind.VISUAL, TokenKind.TEXT, TokenKind.PADDING]])
    np.testing.assert_array_equal(
        allowed_slots(kinds, (1, 2, 1))[0],
        [[True, False, False, True], [False, True, True, True], [False] * 4],
    )


def test_at_the_start_the_residual_is_zero_and_only_w_out_learns():
    experts = SmolaExperts(SmolaConfig(2, 2, 2, rank=3), WIDTH, OUTPUTS, rngs=nnx.Rngs(0))
    x, kinds = random_batch()
    graphdef, state = nnx.split(experts)

    @jax.jit
    def gradient(state):
        return jax.grad(lambda s: jnp.sum(nnx.merge(graphdef, s)(x, kinds)["q"]))(state)

    assert all(np.all(y == 0) for y in residuals(experts, x, kinds).values())
    of_parameters = nnx.to_pure_dict(gradient(state))
    assert np.all(np.any(np.asarray(of_parameters["w_out"]["q"]) != 0, axis=(1, 2)))
    for name in ("w_in", "router", "scale"):
        assert np.all(np.asarray(of_parameters[name]) == 0)


def test_experts_start_differently_and_at_the_scale_of_their_input():
    config = SmolaConfig(16, 16, 16, rank=4, scale_init=2.0)
    experts = SmolaExperts(config, 64, {"q": 8, "k": 8, "v": 8}, rngs=nnx.Rngs(0))
    p = parameters(experts)
    assert p["w_in"].shape == (3, 48, 64, 4)
    assert p["router"].shape == (3, 64, 48)
    assert len(np.unique(p["w_in"].reshape(3 * 48, -1), axis=0)) == 3 * 48
    assert len(np.unique(p["router"].transpose(0, 2, 1).reshape(3 * 48, -1), axis=0)) == 3 * 48
    np.testing.assert_allclose(p["w_in"].std() * 64**0.5, 1, atol=0.05)
    np.testing.assert_allclose(p["router"].std() * 64**0.5, 1, atol=0.05)
    np.testing.assert_array_equal(p["scale"], np.full((3, 3), 2.0))
    assert all(type(leaf) is ExpertParam for _, leaf in nnx.state(experts).flat_state())


def test_a_shared_router_is_several_equal_ones():
    shared = random_experts(SmolaConfig(2, 2, 2, rank=2, share_router=True))
    apart = random_experts(SmolaConfig(2, 2, 2, rank=2))
    apart.router[...] = jnp.tile(shared.router[...], (2, 1, 1))
    apart.scale[...] = jnp.tile(shared.scale[...], (2, 1))
    apart.w_in[...] = shared.w_in[...]
    for name in OUTPUTS:
        apart.w_out[name][...] = shared.w_out[name][...]
    x, kinds = random_batch()
    got, want = residuals(apart, x, kinds), residuals(shared, x, kinds)
    for name in OUTPUTS:
        np.testing.assert_allclose(got[name], want[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize("more", [{}, {"share_router": True, "router_rank": 2}])
def test_bfloat16_activations_keep_float32_routing_and_gradients(more):
    experts = random_experts(SmolaConfig(2, 3, 4, rank=2, **more))
    x, kinds = random_batch()
    half = jnp.asarray(x, jnp.bfloat16)
    got, want = residuals(experts, half, kinds), residuals(experts, x, kinds)
    for name in OUTPUTS:
        assert got[name].dtype == jnp.bfloat16
        np.testing.assert_allclose(got[name].astype(jnp.float32), want[name], rtol=0, atol=0.2)
    assert {weights.dtype for weights in experts.routing(half, kinds)} == {jnp.dtype("float32")}
    of_parameters, of_x = every_gradient(experts, half, kinds)
    assert of_x.dtype == jnp.bfloat16
    for leaf in jax.tree.leaves(of_parameters):
        assert leaf.dtype == jnp.float32
        assert np.all(np.isfinite(leaf))


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("visual", -1, "experts.visual is -1"),
        ("text", -2, "experts.text is -2"),
        ("rank", 0, "experts.rank is 0"),
        ("router_rank", 0, "experts.router_rank is 0"),
    ],
)
def test_impossible_sizes_are_refused(field, value, said):
    with pytest.raises(UserError, match=said):
        SmolaConfig(**{field: value})


def test_no_experts_at_all_are_refused():
    with pytest.raises(UserError, match="are all 0"):
        SmolaConfig(0, 0, 0)
