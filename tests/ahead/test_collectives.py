"""What chips send, read from programs whose traffic is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from omni_smola.ahead import collectives, hlo

LAYERS, ROWS, WIDTH = 6, 16, 32


@pytest.fixture(scope="module")
def mesh():
    return Mesh(np.asarray(jax.devices()).reshape(8), ("x",))


def traffic(function, mesh, *specs_and_shapes, rounds: int = 1):
    arguments = [
        jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, spec))
        for spec, shape in specs_and_shapes
    ]
    return collectives.count(hlo.parse(jax.jit(function).lower(*arguments).compile().as_text()))


def mapped(function, mesh, inputs, outputs):
    return jax.shard_map(function, mesh=mesh, in_specs=inputs, out_specs=outputs, check_vma=False)


def test_each_kind_with_the_bytes_of_its_larger_side(mesh):
    whole = ROWS * WIDTH * 4

    def run(x):  # a chip has (2, 32) of x
        gathered = jax.lax.all_gather(x, "x", tiled=True)
        summed = jax.lax.psum(x * 2, "x")
        scattered = jax.lax.psum_scatter(gathered * 3, "x", tiled=True)
        turned = jax.lax.all_to_all(x + 1, "x", split_axis=1, concat_axis=0, tiled=True)
        passed = jax.lax.ppermute(x - 1, "x", [(i, (i + 1) % 8) for i in range(8)])
        return summed + scattered + passed, turned

    found = traffic(
        mapped(run, mesh, (P("x"),), (P("x"), P(None, "x"))), mesh, (P("x"), (ROWS, WIDTH))
    )
    assert found == {
        "all-gather": {"count": 1, "bytes": whole},
        "all-reduce": {"count": 1, "bytes": whole // 8},
        "reduce-scatter": {"count": 1, "bytes": whole},
        "all-to-all": {"count": 1, "bytes": whole // 8},
        "collective-permute": {"count": 1, "bytes": whole // 8},
    }


def test_what_lies_in_a_loop_counts_in_every_round(mesh):
    def run(x, w):
        return jax.lax.scan(lambda x, w: (jax.lax.psum(x @ w, "x"), None), x, w)[0]

    found = traffic(
        mapped(run, mesh, (P(None, "x"), P(None, "x")), P()),
        mesh,
        (P(None, "x"), (ROWS, 8 * WIDTH)),
        (P(None, "x"), (LAYERS, 8 * WIDTH, WIDTH)),
    )
    assert found == {"all-reduce": {"count": LAYERS, "bytes": LAYERS * ROWS * WIDTH * 4}}


def test_a_gathered_weight_is_what_the_partitioner_adds(mesh):
    def run(x, w):
        y = jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, w)[0]
        return jax.lax.with_sharding_constraint(y, NamedSharding(mesh, P("x")))

    found = traffic(
        run,
        mesh,
        (P("x"), (8 * ROWS, WIDTH)),
        (P(None, "x"), (LAYERS, WIDTH, WIDTH)),
    )
    weights = LAYERS * WIDTH * WIDTH * 4
    assert found.keys() == {"all-gather"}
    assert found["all-gather"]["bytes"] == weights


# As the TPU's compiler writes them: an all-gather spread over fusions under one channel, a start
# whose result names its input, a reduction of scattered parts, and a loop that may end early.
TPU = """HloModule jit_f, is_scheduled=true

%start (p.1: f32[8,4]) -> f32[64,4] {
  %p.1 = f32[8,4]{1,0:T(8,128)} parameter(0)
  ROOT %all-gather.1 = f32[64,4]{1,0:T(8,128)S(1)} all-gather(%p.1), channel_id=7, dimensions={0}
}

%done (p.2: f32[8,4]) -> f32[64,4] {
  %p.2 = f32[8,4]{1,0:T(8,128)} parameter(0)
  ROOT %all-gather.2 = f32[64,4]{1,0:T(8,128)S(1)} all-gather(%p.2), channel_id=7, dimensions={0}
}

%all-reduce-scatter.3 (p.3: bf16[16,4]) -> bf16[2,4] {
  %p.3 = bf16[16,4]{1,0} parameter(0)
  %all-reduce.3 = bf16[16,4]{1,0} all-reduce(%p.3), channel_id=8, to_apply=%sum
  ROOT %slice.3 = bf16[2,4]{1,0} slice(%all-reduce.3), slice={[0:2], [0:4]}
}

