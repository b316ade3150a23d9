"""One mesh, a table of partitions, and the same numbers on eight devices as on one."""

import dataclasses
import math
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from omni_smola import config as configs
from omni_smola.errors import UserError
from omni_smola.experts.param import ExpertParam
from omni_smola.models.t5 import T5Config
from omni_smola.models.t5_text import T5
from omni_smola.training import model as models
from omni_smola.training import optimizer, sharding
from omni_smola.training import state as states
from omni_smola.training.layout import Layout, parse_frozen

from .conftest import assert_same, micro_batches, train_config, train_micro

EVERY_AXIS = (2, 2, 2)


@pytest.fixture(scope="module")
def mesh():
    return sharding.make_mesh(*EVERY_AXIS)


def spec(mesh, path: str, *shape: int, **layout) -> tuple:
    frozen = "frozen" in layout
    return tuple(Layout(mesh, **layout).place(path, shape, frozen=frozen).spec)


def test_one_size_may_be_what_is_left():
    assert dict(sharding.make_mesh(-1, 1, 1).shape) == {"data": 8, "fsdp": 1, "tensor": 1}
    assert dict(sharding.make_mesh(2, -1, 2).shape) == {"data": 2, "fsdp": 2, "tensor": 2}
    assert dict(sharding.make_mesh(-1, 1, 1, jax.devices()[:1]).shape) == dict.fromkeys(
        sharding.AXES, 1
    )


@pytest.mark.parametrize(
    ("sizes", "sentence"),
    [
        ((3, 1, 1), r"'data': 3.*does not fill the 8 devices.*set one to -1"),
        ((2, 2, 1), r"does not fill the 8 devices"),
        ((-1, 3, 1), r"'fsdp': 3.*does not fill the 8 devices"),
        ((16, 1, 1), r"'data': 16.*does not fill"),
        ((-1, -1, 1), r"at most one may be -1"),
        ((0, 8, 1), r"sizes are 1 or more"),
        ((-2, 1, 1), r"sizes are 1 or more"),
    ],
)
def test_a_mesh_that_does_not_fit_is_refused(sizes, sentence):
    with pytest.raises(UserError, match=rf"config\.mesh.*{sentence}"):
        sharding.make_mesh(*sizes)


def test_batches_divide_over_data_and_fsdp(mesh):
    sharding.check_batch(mesh, "batch_size", 16, 2)
    with pytest.raises(UserError, match=r"batch_size is 10.*multiple of 4.*--config.batch_size=8"):
        sharding.check_batch(mesh, "batch_size", 10)
    with pytest.raises(UserError, match=r"eval.batch_size is 3.*--config.eval.batch_size=4"):
        sharding.check_batch(mesh, "eval.batch_size", 3)
    with pytest.raises(UserError, match=r"multiple of 12.*3 accumulated parts"):
        sharding.check_batch(mesh, "batch_size", 16, 3)
    with pytest.raises(UserError, match=r"batch_size is 0"):
        sharding.check_batch(mesh, "batch_size", 0)
    placed = sharding.put_batch(mesh, {"prompt": np.arange(24).reshape(8, 3)})["prompt"]
    assert {shard.data.shape for shard in placed.addressable_shards} == {(2, 3)}
    np.testing.assert_array_equal(placed, np.arange(24).reshape(8, 3))


def test_the_first_rule_that_matches_places_the_last_dimensions(mesh):
    layer = "encoder/stack/layers/attention"
    assert spec(mesh, f"{layer}/qkv/kernel/q", 4, 16, 32) == (None, "fsdp", "tensor")
    assert spec(mesh, f"{layer}/qkv/base/kernel/q", 4, 16, 32) == (None, "fsdp", "tensor")
    assert spec(mesh, f"{layer}/out/kernel/o", 4, 32, 16) == (None, "tensor", "fsdp")
    assert spec(mesh, "decoder/stack/layers/cross/kv/kernel/k", 2, 16, 8)[1:] == ("fsdp", "tensor")
    assert spec(mesh, "embedding", 64, 16) == (None, ("fsdp", "tensor"))
    assert spec(mesh, f"{layer}/qkv/experts/router", 4, 3, 16, 12)[2:] == ("fsdp", None)
    assert spec(mesh, f"{layer}/qkv/experts/w_in", 4, 3, 12, 16, 2)[2:] == ("fsdp", None, None)
    assert spec(mesh, f"{layer}/qkv/experts/w_out/q", 4, 12, 2, 16)[1:] == ("fsdp", None, "tensor")
    assert not any(spec(mesh, "encoder/norm/scale", 16))
    assert not any(spec(mesh, "vision/positions", 1, 4, 16))


