"""Checkpoints hold what was trained: parameters, optimiser, step, and what they belong to.

Not in them: the backbone, of which there is a fingerprint; the position in the data, which is the
step, as the stream of examples is a pure function of seed and step; and random numbers, as all
noise of a step (dropout, Gumbel) is drawn from a key folded of seed and step (`step`).

Written by Orbax, in the background, and atomically: a step's folder exists when it is complete.
Checksums tell a damaged checkpoint from a whole one. A save that fails, on a full disk say, ends no
run: it is told, and the checkpoints before it stay.
"""

import contextlib
import errno
import glob
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as keeping

from omni_smola.errors import UserError
from omni_smola.training import distributed
from omni_smola.training.checksums import checksums
from omni_smola.training.step import TrainState

WHICH = ("latest", "best")
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


def ensure_workdir(workdir: str) -> str:
    """Makes the folder and proves that it can be written to; returns its absolute path.

    Raises:
      UserError: it cannot be made or written to.
    """
    path = os.path.abspath(os.path.expanduser(workdir))
    try:
        os.makedirs(path, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):  # of a name of its own: all hosts try at once
            pass
    except OSError as error:
        raise UserError(
            f"The workdir {path} cannot be written to ({error.strerror}): choose another folder by "
            "--workdir=PATH."
        ) from error
    return path


