"""MoME: encoders, mixture, instruction and language experts, put together and taken apart."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from omni_smola import views
from omni_smola.errors import UserError
from omni_smola.evaluation import decode
from omni_smola.experts import attach
from omni_smola.experts.mole import Mole
from omni_smola.experts.param import ExpertParam
from omni_smola.models import build
from omni_smola.training import state as states


@pytest.fixture(scope="module")
def small(small_mome):
    return small_mome


def make(config):
    model = build.backbone(config.backbone, nnx.Rngs(0), config.vision)
    attached = build.attach_experts(model, config.experts, nnx.Rngs(1))
    attached += build.attach_language_experts(model, config.language, nnx.Rngs(2))
    return model, attached


def randomize(model, seed=3):
    """Gives every expert parameter a value, those that start at zero too."""
    rng = np.random.default_rng(seed)
    state = nnx.state(model, ExpertParam)
    drawn = jax.tree.map(
        lambda x: jnp.asarray(x + 0.3 * rng.standard_normal(x.shape), x.dtype), state
    )
    nnx.update(model, drawn)


@pytest.fixture(scope="module")
def batch(small):
    return small.batch()


@nnx.jit
def logits(model, batch):
    return model(batch)


@pytest.fixture(scope="module")
def model(small):
    made, _ = make(small.config())
    randomize(made)
    return made


def test_the_parts_are_where_they_belong(small):
    model, attached = make(small.config())
    assert sorted(attached) == ["decoder/stack/layers/mlp", "encoder/stack/layers/mlp"]
    assert not hasattr(model, "vision")
    _, trainable, frozen = states.divide(model, ExpertParam)
    trained, kept = states.paths(trainable), states.paths(frozen)
    assert all("experts" in path.split("/") for path in trained)
    assert any(path.startswith("experts/") for path in trained)
    for name in ("semantic", "spatial"):
        assert any(path.startswith(f"encoders/{name}/") for path in kept)
    assert build.views(small.config().vision) == {
        "semantic": views.Square(16),
        "spatial": views.Square(24),
    }


def test_every_view_and_the_instruction_reach_the_logits(small, model, batch):
    want = np.asarray(logits(model, batch))
    assert np.all(np.isfinite(want))
    for name in ("semantic", "spatial"):
        key = views.key("image", name)
        got = np.asarray(logits(model, {**batch, key: 255 - batch[key]}))
        changed = np.any(got != want, axis=(1, 2))
        np.testing.assert_array_equal(changed, batch["image_mask"])
    # The main image is for the backbone's own tower, which is not there.
    other = {**batch, "image": batch["image"] + 9}
    np.testing.assert_array_equal(logits(model, other), want)


def test_padding_of_the_prompt_changes_no_bit(model, batch):
    other = np.where(batch["prompt_mask"], batch["prompt"], 7).astype(np.int32)
    got = logits(model, {**batch, "prompt": other})
    np.testing.assert_array_equal(got, logits(model, batch))


def test_decoding_with_a_cache_equals_the_whole_forward(model, batch):
    want = logits(model, batch)
    cache = nnx.jit(lambda m, b: m.init_cache(b, 6))(model, batch)
    for name, leaf in cache.items():
        assert leaf.shape[1] == 4, name
    step = nnx.jit(lambda m, *args: m.step(*args))
    tokens = np.zeros(4, np.int32)
    for position in range(4):
        got, cache = step(model, cache, tokens, jnp.int32(position))
        np.testing.assert_allclose(got, want[:, position], rtol=0, atol=2e-5)
        tokens = batch["target"][:, position]


def test_beams_carry_their_own_instruction(model, batch):
    """The best of one beam is the greedy answer, and several beams run at all."""

    def generate(method, beams):
        decoding = decode.Decoding(method=method, beams=beams)
        graphdef, state = nnx.split(model)

        @jax.jit
        def run(state, batch):
            model = nnx.merge(graphdef, state)
            cache = model.init_cache(batch, 4)
            return decode.decode(model.step, cache, 4, 4, decoding, jax.random.key(0))

        return np.asarray(run(state, batch))

    greedy = generate("greedy", 1)
    assert greedy.shape == (4, 4)
    np.testing.assert_array_equal(generate("beam", 1), greedy)
    assert generate("beam", 3).shape == (4, 4)


def test_gradients_reach_every_expert_and_the_routers(model, batch):
    graphdef, trained, rest = nnx.split(model, ExpertParam, ...)

    @jax.jit
    def gradient(trained):
        def loss(trained):
            return jnp.mean(nnx.merge(graphdef, trained, rest)(batch) ** 2)

        return jax.grad(loss)(trained)

    sizes = {
        path: float(np.abs(leaf).max())
        for path, leaf in states.paths(nnx.to_pure_dict(gradient(trained))).items()
    }
    silent = [path for path, size in sizes.items() if size == 0]
    # A key's bias shifts all logits of a softmax alike: its gradient is rounding, or nothing.
    assert [path for path in silent if not path.endswith("key/bias")] == []


def test_shares_of_the_routers(model, batch):
    shares = nnx.jit(build.routing_shares)(model, batch)
    assert shares["vision"].shape == (4, 2)
    # An example without an image has no features but the projections' biases.
    np.testing.assert_allclose(np.sum(shares["vision"], axis=1), 1, atol=1e-6)
    for path in ("encoder/stack/layers/mlp", "decoder/stack/layers/mlp"):
        (name,) = [key for key in shares if key.startswith(path)]
        assert shares[name].shape == (2, 4, 3)
        np.testing.assert_allclose(np.sum(shares[name], axis=-1), 1, atol=1e-6)


def test_smola_and_mole_sit_on_the_same_backbone(small, batch):
    config = small.config()
    config.experts.update(method="smola", visual=2, text=2, multimodal=2, rank=2)
    model, attached = make(config)
    assert "encoder/stack/layers/mlp/wi/wi_0" in attached
    assert "encoder/stack/layers/mlp" in attached
    randomize(model)
    want = np.asarray(logits(model, batch))
    # Either kind of expert is heard.
    for part in ("w_out", "up"):
        changed = nnx.clone(model)
        state = nnx.state(changed, ExpertParam)
        quiet = {
            path: leaf * (part not in path.split("/"))
            for path, leaf in states.paths(nnx.to_pure_dict(state)).items()
        }
        nnx.replace_by_pure_dict(state, states.nest(quiet))
        nnx.update(changed, state)
        assert np.any(np.asarray(logits(changed, batch)) != want), part


@pytest.mark.usefixtures("optimized")
@pytest.mark.parametrize("transform", ["adt", "average", "cross_attention"])
@pytest.mark.parametrize("aggregate", ["router", "addition"])
def test_step_0_of_language_experts_changes_no_bit(small, batch, transform, aggregate):
    config = small.config(vision_transform=transform, vision_aggregate=aggregate)
    with_experts, _ = make(config)
    config.language.experts = 0
    without, _ = make(config)
    # Not `logits`, which other tests have compiled with other settings.
    forward = nnx.jit(lambda model, batch: model(batch))
    np.testing.assert_array_equal(forward(with_experts, batch), forward(without, batch))


def test_noise_is_drawn_in_training_only(small, batch):
    assert build.noisy(small.config().vision, small.config().language)
    quiet = small.config(vision_dropout=0.0)
    assert not build.noisy(quiet.vision, quiet.language)
    quiet.language.gumbel = True
    assert build.noisy(quiet.vision, quiet.language)
    model, _ = make(small.config())
    randomize(model)
    with_key = [logits(model, {**batch, "key": jax.random.key(seed)}) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(with_key[0], with_key[1])
    assert np.any(np.asarray(with_key[0]) != with_key[2])
    assert np.any(np.asarray(with_key[0]) != logits(model, batch))


def test_the_load_balance_penalty_is_the_configs(small, model, batch):
    config = small.config()
    assert build.penalty(config.language) is None
    config.language.balance = 0.5
    once = nnx.jit(build.penalty(config.language))(model, batch)
    config.language.balance = 1.0
    twice = nnx.jit(build.penalty(config.language))(model, batch)
    assert float(once) > 0
    np.testing.assert_allclose(twice, 2 * once, rtol=1e-6)


def test_every_layer_has_its_own_experts(small):
    model, _ = make(small.config())
    moles = [node for _, node in nnx.iter_modules(model) if isinstance(node, Mole)]
    assert len(moles) == 2
    assert attach.linear_paths(model)  # the frozen linears below are still found
    for mole in moles:
        down = np.asarray(mole.down[...])
        assert down.shape[:2] == (2, 3)
        assert np.all(down[0] != down[1])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"vision_encoders": "semantic+clip"}, "clip"),
        ({"vision_transform": "pool"}, "pool"),
        ({"vision_side": 0}, "side"),
        ({"language_route": "batch"}, "batch"),
        ({"language_experts": -1}, "-1"),
        ({"language_rank": 0}, "rank"),
        ({"language_balance": -0.1}, "balance"),
    ],
)
def test_mistakes_are_sentences_at_the_door(small, changes, sentence):
    config = small.config(**changes)
    with pytest.raises(UserError, match=sentence):
        build.check_mome(config.vision, config.language)


def test_a_pattern_that_matches_nothing_is_a_sentence(small):
    with pytest.raises(UserError, match="feed-forward"):
        make(small.config(language_where="encoder/nothing"))
