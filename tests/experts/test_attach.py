"""Experts on a whole model: which layers, nothing changed at the start, nothing leaked after."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from omni_smola.errors import UserError
from omni_smola.experts import attach
from omni_smola.experts.adapter import Adapter, AdapterConfig
from omni_smola.experts.lora import Lora, LoraConfig
from omni_smola.experts.param import ExpertParam
from omni_smola.experts.smola import SmolaConfig, SmolaExperts
from omni_smola.token_kinds import TokenKind

SMOLA = partial(SmolaExperts, SmolaConfig(2, 1, 3, rank=2))
LORA = partial(Lora, LoraConfig(2))
ADAPTER = partial(Adapter, AdapterConfig(3))
CROSS_KV = "decoder/stack/layers/cross/kv/[kv]"
ENCODER = "encoder/stack/layers"


@nnx.jit
def logits(model, batch):
    return model(batch)


def attach_smola(model, patterns, make=SMOLA):
    return attach.attach_to_linears(model, patterns, make, rngs=nnx.Rngs(1), routed=True)


def attach_lora(model, patterns):
    return attach.attach_to_linears(model, patterns, LORA, rngs=nnx.Rngs(1), routed=False)


def attach_adapters(model, patterns):
    return attach.attach_to_feed_forwards(model, patterns, ADAPTER, rngs=nnx.Rngs(1))


def randomize(model):
    """Fills every parameter of the experts with random numbers."""
    rng = np.random.default_rng(0)
    state = nnx.state(model, ExpertParam)
    state = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape) / 4, x.dtype), state)
    nnx.update(model, state)


@pytest.fixture(scope="module")
def bare_logits(make_pali, batch, users_compiler):
    with users_compiler():
        return np.asarray(logits(make_pali(), batch))


@pytest.mark.usefixtures("optimized")
@pytest.mark.parametrize(
    ("attach_experts", "patterns"),
    [
        (attach_smola, "encoder/.*"),
        (attach_smola, [f"{ENCODER}/attention/qkv/[qv]", CROSS_KV]),
        (attach_smola, ["vision/.*/(qkv/[qv]|mlp/.*)", "visual_projection/projection"]),
        (attach_lora, ["(encoder|decoder)/.*", "head/logits"]),
        (attach_adapters, ".*/mlp"),
    ],
)
def test_step_0_is_the_backbone_bit_for_bit(
    make_pali, batch, bare_logits, attach_experts, patterns
):
    model = make_pali()
    attach_experts(model, patterns)
    np.testing.assert_array_equal(logits(model, batch), bare_logits)
    randomize(model)
    changed = np.asarray(logits(model, batch))
    assert np.all(np.isfinite(changed))
    # The first two examples have an image and a prompt.
    assert np.all(np.any(changed[:2] != bare_logits[:2], axis=(1, 2)))


def test_only_the_chosen_outputs_get_experts(make_pali):
    model = make_pali()
    paths = attach_smola(model, f"{ENCODER}/attention/qkv/[qv]")
    assert paths == [f"{ENCODER}/attention/qkv/q", f"{ENCODER}/attention/qkv/v"]
    layers = model.encoder.stack.layers
    assert isinstance(layers.attention.qkv, attach.ExpertProjection)
    assert sorted(layers.attention.qkv.experts.w_out) == ["q", "v"]
    for untouched in (layers.attention.out, layers.mlp.wi, layers.mlp.wo, model.visual_projection):
        assert not isinstance(untouched, attach.ExpertProjection)


def test_patterns_choose_by_kind_of_layer(make_pali):
    model = make_pali()
    paths = attach_smola(model, [".*encoder/stack/layers/mlp/w.*", "vision/encoder/layers/out/o"])
    assert sorted(paths) == [
        f"{ENCODER}/mlp/wi/wi_0",
        f"{ENCODER}/mlp/wi/wi_1",
        f"{ENCODER}/mlp/wo/wo",
        "vision/encoder/layers/out/o",
    ]


def test_linear_paths_lists_everything_with_its_widths(make_pali):
    paths = attach.linear_paths(make_pali())
    assert paths[f"{ENCODER}/attention/qkv/k"] == (24, 16)
    assert paths[f"{ENCODER}/attention/out/o"] == (16, 24)
    assert paths["decoder/stack/layers/cross/kv/v"] == (24, 16)
    assert paths["vision/patch/patch"] == (432, 16)
    assert paths["visual_projection/projection"] == (16, 24)
    assert paths["head/logits"] == (24, 40)
    assert len(paths) == 1 + 6 + 1 + 7 + 11 + 1


def test_adapter_paths_are_those_of_feed_forwards(make_pali):
    paths = attach_adapters(make_pali(), ".*")
    assert sorted(paths) == [
        "decoder/stack/layers/mlp",
        "encoder/stack/layers/mlp",
        "vision/encoder/layers/mlp",
    ]


def test_every_layer_of_a_stack_has_experts_of_its_own(make_pali):
    model = make_pali()
    attach_smola(model, [f"{ENCODER}/attention/qkv/[qkv]", "visual_projection/projection"])
    experts = model.encoder.stack.layers.attention.qkv.experts
    assert experts.w_in.shape == (2, 3, 6, 24, 2)
    assert experts.router.shape == (2, 3, 24, 6)
    each = np.asarray(experts.w_in[...]).reshape(2 * 3 * 6, -1)
    assert len(np.unique(each, axis=0)) == 2 * 3 * 6
    assert not np.array_equal(experts.router[0], experts.router[1])
    # What lies outside of a stack has no layer axis.
    assert model.visual_projection.experts.w_in.shape == (1, 6, 16, 2)


def test_a_pattern_without_a_match_names_the_linears_and_changes_nothing(make_pali):
    model = make_pali()
    with pytest.raises(UserError, match=r"'encoder/attention/qkv/q' matches no linear") as error:
        attach_smola(model, ["encoder/.*", "encoder/attention/qkv/q"])
    assert f"{ENCODER}/attention/qkv/q" in str(error.value)
    assert "head/logits" in str(error.value)
    assert not jax.tree.leaves(nnx.state(model, ExpertParam))
    with pytest.raises(UserError, match=r"matches no feed-forward.*encoder/stack/layers/mlp"):
        attach_adapters(model, "encoder/mlp")


@pytest.mark.parametrize(
    "path",
    [
        "decoder/stack/layers/attention/qkv/q",
        "decoder/stack/layers/cross/q/q",
        "decoder/stack/layers/cross/out/o",
        "decoder/stack/layers/mlp/wi/wi_0",
        "decoder/stack/layers/mlp/wo/wo",
        "head/logits",
    ],
)
def test_routed_experts_are_refused_on_target_tokens(make_pali, path):
    model = nnx.eval_shape(make_pali)
    with pytest.raises(UserError, match=f"{path}, which reads target tokens"):
        attach_smola(model, path)


@pytest.mark.parametrize("method", ["smola", "lora"])
def test_the_decoder_stays_causal_with_experts(make_pali, batch, method):
    model = make_pali()
    if method == "smola":
        attach_smola(model, [f"{ENCODER}/mlp/.*", CROSS_KV])
    else:
        attach_lora(model, ["(encoder|decoder)/.*", "head/logits"])
    randomize(model)
    position = 3

    @nnx.jit
    def gradient(model, batch):
        encoded, kinds, _ = model.encode(batch)

        def at_position(x):
            return jnp.sum(model.logits(model.decoder(x, encoded, kinds))[:, position] ** 2)

        return jax.grad(at_position)(model.embed(batch["target"]))

    sizes = np.abs(gradient(model, batch)).max(axis=-1)
    assert np.all(sizes[:, : position + 1] > 0)
    assert np.all(sizes[:, position + 1 :] == 0)


def test_padding_changes_no_bit_of_the_logits_with_experts(make_pali, batch):
    model = make_pali()
    attach_smola(model, ["encoder/.*", CROSS_KV])
    randomize(model)
    other = dict(batch)
    rng = np.random.default_rng(7)
    noise = rng.integers(0, 256, batch["image"].shape).astype(np.uint8)
    other["image"] = np.where(batch["image_mask"][:, None, None, None], batch["image"], noise)
    ids = rng.integers(1, 40, batch["prompt"].shape).astype(np.int32)
    other["prompt"] = np.where(batch["prompt_mask"], batch["prompt"], ids)
    got, want = logits(model, other), logits(model, batch)
    # The last example has nothing but padding to attend to.
    np.testing.assert_array_equal(got[:3], want[:3])
    assert np.all(np.isfinite(got[3]))


def test_every_gradient_of_a_batch_with_missing_parts_is_finite(make_pali, batch):
    model = make_pali()
    attach_smola(model, f"{ENCODER}/(attention/qkv|mlp/wi)/.*")
    graphdef, experts, rest = nnx.split(model, ExpertParam, ...)

    def loss(experts, batch):
        return jnp.mean(nnx.merge(graphdef, experts, rest)(batch) ** 2)

    gradient = jax.jit(jax.grad(loss))
    for rows in ([0, 1, 2, 3], [2, 2, 2, 2], [3, 3, 3, 3]):
        part = {name: x[rows] for name, x in batch.items()}
        leaves = jax.tree.leaves(gradient(experts, part))
        assert all(np.all(np.isfinite(leaf)) for leaf in leaves)


def test_the_filter_picks_the_experts_and_nothing_else(make_pali):
    model = make_pali()
    before = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    attach_smola(model, f"{ENCODER}/mlp/wo/wo")
    _, experts, rest = nnx.split(model, ExpertParam, nnx.Param)
    paths = ["/".join(map(str, path)) for path, _ in experts.flat_state()]
    assert sorted(paths) == [
        f"{ENCODER}/mlp/wo/experts/{name}" for name in ("router", "scale", "w_in", "w_out/wo")
    ]
    assert len(jax.tree.leaves(rest)) == len(jax.tree.leaves(before))
    base = model.encoder.stack.layers.mlp.wo.base
    np.testing.assert_array_equal(
        base.kernel["wo"][...], before["encoder"]["stack"]["layers"]["mlp"]["wo"]["kernel"]["wo"]
    )


def test_an_abstract_model_has_the_shapes_of_the_real_one(make_pali):
    def make():
        model = make_pali()
        attach_smola(model, "encoder/.*")
        attach_adapters(model, "decoder/.*")
        return model

    abstract, real = nnx.state(nnx.eval_shape(make)), nnx.state(make())
    assert jax.tree.structure(abstract) == jax.tree.structure(real)
    for shape, array in zip(jax.tree.leaves(abstract), jax.tree.leaves(real), strict=True):
        assert isinstance(shape, jax.ShapeDtypeStruct)
        assert (shape.shape, shape.dtype) == (array.shape, array.dtype)


class Foreign(nnx.Module):
    """Somebody's model: plain linears in attributes, lists and sequences, no kinds."""

    def __init__(self, rngs):
        self.blocks = nnx.List([nnx.Linear(6, 6, rngs=rngs), nnx.Linear(6, 6, rngs=rngs)])
        self.tail = nnx.Sequential(nnx.Linear(6, 4, rngs=rngs), nnx.relu)

    def __call__(self, x):
        for block in self.blocks:
            x = x + nnx.relu(block(x))
        return self.tail(x)


