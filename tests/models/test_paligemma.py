"""PaliGemma as a whole, with experts: who sees whom, what leaks, what a cache must keep."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from omni_smola.errors import UserError
from omni_smola.evaluation import decode
from omni_smola.experts import attach
from omni_smola.experts.mole import Mole, MoleConfig
from omni_smola.experts.param import ExpertParam
from omni_smola.experts.smola import SmolaConfig, SmolaExperts
from omni_smola.models import paligemma
from omni_smola.models.paligemma import PaliGemma, PaliGemmaConfig
from omni_smola.models.t5 import Options
from omni_smola.token_kinds import TokenKind

from ..framed import framed
from .conftest import randomized
from .test_gemma import CONFIG as LANGUAGE

NEWLINE = 40
LENGTH = 7


@pytest.fixture(scope="module")
def config(micro):
    return PaliGemmaConfig(micro.vision, paligemma.prefix_lm(LANGUAGE))


@pytest.fixture(scope="module")
def batch(batch):
    return framed(batch, [2], [NEWLINE])


@pytest.fixture(scope="module")
def bare(config):
    return randomized(nnx.eval_shape(lambda: PaliGemma(config, rngs=nnx.Rngs(0))))


def attached(config, options=None, where="decoder/.*"):
    """The abstract model with experts on every linear that may have some, or fewer."""

    def make():
        model = PaliGemma(config, options=options, rngs=nnx.Rngs(0))
        experts = partial(SmolaExperts, SmolaConfig(2, 1, 3, rank=2))
        attach.attach_to_linears(model, where, experts, rngs=nnx.Rngs(1), routed=True)
        return model

    return nnx.eval_shape(make)


def filled(abstract, bare, size=0.25):
    """The abstract model with random experts around the weights of `bare`."""
    rng = np.random.default_rng(0)
    graphdef, experts, rest = nnx.split(abstract, ExpertParam, ...)
    rest = jax.tree.unflatten(jax.tree.structure(rest), jax.tree.leaves(nnx.state(bare)))
    experts = jax.tree.map(lambda x: jnp.asarray(size * rng.normal(size=x.shape), x.dtype), experts)
    return nnx.merge(graphdef, experts, rest)


@pytest.fixture(scope="module")
def model(config, bare):
    return filled(attached(config), bare)


@nnx.jit
def logits(model, batch):
    return model(batch)


def test_the_prefix_is_the_image_and_the_framed_prompt(bare, batch):
    x, kinds, _ = nnx.jit(lambda m, b: m.prefix(b))(bare, batch)
    v, t, o = TokenKind.VISUAL, TokenKind.TEXT, TokenKind.PADDING
    np.testing.assert_array_equal(
        kinds,
        [
            [v, v, v, v, t, t, t, t, t, t, t],
            [v, v, v, v, t, t, t, t, t, o, o],
            [o, o, o, o, t, t, t, t, t, t, o],
            [o, o, o, o, t, t, o, o, o, o, o],
        ],
    )
    # Embeddings are multiplied by sqrt(24), visual tokens are not.
    want = np.asarray(bare.embedding[...])[batch["prompt"]] * 24**0.5
    np.testing.assert_allclose(x[:, 4:], want, rtol=1e-6)
    image = bare.vision(bare.vision.normalize(batch["image"]))
    want = bare.visual_projection(image, kinds)["projection"]
    np.testing.assert_allclose(x[:, :4], want, rtol=0, atol=1e-5)


def test_experts_that_are_zero_are_the_backbone_bit_for_bit(config, bare, model, batch):
    want = logits(bare, batch)
    np.testing.assert_array_equal(logits(filled(attached(config), bare, size=0), batch), want)
    assert np.all(np.any(np.asarray(logits(model, batch)) != want, axis=2))


def test_padded_prompts_and_missing_images_change_no_bit(model, batch):
    rng = np.random.default_rng(1)
    ids = rng.integers(1, 40, batch["prompt"].shape).astype(np.int32)
    noise = rng.integers(0, 256, batch["image"].shape).astype(np.uint8)
    other = {
        **batch,
        "prompt": np.where(batch["prompt_mask"], batch["prompt"], ids),
        "image": np.where(batch["image_mask"][:, None, None, None], batch["image"], noise),
    }
    np.testing.assert_array_equal(logits(model, other), logits(model, batch))


@nnx.jit
def influence(model, batch, position):
    """|d sum(logits_t^2) / d embedded target_s|, largest of the channels: (b, s)."""
    x, kinds, _ = model.prefix(batch)

    def squares(target):
        return jnp.sum(model.answer(x, kinds, target)[:, position] ** 2)

    return jnp.max(jnp.abs(jax.grad(squares)(model.embed(batch["target"][:, :-1]))), axis=-1)


def test_no_token_of_the_answer_learns_of_itself_or_of_the_future(model, batch):
    # The logits at t are of the token that follows targets 0, ..., t - 1.
    for position in range(6):
        sizes = np.asarray(influence(model, batch, jnp.int32(position)))
        assert np.all(sizes[:, :position] > 0)
        assert np.all(sizes[:, position:] == 0)


def test_the_prompt_is_read_in_both_directions_and_never_learns_of_the_answer(model, batch):
    @nnx.jit
    def hidden(model, batch):
        x, kinds, _ = model.prefix(batch)
        target = model.embed(batch["target"])
        both = jnp.concatenate([kinds, jnp.full(target.shape[:2], TokenKind.TARGET)], axis=1)
        return model.decoder(jnp.concatenate([x, target], axis=1), both)

    want = np.asarray(hidden(model, batch))
    answer = np.asarray(hidden(model, batch | {"target": batch["target"] % 39 + 1}))
    np.testing.assert_array_equal(answer[:, :11], want[:, :11])
    assert np.all(np.any(answer[:, 11:] != want[:, 11:], axis=-1))
    other = batch | {"prompt": batch["prompt"].copy()}
    other["prompt"][0, 4] = batch["prompt"][0, 4] % 39 + 1
    changed = np.any(np.asarray(hidden(model, other)) != want, axis=-1)
    assert np.all(changed[0]) and not np.any(changed[1:])


def test_a_cache_keeps_what_the_slots_read(model, batch):
    cache = nnx.eval_shape(lambda m, b: m.init_cache(b, LENGTH), model, batch)
    assert all(leaf.shape[1] == 4 for leaf in cache.values())
    slots = {k: v.shape for k, v in cache.items() if k.startswith("slots/")}
    assert slots == {
        "slots/attention/qkv/experts": (3, 4, 3, 6, 2),
        "slots/attention/out/experts": (3, 4, 1, 6, 2),
        "slots/mlp/wi/experts": (3, 4, 2, 6, 2),
        "slots/mlp/wo/experts": (3, 4, 1, 6, 2),
    }


@nnx.jit
def stepwise(model, batch):
    def step(cache, inputs):
        logits, cache = model.step(cache, *inputs)
        return cache, logits

    tokens = jnp.pad(batch["target"], ((0, 0), (1, 0)))[:, :-1].T
    cache = model.init_cache(batch, LENGTH)
    return jax.lax.scan(step, cache, (tokens, jnp.arange(len(tokens))))[1].swapaxes(0, 1)


def test_decoding_with_a_cache_equals_the_whole_forward(model, batch):
    got, want = stepwise(model, batch), logits(model, batch)
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)


def test_beams_carry_their_slots(model, batch):
    """The score of every hypothesis is the sum of its tokens' log-probabilities, as a target."""

    @nnx.jit
    def search(model, batch):
        cache = model.init_cache(batch, 5)
        return decode.beam(model.step, cache, 4, 3, 5, eos_id=-1)

    tokens, scores = search(model, batch)
    for beam in range(3):
        target = np.pad(tokens[:, beam], ((0, 0), (0, 1)))
        log_p = jax.nn.log_softmax(logits(model, batch | {"target": target}))[:, :5]
        of_tokens = np.take_along_axis(np.asarray(log_p), target[:, :5, None], axis=2)
        np.testing.assert_allclose(scores[:, beam], of_tokens.sum((1, 2)), rtol=0, atol=1e-4)


