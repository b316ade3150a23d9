"""Reading checkpoints: whether they belong to a run, whether they are whole, and what is in them.

A host reads its own part of the arrays and asks nobody meanwhile: what it cannot read, it tells the
others before anything is computed together. So damage that one host met is met by all.
"""

import contextlib
import errno
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from omni_smola import trees
from omni_smola.errors import UserError, first_line
from omni_smola.training import distributed
from omni_smola.training.checksums import checksums

# What Orbax and TensorStore raise of files that are cut, missing or overwritten.
_DAMAGE = (ValueError, KeyError, OSError, EOFError)
# Among them, what a storage says that will answer again.
_UNREACHABLE = {
    errno.EIO,
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.EAGAIN,
    errno.ECONNRESET,
    errno.EHOSTDOWN,
}


# What checkpoints had that were written before they said so.
BEFORE = {"data.frame": "eos"}


def candidates(folder: str, scores: Mapping[int, float | None], which: str) -> list[int]:
    """Steps in the order in which they are to be tried.

    Args:
      folder: of the checkpoints. scores: step -> its score, None where it has none.
      which: latest or best.

    Raises:
      UserError: there is none; or the best is wanted and none has a score.
    """
    steps = sorted(scores, reverse=True)
    if not steps:
        raise UserError(
            f"There is no checkpoint in {folder}: train first with the same --workdir, or name the "
            "workdir of another run."
        )
    if which == "latest":
        return steps
    scored = [step for step in steps if scores[step] is not None]
    if not scored:
        raise UserError(
            f"No checkpoint in {folder} has a score: train with --config.eval.every=N and "
            "--config.checkpoint.keep_best=1, or take the latest, --config.checkpoint.which=latest."
        )
    return sorted(scored, key=lambda step: scores[step], reverse=True)


def first_whole(
    folder: str,
    steps: Sequence[int],
    like: Mapping[str, Any],
    identity: Mapping[str, Any],
    tell: Callable[[str], None],
    put_aside: bool,
) -> tuple[int, dict[str, Any]]:
    """Step and arrays of the first checkpoint that is not damaged.

    Args:
      steps: in the order to try them. like: item -> pytree of arrays, whose shapes, dtypes and
        shardings are wanted. identity: what must agree, name -> value.
      tell: is told of damaged ones. put_aside: renames them to `{step}.corrupt-1`.

    Raises:
      UserError: one belongs to something else; all are damaged; or the storage does not answer.
    """
    for place, step in enumerate(steps):
        path = os.path.join(folder, str(step))
        found, why = _read(path, like, identity)
        if not why:
            return step, found
        if place + 1 == len(steps):
            raise UserError(
                f"The checkpoint {path} is damaged ({why}), and there is no other: move it away to "
                "start from step 0, or bring it back from a copy."
            )
        moved = f"put aside as {_put_aside(path)}, " if put_aside else ""
        tell(f"the checkpoint {path} is damaged ({why}): {moved}step {steps[place + 1]} is used")
    raise AssertionError("there is at least one candidate")


def arrays(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """All arrays of a checkpoint, "item/a/b" -> array, whatever devices have written it.

    Args:
      path: of a step's folder, `{workdir}/checkpoints/{step}`.
    """
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    found = {}
    with ocp.StandardCheckpointer() as checkpointer:
        for item in ("trainable", "optimizer"):
            described = checkpointer.metadata(epath.Path(path) / item).item_metadata
            like = jax.tree.map(
                lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), described
            )
            restored = checkpointer.restore(epath.Path(path) / item, like)
            found |= {f"{item}/{p}": np.asarray(x) for p, x in trees.paths(restored).items()}
    return found


def identity_of(path: str | os.PathLike) -> dict[str, Any]:
    """What the checkpoint of a step's folder belongs to, see `model.identity`."""
    return _json(os.fspath(path), "identity")


def _read(
    path: str, like: Mapping[str, Any], identity: Mapping[str, Any]
) -> tuple[dict[str, Any], str]:
    """The arrays of a checkpoint and "", or what is wrong with it, on all hosts alike."""
    found, sums, why = {}, None, ""
    try:
        _check(path, _json(path, "identity"), identity)
        found = {item: _arrays_like(path, item, tree) for item, tree in like.items()}
        if os.path.isdir(os.path.join(path, "checksums")):  # older versions wrote none
            sums = _json(path, "checksums")
    except (UserError, PermissionError):  # no damage
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _UNREACHABLE:
            raise UserError(
                f"The checkpoint {path} cannot be read now ({error.strerror}): it is left as it "
                "is. Run the same command again when its storage answers."
            ) from error
        # Orbax wraps what TensorStore says of some cut files in an Exception of no other type.
        if type(error) is not Exception and not isinstance(error, _DAMAGE):
            raise
        why = first_line(error)
    distributed.barrier("checkpoint read")  # of the slowest host; a collective waits less long
    if why := distributed.failure(why):
        return {}, why
    sums = distributed.of_primary(sums)
    return found, "" if sums is None else _wrong_sum(sums, found)


def _json(path: str, item: str) -> dict[str, Any]:
    return ocp.JsonCheckpointHandler().restore(epath.Path(path) / item, ocp.args.JsonRestore())


def _arrays_like(path: str, item: str, tree: Any) -> Any:
    """An item of a checkpoint, read by its handler: a Checkpointer would wait for all hosts, also
    for one that has failed."""
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)
    with contextlib.closing(ocp.StandardCheckpointHandler()) as handler:
        return handler.restore(epath.Path(path) / item, args=ocp.args.StandardRestore(like))


def _wrong_sum(sums: Mapping[str, Mapping[str, int]], found: Mapping[str, Any]) -> str:
    for item, tree in found.items():
        for path, value in checksums(tree).items():
            if sums.get(item, {}).get(path) != value:
                return f"{item}/{path} does not have the checksum that it was written with"
    return ""


def _put_aside(path: str) -> str:
    number = 1
    while os.path.exists(f"{path}.corrupt-{number}"):
        number += 1
    aside = f"{path}.corrupt-{number}"
    distributed.barrier("put aside: named")
    if distributed.is_primary():
        os.rename(path, aside)
    distributed.barrier("put aside: moved")
    return aside


def _check(path: str, found: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    for name, here in identity.items():
        there = found.get(name, BEFORE.get(name))
        if there != here:
            field, there, here = _difference(name, there, here)
            named = name in BEFORE and there.isidentifier()  # no hash of a chat template
            way = f"set --config.{field}={there}" if named else "set it as it was"
            raise UserError(
                f"The checkpoint {path} was made with {field} = {there}, but this run has "
                f"{field} = {here}: {way}, or start a new run with another --workdir."
            )


def _difference(name: str, there: Any, here: Any) -> tuple[str, Any, Any]:
    """The first field in which two values differ, `experts.rank` rather than all of `experts`."""
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        for key in [*here, *(key for key in there if key not in here)]:
            if there.get(key) != here.get(key):
                return _difference(f"{name}.{key}", there.get(key), here.get(key))
    return name, there, here
