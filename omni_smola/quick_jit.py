"""Compiling quickly what runs once, such as the drawing of weights."""

from collections.abc import Callable
from typing import Any

import jax

# Level 1 of 3 draws weights of the same bits as fast, and compiles in a quarter of the time.
_OPTIONS = {"xla_backend_optimization_level": 1}


def quick_jit(
    function: Callable[..., Any], platform: str | None = None, **how: Any
) -> Callable[..., Any]:
    """`jax.jit` for what is called once: on CPUs it spends little time on optimisation.

    Args:
      function: not to be called inside of another `jax.jit`.
      platform: of the devices that it runs on; None is the default backend.
      how: as `jax.jit` takes it.
    """
    platform = platform or jax.default_backend()
    quick = platform == "cpu" and not jax.config.read("jax_disable_most_optimizations")
    return jax.jit(function, compiler_options=_OPTIONS if quick else None, **how)
