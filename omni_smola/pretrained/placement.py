"""Tensors on their devices, one or one block of one at a time.

A large stacked parameter lies on the devices from the beginning and is filled layer by layer, a
large table in blocks of rows: host memory is needed for one tensor, not for a parameter.
"""

import functools
import math
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding

from omni_smola.pretrained.plan import Part
from omni_smola.pretrained.reader import FLOATING, Reader
from omni_smola.pretrained.rules import transpose

_BLOCK = 64 << 20  # bytes of a table that are read at once, and of what is put together on the host
_STRIP = 128  # columns; what a processor's cache holds of two matrices at once


def placed(
    reader: Reader,
    parts: list[Part],
    shape: tuple[int, ...],
    dtype: np.dtype,
    sharding: Sharding,
) -> jax.Array:
    """One parameter on its devices."""
    if parts[0].layer is not None:
        blocks = ((i, part.read(reader, shape[1:])[None]) for i, part in enumerate(parts))
        return _assembled(blocks, 0, shape, dtype, sharding)
    part = parts[0]
    rows = _block_rows(reader, part)
    if rows:
        count = reader.entries[part.name].shape[0]
        axis = 0 if part.rule.transform is None else 1
        parts_of_it = (
            reader.read(part.name, slice(i, min(i + rows, count))) for i in range(0, count, rows)
        )
        blocks = ((i * rows, x.T if axis else x) for i, x in enumerate(parts_of_it))
        return _assembled(blocks, axis, shape, dtype, sharding)
    return _put(part.read(reader, shape), dtype, sharding)


def _block_rows(reader: Reader, part: Part) -> int:
    """Rows that a large plain or transposed table is read by; 0 for all at once."""
    entry = reader.entries[part.name]
    size = math.prod(entry.shape) * FLOATING[entry.dtype].itemsize
    plain = part.rule.transform is None or (
        part.rule.transform is transpose and len(entry.shape) == 2
    )
    if size <= _BLOCK or not plain or part.rule.fit is not None:
        return 0
    return max(1, _BLOCK * entry.shape[0] // size)


def _assembled(
    blocks: Iterator[tuple[int, np.ndarray]],
    axis: int,
    shape: tuple[int, ...],
    dtype: np.dtype,
    sharding: Sharding,
) -> jax.Array:
    """An array of blocks, each (where it begins on `axis`, its values)."""
    small = math.prod(shape) * dtype.itemsize <= _BLOCK
    if small or sharding.shard_shape(shape)[axis] != shape[axis]:
        # Not worth a program of its own; or a block would belong to some of the devices only.
        whole = np.empty(shape, dtype)
        for start, block in blocks:
            where = slice(start, start + block.shape[axis])
            whole[(slice(None),) * axis + (where,)] = _contiguous(block, dtype)
        return _put(whole, dtype, sharding)
    make, write = _programs(shape, dtype, axis, sharding)
    array = make()
    for start, block in blocks:
        array = write(array, _put(block, dtype, sharding), start)
        array.block_until_ready()  # else the blocks of a fast disk pile up before a slow device
    return array


@functools.lru_cache(maxsize=64)
def _programs(
    shape: tuple[int, ...], dtype: np.dtype, axis: int, sharding: Sharding
) -> tuple[Callable[[], jax.Array], Callable[[jax.Array, jax.Array, int], jax.Array]]:
    """An empty array, and the writing of a block into it without a second copy of it."""
    # On a CPU, XLA widens and narrows every bfloat16 that it moves; bits it just moves.
    bits = jnp.uint16 if dtype.itemsize == 2 else dtype

    def write(array: jax.Array, block: jax.Array, start: int) -> jax.Array:
        array, block = (jax.lax.bitcast_convert_type(x, bits) for x in (array, block))
        array = jax.lax.dynamic_update_slice_in_dim(array, block, start, axis)
        return jax.lax.bitcast_convert_type(array, dtype)

    return (
        jax.jit(functools.partial(jnp.zeros, shape, dtype), out_shardings=sharding),
        jax.jit(write, donate_argnums=0, out_shardings=sharding),
    )


def _put(array: np.ndarray, dtype: np.dtype, sharding: Sharding) -> jax.Array:
    array = _contiguous(array, dtype)
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def _contiguous(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """As `dtype`, rows first; a transposed matrix strip by strip, in a third of the time."""
    if array.ndim < 2 or array.flags.c_contiguous:
        return array.astype(dtype, order="C", copy=False)
    result = np.empty(array.shape, dtype)
    for start in range(0, array.shape[-1], _STRIP):
        strip = np.s_[..., start : start + _STRIP]
        result[strip] = array[strip]
    return result