class Checkpoints:
    """The checkpoints of one run, in `{workdir}/checkpoints/{step}`.

    Args:
      workdir: folder of the run.
      identity: what a checkpoint must agree on to be resumed, a JSON-able dict of name -> value.
      keep: how many to keep, the newest.
      keep_best: how many to keep beside them, those of the best scores.
      stream: where what happens to a checkpoint is told; None for the standard error output.
    """

    def __init__(
        self,
        workdir: str,
        identity: Mapping[str, Any],
        keep: int = 2,
        keep_best: int = 0,
        stream: TextIO | None = None,
    ):
        self.folder = os.path.join(workdir, "checkpoints")
        self._identity = dict(identity)
        self._keep, self._keep_best, self._stream = keep, keep_best, stream
        self._writing: int | None = None  # the step whose save is not known to be complete
        self._unwritten = ""  # why that could not even begin
        self._failed: tuple[int, str] | None = None  # the last save, if it failed, and why
        self._manager = self._open()

    def latest(self) -> int | None:
        """The newest complete step, or None."""
        return self._manager.latest_step()

    def save(self, state: TrainState, score: float | None = None) -> None:
        """Begins to write the state; a step that is there already is left alone.

        A failure, of this save or of the one before, is told and ends nothing; see `finish`.

        Args:
          score: of an evaluation of this state, the higher the better.
        """
        step = int(state.step)
        self.wait()
        if step in self._manager.all_steps():
            return
        sums = {name: checksums(getattr(state, name)) for name in ("trainable", "optimizer")}
        self._writing = step
        with self._noted():
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    trainable=ocp.args.StandardSave(state.trainable),
                    optimizer=ocp.args.StandardSave(state.optimizer),
                    identity=ocp.args.JsonSave(self._identity),
                    checksums=ocp.args.JsonSave(sums),
                ),
                metrics=None if score is None else {"score": score},
            )
        if self._unwritten and jax.process_count() == 1:
            self.wait()  # tells it now; other hosts hear of it when they wait

    def wait(self) -> None:
        """Returns when everything is written, or has failed and was told, on all hosts alike."""
        if self._writing is None:
            self._manager.wait_until_finished()
            return
        with self._noted():
            if not self._unwritten:
                self._manager.wait_until_finished()
        step, why = self._writing, self._unwritten
        self._writing, self._unwritten, self._failed = None, "", None
        if distributed.on_any(bool(why)):
            self._clear_up(step, why or "another host could not write its part")

    def finish(self, state: TrainState) -> None:
        """Waits for the save of a run's last state, and tries once more if it has failed.

        Raises:
          UserError: it could not be written.
        """
        self.wait()
        if self._failed is not None:
            self.save(state)
            self.wait()
        if self._failed is not None:
            step, why = self._failed
            kept = self.latest()
            raise UserError(
                f"The last checkpoint, of step {step}, could not be written to {self.folder} "
                f"({why}): make room there, or move the workdir, and run the same command again; "
                + ("it starts anew." if kept is None else f"it goes on at step {kept}.")
            )

    def close(self) -> None:
        """Waits, and ends the background thread."""
        self.wait()
        self._manager.close()

    def remove_unfinished(self) -> None:
        """Removes what a run that was killed left half written; for the run that goes on."""
        for path in self._unfinished():
            self._say(
                f"removed the half-written checkpoint {path}: a run was ended while writing it"
            )

    def restore(self, state: TrainState) -> TrainState:
        """The newest checkpoint in the shapes and shardings of `state`.

        A damaged one is told, renamed to `{step}.corrupt-1`, and the one before it is taken.

        Raises:
          UserError: there is none; or it belongs to another backbone, other experts or other data;
            or the only one is damaged.
        """
        trees = {"trainable": state.trainable, "optimizer": state.optimizer}
        step, restored = self._first_whole(trees, self._identity, "latest", put_aside=True)
        place = state.step.sharding
        number = jax.device_put(jnp.asarray(step, jnp.int32), place)
        return TrainState(number, restored["trainable"], restored["optimizer"])

    def restore_trainable(
        self, trainable: Any, names: tuple[str, ...], which: str = "latest"
    ) -> tuple[int, Any]:
        """Step and parameters alone, for evaluation; `names` of the identity must agree.

        Args:
          which: the latest, or the best by its score. A damaged one is told, left where it is, and
            the next one is taken.

        Raises:
          UserError: as `restore`; or the best is wanted and none has a score.
        """
        identity = {name: self._identity[name] for name in names}
        step, restored = self._first_whole({"trainable": trainable}, identity, which)
        return step, restored["trainable"]

    def _first_whole(
        self,
        trees: dict[str, Any],
        identity: Mapping[str, Any],
        which: str,
        put_aside: bool = False,
    ) -> tuple[int, dict[str, Any]]:
        """Step and arrays of the first candidate that is not damaged."""
        steps = self._candidates(which)
        for place, step in enumerate(steps):
            found, why = self._read(step, trees, identity)
            if not why:
                return step, found
            path = os.path.join(self.folder, str(step))
            if place + 1 == len(steps):
                raise UserError(
                    f"The checkpoint {path} is damaged ({why}), and there is no other: move it "
                    "away to start from step 0, or bring it back from a copy."
                )
            aside = self._put_aside(path) if put_aside else path
            self._say(
                f"the checkpoint {path} is damaged ({why}): "
                + (f"put aside as {aside}, " if put_aside else "")
                + f"step {steps[place + 1]} is used"
            )
        raise AssertionError("there is at least one candidate")

    def _candidates(self, which: str) -> list[int]:
        steps = sorted(self._manager.all_steps(), reverse=True)
        if not steps:
            raise UserError(
                f"There is no checkpoint in {self.folder}: train first with the same --workdir, or "
                "name the workdir of another run."
            )
        if which == "latest":
            return steps
        scores = {step: (self._manager.metrics(step) or {}).get("score") for step in steps}
        scored = [step for step in steps if scores[step] is not None]
        if not scored:
            raise UserError(
                f"No checkpoint in {self.folder} has a score: train with --config.eval.every=N and "
                "--config.checkpoint.keep_best=1, or take the latest, "
                "--config.checkpoint.which=latest."
            )
        return sorted(scored, key=lambda step: scores[step], reverse=True)

    def _read(
        self, step: int, trees: dict[str, Any], identity: Mapping[str, Any]
    ) -> tuple[dict[str, Any], str]:
        """The arrays of a step and "", or what is wrong with it."""
        found, why = {}, ""
        try:
            self._check(step, identity)
            args = {k: ocp.args.StandardRestore(_abstract(tree)) for k, tree in trees.items()}
            found = dict(self._manager.restore(step, args=ocp.args.Composite(**args)).items())
            why = self._wrong_sums(step, found)
        except (UserError, PermissionError):  # no damage
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno in _UNREACHABLE:
                raise UserError(
                    f"The checkpoint {os.path.join(self.folder, str(step))} cannot be read now "
                    f"({error.strerror}): it is left as it is. Run the same command again when its "
                    "storage answers."
                ) from error
            # Orbax wraps what TensorStore says of some cut files in an Exception of no other type.
            if type(error) is not Exception and not isinstance(error, _DAMAGE):
                raise
            why = _first_line(error)
        if distributed.on_any(bool(why)):  # damage that one host met is met by all
            why = why or "another host could not read it"
        return found, why

    def _wrong_sums(self, step: int, found: dict[str, Any]) -> str:
        if not os.path.isdir(os.path.join(self.folder, str(step), "checksums")):
            return ""  # of a version of this program that had none
        kept = self._manager.restore(
            step, args=ocp.args.Composite(checksums=ocp.args.JsonRestore())
        ).checksums
        for name, tree in found.items():
            for path, value in checksums(tree).items():
                if kept[name].get(path) != value:
                    return f"{name}/{path} does not have the checksum that it was written with"
        return ""

    def _put_aside(self, path: str) -> str:
        number = 1
        while os.path.exists(f"{path}.corrupt-{number}"):
            number += 1
        aside = f"{path}.corrupt-{number}"
        distributed.barrier("put aside: named")
        if distributed.is_primary():
            os.rename(path, aside)
        distributed.barrier("put aside: moved")
        self._manager.reload()
        return aside

    def _check(self, step: int, identity: Mapping[str, Any]) -> None:
        found = self._manager.restore(
            step, args=ocp.args.Composite(identity=ocp.args.JsonRestore())
        ).identity
        for name, here in identity.items():
            if found.get(name) != here:
                field, there, here = _difference(name, found.get(name), here)
                raise UserError(
                    f"The checkpoint {os.path.join(self.folder, str(step))} was made with "
                    f"{field} = {there}, but this run has {field} = {here}: set it as it was, or "
                    "start a new run with another --workdir."
                )

    def _open(self) -> ocp.CheckpointManager:
        keep = [keeping.LatestN(self._keep)]
        if self._keep_best:
            keep.append(
                keeping.BestN(
                    get_metric_fn=_score, n=self._keep_best, keep_checkpoints_without_metrics=False
                )
            )
        options = ocp.CheckpointManagerOptions(
            preservation_policy=keeping.AnyPreservationPolicy(keep),
            best_fn=_score,
            create=True,
            enable_async_checkpointing=True,
        )
        return ocp.CheckpointManager(self.folder, options=options)

    @contextlib.contextmanager
    def _noted(self) -> Iterator[None]:
        """Turns the failure of a save into words."""
        try:
            yield
        except Exception as error:
            self._unwritten = _first_line(error)

    def _clear_up(self, step: int, why: str) -> None:
        """Removes what a save that failed has left, and tells it."""
        with contextlib.suppress(Exception):  # what failed, fails again
            self._manager.close()
        for _ in self._unfinished():
            pass
        # Its own list of steps has the failed one, and lacks those it would have replaced.
        self._manager = self._open()
        kept = self.latest()
        if kept == step:  # it was complete before
            return
        self._failed = (step, why)
        self._say(
            f"THE CHECKPOINT OF STEP {step} COULD NOT BE WRITTEN to {self.folder} "
            f"({why}): make room there. The run goes on; "
            + ("nothing is saved yet" if kept is None else f"step {kept} is safe")
        )

    def _unfinished(self) -> Iterator[str]:
        """Removes Orbax's temporary folders, on one host, and yields their paths."""
        if jax.process_index() == 0:
            for path in glob.glob(
                os.path.join(glob.escape(self.folder), "*.orbax-checkpoint-tmp*")
            ):
                shutil.rmtree(path, ignore_errors=True)
                yield path

    def _say(self, text: str) -> None:
        if jax.process_index() == 0:
            stream = self._stream or sys.stderr
            print(f"[{time.strftime('%H:%M:%S')}] {text}", file=stream, flush=True)


def _score(metrics: Mapping[str, float]) -> float:
    return metrics["score"]


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


def _difference(name: str, there: Any, here: Any) -> tuple[str, Any, Any]:
    """The first field in which two values differ, `experts.rank` rather than all of `experts`."""
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        for key in [*here, *(key for key in there if key not in here)]:
            if there.get(key) != here.get(key):
                return _difference(f"{name}.{key}", there.get(key), here.get(key))
    return name, there, here


def _abstract(tree: Any) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)
