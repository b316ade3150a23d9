"""MoLE's layer against its equations and the plain adapter."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from omni_smola.errors import UserError
from omni_smola.experts import attach
from omni_smola.experts.adapter import Adapter, AdapterConfig
from omni_smola.experts.mole import ROUTES, Mole, MoleConfig
from omni_smola.experts.param import ExpertParam
from omni_smola.experts.token_blocks import block_size, blocks
from omni_smola.token_kinds import TokenKind
from omni_smola.training.sharding import BATCH, make_mesh

D, E, B, M = 6, 5, 4, 9
RNG = np.random.default_rng(0)
X = RNG.normal(size=(B, M, D)).astype(np.float32)
INSTRUCTION = RNG.normal(size=(B, E)).astype(np.float32)
KINDS = RNG.integers(1, 3, (B, M)).astype(np.int32)
KINDS[1, -4:] = TokenKind.PADDING
REAL = KINDS != TokenKind.PADDING
WEIGHT = RNG.normal(size=(B, M, D))
PARAMETERS = ("down", "down_bias", "up", "up_bias", "scale")
erf = np.vectorize(math.erf)


def randomized(build, seed=1):
    """The module that `build` makes, with every parameter drawn from N(0, 1)."""
    rng = np.random.default_rng(seed)
    graphdef, shapes = nnx.split(nnx.eval_shape(build))
    return nnx.merge(
        graphdef, jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype), shapes)
    )


def make(route="instance", experts=4, d=D, e=E, rank=3, **options):
    config = MoleConfig(experts, rank, route, **options)
    return randomized(lambda: Mole(config, d, instruction_width=e, rngs=nnx.Rngs(0)))


def told(mole, instruction=INSTRUCTION, key=None):
    attach.set_instruction(mole, jnp.asarray(instruction), key)
    return mole


@jax.jit
def call(module, *args):
    return module(*args)


@jax.jit
def output(module, x=X, kinds=KINDS, instruction=INSTRUCTION, key=None):
    """The module's output, with the instructions set inside of jit."""
    return told(nnx.merge(*nnx.split(module)), instruction, key)(x, kinds)


def numbers(mole):
    return {n: np.asarray(v, np.float64) for n, v in nnx.to_pure_dict(nnx.state(mole)).items()}


def read(mole, x, instruction):
    """What the router reads, (b, m, w), float64."""
    repeated = np.repeat(instruction[:, None], x.shape[1], axis=1)
    parts = {"instance": [repeated], "token": [x], "both": [x, repeated]}[mole.config.route]
    return np.concatenate(parts, axis=-1).astype(np.float64)


def gelu64(x):
    return x * (1 + erf(x / math.sqrt(2))) / 2