X = np.random.default_rng(5).normal(size=(2, 5, 6)).astype(np.float32)
KINDS = np.array([[2, 2, 1, 1, 0], [0, 0, 1, 1, 1]], np.int32)


def test_plain_linears_of_a_foreign_model_get_experts():
    model = Foreign(nnx.Rngs(0))
    bare = model(X)
    assert attach_smola(model, ".*") == ["blocks/0", "blocks/1", "tail/layers/0"]
    attach.set_kinds(model, jnp.asarray(KINDS))
    np.testing.assert_array_equal(model(X), bare)
    randomize(model)
    assert np.any(np.asarray(model(X)) != bare)

    wrapped = model.blocks[0]
    want = wrapped.base(X) + wrapped.experts(X, jnp.asarray(KINDS))["out"]
    np.testing.assert_array_equal(wrapped(X), want)
    np.testing.assert_array_equal(np.asarray(wrapped(X) - wrapped.base(X))[KINDS == 0], 0)


def test_kinds_of_a_foreign_model_are_read_inside_jit():
    model = Foreign(nnx.Rngs(0))
    attach_smola(model, "blocks/1")
    randomize(model)

    @nnx.jit
    def run(model, kinds):
        attach.set_kinds(model, kinds)
        return model(X)

    text_only = run(model, jnp.full((2, 5), TokenKind.TEXT))
    nothing = run(model, jnp.full((2, 5), TokenKind.PADDING))
    assert np.all(np.any(np.asarray(text_only) != np.asarray(nothing), axis=(1, 2)))


