"""The transformation of maps against plain loops in float64; what must not change its result."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from omni_smola.errors import UserError
from omni_smola.experts import adt as adt_lib
from omni_smola.experts.adt import TRANSFORMS, Adt, AdtConfig, AveragePool, CrossAttention
from omni_smola.experts.param import ExpertParam
from omni_smola.experts.vision_map import VisionMap, adaptive_average, weighted_sample

CONFIG = AdtConfig(side=3, layers=2, heads=2, points=3, d_ff=10)
WIDTH = 8
SIZES = np.array([[5, 3], [2, 7], [1, 1], [4, 4]], np.int32)
TOKENS = np.random.default_rng(0).normal(size=(4, 18, WIDTH)).astype(np.float32)
LAYERED = ["adt", "cross_attention"]


@functools.cache
def transform(name, config=CONFIG, width=WIDTH):
    """Random weights, without ever computing the initial ones."""
    make = TRANSFORMS[name]
    graphdef, abstract = nnx.split(nnx.eval_shape(lambda: make(config, width, rngs=nnx.Rngs(0))))
    rng = np.random.default_rng(1)
    state = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape) / 2, x.dtype), abstract)
    module = nnx.merge(graphdef, state)
    if name == "adt":
        module.reference[...] = jnp.asarray(rng.uniform(size=(config.side**2, 2)), jnp.float32)
    return module


@functools.cache
def fresh(name, config=CONFIG, width=WIDTH):
    """The initial weights, computed in one program."""
    make = functools.partial(TRANSFORMS[name], config, width)
    graphdef = nnx.graphdef(nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0))))
    return nnx.merge(graphdef, jax.jit(lambda: nnx.state(make(rngs=nnx.Rngs(0))))())


@functools.cache
def compiled(name, config=CONFIG):
    """(state, map, key) -> the output, and the gradients of a scalar of it, of state and tokens."""
    graphdef = nnx.graphdef(transform(name, config))

    def value(state, tokens, vision_map, key):
        y = nnx.merge(graphdef, state)(vision_map.replace(tokens=tokens), key)
        return jnp.sum(jnp.sin(y.astype(jnp.float32))), y

    def both(state, vision_map, key):
        slope = jax.grad(value, argnums=(0, 1), has_aux=True)
        (of_state, of_tokens), y = slope(state, vision_map.tokens, vision_map, key)
        return y, of_tokens, of_state

    return jax.jit(both)


def run(name, vision_map, key=None, config=CONFIG):
    """y, d tokens and d parameters of the transformation of random weights."""
    return compiled(name, config)(nnx.state(transform(name, config)), vision_map, key)


def vision_map(tokens=TOKENS, sizes=SIZES):
    return VisionMap(jnp.asarray(tokens), jnp.asarray(sizes))


def numpy64(variable):
    return np.asarray(variable[...], np.float64)


def count(module):
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(module)))


def naive_pool(tokens, rows, columns, side):
    grid = tokens[: rows * columns].astype(np.float64).reshape(rows, columns, -1)
    cells = []
    for i in range(side):
        for j in range(side):
            top, bottom = int(np.floor(i * rows / side)), int(np.ceil((i + 1) * rows / side))
            left, right = int(np.floor(j * columns / side)), int(np.ceil((j + 1) * columns / side))
            cells.append(grid[top:bottom, left:right].mean(axis=(0, 1)))
    return np.stack(cells)


def naive_sample(tokens, rows, columns, x, y):
    """tokens (n, d) at one place, what lies outside counting as zero."""
    x, y, total = x * columns - 0.5, y * rows - 0.5, np.zeros(tokens.shape[-1])
    for row in range(rows):
        for column in range(columns):
            weight = max(0, 1 - abs(x - column)) * max(0, 1 - abs(y - row))
            total += weight * tokens[row * columns + column]
    return total


@pytest.mark.parametrize("side", [1, 2, 3, 7])
def test_pooling_is_the_mean_of_each_bin_also_where_the_map_is_smaller_than_the_grid(side):
    got = jax.jit(adaptive_average, static_argnums=2)(TOKENS, SIZES, side)
    for row, (height, width) in enumerate(SIZES):
        want = naive_pool(TOKENS[row], height, width, side)
        np.testing.assert_allclose(got[row], want, rtol=0, atol=1e-6)


def test_samples_are_bilinear_and_zero_outside():
    rng = np.random.default_rng(1)
    value = rng.normal(size=(4, 18, 2, 5)).astype(np.float32)
    points = rng.uniform(-0.4, 1.4, size=(4, 6, 2, 3, 2)).astype(np.float32)
    points[0, 0, 0, :, 0] = [0, 1, 1e12]  # on the borders, and far away
    weights = rng.normal(size=points.shape[:-1]).astype(np.float32)
    got = jax.jit(weighted_sample)(*map(jnp.asarray, (value, points, weights, SIZES)))
    for b, q, h in np.ndindex(4, 6, 2):
        want = sum(
            weights[b, q, h, k]
            * naive_sample(value[b, :, h].astype(np.float64), *SIZES[b], *points[b, q, h, k])
            for k in range(3)
        )
        np.testing.assert_allclose(got[b, q, h], want, rtol=0, atol=1e-5)


def test_a_map_of_its_own_coordinates_is_read_as_the_point_with_gradient_one():
    rows, columns = 3, 5
    y, x = np.divmod(np.arange(rows * columns), columns)
    own = np.stack([(x + 0.5) / columns, (y + 0.5) / rows], axis=-1)  # (x, y) at the centres
    value = jnp.asarray(own[None, :, None], jnp.float32)
    points = jnp.asarray([[0.3, 0.5], [0.5, 0.4], [0.61, 0.29]])  # the first two on whole places

    def read(points):
        each = points[None, :, None, None]
        ones = jnp.ones(each.shape[:-1])
        return weighted_sample(value, each, ones, jnp.asarray([[rows, columns]]))[0, :, 0]

    np.testing.assert_allclose(jax.jit(read)(points), points, rtol=0, atol=1e-6)
    slope = jax.jit(jax.jacobian(read))(points)
    want = np.einsum("ij,kl->ikjl", np.eye(3), np.eye(2))
    np.testing.assert_allclose(slope, want, rtol=0, atol=1e-5)


def test_deformable_attention_is_the_equation_of_the_paper():
    adt, rng = transform("adt"), np.random.default_rng(2)
    reading = jax.tree.map(lambda x: x[1], adt.layers.reading)  # of the second layer
    query = rng.normal(size=(4, 9, WIDTH)).astype(np.float32)
    places = rng.uniform(size=(9, 2)).astype(np.float32)
    got = jax.jit(lambda *inputs: reading(*inputs, None))(query, vision_map(), places)

    def linear(layer, x):
        return x.astype(np.float64) @ numpy64(layer.kernel) + numpy64(layer.bias)

    offset = linear(reading.offset, query).reshape(4, 9, 2, 3, 2)
    weight = np.exp(linear(reading.weight, query).reshape(4, 9, 2, 3))
    weight /= weight.sum(axis=-1, keepdims=True)
    value = linear(reading.value, TOKENS).reshape(4, 18, 2, 4)
    read = np.zeros((4, 9, 2, 4))
    for b, i, j, k in np.ndindex(4, 9, 2, 3):
        rows, columns = SIZES[b]
        x, y = offset[b, i, j, k] / (columns, rows) + places[i]
        sample = naive_sample(value[b, :, j], rows, columns, x, y)
        read[b, i, j] += weight[b, i, j, k] * sample
    want = linear(reading.out, read.reshape(4, 9, WIDTH))
    np.testing.assert_allclose(got, want, rtol=0, atol=2e-5)


def test_reference_points_start_at_the_cells_centres_or_where_the_authors_have_them():
    start = {
        flag: fresh("adt", AdtConfig(side=2, layers=1, authors_reference=flag)).reference[...]
        for flag in (False, True)
    }
    x_then_y = [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]
    np.testing.assert_array_equal(start[False], x_then_y)
    np.testing.assert_array_equal(start[True], [[0, 0], [0, 1], [1, 0], [1, 1]])


def test_heads_start_looking_in_directions_of_their_own_and_points_further_out():
    adt = fresh("adt", AdtConfig(side=2, heads=4, points=2, layers=3))
    want = [[1, 0], [2, 0], [0, 1], [0, 2], [-1, 0], [-2, 0], [0, -1], [0, -2]]
    for bias in adt.layers.reading.offset.bias[...]:
        np.testing.assert_allclose(bias.reshape(-1, 2), want, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", LAYERED)
def test_at_the_start_the_layers_are_norms_of_the_pooled_map_and_can_learn(name):
    want = np.stack([naive_pool(t, h, w, 3) for t, (h, w) in zip(TOKENS, SIZES, strict=True)])
    for _ in range(3 * CONFIG.layers):
        want = want - want.mean(axis=-1, keepdims=True)
        want = want / np.sqrt(np.square(want).mean(axis=-1, keepdims=True) + 1e-5)
    got, _, slope = compiled(name)(nnx.state(fresh(name)), vision_map(), None)
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)
    layers = nnx.to_pure_dict(slope)["layers"]
    reading = layers["reading"] if name == "adt" else layers["reading"]["attention"]
    for out in (layers["attention"]["out"], reading["out"], layers["wo"]):
        assert np.all(np.any(out["kernel"] != 0, axis=(1, 2))), "a layer that cannot start"


@pytest.mark.parametrize("name", list(TRANSFORMS))
def test_rows_of_different_sizes_are_what_each_is_alone_without_padding(name):
    together, _, _ = run(name, vision_map())
    for row in (1, 2):
        height, width = SIZES[row]
        alone = vision_map(TOKENS[row : row + 1, : height * width], SIZES[row : row + 1])
        got = nnx.jit(lambda module, alone: module(alone))(transform(name), alone)
        np.testing.assert_allclose(got[0], together[row], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", list(TRANSFORMS))
def test_padding_has_no_influence_whatever_it_holds(name):
    mask = np.asarray(vision_map().mask())
    assert [int(n) for n in mask.sum(axis=1)] == [15, 14, 1, 16]
    _, slope, _ = run(name, vision_map())
    assert np.all(np.asarray(slope)[~mask] == 0)
    assert np.all(np.any(np.asarray(slope)[mask] != 0, axis=-1))
    broken = np.where(mask[..., None], TOKENS, np.nan)
    for got, want in zip(run(name, vision_map(broken)), run(name, vision_map()), strict=True):
        jax.tree.map(np.testing.assert_array_equal, got, want)


@pytest.mark.parametrize("name", list(TRANSFORMS))
def test_an_example_without_an_image_is_finite_and_disturbs_no_other(name):
    sizes, others = SIZES.copy(), [0, 2, 3]
    sizes[1] = 0
    got = run(name, vision_map(sizes=sizes))
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(got))
    want = run(name, vision_map())[0]
    np.testing.assert_array_equal(got[0][jnp.asarray(others)], want[jnp.asarray(others)])


@pytest.mark.parametrize("name", LAYERED)
def test_one_compiled_program_serves_all_sizes_and_every_parameter_learns(name):
    run(name, vision_map())
    programs = compiled(name)._cache_size()
    _, _, slope = run(name, vision_map(sizes=SIZES[::-1].copy()))
    assert compiled(name)._cache_size() == programs
    for path, leaf in jax.tree_util.tree_leaves_with_path(nnx.to_pure_dict(slope)):
        # Softmax ignores what is added to all logits of a query: keys' biases have no gradient.
        path = jax.tree_util.keystr(path)
        if not path.endswith("['key']['bias']"):
            assert np.any(np.abs(leaf) > 1e-6), path


@pytest.mark.parametrize("name", LAYERED)
def test_dropout_needs_a_key_and_a_rate(name):
    bare, _, _ = run(name, vision_map())
    first, again, other = (run(name, vision_map(), jax.random.key(i))[0] for i in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, bare)
    assert not np.array_equal(first, other)
    config = dataclasses.replace(CONFIG, dropout=0.0)
    without, _, _ = run(name, vision_map(), jax.random.key(0), config)
    np.testing.assert_array_equal(without, bare)


def test_dropout_keeps_the_mean():
    kept = np.asarray(adt_lib._dropout(jnp.ones((200, 200)), 0.25, jax.random.key(0)))
    np.testing.assert_allclose(np.unique(kept), [0, 4 / 3], rtol=1e-6)
    assert abs(kept.mean() - 1) < 0.02


@pytest.mark.parametrize("name", list(TRANSFORMS))
def test_transforms_run_in_the_dtype_of_the_map_with_float32_parameters(name):
    module = transform(name)
    leaves = nnx.state(module).flat_state()
    assert all(type(v) is ExpertParam and v[...].dtype == jnp.float32 for _, v in leaves)
    half, _, slope = run(name, vision_map(jnp.asarray(TOKENS, jnp.bfloat16)))
    assert half.dtype == jnp.bfloat16
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(slope))
    want, _, _ = run(name, vision_map())
    np.testing.assert_allclose(half.astype(jnp.float32), want, rtol=0, atol=0.15)


def test_parameters_are_those_of_the_paper_and_grow_only_as_they_should():
    def expected(config, width, deformable):
        attention = 4 * (width + 1) * width
        samples = config.heads * config.points
        reading = 2 * (width + 1) * width + 3 * (width + 1) * samples if deformable else attention
        feed_forward = (width + 1) * config.d_ff + (config.d_ff + 1) * width
        shared = config.side**2 * (width + 2 if deformable else width)
        return config.layers * (attention + reading + feed_forward + 6 * width) + shared

    changes = [{}, {"side": 5}, {"layers": 1}, {"heads": 4}, {"points": 1}, {"d_ff": 7}]
    for change in changes:
        config = dataclasses.replace(CONFIG, **change)
        for cls in (Adt, CrossAttention):
            module = nnx.eval_shape(lambda cls=cls, c=config: cls(c, WIDTH, rngs=nnx.Rngs(0)))
            assert count(module) == expected(config, WIDTH, cls is Adt), (cls, change)
    assert count(AveragePool(CONFIG, WIDTH, rngs=nnx.Rngs(0))) == 0


def test_layers_and_heads_do_not_start_alike():
    adt = fresh("adt")
    first, second = adt.layers.reading.value.kernel[...]
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, adt.layers.attention.value.kernel[...][0])


@pytest.mark.parametrize("field", ["side", "layers", "heads", "points", "d_ff"])
def test_a_number_below_one_is_refused(field):
    with pytest.raises(UserError, match=rf"vision\.{field} is 0.*1 or more"):
        AdtConfig(**{field: 0})


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_a_rate_that_is_none_is_refused(rate):
    with pytest.raises(UserError, match=r"vision\.dropout is .*below 1"):
        AdtConfig(dropout=rate)


@pytest.mark.parametrize("name", LAYERED)
def test_heads_that_do_not_divide_the_width_are_refused(name):
    with pytest.raises(UserError, match=r"width is 9, which vision\.heads=2 does not divide"):
        TRANSFORMS[name](CONFIG, 9, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("name", list(TRANSFORMS))
def test_a_map_of_another_width_is_refused(name):
    with pytest.raises(UserError, match=r"tokens are 6 wide, .* built for 8"):
        transform(name)(vision_map(TOKENS[..., :6]))
