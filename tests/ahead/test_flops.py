"""Products counted through loops, against sums done by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omni_smola.ahead import flops
from omni_smola.evaluation import decode
from omni_smola.models import layers

N, M, K = 3, 5, 7


def counted(function, *shapes, dtype=jnp.float32) -> flops.Flops:
    arguments = [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]
    return flops.count(jax.jit(function).trace(*arguments).jaxpr)


def test_a_product_is_two_for_each_of_its_multiplications():
    assert counted(lambda a, b: a @ b, (N, K), (K, M)).total == 2 * N * M * K
    batched = counted(lambda a, b: jnp.einsum("bnk,bmk->bnm", a, b), (4, N, K), (4, M, K))
    assert batched.total == 4 * 2 * N * M * K
    assert counted(lambda a: a + jnp.exp(a), (N, K)).total == 0


def test_a_convolution_reads_its_window_at_every_place():
    image, kernel = (2, 8, 8, 3), (4, 4, 3, 6)

    def patches(x, w):
        return jax.lax.conv_general_dilated(
            x, w, (4, 4), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    assert counted(patches, image, kernel).total == 2 * (2 * 2 * 2 * 6) * (4 * 4 * 3)


@pytest.mark.parametrize("unroll", [1, 3])
def test_a_scan_counts_its_every_round(unroll):
    def layers_of(x, w):
        return jax.lax.scan(lambda x, w: (x @ w, None), x, w, unroll=unroll)[0]

    found = counted(layers_of, (N, K), (12, K, K))
    assert found.total == 12 * 2 * N * K * K
    assert found.loops == []


def test_loops_in_loops_multiply():
    def inner(x, w):
        return jax.lax.scan(lambda x, _: (x @ w, None), x, length=4)[0]

    def outer(x, w):
        return jax.lax.scan(lambda x, w: (inner(x, w), None), x, w)[0]

    assert counted(outer, (N, K), (5, K, K)).total == 5 * 4 * 2 * N * K * K


def test_a_branch_counts_as_the_longest():
    def either(x, w):
        return jax.lax.cond(x[0, 0] > 0, lambda: x @ w @ w, lambda: x @ w)

    assert counted(either, (N, K), (K, K)).total == 2 * 2 * N * K * K


def test_a_gradient_with_recomputation_runs_the_layer_once_more():
    def loss(w, x, *, remat):
        layer = lambda x, w: (jnp.tanh(x @ w), None)  # noqa: E731
        return jax.lax.scan(jax.checkpoint(layer) if remat else layer, x, w)[0].sum()

    one = 2 * N * K * K
    shapes = (6, K, K), (N, K)
    plain = counted(jax.grad(lambda w, x: loss(w, x, remat=False)), *shapes).total
    again = counted(jax.grad(lambda w, x: loss(w, x, remat=True)), *shapes).total
    assert plain == 6 * 3 * one  # forward, and the gradients of x and of w
    assert again == 6 * 4 * one


def test_decoding_counts_its_longest_answer():
    length, vocabulary = 9, 11

    def step(cache, tokens, position):
        del position
        return jax.nn.one_hot(tokens, K) @ cache[0, 0], cache

    for how in (decode.Decoding("greedy"), decode.Decoding("beam", beams=2)):

        def run(cache, how=how):
            return decode.decode(step, cache, 4, length, how)

        rows = 4 * (2 if how.method == "beam" else 1)
        found = counted(run, (1, 4, K, vocabulary))
        assert found.loops == [length]
        assert found.total == length * 2 * rows * K * vocabulary


def test_a_loop_without_an_end_that_can_be_read_is_told():
    def halve(x):
        return jax.lax.while_loop(lambda x: jnp.sum(x) > 1, lambda x: x @ (x / 2), x)

    found = counted(halve, (K, K))
    assert found.loops == [-1]
    assert found.total == 2 * K**3


def test_a_transformer_block_agrees_with_the_formula():
    b, m, d, heads, ff = 2, 10, 16, 4, 48
    width = d // heads

    def block(x, qkv, out, wi, wo):
        q, k, v = (layers.split_heads(x @ w, heads) for w in qkv)
        x = x + layers.attend(q, k, v, None) @ out
        return x + jax.nn.gelu(x @ wi[0]) * (x @ wi[1]) @ wo

    found = counted(block, (b, m, d), (3, d, d), (d, d), (2, d, ff), (ff, d))
    per_token = 2 * (4 * d * d + 3 * d * ff)
    attention = 2 * 2 * heads * m * m * width
    assert found.total == b * (m * per_token + attention)
    np.testing.assert_allclose(
        found.total,
        jax.jit(block)
        .lower(*(jnp.zeros(s) for s in [(b, m, d), (3, d, d), (d, d), (2, d, ff), (ff, d)]))
        .cost_analysis()["flops"],
        rtol=0.2,  # which counts the elementwise work, too
    )
