"""Many hosts: how their processes find each other, wait for each other and gather what they have.

A pod, a Slurm job step and an MPI run are recognised by what their environment says; anywhere else
three variables name the processes of a run. One process alone waits for nobody.
"""

import contextlib
import glob
import importlib.util
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from omni_smola.errors import UserError

COORDINATOR = "JAX_COORDINATOR_ADDRESS"
PROCESSES = "JAX_NUM_PROCESSES"
PROCESS = "JAX_PROCESS_ID"
# How many processes `srun` or `mpirun` has started together.
_STARTED = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")
PATIENCE = 24 * 3600  # seconds that hosts wait for one that prepares data, say


def start(environ: Mapping[str, str] | None = None) -> None:
    """Joins the other processes of a run, if there are any; before any device is touched.

    Explicitly, on any machines: JAX_COORDINATOR_ADDRESS=HOST:PORT (a free port of the first),
    JAX_NUM_PROCESSES, and JAX_PROCESS_ID from 0 on. By themselves: the tasks of a Slurm job step
    (`srun`), of `mpirun`, and the hosts of a Cloud TPU slice.

    Raises:
      UserError: some of the three variables are missing or no numbers, or the others do not answer.
    """
    environ = os.environ if environ is None else environ
    arguments = arguments_of(environ)
    if arguments is None or jax.distributed.is_initialized():
        return
    try:
        jax.distributed.initialize(**arguments)
    except ValueError:
        # On a machine that has TPUs but belongs to no slice, nothing is found to join.
        if arguments or not _has_tpu(environ):
            raise
    except RuntimeError as error:
        where = arguments.get("coordinator_address", "the cluster that the environment describes")
        raise UserError(
            f"The processes of this run did not find each other by {where} "
            f"({str(error).splitlines()[0]}): start all of them within five minutes, with the same "
            f"{COORDINATOR} and {PROCESSES}, and let every host reach that port."
        ) from error


def arguments_of(environ: Mapping[str, str]) -> dict[str, Any] | None:
    """What `jax.distributed.initialize` is to be given; None for a process of its own.

    {} leaves it to JAX, which knows Slurm, Open MPI and Cloud TPU.

    Raises:
      UserError: see `start`.
    """
    given = {name: environ[name] for name in (COORDINATOR, PROCESSES, PROCESS) if environ.get(name)}
    if PROCESSES in given or PROCESS in given:
        return _explicit(given)
    if any(int(environ.get(name, "1")) > 1 for name in _STARTED) or _has_tpu(environ):
        return {}
    if given:
        return _explicit(given)
    return None


def _explicit(given: Mapping[str, str]) -> dict[str, Any]:
    missing = [name for name in (COORDINATOR, PROCESSES, PROCESS) if name not in given]
    numbers = [given.get(name, "0") for name in (PROCESSES, PROCESS)]
    told = " ".join(f"{name}={value}" for name, value in given.items())
    if missing or not all(text.isdigit() for text in numbers) or ":" not in given[COORDINATOR]:
        raise UserError(
            f"The environment says {told}, but a run of many processes needs "
            f"{COORDINATOR}=HOST:PORT, {PROCESSES}=N and {PROCESS}=0 to N-1 in each of them: set "
            "all three, or none for a run on one host."
        )
    count, index = map(int, numbers)
    if not 0 <= index < count:
        raise UserError(
            f"{PROCESS} is {index} of {PROCESSES}={count}: processes count from 0 to {count - 1}."
        )
    return {
        "coordinator_address": given[COORDINATOR],
        "num_processes": count,
        "process_id": index,
    }


def _has_tpu(environ: Mapping[str, str]) -> bool:
    """Whether this looks like a TPU host; asks neither the network nor the device."""
    platforms = environ.get("JAX_PLATFORMS", "tpu").split(",")
    return (
        "tpu" in platforms
        and bool(glob.glob("/dev/accel*") or glob.glob("/dev/vfio/[0-9]*"))
        and importlib.util.find_spec("libtpu") is not None
    )


def is_primary() -> bool:
    """Whether this process writes the run's files and tells the user what happens."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Returns when all processes are here, within a day; asks nothing of the devices."""
    if jax.process_count() > 1:
        ocp.multihost.get_barrier_sync_fn()(key=f"omni_smola/{name}", timeout_ms=1000 * PATIENCE)


@contextlib.contextmanager
def primary_first(name: str) -> Iterator[None]:
    """The primary process does what is inside alone; then all others do, and find it done.

    None goes on before all have done it, which takes long where hosts have disks of their own.
    """
    if not is_primary():
        barrier(name)
    yield
    if is_primary():
        barrier(name)
    barrier(f"{name}: everywhere")


def agreed(value: bool) -> bool:
    """The primary process's value, on all of them: what files there are may look different."""
    if jax.process_count() == 1:
        return value
    return bool(multihost_utils.broadcast_one_to_all(np.asarray(value)))


def failure(why: str) -> str:
    """What failed on the first host on which something has, on all of them; "" if on none."""
    if jax.process_count() == 1:
        return why
    told = enumerate(text.decode() for text in gather_bytes(why.encode()))
    return next((f"{text}, on host {host}" for host, text in told if text), "")


def gather_bytes(own: bytes) -> list[bytes]:
    """What every process has, on all of them, in their order."""
    if jax.process_count() == 1:
        return [own]
    sizes = multihost_utils.process_allgather(np.asarray([len(own)], np.int32))[:, 0]
    padded = np.zeros(max(1, int(sizes.max())), np.uint8)
    padded[: len(own)] = np.frombuffer(own, np.uint8)
    every = multihost_utils.process_allgather(padded)
    return [row[:size].tobytes() for row, size in zip(every, sizes, strict=True)]


def of_primary(value: Any) -> Any:
    """The primary process's value, something that JSON can hold, on all of them."""
    if jax.process_count() == 1:
        return value
    return json.loads(gather_bytes(json.dumps(value).encode())[0])


def whole(tree: Any) -> Any:
    """The arrays of a pytree as NumPy, whole, on every host."""

    def fetch(leaf: Any) -> np.ndarray:
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            return multihost_utils.process_allgather(leaf, tiled=True)
        return np.asarray(leaf)

    return jax.tree.map(fetch, tree)
