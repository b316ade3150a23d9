"""Where activations lie between layers on a mesh of several devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from omni_smola import config as configs
from omni_smola import spread as spreads
from omni_smola.ahead import programs as ahead
from omni_smola.models import layers
from omni_smola.training import compiler, sharding
from omni_smola.training import model as models
from omni_smola.training import state as states


@pytest.fixture(scope="module")
def mesh():
    return sharding.make_mesh(2, 2, 2)


def lies(mesh, *shape: int, axes: tuple = spreads.RESIDUAL) -> tuple:
    x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    spread = compiler.jit(mesh, lambda x: spreads.spread(x, axes))
    y = spread(jax.device_put(x, NamedSharding(mesh, PartitionSpec())))
    np.testing.assert_array_equal(y, x)
    spec = tuple(y.sharding.spec)
    return spec + (None,) * (len(shape) - len(spec))


def test_examples_lie_as_those_of_a_batch(mesh):
    assert lies(mesh, 8, 3, 6) == (("data", "fsdp"), None, "tensor")
    heads = lies(mesh, 8, 3, 2, 5, axes=spreads.HEADS)
    assert heads == (("data", "fsdp"), None, "tensor", None)


def test_what_does_not_divide_stays_whole(mesh):
    assert lies(mesh, 2, 3, 6) == (None, None, "tensor")
    assert lies(mesh, 8, 3, 5) == (("data", "fsdp"), None, None)
    assert lies(mesh, 8, 3, 3, 5, axes=spreads.HEADS) == (("data", "fsdp"), None, None, None)


def test_without_a_mesh_or_on_a_users_own_nothing_happens(mesh):
    x = jnp.ones((8, 3, 6))
    assert spreads.spread(x) is x
    own = Mesh(mesh.devices, ("x", "y", "z"))
    assert "sharding_constraint" not in compiler.jit(own, spreads.spread).lower(x).as_text()
    assert spreads.spread(0) == 0


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


def named(name: str, **mesh) -> object:
    """A config of small sizes whose frozen weights are divided over all that there is."""
    config = configs.defaults()
    config.backbone.update(name=name, init="random", remat=True)
    # Seven experts, which no axis divides: they lie by width.
    config.experts.update(visual=2, text=2, multimodal=3, rank=2)
    config.data.update(prompt_length=6, target_length=5)
    config.mesh.update(mesh)
    return config


def batch(config, model) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    made = {}
    for name, shape in ahead.batch_shapes(config, model, 8).items():
        if shape.dtype == bool:
            made[name] = np.ones(shape.shape, bool)
        else:
            made[name] = rng.integers(2, 200, shape.shape).astype(shape.dtype)
    return made


@pytest.mark.slow
@pytest.mark.parametrize(("name", "pixels"), [("tiny", 24), ("paligemma_tiny", 0)])
def test_the_numbers_are_those_of_one_device(name, pixels):
    """Logits and gradients; XLA has been seen to divide a program wrongly on three axes."""
    told = []
    for sizes, devices in (((1, 1, 1), jax.devices()[:1]), ((2, 2, 2), jax.devices())):
        mesh = sharding.make_mesh(*sizes, devices)
        config = named(name, frozen="fsdp+tensor")
        config.backbone.resolution = pixels
        model = models.make_model(config, mesh)
        # Experts start with an output of zero, which would hide them.
        trained = jax.tree.map(lambda x: jnp.where(x == 0, 0.05, x), model.trainable)

        def loss(trained, frozen, given, model=model):
            logits = model.assemble(trained, frozen)(given)
            picked = jnp.take_along_axis(logits, given["target"][..., None], axis=-1)
            return jnp.mean(jax.nn.logsumexp(logits, -1) - picked[..., 0]), logits

        run = compiler.jit(mesh, jax.grad(loss, has_aux=True))
        given = sharding.put_batch(mesh, batch(config, model))
        told.append(jax.device_get(run(trained, model.frozen, given)))
    (grads, logits), (divided_grads, divided) = told
    np.testing.assert_allclose(divided, logits, atol=2e-4)
    for path, leaf in states.paths(grads).items():
        got = states.paths(divided_grads)[path]
        np.testing.assert_allclose(got, leaf, atol=1e-3 * np.abs(leaf).max() + 1e-7, err_msg=path)
