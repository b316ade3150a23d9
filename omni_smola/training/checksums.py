"""Checksums of arrays, computed where they lie.

The storage checks its own tables, but a chunk that is missing reads as zeros and a flipped bit in a
chunk as another number. These sums find both, on any division of the arrays over devices and hosts.
"""

import jax
import jax.numpy as jnp
import numpy as np

from omni_smola.training import state as states

_WORDS = {1: jnp.uint8, 2: jnp.uint16}


def checksums(tree: states.Tree) -> dict[str, int]:
    """Path -> checksum, 32 bits, of every array of a tree; a changed element changes its array's.

    Integer arithmetic modulo 2^32 has no order: the sums do not depend on the mesh.
    """
    paths = {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }
    return {path: int(value) for path, value in jax.device_get(_sums(paths)).items()}


@jax.jit
def _sums(arrays: dict[str, jax.Array]) -> dict[str, jax.Array]:
    return {path: _sum(x) for path, x in arrays.items()}


def _sum(x: jax.Array) -> jax.Array:
    """() uint32: every element's bits times an odd number of its own place, added up."""
    x = x.astype(jnp.uint8) if x.dtype == bool else x
    word = _WORDS.get(x.dtype.itemsize, jnp.uint32)
    bits = jax.lax.bitcast_convert_type(x, word).astype(jnp.uint32)
    place = jnp.zeros(bits.shape, jnp.uint32)
    for axis, size in enumerate(bits.shape):
        along = jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis)
        place = place * jnp.uint32(np.uint64(size) & np.uint64(0xFFFFFFFF)) + along
    # Fibonacci hashing spreads neighbouring places; the lowest bit keeps the factor odd.
    factor = (place * jnp.uint32(2654435761)) | jnp.uint32(1)
    return jnp.sum(bits * factor, dtype=jnp.uint32)