def softmax64(logits):
    p = np.exp(logits - logits.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


def oracle_p(params, inputs):
    hidden = gelu64(inputs @ params["router_in"] + params["router_in_bias"])
    return softmax64(hidden @ params["router_out"] + params["router_out_bias"])


def oracle_experts(params, x):
    """All experts' outputs, (b, m, K, d)."""
    hidden = np.einsum("bmd,kdr->bmkr", x.astype(np.float64), params["down"])
    hidden = np.maximum(hidden + params["down_bias"], 0)
    up = np.einsum("bmkr,krd->bmkd", hidden, params["up"]) + params["up_bias"]
    return params["scale"][:, None] * up


def chosen_of(y, p):
    return np.take_along_axis(y, p.argmax(-1)[..., None, None], axis=2)[:, :, 0]


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("experts", [2, 4, 7])
def test_the_forward_pass_is_the_adapter_that_the_router_chooses(route, experts):
    mole = make(route, experts)
    params = numbers(mole)
    p = oracle_p(params, read(mole, X, INSTRUCTION))
    want = chosen_of(oracle_experts(params, X), p)
    if route != "instance":
        want = np.where(REAL[..., None], want, 0)
    assert len(np.unique(p.argmax(-1))) > 1
    np.testing.assert_allclose(output(mole), want, rtol=0, atol=2e-5)


def loss_gradient(mole, weight=WEIGHT, key=None):
    graphdef, state = nnx.split(mole)

    def loss(state, x):
        model = told(nnx.merge(graphdef, state), key=key)
        return jnp.sum(model(x, KINDS) * weight)

    of_state, of_x = jax.jit(jax.grad(loss, (0, 1)))(state, jnp.asarray(X))
    return nnx.to_pure_dict(of_state), of_x


def router_by_hand(params, inputs, p, of_p):
    """Gradients of the router's parameters from dL/dp, rows (n, w) -> (n, K)."""
    first = inputs @ params["router_in"] + params["router_in_bias"]
    of_logits = p * (of_p - (of_p * p).sum(-1, keepdims=True))
    cdf = (1 + erf(first / math.sqrt(2))) / 2
    density = np.exp(-(first**2) / 2) / math.sqrt(2 * math.pi)
    of_first = of_logits @ params["router_out"].T * (cdf + first * density)
    return {
        "router_in": inputs.T @ of_first,
        "router_in_bias": of_first.sum(0),
        "router_out": gelu64(first).T @ of_logits,
        "router_out_bias": of_logits.sum(0),
    }


@pytest.mark.parametrize("route", ROUTES)
def test_the_router_learns_from_the_product_of_output_and_gradient(route):
    mole = make(route)
    params = numbers(mole)
    inputs = read(mole, X, INSTRUCTION)
    p = oracle_p(params, inputs)
    weight = WEIGHT if route == "instance" else np.where(REAL[..., None], WEIGHT, 0)
    product = (chosen_of(oracle_experts(params, X), p) * weight).sum(-1)  # dL/dp_k* of each token
    if route == "instance":
        inputs, p, product = inputs[:, 0], p[:, 0], product.sum(1)
    else:
        inputs, p, product = (a.reshape(B * M, *a.shape[2:]) for a in (inputs, p, product))
    of_p = np.where(np.arange(4) == p.argmax(-1)[:, None], product[:, None], 0)
    got, _ = loss_gradient(mole)
    for name, want in router_by_hand(params, inputs, p, of_p).items():
        assert np.abs(want).max() > 1e-3
        np.testing.assert_allclose(got[name], want, rtol=1e-4, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("route", ROUTES)
def test_experts_and_input_learn_as_if_the_choice_were_fixed(route):
    mole = make(route, experts=7)
    params = numbers(mole)
    p = oracle_p(params, read(mole, X, INSTRUCTION))
    choice = p.argmax(-1)
    weight = WEIGHT if route == "instance" else np.where(REAL[..., None], WEIGHT, 0)
    got, of_x = loss_gradient(mole)
    want = {name: np.zeros_like(value) for name, value in params.items()}
    for b, m in np.ndindex(B, M):
        k, out = choice[b, m], weight[b, m]
        before = X[b, m] @ params["down"][k] + params["down_bias"][k]
        hidden = np.maximum(before, 0)
        want["scale"][k] += out @ (hidden @ params["up"][k] + params["up_bias"][k])
        out = out * params["scale"][k]
        want["up_bias"][k] += out
        want["up"][k] += np.outer(hidden, out)
        of_before = (params["up"][k] @ out) * (before > 0)
        want["down_bias"][k] += of_before
        want["down"][k] += np.outer(X[b, m], of_before)
        if route == "instance":  # else the router reads x too
            np.testing.assert_allclose(of_x[b, m], params["down"][k] @ of_before, atol=1e-4)
    unused = sorted(set(range(7)) - set(choice[REAL].tolist()))
    assert unused
    for name in PARAMETERS:
        np.testing.assert_allclose(got[name], want[name], rtol=1e-4, atol=1e-4, err_msg=name)
        assert np.all(np.asarray(got[name])[unused] == 0)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("route", ROUTES)
def test_the_value_is_the_chosen_adapters_to_the_bit(route, dtype):
    b, m = 6, 1  # an example of one token is one block by every route
    rng = np.random.default_rng(3)
    x = jnp.asarray(rng.normal(size=(b, m, D)), dtype)
    instruction = rng.normal(size=(b, E)).astype(np.float32)
    mole = make(route)
    got = output(mole, x, np.ones((b, m), np.int32), instruction)
    assert got.dtype == dtype
    p = oracle_p(numbers(mole), read(mole, np.asarray(x, np.float64), instruction))
    adapter = Adapter(AdapterConfig(3), D, rngs=nnx.Rngs(0))
    for row, k in enumerate(p[:, 0].argmax(-1)):
        nnx.update(adapter, {name: getattr(mole, name)[k] for name in PARAMETERS})
        want = call(adapter, x[row : row + 1], None)
        np.testing.assert_array_equal(got[row], want[0])


def test_one_expert_is_the_adapter_without_a_router_or_an_instruction():
    mole = make(experts=1)
    assert sorted(numbers(mole)) == sorted(PARAMETERS)
    adapter = Adapter(AdapterConfig(3), D, rngs=nnx.Rngs(0))
    nnx.update(adapter, {name: getattr(mole, name)[0] for name in PARAMETERS})
    want = call(adapter, X, KINDS)
    np.testing.assert_array_equal(call(mole, X, KINDS), output(mole))
    np.testing.assert_allclose(output(mole), want, rtol=0, atol=1e-6 * np.abs(want).max())


def test_it_starts_at_zero_with_different_experts():
    mole = Mole(MoleConfig(rank=3), D, instruction_width=E, rngs=nnx.Rngs(0))
    assert np.all(output(mole) == 0)
    assert len(np.unique(np.asarray(mole.down[...]).reshape(4, -1), axis=0)) == 4
    assert np.all(mole.scale[...] == 1)
    state = nnx.state(mole, ExpertParam)
    assert all(value.dtype == jnp.float32 for value in jax.tree.leaves(state))
    # Of the size that `Adapter` starts with: 1 / d, whatever K.
    wide = Mole(MoleConfig(rank=64), 64, instruction_width=E, rngs=nnx.Rngs(0))
    assert np.var(wide.down[...]) == pytest.approx(1 / 64, rel=0.05)


def test_routes_agree_where_their_routers_read_the_same():
    """`both`, blind to the token, is `instance`; blind to the instruction, it is `token`."""
    by = {route: make(route) for route in ROUTES}
    for route in ("instance", "token"):
        for name in PARAMETERS:
            setattr(by[route], name, getattr(by["both"], name))
        by[route].router_out_bias = by["both"].router_out_bias
    seen = {"instance": slice(D, None), "token": slice(0, D)}
    for route, part in seen.items():
        small, both = by[route], by["both"]
        kernel = np.zeros((D + E, D + E), np.float32)
        kernel[part, part] = small.router_in[...]
        both.router_in = ExpertParam(jnp.asarray(kernel))
        both.router_in_bias = ExpertParam(jnp.zeros(D + E).at[part].set(small.router_in_bias[...]))
        out = jnp.zeros((D + E, 4)).at[part].set(small.router_out[...])
        both.router_out = ExpertParam(out)
        got, want = output(both), output(small)
        np.testing.assert_allclose(got[REAL], want[REAL], rtol=0, atol=1e-5)
    instance, token = (output(by[route]) for route in seen)
    assert np.any(instance[REAL] != token[REAL])


@pytest.mark.parametrize("route", ROUTES)
def test_examples_and_padding_change_no_bit_of_the_rest(route):
    mole = make(route)
    want = output(mole)
    noise = np.random.default_rng(5).normal(size=X.shape).astype(np.float32) * 9
    got = output(mole, np.where(REAL[..., None], X, noise))
    np.testing.assert_array_equal(got[REAL], want[REAL])
    for row in range(B):
        others = (np.arange(B) != row)[:, None]
        x = np.where(others[..., None], noise, X)
        got = output(mole, x, instruction=np.where(others, -INSTRUCTION, INSTRUCTION))
        np.testing.assert_array_equal(got[row], want[row])
        assert np.any(got != want)


def test_only_routers_that_read_the_instruction_follow_it():
    for route in ("instance", "both"):
        mole = make(route)
        assert np.any(output(mole) != output(mole, instruction=INSTRUCTION[::-1]))
    token = make("token")
    want = output(token)
    np.testing.assert_array_equal(output(token, instruction=INSTRUCTION[::-1]), want)
    np.testing.assert_array_equal(call(token, X, KINDS), want)


@pytest.mark.parametrize(("tokens", "experts", "size"), [(1, 4, 1), (12, 3, 1), (40, 5, 2)])
def test_blocks_hold_tokens_of_one_expert_and_are_enough(tokens, experts, size):
    assert block_size(tokens, experts) == size
    rng = np.random.default_rng(6)
    choices = [rng.integers(0, experts + 1, tokens) for _ in range(50)]
    choices += [np.full(tokens, k) for k in range(experts + 1)]
    choices.append(np.minimum(np.arange(tokens), experts - 1))
    layout = jax.jit(partial(blocks, experts=experts, size=size))
    for choice in choices:
        slots, block_expert = (np.asarray(a) for a in layout(jnp.asarray(choice)))
        routed = choice < experts
        assert len(block_expert) * size <= max(1.25 * tokens, 1)
        assert np.all(slots[~routed] >= len(block_expert) * size)
        np.testing.assert_array_equal(block_expert[slots[routed] // size], choice[routed])
        assert len(np.unique(slots[routed])) == routed.sum()


def flops(function, *args):
    return jax.jit(function).lower(*args).compile().cost_analysis()["flops"]


@pytest.mark.usefixtures("optimized")
@pytest.mark.parametrize("route", ["instance", "token"])
def test_flops_do_not_grow_with_the_number_of_experts(route):
    b, m, d, rank, e = 4, 64, 32, 32, 8
    x, instruction = jnp.ones((b, m, d)), jnp.ones((b, e))
    measured = {}
    for experts in (1, 4, 16):
        mole = make(route, experts, d=d, e=e, rank=rank)
        graphdef, state = nnx.split(mole)

        def routed(state, x, graphdef=graphdef):
            model = told(nnx.merge(graphdef, state), instruction)
            return jnp.sum(model(x, jnp.ones((b, m), jnp.int32)) ** 2)

        def router(state, x, graphdef=graphdef, mole=mole):
            model = told(nnx.merge(graphdef, state), instruction)
            return jnp.sum(model.logits(x) ** 2) if mole.config.experts > 1 else 0.0

        costs = []
        for transform in (lambda f: f, partial(jax.grad, argnums=(0, 1))):
            own = flops(transform(router), state, x) if experts > 1 else 0
            costs.append((flops(transform(routed), state, x) - own) / (4 * b * m * d * rank))
        measured[experts] = costs
    # A quarter more rows at most by token, and little for the gate and the layout.
    allowed = 0.05 if route == "instance" else 0.4
    for experts in (4, 16):
        for one, several in zip(measured[1], measured[experts], strict=True):
            assert several < one * (1 + allowed), measured


@pytest.mark.usefixtures("optimized")
@pytest.mark.parametrize("route", ROUTES)
def test_a_divided_batch_is_routed_without_communication(route):
    mesh = make_mesh(4, 1, 1, jax.devices()[:4])
    place = NamedSharding(mesh, BATCH)
    whole = NamedSharding(mesh, PartitionSpec())
    graphdef, state = nnx.split(make(route))
    args = jax.device_put((X, INSTRUCTION, KINDS), place)

    def run(state, x, instruction, kinds):
        return told(nnx.merge(graphdef, state), instruction)(x, kinds)

    program = jax.jit(run, out_shardings=place).lower(jax.device_put(state, whole), *args).compile()
    for operation in ("all-gather", "all-reduce", "all-to-all", "collective-permute"):
        assert operation not in program.as_text()


@pytest.mark.parametrize("route", ["instance", "both"])
def test_a_layer_that_was_not_told_says_so(route):
    with pytest.raises(UserError, match=r"set_instruction\(model, instruction\)"):
        make(route)(X, KINDS)
    with pytest.raises(UserError, match="4 examples, but set_instruction was given 2"):
        told(make(route), INSTRUCTION[:2])(X, KINDS)
    for bad in (INSTRUCTION[0], INSTRUCTION[:, :3]):
        with pytest.raises(UserError, match=r"of shape \(examples, 5\)"):
            told(make(route), bad)
