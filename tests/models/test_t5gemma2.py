"""T5Gemma 2 as a whole; that it computes what the original does is shown in tests/parity."""

import dataclasses
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from omni_smola.errors import UserError
from omni_smola.experts import attach
from omni_smola.experts.param import ExpertParam
from omni_smola.experts.smola import SmolaConfig, SmolaExperts
from omni_smola.models import gemma_layers
from omni_smola.models.gemma_layers import StackConfig
from omni_smola.models.layers import NEGATIVE, Precision
from omni_smola.models.t5 import Options
from omni_smola.models.t5gemma2 import NAMED, T5Gemma2, T5Gemma2Config
from omni_smola.models.vit import ViTConfig
from omni_smola.token_kinds import TokenKind
from omni_smola.training import state as states

from ..framed import framed

STACK = StackConfig(
    d_model=24,
    heads=4,
    key_heads=2,
    d_head=6,
    d_ff=32,
    sliding=(True, False),
    window=3,
    base=1e6,
    factor=8.0,
    qk_norm=True,
    post_norms=True,
)
CONFIG = T5Gemma2Config(
    ViTConfig(image_size=24, patch_size=6, width=16, depth=1, mlp=20, heads=2),
    STACK,
    dataclasses.replace(STACK, sliding=(True, False, True)),
    vocabulary=44,
    visual_tokens=4,
    softcap=2.0,
    boi=42,
    eoi=43,
)
SMOLA = partial(SmolaExperts, SmolaConfig(2, 1, 3, rank=2))


def abstract(config=CONFIG, options=None):
    return nnx.eval_shape(lambda: T5Gemma2(config, options=options, rngs=nnx.Rngs(0)))


def make(options=None):
    """Random parameters that are equal from call to call, the norms' too."""
    graphdef, state = nnx.split(abstract(options=options))
    rng = np.random.default_rng(0)
    draw = jax.tree.map(lambda x: jnp.asarray(0.25 * rng.normal(size=x.shape), x.dtype), state)
    return nnx.merge(graphdef, draw)


@pytest.fixture(scope="module")
def model():
    return make()


@pytest.fixture(scope="module")
def batch(batch):
    return framed(batch, [2], seen=[2, 41, 42, 43, 41], place=3)


@pytest.fixture(scope="module")
def want(model, batch):
    return np.asarray(logits(model, batch))


@nnx.jit
def logits(model, batch):
    return model(batch)


def test_the_image_stands_between_its_marks_and_missing_ones_are_padding(model, batch):
    x, kinds = nnx.jit(lambda m, b: m.sequence(b))(model, batch)
    assert x.shape == (4, 14, 24)
    assert kinds.dtype == jnp.int32
    v, t, o = TokenKind.VISUAL, TokenKind.TEXT, TokenKind.PADDING
    np.testing.assert_array_equal(
        kinds,
        [
            [t, t, t, v, v, v, v, t, t, t, t, t, t, t],
            [t, t, t, v, v, v, v, t, t, t, t, t, o, o],
            [o, o, o, o, t, t, t, t, t, o, o, o, o, o],
            [o, o, o, o, t, o, o, o, o, o, o, o, o, o],
        ],
    )
    table = np.asarray(model.embedding[...]) * 24**0.5
    marks = [0, 1, 2, 8]
    np.testing.assert_allclose(x[0, marks], table[[2, 41, 42, 41]], rtol=1e-6)
    np.testing.assert_array_equal(x[0, 7], model.eoi_embedding[...])
    np.testing.assert_allclose(x[1, 9:], table[batch["prompt"][1, 5:]], rtol=1e-6)
    # Padding takes no position from what follows it.
    np.testing.assert_array_equal(
        gemma_layers.token_positions(kinds)[2], [0] * 5 + [1, 2, 3] + [4] * 6
    )


