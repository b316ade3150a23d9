"""A checksum changes with any element, and not with the mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omni_smola.training import sharding
from omni_smola.training.checksums import checksums


def values(dtype):
    return np.random.default_rng(0).normal(size=(4, 8, 6)).astype(jnp.dtype(dtype))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "uint8", "bool"])
def test_any_element_and_any_swap_counts(dtype):
    x = np.abs(values("float32") * 10).astype(jnp.dtype(dtype))
    x[0, 0, 0] = 0
    seen = {checksums({"x": jnp.asarray(x)})["x"]}
    for place in [(0, 0, 0), (1, 2, 3), (3, 7, 5)]:
        other = x.copy()
        other[place] = not other[place] if dtype == "bool" else other[place] + 1
        seen.add(checksums({"x": jnp.asarray(other)})["x"])
    assert len(seen) == 4
    if dtype != "bool":
        assert checksums({"x": jnp.asarray(x[::-1])})["x"] not in seen
    assert checksums({"x": jnp.zeros_like(x)})["x"] == 0  # a chunk that is missing reads as zeros


def test_names_and_scalars():
    tree = {"a": {"b": jnp.int32(3)}, "c": (jnp.float32(-0.0), jnp.float32(0.0))}
    found = checksums(tree)
    assert found.keys() == {"a/b", "c/0", "c/1"}
    assert found["c/0"] != found["c/1"]  # bits, not numbers


def test_the_mesh_does_not_count():
    x = {"w": jnp.asarray(values("float32")), "h": jnp.asarray(values("bfloat16"))}
    mesh = sharding.make_mesh(2, 2, 2)
    spec = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data", "fsdp", "tensor"))
    assert checksums(jax.device_put(x, spec)) == checksums(x)
