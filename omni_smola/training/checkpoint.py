"""Checkpoints hold what was trained: parameters, optimiser, step, and what they belong to.

Not in them: the backbone, of which there is a fingerprint; the position in the data, which is the
step, as the stream of examples is a pure function of seed and step; and random numbers, as all
noise of a step (dropout, Gumbel) is drawn from a key folded of seed and step (`step`).

Written by Orbax, in the background, and atomically: a step's folder exists when it is complete.
Checksums tell a damaged checkpoint from a whole one. A save that fails, on a full disk say, ends no
run: it is told, and the checkpoints before it stay.
"""

import contextlib
import glob
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers as keeping

from omni_smola.errors import UserError, first_line
from omni_smola.training import distributed, restoring
from omni_smola.training.checksums import checksums
from omni_smola.training.commit import Commit, OtherHostFailed
from omni_smola.training.faults.workdir import unwritable
from omni_smola.training.step import TrainState

_SCORES = "metrics"  # Orbax's folder of them in a step's, and the file in it
_PROBE = 4096  # bytes that must find room before a save is begun


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
        self._unwritten = ""  # why this host could not write its part of it
        self._failed: tuple[int, str] | None = None  # the last save, if it failed, and why
        self._score: float | None = None  # of the last save
        self._commit = Commit()
        self._manager = self._open()

    def latest(self) -> int | None:
        """The newest complete step, or None; on all hosts what the first one sees."""
        return distributed.of_primary(self._manager.latest_step())

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
        self._score = score
        # A host that cannot begin its part would keep the others waiting inside of Orbax.
        if why := distributed.failure(unwritable(self.folder, _PROBE)):
            self._clear_up(step, why)
            return
        sums = {name: checksums(getattr(state, name)) for name in ("trainable", "optimizer")}
        self._writing = step
        self._commit.begin()
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
            self.wait()  # tells it now; other hosts, which come out of their save, when they wait

    def has_score(self, step: int) -> bool:
        """Whether a step was saved with the score of an evaluation, or was given it later."""
        return distributed.agreed(self._score_of(step) is not None)

    def add_score(self, step: int, score: float | None) -> None:
        """Gives a complete step the score of an evaluation that was made after it was saved."""
        if score is None or self.has_score(step):
            return
        self.wait()
        folder = os.path.join(self.folder, str(step), _SCORES)
        unfinished = f"{folder}.tmp"  # Orbax reads what there is, and cannot do with a half
        try:
            if distributed.is_primary():
                shutil.rmtree(unfinished, ignore_errors=True)
                os.mkdir(unfinished)
                handler = ocp.JsonCheckpointHandler(filename=_SCORES)
                handler.save(epath.Path(unfinished), args=ocp.args.JsonSave({"score": score}))
                os.rename(unfinished, folder)
        except OSError as error:
            shutil.rmtree(unfinished, ignore_errors=True)
            self._say(f"THE SCORE OF STEP {step} COULD NOT BE WRITTEN to {folder} ({error})")
        distributed.barrier("score added")
        self._manager.reload()

    def wait(self) -> None:
        """Returns when everything is written, or has failed and was told, on all hosts alike."""
        if self._writing is None:
            self._manager.wait_until_finished()
            return
        with self._noted():
            if not self._unwritten:
                self._manager.wait_until_finished()
        step, why = self._writing, distributed.failure(self._unwritten)
        self._writing, self._unwritten, self._failed = None, "", None
        if why:
            self._clear_up(step, why)

    def settle(self) -> None:
        """Waits for what is being written, for a run that an error ends: asks no other host."""
        if jax.process_count() == 1:
            self.wait()
        else:
            with contextlib.suppress(Exception), self._noted():  # not what ends the run
                self._manager.wait_until_finished()

    def finish(self, state: TrainState) -> None:
        """Waits for the save of a run's last state, and tries once more if it has failed.

        Raises:
          UserError: it could not be written.
        """
        self.wait()
        if self._failed is not None:
            self.save(state, self._score)
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
        like: dict[str, Any],
        identity: Mapping[str, Any],
        which: str,
        put_aside: bool = False,
    ) -> tuple[int, dict[str, Any]]:
        # A shared folder may look different to hosts for a while.
        scores = [(step, self._score_of(step)) for step in self._manager.all_steps()]
        scores = distributed.of_primary(scores)
        steps = restoring.candidates(self.folder, dict(map(tuple, scores)), which)
        found = restoring.first_whole(self.folder, steps, like, identity, self._say, put_aside)
        if found[0] != steps[0]:
            self._manager.reload()
        return found

    def _score_of(self, step: int) -> float | None:
        return (self._manager.metrics(step) or {}).get("score")

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
            # The watchdog ends a wait, and a host that fails: not Orbax, which knows no reason.
            async_options=ocp.AsyncOptions(
                timeout_secs=distributed.PATIENCE, barrier_sync_fn=self._commit
            ),
        )
        return ocp.CheckpointManager(self.folder, options=options)

    @contextlib.contextmanager
    def _noted(self) -> Iterator[None]:
        """Turns the failure of a save into words."""
        try:
            yield
        except OtherHostFailed:
            pass  # which tells why
        except Exception as error:
            self._unwritten = first_line(error)
            self._commit.fail()

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
