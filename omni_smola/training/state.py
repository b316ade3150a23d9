"""A model divided into what is trained and what is frozen, as plain nested dicts of arrays.

Plain dicts keep checkpoints, optimiser states and shardings free of library classes, and every
array has one path, such as `encoder/stack/layers/attention/qkv/experts/w_out/q`.
"""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx

from omni_smola.training import distributed
from omni_smola.trees import Tree, nest, paths

__all__ = [
    "Assemble",
    "Tree",
    "abstract",
    "backbone_name",
    "backbone_weights",
    "count",
    "divide",
    "fingerprint",
    "nest",
    "paths",
]

Array = jax.Array
Assemble = Callable[[Tree, Tree], nnx.Module]


def divide(model: nnx.Module, wrt: Any) -> tuple[Assemble, Tree, Tree]:
    """Splits a model by the type of its parameters.

    Args:
      model: any NNX model whose variables are all `nnx.Param`s.
      wrt: NNX filter of what is trained, `ExpertParam` or `nnx.Param`.

    Returns:
      (assemble, trainable, frozen): nested dicts of arrays, and the function that makes the model
      of such a pair, inside or outside of `jax.jit`.
    """
    graphdef, *states = nnx.split(model, wrt, nnx.Param)

    def assemble(trainable: Tree, frozen: Tree) -> nnx.Module:
        filled = []
        for state, values in zip(states, (trainable, frozen), strict=True):
            state = jax.tree.map(lambda x: x, state)
            nnx.replace_by_pure_dict(state, values)
            filled.append(state)
        return nnx.merge(graphdef, *filled)

    trainable, frozen = (nnx.to_pure_dict(state) for state in states)
    return assemble, trainable, frozen


def abstract(tree: Any, place: Any) -> Any:
    """The shapes and dtypes of `tree`, lying as the shardings `place` say."""
    return jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree, place
    )


def count(tree: Tree) -> int:
    """Number of parameters."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def backbone_name(path: str) -> str | None:
    """The path that a parameter has in the bare backbone; None for one of an expert."""
    parts = path.split("/")
    return None if "experts" in parts else "/".join(part for part in parts if part != "base")


def backbone_weights(*trees: Tree) -> dict[str, Any]:
    """All leaves that belong to the backbone, by their path in the bare backbone."""
    named = {backbone_name(path): leaf for tree in trees for path, leaf in paths(tree).items()}
    named.pop(None, None)
    return named


def fingerprint(weights: Mapping[str, Array]) -> str:
    """16 hex digits that tell one backbone from another: paths, shapes and 1,024 values of each.

    A few values of every tensor do: two backbones that differ differ all over, and a 55B model is
    not read whole.

    Args:
      weights: of the bare backbone, from `backbone_weights`.
    """
    digest = hashlib.sha256()
    names = sorted(weights)
    samples = distributed.whole(_samples([weights[path] for path in names]))
    for path, sample in zip(names, samples, strict=True):
        digest.update(f"{path} {weights[path].shape}".encode())
        digest.update(sample.astype(np.float32).tobytes())
    return digest.hexdigest()[:16]


@jax.jit
def _samples(leaves: list[Array]) -> list[Array]:
    """At most 2,047 values of each, picked where they lie: a flattened copy of a divided tensor
    would be whole on every device."""
    places = [np.arange(0, leaf.size, max(1, leaf.size // 1024)) for leaf in leaves]
    return [leaf[np.unravel_index(at, leaf.shape)] for leaf, at in zip(leaves, places, strict=True)]