%sum (a: bf16[], b: bf16[]) -> bf16[] {
  %a = bf16[] parameter(0)
  %b = bf16[] parameter(1)
  ROOT %add = bf16[] add(%a, %b), backend_config={"estimated_cycles":"1000"}
}

%condition (s: (s32[], f32[8,4])) -> pred[] {
  %s = (s32[], f32[8,4]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%s), index=0
  %n = s32[]{:T(128)} constant(5)
  ROOT %lt = pred[] compare(%i, %n), direction=LT
}

%body (t: (s32[], f32[8,4])) -> (s32[], f32[8,4]) {
  %t = (s32[], f32[8,4]{1,0:T(8,128)}, /*index=2*/u32[]) parameter(0)
  %x = f32[8,4]{1,0:T(8,128)} get-tuple-element(%t), index=1
  %fusion.1 = f32[64,4]{1,0} fusion(%x), calls=%start, backend_config={"estimated_cycles":"10"}
  %fusion.2 = f32[64,4]{1,0} fusion(%x), calls=%done, backend_config={"estimated_cycles":"20"}
  ROOT %out = (s32[], f32[8,4]{1,0}) tuple(%i, %x)
}

%answer (v: (s32[], f32[8,4])) -> (s32[], f32[8,4]) {
  %v = (s32[], f32[8,4]{1,0}) parameter(0)
  %x.2 = f32[8,4]{1,0} get-tuple-element(%v), index=1
  %sum.2 = f32[8,4]{1,0} all-reduce(%x.2), to_apply=%sum
  %next = f32[8,4]{1,0} fusion(%sum.2), backend_config={"estimated_cycles":"7"}
  ROOT %out.2 = (s32[], f32[8,4]{1,0}) tuple(%i, %next)
}

%early (u: (s32[], pred[])) -> pred[] {
  %u = (s32[], pred[]) parameter(0)
  %n.2 = s32[] constant(100)
  %lt.2 = pred[] compare(%i, %n.2), direction=LT
  %go = pred[] get-tuple-element(%u), index=1
  ROOT %and = pred[] and(%lt.2, %go)
}

ENTRY %main (x.1: f32[8,4], y.1: bf16[16,4]) -> bf16[2,4] {
  %x.1 = f32[8,4]{1,0:T(8,128)} parameter(0)
  %y.1 = bf16[16,4]{1,0} parameter(1)
  %permute = (f32[8,4]{1,0}, f32[8,4]{1,0}, u32[], u32[]) collective-permute-start(%x.1)
  %permute.done = f32[8,4]{1,0} collective-permute-done(%permute)
  %loop = (s32[], f32[8,4]{1,0}) while(%init), condition=%condition, body=%body
  %until = (s32[], f32[8,4]{1,0}) while(%init), condition=%early, body=%answer
  ROOT %fusion.3 = bf16[2,4]{1,0} fusion(%y.1), calls=%all-reduce-scatter.3
}
"""


def test_the_tpu_compilers_own_forms():
    module = hlo.parse(TPU)
    assert module.entry == "main"
    assert module.endless() == ["until"]
    found = collectives.count(module, rounds=3)
    assert found == {
        "all-gather": {"count": 5, "bytes": 5 * 64 * 4 * 4},
        "all-reduce": {"count": 3, "bytes": 3 * 8 * 4 * 4},
        "reduce-scatter": {"count": 1, "bytes": 16 * 4 * 2},
        "collective-permute": {"count": 1, "bytes": 8 * 4 * 4 + 8},
    }
    assert collectives.estimated_cycles(module, rounds=3) == 5 * (10 + 20) + 3 * 7


def test_bytes_of_types():
    assert hlo.type_bytes("f32[2,3]{1,0:T(8,128)(2,1)S(1)}") == 24
    assert hlo.type_bytes("(bf16[4]{0}, /*index=1*/pred[8], s32[])") == 8 + 8 + 4
    assert hlo.type_bytes("f8e4m3fn[16]") == 16
    assert hlo.type_bytes("u4[3]") == 1