def test_an_axis_that_does_not_divide_a_dimension_is_left_out(mesh):
    assert spec(mesh, "mlp/wi/kernel/wi_0", 15, 32) == (None, "tensor")
    assert spec(mesh, "mlp/wi/kernel/wi_0", 16, 33) == ("fsdp", None)
    assert spec(mesh, "embedding", 64, 6) == (None, None)  # by 2 but not by 2 x 2
    assert spec(mesh, "experts/w_in", 3, 7, 15, 2) == (None, None, None, None)


def test_experts_that_fsdp_does_not_divide_lie_by_width(mesh):
    assert spec(mesh, "experts/w_in", 3, 7, 16, 2) == (None, None, "fsdp", None)
    out = (None, None, ("tensor", "fsdp"))
    assert spec(mesh, "experts/w_out/o", 7, 2, 16) == out
    assert spec(mesh, "experts/w_out/o", 7, 2, 18) == (None, None, "tensor")
    layer = "encoder/stack/layers/attention"
    for heads, expected in ((4, out), (3, (None, None, None))):
        path = f"{layer}/qkv/experts/w_out/q"
        assert spec(mesh, path, 7, 2, 12, heads={layer: (heads, 1)}) == expected


def test_statistics_of_the_optimiser_lie_where_their_parameter_lies(mesh):
    params = {"mlp": {"wi": {"kernel": {"wi_0": jax.ShapeDtypeStruct((4, 16, 32), jnp.float32)}}}}
    for name in optimizer.OPTIMIZERS:
        rule, _ = optimizer.make_optimizer(train_config(name=name), 10)
        shapes = jax.eval_shape(rule.init, params)
        placed = sharding.partition_tree(mesh, shapes)
        for path, place in states.paths(placed).items():
            shape = states.paths(shapes)[path].shape
            if shape == (4, 16, 32):
                assert tuple(place.spec) == (None, "fsdp", "tensor"), path
            place.shard_shape(shape)  # raises where the shape is not divided evenly
        assert any(leaf.shape == (4, 16, 32) for leaf in jax.tree.leaves(shapes)) or (
            name == "adafactor"
        )


def test_frozen_weights_have_a_degree_of_their_own(mesh):
    kernel = ("encoder/stack/layers/mlp/wi/kernel/wi_0", 4, 16, 32)
    assert spec(mesh, *kernel) == (None, "fsdp", "tensor")
    assert spec(mesh, *kernel, frozen=("tensor",)) == (None, None, "tensor")
    # All three axes are above 1 here: fsdp takes data along.
    assert spec(mesh, *kernel, frozen=("fsdp", "tensor")) == (None, ("data", "fsdp"), "tensor")
    flat = sharding.make_mesh(1, 4, 2)
    assert spec(flat, *kernel, frozen=("fsdp", "tensor")) == (None, "fsdp", "tensor")
    assert spec(mesh, *kernel, frozen=sharding.AXES) == (None, ("data", "fsdp"), "tensor")
    assert not any(spec(mesh, *kernel, frozen=()))
    table = ("embedding", 64, 16)
    assert spec(mesh, *table, frozen=sharding.AXES) == (None, ("data", "fsdp", "tensor"))
    assert spec(mesh, *table, frozen=("tensor",)) == (None, "tensor")
    assert parse_frozen("tensor+data") == ("data", "tensor") and parse_frozen("") == ()
    for text in ("model", "tensor,fsdp", "tensor+tensor"):
        with pytest.raises(UserError, match=rf"config.mesh.frozen is '{re.escape(text)}'.*=tensor"):
            parse_frozen(text)


def test_heads_stay_whole(mesh):
    """Four heads of three channels, one of keys: tensor=2 divides the first, never a head."""
    layer = "decoder/stack/layers/attention"
    heads = {layer: (4, 1), "vision/encoder/layers": (3, 3)}
    assert spec(mesh, f"{layer}/qkv/kernel/q", 2, 16, 12, heads=heads)[2] == "tensor"
    assert spec(mesh, f"{layer}/qkv/base/kernel/k", 2, 16, 4, heads=heads)[2] is None
    assert spec(mesh, f"{layer}/qkv/experts/w_out/v", 2, 8, 2, 4, heads=heads)[3] is None
    assert spec(mesh, f"{layer}/qkv/experts/w_out/q", 2, 8, 2, 12, heads=heads)[3] == "tensor"
    assert spec(mesh, "0/mu/vision/encoder/layers/qkv/kernel/q", 2, 8, 6, heads=heads)[2] is None


