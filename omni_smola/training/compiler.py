"""How programs are compiled for a mesh: a run and `--mode=compile` use this one place."""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from omni_smola.quick_jit import quick_jit
from omni_smola.training import distributed

# Options of the TPU's compiler. Without this XLA turns the gathering of sharded weights into loops
# of small products, one for each chip of the axis: 2.75 times the estimated cycles of a 5B model's
# step on 256 chips of v5e, and an internal error of the compiler on a 55B model's. The value is a
# size in MiB that nothing reaches.
TPU = {"xla_jf_spmd_threshold_for_windowed_einsum_mib": "1000000"}


def jit_once(mesh: Mesh, function: Callable[[], Any], **how: Any) -> Callable[[], Any]:
    """`jax.jit` for what a run does once, such as drawing weights: on CPUs it is compiled quickly.

    Args:
      how: as `jax.jit` takes it.
    """
    return quick_jit(function, mesh.devices.flat[0].platform, **how)


def jit(mesh: Mesh, function: Callable[..., Any], **how: Any) -> Callable[..., Any]:
    """`jax.jit` for the devices of `mesh`, which the function's layers see while they are traced.

    Args:
      how: as `jax.jit` takes it.
    """
    platform = mesh.devices.flat[0].platform
    options = dict(TPU) if platform == "tpu" else None

    @functools.wraps(function)
    def on_mesh(*arguments: Any) -> Any:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return function(*arguments)

    jitted = jax.jit(on_mesh, compiler_options=options, **how)
    return _met(jitted) if platform == "cpu" and jax.process_count() > 1 else jitted


def _met(jitted: Callable[..., Any]) -> Callable[..., Any]:
    """Compiled by every process before one of them starts it.

    On CPUs processes that share a collective for the first time have 30 seconds to connect (gloo;
    XLA's timeouts of collectives do not change that), and one that found the program in the cache
    of compiled ones would not wait long enough for one that compiles.
    """
    compiled: dict[Any, Callable[..., Any]] = {}

    def meet(*arguments: Any) -> Any:
        leaves, tree = jax.tree.flatten(arguments)
        key = tree, *((x.shape, x.dtype, getattr(x, "sharding", None)) for x in leaves)
        if key not in compiled:
            compiled[key] = jitted.lower(*arguments).compile()
            distributed.barrier("compiled")
        return compiled[key](*arguments)

    return meet
