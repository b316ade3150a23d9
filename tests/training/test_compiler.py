"""Programs of a run: what compiling them quickly or together changes, and what it must not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omni_smola.training import compiler, distributed, sharding


@pytest.fixture
def mesh():
    return sharding.make_mesh(1, 1, 1, jax.devices()[:1])


def test_weights_drawn_quickly_have_the_same_bits(mesh, optimized):
    def drawn() -> dict[str, jax.Array]:
        keys = jax.random.split(jax.random.key(0), 3)
        stacked = jax.vmap(lambda key: jax.random.truncated_normal(key, -2, 2, (16, 128)))(keys)
        return {"stacked": stacked / 11, "normal": 0.3 * jax.random.normal(keys[0], (128, 9))}

    for name, values in compiler.jit_once(mesh, drawn)().items():
        np.testing.assert_array_equal(values, jax.jit(drawn)()[name], err_msg=name)


def test_processes_on_cpus_meet_when_all_have_compiled(mesh, monkeypatch):
    happened = []

    def double(x: jax.Array) -> jax.Array:
        happened.append("traced")
        return 2 * x

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(distributed, "barrier", lambda name: happened.append(name))
    run = compiler.jit(mesh, double, donate_argnums=0)
    for size in (3, 3, 4, 3):
        given = jnp.arange(size)
        np.testing.assert_array_equal(run(given), 2 * np.arange(size))
        assert given.is_deleted()
        happened.append(size)
    assert happened == ["traced", "compiled", 3, 3, "traced", "compiled", 4, 3]


def test_one_process_waits_for_nobody(mesh, monkeypatch):
    monkeypatch.setattr(distributed, "barrier", pytest.fail)
    np.testing.assert_array_equal(compiler.jit(mesh, jnp.sin)(jnp.zeros(2)), np.zeros(2))