def test_image_tokens_are_means_of_squares_of_patches(model, batch):
    model = nnx.merge(*nnx.split(model))
    patches = jnp.asarray(np.random.default_rng(0).normal(size=(1, 16, 16)), jnp.float32)
    vision = model.vision
    model.vision = lambda image: patches
    model.vision.normalize = lambda image: image
    got = model.visual_tokens(batch["image"][:1])
    model.vision = vision
    order = [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    mean = np.stack([np.asarray(patches)[0, four].mean(0) for four in order])
    normed = mean / np.sqrt((mean**2).mean(-1, keepdims=True) + 1e-6)
    normed = normed * (1 + np.asarray(model.visual_norm.scale[...]))
    kernel = np.asarray(model.visual_projection.kernel["projection"][...])
    np.testing.assert_allclose(got[0], normed @ kernel, rtol=0, atol=1e-5)


def test_what_is_absent_changes_no_bit_and_what_is_present_is_read(model, batch, want):
    rng = np.random.default_rng(1)
    ids = rng.integers(3, 40, batch["prompt"].shape).astype(np.int32)
    noise = rng.integers(0, 256, batch["image"].shape).astype(np.uint8)
    shown = batch["image_mask"][:, None, None, None]
    absent = {
        **batch,
        "prompt": np.where(batch["prompt_mask"], batch["prompt"], ids),
        "image": np.where(shown, batch["image"], noise),
    }
    np.testing.assert_array_equal(logits(model, absent), want)
    for name, present in (
        ("prompt", batch["prompt_mask"].any(1)),
        ("image", batch["image_mask"]),
    ):
        other = {**batch, name: ids if name == "prompt" else noise}
        changed = np.any(np.asarray(logits(model, other)) != want, axis=(1, 2))
        np.testing.assert_array_equal(changed, present)


def test_the_logits_of_a_target_depend_on_earlier_targets_only(model, batch, want):
    other = {**batch, "target": batch["target"].copy()}
    other["target"][:, 2] = (other["target"][:, 2] + 1) % 40
    changed = np.any(np.asarray(logits(model, other)) != want, axis=2)
    assert not np.any(changed[:, :3])
    assert np.all(changed[:, 3:])


def test_decoding_with_a_cache_equals_the_whole_forward(model, batch, want):
    assert np.abs(want).max() <= CONFIG.softcap
    assert np.abs(want).max() > 0.9 * CONFIG.softcap  # the cap is felt
    # More room than the target needs: what is not filled yet is not seen.
    cache = nnx.jit(lambda m, b: m.init_cache(b, 9))(model, batch)
    for name, leaf in cache.items():
        assert leaf.shape[1] == 4, name
    assert cache["key"].shape == (3, 4, 14 + 9, 2, 6)
    step = nnx.jit(lambda m, *args: m.step(*args))
    tokens = np.full(4, 7, np.int32)  # not read: the decoder starts from <bos>
    for position in range(6):
        got, cache = step(model, cache, tokens, jnp.int32(position))
        assert got.dtype == jnp.float32
        np.testing.assert_allclose(got, want[:, position], rtol=0, atol=1e-5)
        tokens = batch["target"][:, position]


def test_bfloat16_with_remat_and_unrolling_is_close_to_float32(batch, want):
    half = make(Options(Precision(jnp.bfloat16, jnp.bfloat16), remat=True, unroll=2))
    got = logits(half, batch)
    assert got.dtype == jnp.float32
    assert np.abs(got - want).max() < 0.1 * np.abs(want).max()


def smola():
    """A model with experts on all of its encoder, and their paths."""
    model = T5Gemma2(CONFIG, rngs=nnx.Rngs(0))
    return model, attach.attach_to_linears(
        model, "encoder/.*", SMOLA, rngs=nnx.Rngs(1), routed=True
    )


def test_omni_smola_in_the_encoder(model, batch, want):
    """No bit changes at the start, only experts are differentiated, and they do something."""
    attached = []

    def make_abstract():
        made, paths = smola()
        attached.extend(paths)
        return made

    assemble, _, shapes = states.divide(nnx.eval_shape(make_abstract), ExpertParam)
    layers = "encoder/stack/layers"
    linears = ["attention/qkv/q", "attention/qkv/k", "attention/qkv/v", "attention/out/o"]
    linears += ["mlp/wi/wi_0", "mlp/wi/wi_1", "mlp/wo/wo"]
    assert sorted(attached) == sorted(f"{layers}/{linear}" for linear in linears)
    trainable = jax.jit(lambda: states.divide(smola()[0], ExpertParam)[1])()
    bare = states.paths(nnx.to_pure_dict(nnx.state(model)))
    frozen = states.nest({path: bare[states.backbone_name(path)] for path in states.paths(shapes)})
    np.testing.assert_array_equal(logits(assemble(trainable, frozen), batch), want)

    @jax.jit
    def differentiate(trainable, frozen):
        return jax.grad(lambda t: jnp.mean(assemble(t, frozen)(batch) ** 2))(trainable)

    gradient = differentiate(trainable, frozen)
    paths = states.paths(gradient)
    assert paths and all("/experts/" in path for path in paths)
    for path, leaf in paths.items():
        if "w_out" in path:
            assert np.all(np.any(np.asarray(leaf) != 0, axis=tuple(range(1, leaf.ndim)))), path
    moved = jax.tree.map(lambda x, g: x - 0.1 * jnp.sign(g), trainable, gradient)
    got = logits(assemble(moved, frozen), batch)
    assert np.all(np.any(np.asarray(got) != want, axis=2))


@pytest.mark.parametrize("output", ["attention/qkv/k", "attention/out/o", "mlp/wi/wi_0"])
def test_routed_experts_are_refused_in_the_decoder(output):
    """Also on the keys and values of the encoder's output, as the target's are of one weight."""
    with pytest.raises(UserError, match="reads target tokens"):
        attach.attach_to_linears(
            abstract(), f"decoder/.*{output}", SMOLA, rngs=nnx.Rngs(1), routed=True
        )


def test_windows():
    positions = np.arange(7)
    for window in (1, 2, 3, 4, 5, 20):
        seen = gemma_layers.window_bias(positions, positions, window, causal=False)[0, 0] == 0
        for query in positions:
            around = np.arange(query - (window - 1) // 2, query + window // 2 + 1)
            np.testing.assert_array_equal(seen[query], np.isin(positions, around))
        seen = gemma_layers.window_bias(positions, positions, window, causal=True)[0, 0] == 0
        for query in positions:
            np.testing.assert_array_equal(seen[query], positions > query - window)
    rows = jnp.asarray([[0, 1, 5], [0, 1, 2]])
    bias = gemma_layers.window_bias(rows, rows, 3, causal=False)
    assert bias.shape == (2, 1, 3, 3)
    assert bias[0, 0, 0, 2] == NEGATIVE and bias[1, 0, 1, 2] == 0
    assert not np.any(gemma_layers.window_bias(rows, rows, None, causal=True))


@pytest.mark.parametrize(("name", "published"), [("270m", 370), ("1b", 1_700), ("4b", 7_000)])
def test_named_shapes_have_the_published_numbers_of_parameters(name, published):
    """Published: 370M, 1.7B and 7B without the tower, which has 417M."""
    state = nnx.to_pure_dict(nnx.state(abstract(NAMED[f"t5gemma2_{name}"]), nnx.Param))

    def millions(tree):
        return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree)) / 1e6

    tower = millions(state.pop("vision"))
    assert millions(state) == pytest.approx(published, rel=0.08)
    assert tower == pytest.approx(417, rel=0.01)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(vision=dataclasses.replace(CONFIG.vision, image_size=30)), "multiple of 12"),
        (dict(visual_tokens=5), "cannot be averaged to 5 tokens"),
        (dict(decoder=dataclasses.replace(STACK, d_model=20)), "24 wide and the decoder 20"),
        (dict(eoi=44), "below the vocabulary's size 44"),
    ],
)
def test_sizes_that_cannot_be(change, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(CONFIG, **change)
