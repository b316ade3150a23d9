"""The mixture of vision experts against its equation, and what a gate may and may not touch."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from omni_smola.errors import UserError
from omni_smola.experts.adapter import Adapter, AdapterConfig
from omni_smola.experts.adt import AdtConfig
from omni_smola.experts.move import Move, MoveConfig, shares
from omni_smola.experts.param import ExpertParam
from omni_smola.experts.vision_map import VisionMap

ADT = AdtConfig(side=2, layers=2, heads=2, points=2, d_ff=6)
WIDTHS = {"clip": 6, "dino": 4, "pix2struct": 8}
CONFIG = MoveConfig(tuple(WIDTHS), transform="average", cls="clip", plain=("clip",), adt=ADT)
D_MODEL, INSTRUCTION = 10, 5
RNG = np.random.default_rng(0)
SIZES = {
    "clip": np.array([[2, 2]] * 3, np.int32),
    "dino": np.array([[4, 4]] * 3, np.int32),
    "pix2struct": np.array([[3, 5], [7, 2], [2, 4]], np.int32),
}
MAPS = {
    name: VisionMap(
        jnp.asarray(RNG.normal(size=(3, sizes.prod(axis=1).max(), WIDTHS[name])), jnp.float32),
        jnp.asarray(sizes),
        jnp.asarray(RNG.normal(size=(3, 6)), jnp.float32) if name == "clip" else None,
    )
    for name, sizes in SIZES.items()
}
WORDS = jnp.asarray(RNG.normal(size=(3, INSTRUCTION)), jnp.float32)


@functools.cache
def make(config=CONFIG):
    """Random weights, without ever computing the initial ones."""
    graphdef, abstract = nnx.split(abstract_move(config))
    rng = np.random.default_rng(1)
    state = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape) / 2, x.dtype), abstract)
    return nnx.merge(graphdef, state)


def abstract_move(config, widths=WIDTHS, d_model=D_MODEL, instruction=INSTRUCTION):
    return nnx.eval_shape(lambda: Move(config, widths, d_model, instruction, rngs=nnx.Rngs(0)))


def changed(**changes):
    return dataclasses.replace(CONFIG, **changes)


def count(module):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(module)))


def linear64(layer, x):
    kernel, bias = (np.asarray(v[...], np.float64) for v in (layer.kernel, layer.bias))
    return np.asarray(x, np.float64) @ kernel + bias


def norm64(norm, x):
    x = np.asarray(x, np.float64)
    x = x - x.mean(axis=-1, keepdims=True)
    x = x / np.sqrt(np.square(x).mean(axis=-1, keepdims=True) + 1e-5)
    return x * np.asarray(norm.scale[...]) + np.asarray(norm.bias[...])


def gates64(router, words):
    hidden = linear64(router.hidden, words)
    hidden = hidden * 0.5 * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2)))
    logits = np.exp(linear64(router.logits, hidden))
    return logits / logits.sum(axis=-1, keepdims=True)


def projected64(move):
    """{encoder: (b, L, d_model)} of average pooling, plain CLIP."""
    out = {}
    for name, expert in move.experts.items():
        tokens = MAPS[name].tokens
        if name in move.config.plain:
            tokens = norm64(expert.norm, tokens)
        else:
            tokens = np.asarray(expert.transform(MAPS[name]))
        out[name] = linear64(expert.projection, tokens)
    return out


def test_the_router_is_softmax_of_a_gelu_layer():
    move = make()
    gates = move.gates(WORDS)
    assert gates.shape == (3, 3) and gates.dtype == jnp.float32
    np.testing.assert_allclose(gates, gates64(move.router, WORDS), rtol=0, atol=1e-6)
    np.testing.assert_allclose(gates.sum(axis=1), 1, rtol=0, atol=1e-6)
    assert np.abs(gates[0] - gates[1]).max() > 0.01


@pytest.mark.parametrize("aggregate", ["router", "addition"])
def test_tokens_are_the_sum_of_the_gated_projections_after_a_cls_without_gate(aggregate):
    move = make(changed(aggregate=aggregate))
    gates = gates64(move.router, WORDS) if aggregate == "router" else np.ones((3, 3))
    parts = np.stack(list(projected64(move).values()), axis=1) * gates[:, :, None, None]
    features = move.features(MAPS, WORDS)
    assert features.shape == (3, 3, 4, D_MODEL)
    np.testing.assert_allclose(features, parts, rtol=0, atol=2e-5)
    clip = move.experts["clip"]
    cls = linear64(clip.projection, norm64(clip.norm, MAPS["clip"].cls))
    want = np.concatenate([cls[:, None], parts.sum(axis=1)], axis=1)
    got = move(MAPS, WORDS)
    assert got.shape == (3, 5, D_MODEL)
    np.testing.assert_allclose(got, want, rtol=0, atol=2e-5)


def test_an_instruction_moves_the_gated_tokens_and_not_the_cls():
    slope = jax.jacobian(lambda words: make()(MAPS, words).sum(axis=-1))(WORDS)
    assert np.all(slope[:, 0] == 0)
    for row in range(3):
        assert np.all(np.any(slope[row, 1:, row] != 0, axis=-1))
        others = [other for other in range(3) if other != row]
        assert np.all(slope[row, :, jnp.asarray(others)] == 0)


def test_addition_and_a_single_encoder_have_no_router_and_gates_of_one():
    single = MoveConfig(("dino",), transform="average", adt=ADT)
    for config in (changed(aggregate="addition"), single):
        move = make(config)
        assert move.router is None
        np.testing.assert_array_equal(move.gates(WORDS), np.ones((3, len(config.encoders))))
    got = make(single)({"dino": MAPS["dino"]}, WORDS)
    want = projected64(make(single))["dino"]
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)


def test_shares_are_mean_magnitudes_over_their_sum():
    features = np.array([[[[1, -1]], [[3, 3]]], [[[0, 0]], [[-2, 0]]], [[[0, 0]], [[0, 0]]]])
    got = shares(jnp.asarray(features, jnp.bfloat16))
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, [[0.25, 0.75], [0, 1], [0, 0]], rtol=0, atol=1e-6)


@pytest.mark.parametrize("transform", ["adt", "cross_attention", "average"])
def test_every_parameter_learns_in_one_compiled_step(transform):
    config = changed(transform=transform)
    graphdef, state = nnx.split(make(config))

    @jax.jit
    def slope(state, maps, words, key):
        return jax.grad(lambda s: jnp.sum(jnp.sin(nnx.merge(graphdef, s)(maps, words, key))))(state)

    of_state = nnx.to_pure_dict(slope(state, MAPS, WORDS, jax.random.key(0)))
    for path, leaf in jax.tree_util.tree_leaves_with_path(of_state):
        assert np.all(np.isfinite(leaf))
        # Softmax ignores what is added to all logits of a query: keys' biases have no gradient.
        path = jax.tree_util.keystr(path)
        if not path.endswith("['key']['bias']"):
            assert np.any(np.abs(leaf) > 1e-7), path


def test_dropout_comes_with_a_key_and_differs_between_experts():
    config = MoveConfig(("a", "b"), aggregate="addition", adt=dataclasses.replace(ADT, layers=1))
    move = abstract_move(config, {"a": 8, "b": 8})
    rng = np.random.default_rng(2)
    shapes = nnx.state(move.experts["a"])
    weights = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype), shapes)
    for name in "ab":
        nnx.update(move.experts[name], weights)
    same = dict.fromkeys("ab", MAPS["pix2struct"])
    features = nnx.jit(lambda move, key: move.features(same, WORDS, key))
    bare = features(move, None)
    np.testing.assert_array_equal(bare[:, 0], bare[:, 1])
    dropped = features(move, jax.random.key(0))
    np.testing.assert_array_equal(dropped, features(move, jax.random.key(0)))
    assert not np.array_equal(dropped, bare)
    assert not np.array_equal(dropped[:, 0], dropped[:, 1])


def test_tokens_have_the_dtype_of_the_maps_and_parameters_are_float32():
    leaves = nnx.state(make()).flat_state()
    assert all(type(v) is ExpertParam and v[...].dtype == jnp.float32 for _, v in leaves)
    floats = lambda x: x.astype(jnp.bfloat16) if x.dtype == jnp.float32 else x  # noqa: E731
    half = make()(jax.tree.map(floats, MAPS), WORDS)
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(jnp.float32), make()(MAPS, WORDS), rtol=0, atol=0.1)


def test_stage_one_of_mome_trains_as_many_parameters_as_the_paper_says():
    config = MoveConfig(("clip", "dino", "pix2struct"), cls="clip", plain=("clip",))
    widths = {"clip": 1408, "dino": 1024, "pix2struct": 768}
    move = count(abstract_move(config, widths, 4096, 384))
    adapter = count(nnx.eval_shape(lambda: Adapter(AdapterConfig(64), 4096, rngs=nnx.Rngs(0))))
    assert round((move + 32 * adapter) / 1e6, 1) == 112.8


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"encoders": (), "cls": "", "plain": ()}, r"encoders is \(\), but MoVE needs one"),
        ({"encoders": ("clip", "clip")}, "each named once"),
        ({"transform": "pool"}, "transform is 'pool', but it is one of adt, average, cross"),
        ({"aggregate": "sum"}, "aggregate is 'sum', but it is one of router, addition"),
        ({"cls": "eva"}, "cls names 'eva', but the encoders are clip, dino, pix2struct"),
        ({"plain": ("eva",)}, "plain names 'eva', but the encoders are"),
    ],
)
def test_a_config_that_cannot_be_is_refused(changes, sentence):
    with pytest.raises(UserError, match=sentence):
        changed(**changes)


def test_missing_widths_and_heads_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="widths lack dino, pix2struct"):
        abstract_move(CONFIG, {"clip": 6})
    with pytest.raises(UserError, match="width is 7, which"):
        abstract_move(changed(transform="adt"), WIDTHS | {"dino": 7})


@pytest.mark.parametrize(
    ("maps", "words", "sentence"),
    [
        ({"clip": MAPS["clip"]}, WORDS, "maps lack dino, pix2struct"),
        (MAPS | {"dino": MAPS["clip"]}, WORDS, "tokens are 6 wide, but .* built for 4"),
        (
            MAPS | {"clip": MAPS["dino"].replace(tokens=MAPS["dino"].tokens[:, :4])},
            WORDS,
            "tokens are 4 wide, but .* built for 6",
        ),
        (MAPS | {"clip": MAPS["dino"]}, WORDS, "map of clip has 16 tokens, .* squared, 4"),
        (MAPS | {"clip": MAPS["clip"].replace(cls=None)}, WORDS, "map of clip has no CLS"),
        (MAPS, WORDS[:, :3], "embedding is 3 wide, but MoVE's router was built for 5"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(maps, words, sentence):
    with pytest.raises(UserError, match=sentence):
        make()(maps, words)