def abstract(mesh, backbone: str, frozen: str = "tensor", **experts):
    config = configs.defaults()
    config.backbone.update(name=backbone, init="random")
    config.mesh.frozen = frozen
    config.experts.update(experts)
    return models.abstract_model(config, mesh)


def test_heads_and_vocabularies_that_do_not_divide_are_refused():
    with pytest.raises(UserError, match=r"mesh.tensor is 8.*the 4 heads of decoder/.*tensor=4,"):
        abstract(sharding.make_mesh(1, 1, 8), "t5gemma2_tiny")
    head = {"head": {"kernel": {"logits": jax.ShapeDtypeStruct((16, 36), jnp.float32)}}}
    with pytest.raises(UserError, match=r"the 36 words of head/kernel/logits: .*tensor=4,"):
        Layout(sharding.make_mesh(1, 1, 8)).check(head)
    # Key heads fall back: this backbone has 4 heads and 2 of keys.
    mesh = sharding.make_mesh(2, 1, 4)
    attention = abstract(mesh, "t5gemma2_tiny").frozen["decoder"]["stack"]["layers"]["attention"]
    kernel = attention["qkv"]["kernel"]
    assert kernel["q"].sharding.spec[2] == "tensor" and kernel["k"].sharding.spec[2] is None


@pytest.mark.parametrize("backbone", ["pali3", "palix", "paligemma_3b", "t5gemma2_270m"])
def test_no_large_parameter_of_a_large_backbone_is_whole_on_every_device(mesh, backbone):
    """tensor = 2 and fsdp x tensor = 4: a device holds little more than a half, or a quarter."""
    for frozen, most in (("tensor", 0.52), ("fsdp+tensor", 0.27)):
        model = abstract(mesh, backbone, frozen)
        for tree, bound in ((model.trainable, 0.52), (model.frozen, most)):
            flat = states.paths(tree).values()
            here = sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) for leaf in flat)
            assert here < bound * states.count(tree)


def collectives(mesh, config: T5Config, method: str, shape: tuple, dtype) -> list[str]:
    """Kinds and result shapes of what a T5's method sends between devices."""
    model = nnx.eval_shape(lambda: T5(config, rngs=nnx.Rngs(0)))
    layout = Layout.of(mesh, "fsdp+tensor", model)
    assemble, nothing, weights = states.divide(model, ExpertParam)
    weights = states.abstract(weights, layout.tree(weights, frozen=True))
    x = jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, sharding.BATCH))
    compiled = jax.jit(lambda weights, x: getattr(assemble(nothing, weights), method)(x)).lower(
        weights, x
    )
    text = compiled.compile().as_text()
    return re.findall(r"= ([\w\[\],]+)\S* (all-\w+|reduce-scatter|collective-permute)\(", text)


@pytest.mark.parametrize("tied", [False, True])
def test_logits_are_no_sums_over_devices(tied):
    mesh = sharding.make_mesh(1, 1, 8)
    config = T5Config(64, 1, 1, d_model=16, heads=8, d_head=2, d_ff=32, tied_head=tied)
    assert collectives(mesh, config, "logits", (2, 3, 16), jnp.float32) == []
    # A look-up moves its result, never the table.
    moved = collectives(mesh, config, "embed", (2, 3), jnp.int32)
    assert all(shape.startswith(("f32[2,3,", "f32[6,")) for shape, _ in moved), moved


