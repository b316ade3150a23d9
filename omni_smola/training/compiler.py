"""How programs are compiled for a mesh: a run and `--mode=compile` use this one place."""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

# Options of the TPU's compiler. Without this XLA turns the gathering of sharded weights into loops
# of small products, one for each chip of the axis: 2.75 times the estimated cycles of a 5B model's
# step on 256 chips of v5e, and an internal error of the compiler on a 55B model's. The value is a
# size in MiB that nothing reaches.
TPU = {"xla_jf_spmd_threshold_for_windowed_einsum_mib": "1000000"}


def jit(mesh: Mesh, function: Callable[..., Any], **how: Any) -> Callable[..., Any]:
    """`jax.jit` for the devices of `mesh`, which the function's layers see while they are traced.

    Args:
      how: as `jax.jit` takes it.
    """
    options = dict(TPU) if mesh.devices.flat[0].platform == "tpu" else None

    @functools.wraps(function)
    def on_mesh(*arguments: Any) -> Any:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return function(*arguments)

    return jax.jit(on_mesh, compiler_options=options, **how)
