"""Where activations lie between layers on a mesh of several devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from omni_smola.models import layers
from omni_smola.training import compiler, sharding


@pytest.fixture(scope="module")
def mesh():
    return sharding.make_mesh(2, 2, 2)


def lies(mesh, *shape: int) -> tuple:
    x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    y = compiler.jit(mesh, layers.spread)(jax.device_put(x, NamedSharding(mesh, PartitionSpec())))
    np.testing.assert_array_equal(y, x)
    spec = tuple(y.sharding.spec)
    return spec + (None,) * (len(shape) - len(spec))


def test_examples_lie_as_those_of_a_batch_and_channels_over_tensor(mesh):
    assert lies(mesh, 8, 3, 6) == (("data", "fsdp"), None, "tensor")


def test_what_does_not_divide_stays_whole(mesh):
    assert lies(mesh, 8, 3, 5) == (("data", "fsdp"), None, None)
    assert lies(mesh, 2, 3, 6) == (None, None, "tensor")


def test_without_a_mesh_or_on_a_users_own_nothing_happens(mesh):
    x = jnp.ones((8, 3, 6))
    assert layers.spread(x) is x
    own = Mesh(mesh.devices, ("x", "y", "z"))
    assert "sharding_constraint" not in compiler.jit(own, layers.spread).lower(x).as_text()
    assert layers.spread(0) == 0


def test_layers_keep_it_through_the_scan_and_its_gradient(mesh):
    """The program says so before the first layer and after each."""
    from flax import nnx

    stack = layers.Stack(
        lambda rngs: layers.RMSNorm(6, precision=layers.Precision()), 3, rngs=nnx.Rngs(0)
    )

    def run(x):
        return stack.scan(lambda layer, x, _: (layer(x), None), x, remat=True)[0].sum()

    text = compiler.jit(mesh, jax.grad(run)).lower(jnp.ones((8, 3, 6))).as_text()
    assert text.count("sharding_constraint") >= 3