def test_the_table_that_a_run_prints(mesh):
    def array(*shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    lines = Layout(mesh).table(
        {
            "frozen": {"head": {"kernel": {"logits": array(64, 96)}}},
            "trained": {"experts": {"w_in": array(2, 11, 7, 4)}, "scale": array(3)},
            "optimizer": [{"embedding": array(8, 8)}, {"embedding": array(8, 8)}],
        }
    )
    assert [re.split(r"\s{2,}", line) for line in lines] == [
        ["pattern", "last dimensions", "arrays", "undivided", "bytes", "a device"],
        ["frozen", "head/(base/)?kernel", "- tensor", "1", "24.0 KiB", "12.0 KiB"],
        ["trained", "experts/w_in", "fsdp - - or - fsdp -", "1", "1", "2.4 KiB", "2.4 KiB"],
        ["trained", "all else", "1", "12 B", "12 B"],
        ["optimizer", "as what is trained", "2", "512 B", "128 B"],
        ["total", "5", "26.9 KiB", "14.5 KiB"],
    ]  # fmt: skip


def test_a_model_is_drawn_alike_on_every_mesh(micro_model, mesh, one_device):
    alone, divided = micro_model(one_device), micro_model(mesh)
    assert_same(divided.trainable, alone.trainable)
    assert_same(divided.frozen, alone.frozen)


@pytest.mark.parametrize(
    ("shape", "frozen"),
    [(EVERY_AXIS, ("tensor",)), (EVERY_AXIS, ("fsdp", "tensor")), ((8, 1, 1), ("tensor",))],
)
def test_eight_devices_compute_what_one_does(micro_alone, shape, frozen):
    mesh = sharding.make_mesh(*shape)
    alone, wanted, last_alone = micro_alone
    layout = dataclasses.replace(alone.layout, mesh=mesh, frozen=frozen)
    divided = dataclasses.replace(
        alone,
        trainable=jax.device_put(alone.trainable, layout.tree(alone.trainable)),
        frozen=jax.device_put(alone.frozen, layout.tree(alone.frozen, frozen=True)),
    )
    losses, last, step = train_micro(divided, mesh, micro_batches(4))
    np.testing.assert_allclose(losses, wanted, rtol=1e-5)
    assert losses[-1] < losses[0]
    trained = states.paths(last.trainable)
    for path, leaf in states.paths(last_alone.trainable).items():
        np.testing.assert_allclose(trained[path], leaf, atol=5e-4, err_msg=path)
    assert step._cache_size() == 1  # a step whose outputs lie elsewhere than its inputs recompiles
    for tree, own in ((last.trainable, {}), (last.optimizer, {}), (divided.frozen, {"frozen": 1})):
        places = states.paths(layout.tree(tree, **own))
        for path, leaf in states.paths(tree).items():
            assert leaf.sharding.is_equivalent_to(places[path], leaf.ndim), path
    if shape == EVERY_AXIS:
        w_in = trained["encoder/stack/layers/attention/qkv/experts/w_in"]
        assert w_in.sharding.spec[-3] == "fsdp" and not w_in.sharding.is_fully_replicated


@pytest.fixture(scope="module")
def micro_alone(micro_model, one_device):
    """The model on one device, its losses and its last state."""
    model = micro_model(one_device)
    losses, last, _ = train_micro(model, one_device, micro_batches(4))
    return model, losses, last


class Hosts:
    """A mesh of many hosts, as far as `share` looks at it."""

    def __init__(self, shape: tuple, processes: list[int]):
        devices = [types.SimpleNamespace(process_index=i) for i in processes]
        self.devices = np.array(devices).reshape(shape)
        self.shape = dict(zip(sharding.AXES, shape, strict=True))

    def rows(self, monkeypatch, size: int) -> list[tuple]:
        """Of every host: which part of how many it reads, and the rows of a batch that it feeds."""
        told = []
        for i in sorted({device.process_index for device in self.devices.flat}):
            monkeypatch.setattr(jax, "process_index", lambda i=i: i)
            told.append((*sharding.share(self), sharding.own_rows(self, size).tolist()))
        return told


def test_every_host_reads_its_share_of_the_rows(monkeypatch):
    rows = Hosts((2, 2, 1), [0, 0, 1, 1]).rows(monkeypatch, 8)
    assert rows == [(0, 2, [0, 1, 2, 3]), (1, 2, [4, 5, 6, 7])]
    # Where tensor spans hosts, they read the same rows.
    rows = Hosts((2, 1, 2), [0, 1, 2, 3]).rows(monkeypatch, 4)
    assert rows == [(0, 2, [0, 1]), (0, 2, [0, 1]), (1, 2, [2, 3]), (1, 2, [2, 3])]
    # A pod's devices need not lie host by host along the mesh.
    rows = Hosts((4, 1, 1), [0, 1, 0, 1]).rows(monkeypatch, 4)
    assert rows == [(0, 2, [0, 2]), (1, 2, [1, 3])]
    # Three devices a host: the middle rows are both hosts', so each reads all.
    rows = Hosts((3, 1, 2), [0, 0, 0, 1, 1, 1]).rows(monkeypatch, 3)
    assert rows == [(0, 1, [0, 1, 2])] * 2


def test_a_mesh_of_one_device_places_everything_whole(one_device):
    place = sharding.partition(one_device, "mlp/wi/kernel/wi_0", (16, 32))
    assert place.is_fully_replicated
    assert isinstance(place, NamedSharding) and place.mesh == one_device
    assert sharding.BATCH == PartitionSpec(("data", "fsdp"))