def test_a_foreign_model_called_before_set_kinds_says_so():
    model = Foreign(nnx.Rngs(0))
    attach_smola(model, "tail/layers/0")
    with pytest.raises(UserError, match=r"set_kinds\(model, kinds\)"):
        model(X)


def test_only_what_may_hold_an_answer_gets_the_rule_of_answers(make_pali):
    """An encoder's linears say that they hold none, a prefix-LM's that they do."""
    model = nnx.eval_shape(make_pali)
    model.encoder.stack.layers.mlp.wo.causal = "prefix"
    attach_smola(model, f"{ENCODER}/mlp/.*")
    mlp = model.encoder.stack.layers.mlp
    assert (mlp.wi.experts.prefix, mlp.wo.experts.prefix) == (False, True)
    attach_lora(model, f"{ENCODER}/mlp/wo/base/wo")  # whatever is not routed knows no rule


def test_a_foreign_answer_never_dispatches():
    """A plain nnx.Linear says nothing of its input, so that answers are minded."""
    model = Foreign(nnx.Rngs(0))
    attach_smola(model, ".*")
    randomize(model)
    kinds = KINDS.copy()
    kinds[:, 4] = TokenKind.TARGET
    attach.set_kinds(model, jnp.asarray(kinds))
    other = X.copy()
    other[:, 4] += 1
    changed = np.any(np.asarray(model(other)) != model(X), axis=2)
    np.testing.assert_array_equal(changed, [[False] * 4 + [True]] * 2)


def test_slots_are_recorded_and_recalled_by_path():
    model = Foreign(nnx.Rngs(0))
    attach_smola(model, "blocks/.*")
    randomize(model)
    kinds = np.full((2, 5), TokenKind.TEXT, np.int32)
    kinds[:, 3:] = TokenKind.TARGET
    attach.set_kinds(model, jnp.asarray(kinds))
    want = model(X)
    graphdef, state = nnx.split(model)
    prompt, answer = nnx.merge(graphdef, state), nnx.merge(graphdef, state)
    attach.record_slots(prompt)
    attach.set_kinds(prompt, jnp.asarray(kinds[:, :3]))
    prompt(X[:, :3])
    slots = attach.recorded_slots(prompt)
    assert {path: x.shape for path, x in slots.items()} == {
        "blocks/0/experts": (2, 1, 6, 2),
        "blocks/1/experts": (2, 1, 6, 2),
    }
    attach.recall_slots(answer, slots)
    attach.set_kinds(answer, jnp.asarray(kinds[:, 3:]))
    np.testing.assert_allclose(answer(X[:, 3:]), want[:, 3:], rtol=0, atol=1e-5)
    assert attach.recorded_slots(Foreign(nnx.Rngs(0))) == {}
