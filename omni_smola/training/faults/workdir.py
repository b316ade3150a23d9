"""The folder of a run, proved at the door: it can be written to, and all hosts see the same."""

import contextlib
import os
import tempfile
import uuid
from collections.abc import Iterator

from omni_smola.errors import UserError, first_line
from omni_smola.training import distributed


@contextlib.contextmanager
def no_empty_folders(workdir: str) -> Iterator[None]:
    """A context that a UserError leaves without the empty folders that were made inside of it."""
    path = os.path.abspath(os.path.expanduser(workdir))
    there = set(os.listdir(path)) if os.path.isdir(path) else None
    top = path
    while not os.path.exists(os.path.dirname(top)):
        top = os.path.dirname(top)
    try:
        yield
    except UserError:
        if there is None:
            _remove_empty(top)
        elif os.path.isdir(path):
            for name in set(os.listdir(path)) - there:
                _remove_empty(os.path.join(path, name))
        raise


def _remove_empty(top: str) -> None:
    for folder, _, _ in os.walk(top, topdown=False):
        with contextlib.suppress(OSError):  # something is in it
            os.rmdir(folder)


def ensure_workdir(workdir: str) -> str:
    """Makes the folder and proves that it can be written to; returns its absolute path.

    Raises:
      UserError: it cannot be made or written to; or it is not one folder on all hosts.
    """
    if "://" in workdir:
        raise UserError(
            f"The workdir {workdir} is an address, but a run writes to a folder: mount the bucket "
            "(gcsfuse, for gs://) on every host and give the path by --workdir=PATH."
        )
    path = os.path.abspath(os.path.expanduser(workdir))
    try:
        os.makedirs(path, exist_ok=True)
        why = unwritable(path)
    except OSError as error:
        why = error.strerror or first_line(error)
    if why := distributed.failure(why):
        raise UserError(
            f"The workdir {path} cannot be written to ({why}): choose another folder by "
            "--workdir=PATH."
        )
    _check_shared(path)
    return path


def unwritable(folder: str, size: int = 0) -> str:
    """Why this host cannot write a file of `size` bytes to a folder, or ""; it is tried.

    The file has a name, of its own as all hosts try at once: not every mounted bucket can write one
    without.
    """
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".probe-") as file:
            file.write(bytes(size))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.strerror or first_line(error)
    return ""


def _check_shared(path: str) -> None:
    """Raises UserError where the primary process's folder is not that of the others."""
    probe = os.path.join(path, distributed.of_primary(f".seen-by-all-{uuid.uuid4().hex}"))
    if distributed.is_primary():
        open(probe, "w").close()
    distributed.barrier("workdir: probe written")
    found = os.path.exists(probe)
    every = distributed.gather_bytes(b"yes" if found else b"")
    if distributed.is_primary():
        os.remove(probe)
    blind = [str(host) for host, seen in enumerate(every) if not seen]
    if blind:
        raise UserError(
            f"The workdir {path} of host 0 is not that of host{'s' * (len(blind) > 1)} "
            f"{', '.join(blind)}: checkpoints are written by all hosts into one folder, so name "
            "one that all of them see, on a shared file system, by --workdir=PATH."
        )