def test_language_experts_are_told_the_instruction(config, bare, batch):
    def make():
        model = PaliGemma(config, rngs=nnx.Rngs(0))
        mole = partial(Mole, MoleConfig(3, rank=4), instruction_width=model.instruction_width)
        attach.attach_to_feed_forwards(model, "decoder/.*", mole, rngs=nnx.Rngs(1))
        return model

    model = filled(nnx.eval_shape(make), bare)
    want = logits(model, batch)
    assert np.all(np.any(np.asarray(want) != logits(bare, batch), axis=2))
    np.testing.assert_allclose(stepwise(model, batch), want, rtol=0, atol=1e-5)


def test_gradients_of_experts_are_finite_with_remat(config, bare, batch):
    model = filled(attached(config, Options(remat=True), where="decoder/.*/wo/wo"), bare)
    graphdef, experts, rest = nnx.split(model, ExpertParam, ...)

    @jax.jit
    def gradient(experts, rest, batch):
        return jax.grad(lambda e: jnp.mean(nnx.merge(graphdef, e, rest)(batch) ** 2))(experts)

    for leaf in jax.tree.leaves(gradient(experts, rest, batch)):
        assert np.all(np.isfinite(leaf))
        assert np.any(leaf != 0)


PARAMETERS = {
    "paligemma_3b_224": 2_923_466_480,
    "paligemma2_3b_448": 3_033_127_152,
}


def test_named_sizes():
    for name, wanted in PARAMETERS.items():
        sizes = paligemma.paligemma(name)
        model = nnx.eval_shape(lambda sizes=sizes: PaliGemma(sizes, rngs=nnx.Rngs(0)))
        leaves = jax.tree.leaves(nnx.state(model))
        assert sum(int(np.prod(leaf.shape)) for leaf in leaves) == wanted
    tokens = [paligemma.paligemma(f"paligemma2_10b_{px}").vision.tokens for px in (224, 448, 896)]
    assert tokens == [256, 1024, 4096]
    with pytest.raises(UserError, match="called 'paligemma3': choose one of paligemma_tiny"):
        paligemma.paligemma("paligemma3")
