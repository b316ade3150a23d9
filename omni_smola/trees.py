"""Nested dicts of arrays and their paths: what checkpoints, rules and shardings name things by."""

from collections.abc import Mapping
from typing import Any

import jax

Tree = dict[str, Any]


def paths(tree: Tree) -> dict[str, Any]:
    """Nested dict -> {"a/b/c": leaf}."""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in flat}


def nest(flat: Mapping[str, Any]) -> Tree:
    """{"a/b/c": leaf} -> nested dict; the inverse of `paths`."""
    tree: Tree = {}
    for path, leaf in flat.items():
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = leaf
    return tree
