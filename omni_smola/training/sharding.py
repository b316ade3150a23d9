"""One mesh for every machine: axes data, fsdp and tensor; where parameters and batches lie on it.

A laptop is a mesh of one device. Batches are divided over data and fsdp, parameters by the table of
`layout`. A mesh may span hosts: each reads and feeds its share of every batch.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from omni_smola.errors import UserError
from omni_smola.training import compiler
from omni_smola.training.layout import AXES, Layout

BATCH = PartitionSpec(("data", "fsdp"))


def make_mesh(
    data: int, fsdp: int, tensor: int, devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """A mesh of all devices; one size may be -1, which takes what is left.

    Raises:
      UserError: the sizes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = {"data": data, "fsdp": fsdp, "tensor": tensor}
    open_axes = [name for name, size in sizes.items() if size == -1]
    known = math.prod(size for size in sizes.values() if size != -1)
    if len(open_axes) > 1 or any(size < 1 and size != -1 for size in sizes.values()):
        raise UserError(
            f"config.mesh is {sizes}, but sizes are 1 or more and at most one may be -1."
        )
    if len(devices) % known or (not open_axes and known != len(devices)):
        raise UserError(
            f"config.mesh is {sizes}, which does not fill the {len(devices)} devices of this "
            "machine: make the product of data, fsdp and tensor equal to it, or set one to -1."
        )
    for name in open_axes:
        sizes[name] = len(devices) // known
    shape = tuple(sizes[name] for name in AXES)
    if devices[0].platform == "tpu":
        from jax.experimental import mesh_utils

        grid = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    else:
        grid = np.asarray(devices).reshape(shape)
    return Mesh(grid, AXES)


def partition(mesh: Mesh, path: str, shape: Sequence[int]) -> NamedSharding:
    """Where what is trained lies, of a model of which nothing is known but paths and shapes."""
    return Layout(mesh).place(path, shape)


def partition_tree(mesh: Mesh, tree: Any) -> Any:
    """`partition` of every leaf of a nested dict or optimiser state."""
    return Layout(mesh).tree(tree)


def jit_train_step(mesh: Mesh, train_step: Callable, state: Any) -> Callable:
    """Compiles (state, frozen, batch) -> (state, metrics); a state stays where `state` lies.

    Without that promise the compiler may divide the new state in another way, and the next step is
    compiled again. Metrics are whole on every device, so that every host can read them.
    """
    place = jax.tree.map(lambda leaf: leaf.sharding, state)
    whole = NamedSharding(mesh, PartitionSpec())
    return compiler.jit(mesh, train_step, donate_argnums=0, out_shardings=(place, whole))


def put(value: Any, place: jax.sharding.Sharding) -> jax.Array:
    """An array that every host has whole -> on its devices, whatever part of it they hold."""
    if place.is_fully_addressable:
        return jax.device_put(value, place)
    host = np.asarray(value)
    return jax.make_array_from_callback(host.shape, place, lambda index: host[index])


def share(mesh: Mesh) -> tuple[int, int]:
    """Which of how many equal parts of every batch this host is to read: (index, count).

    Hosts that share the rows of a batch (where `tensor` spans them) read the same part. Where the
    hosts' rows overlap without being the same, every one of them reads everything.
    """
    index, parts = _parts(mesh)
    return index, len(parts)


def own_rows(mesh: Mesh, size: int) -> np.ndarray:
    """The rows (n,) int of a batch of `size` that this host's part of it becomes, in order."""
    index, parts = _parts(mesh)
    return np.arange(size).reshape(sum(map(len, parts)), -1)[list(parts[index])].reshape(-1)


def _parts(mesh: Mesh) -> tuple[int, list[tuple[int, ...]]]:
    """The blocks of rows that each part of a batch consists of, and which part is this host's."""
    blocks = mesh.devices.reshape(-1, mesh.shape["tensor"])
    own: dict[int, list[int]] = {}
    for i, block in enumerate(blocks):
        for process in {device.process_index for device in block}:
            own.setdefault(process, []).append(i)
    parts = sorted({tuple(rows) for rows in own.values()})
    if sum(map(len, parts)) > len(blocks) or len({len(part) for part in parts}) > 1:
        return 0, [tuple(range(len(blocks)))]
    return parts.index(tuple(own[jax.process_index()])), parts


def put_batch(
    mesh: Mesh, batch: Mapping[str, np.ndarray], *, whole: bool = False
) -> dict[str, jax.Array]:
    """A host's part of a batch -> global arrays, divided over data and fsdp.

    Args:
      batch: the rows of this host's part (see `share`), or, with `whole`, all rows on all hosts.
    """
    sharding = NamedSharding(mesh, BATCH)
    count = 1 if whole else share(mesh)[1]
    return {
        name: jax.make_array_from_process_local_data(
            sharding, value, (len(value) * count, *value.shape[1:])
        )
        for name, value in batch.items()
    }


def check_batch(mesh: Mesh, name: str, size: int, parts: int = 1) -> None:
    """Raises UserError unless `size` examples divide over data and fsdp, `parts` times over."""
    rows = mesh.shape["data"] * mesh.shape["fsdp"] * parts
    if size < 1 or size % rows:
        raise UserError(
            f"{name} is {size}, but it must be a positive multiple of {rows} (mesh data "
            f"{mesh.shape['data']} x fsdp {mesh.shape['fsdp']} x {parts} accumulated parts): "
            f"set --config.{name}={max(rows, size // rows * rows)}."
        )
