"""The parameters of a model's experts by path, and how new values get to where the old ones are."""

from collections.abc import Mapping

import jax
import numpy as np
from flax import nnx

from omni_smola.experts.param import ExpertParam
from omni_smola.trees import paths


def expert_parameters(model: nnx.Module) -> dict[str, jax.Array]:
    """Path -> value of every `ExpertParam`; empty for a bare backbone."""
    return paths(nnx.to_pure_dict(nnx.state(model, ExpertParam)))


def put_parameters(model: nnx.Module, values: Mapping[str, jax.Array]) -> None:
    """Gives every `ExpertParam` its value, in place, on the devices that had its value before.

    Args:
      model: with experts.
      values: path -> array of the same shape and dtype, for all that `expert_parameters` names.
    """
    state = nnx.state(model, ExpertParam)
    flat, structure = jax.tree_util.tree_flatten_with_path(nnx.to_pure_dict(state))
    placed = [
        _placed(values[jax.tree_util.keystr(path, simple=True, separator="/")], before)
        for path, before in flat
    ]
    nnx.replace_by_pure_dict(state, jax.tree_util.tree_unflatten(structure, placed))
    nnx.update(model, state)


def _placed(value: jax.Array, before: jax.Array) -> jax.Array:
    if not before.committed:  # it is computed where the arrays beside it are
        return value
    if before.sharding.is_fully_addressable:
        return jax.device_put(value, before.sharding)
    host = np.asarray(value)
    return jax.make_array_from_callback(host.shape, before.sharding, lambda index: host[index])
