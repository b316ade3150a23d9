"""Where activations lie on a mesh: the few places where the compiler is told.

Left to itself it may divide them like the weights of the next product, and hold the whole batch on
every device: a step of a 55B model on 256 chips then needs 9 GiB for one hidden layer.
"""

import math

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

Array = jax.Array
Axes = tuple[tuple[str, ...], ...]

# By dimension. Examples lie as those of the batch, channels and heads over `tensor`. RESIDUAL
# (b, m, d) is what layers hand on; WIDE (b, m, width) and HEADS (b, m, h, dim) come out of products
# whose weights `tensor` divides by columns. SLOTS (b, k, width) are of experts, OUT (k, r, width)
# and WHOLE (outputs, k, d, r) their weights where they are used: gathered, so that examples need
# not be.
_BATCH = ("data", "fsdp")
RESIDUAL = WIDE = SLOTS = (_BATCH, (), ("tensor",))
HEADS = (_BATCH, (), ("tensor",), ())
HIDDEN = (_BATCH, (), ())
OUT = ((), (), ("tensor",))
WHOLE = ((), (), (), ())

TABLE = {
    "between layers (b, m, d)": RESIDUAL,
    "outputs of products (b, m, width)": WIDE,
    "heads (b, m, h, dim)": HEADS,
    "slots of experts (b, k, width)": SLOTS,
    "hidden slots of experts (b, k, r)": HIDDEN,
    "w_in of experts in use (outputs, k, d, r)": WHOLE,
    "w_out of experts in use (k, r, width)": OUT,
}


def table() -> list[str]:
    """Lines of words: every kind of activation and where its dimensions lie."""
    return [
        f"activations {what:43}" + " ".join("+".join(names) or "-" for names in axes)
        for what, axes in TABLE.items()
    ]


def spread(x: Array, axes: Axes = RESIDUAL) -> Array:
    """Activations, divided as `axes` say; of other dimensions, or without a mesh, as they are.

    The mesh is the one that a program is traced for (`jax.sharding.use_abstract_mesh`). A dimension
    that its axes do not divide stays whole.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if jnp.ndim(x) != len(axes) or not {"data", "fsdp", "tensor"} <= set(mesh.axis_names):
        return x
    fitted = [
        names if names and size % math.prod(mesh.shape[name] for name in names) == 0 else None
        for names, size in zip(axes, x.shape, strict=True)
    ]
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*fitted))
