"""Training, in the order of events."""

import contextlib
import functools
import itertools
import math
import sys
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, TextIO

import jax
import numpy as np
from jax.sharding import Mesh

from omni_smola.errors import Preempted
from omni_smola.training import distributed, sharding
from omni_smola.training.bad_steps import BadSteps
from omni_smola.training.checkpoint import Checkpoints
from omni_smola.training.preemption import Preemption
from omni_smola.training.step import TrainState
from omni_smola.training.watchdog import PATIENCE, Watchdog

Batch = dict[str, np.ndarray]


def train(
    state: TrainState,
    frozen: Any,
    *,
    mesh: Mesh,
    train_step: Callable[..., tuple[TrainState, dict[str, jax.Array]]],
    open_batches: Callable[[int], Iterator[Batch]],
    checkpoints: Checkpoints,
    bad_steps: BadSteps,
    steps: int,
    batch_size: int,
    log_every: int,
    checkpoint_every: int,
    write_scalars: Callable[[int, dict[str, float]], None],
    eval_every: int = 0,
    evaluate: Callable[[TrainState], float | None] | None = None,
    evaluated: Callable[[int], bool] | None = None,
    checkpoint_minutes: float = 0.0,
    keep_best: bool = False,
    preemption: Preemption | None = None,
    watchdog: Watchdog | None = None,
    stream: TextIO = sys.stderr,
) -> TrainState:
    """Trains from `state.step` to `steps`.

    Args:
      state: fresh or restored. frozen: the part that is not trained.
      train_step: jitted (state, frozen, batch) -> (state, metrics).
      open_batches: step -> the endless stream of this host's batches from that step on.
      bad_steps: counts the steps that were skipped.
      evaluate: called every `eval_every` steps (0: never) with the state; gives its score.
      evaluated: whether there are results of a step. A restored state whose evaluation a signal has
        ended is evaluated first; None for never.
      write_scalars: (step, name -> value), every `log_every` steps.
      checkpoint_every: steps between checkpoints; checkpoint_minutes: the same in time, 0 for no
        such. The last step is saved whatever they are.
      keep_best: every state that was evaluated is saved, with its score, the last one too.
      preemption: None for a run that ends by its own means only. watchdog: None for none.
      stream: where lines of progress go.

    Raises:
      UserError: too many skipped steps in a row; or the last state could not be saved.
      Preempted: a signal ended the run; the state is saved.
    """
    first = int(state.step)
    due = _Due(steps, checkpoint_every, checkpoint_minutes, eval_every, keep_best, log_every)
    if first and due.evaluates(first) and evaluated is not None and not evaluated(first):
        checkpoints.add_score(first, evaluate(state))
    if first >= steps:
        return state
    preemption = preemption or Preemption(math.inf)
    watchdog = watchdog or Watchdog(0)
    progress = Progress(first, steps, batch_size, stream)
    batches = open_batches(first)
    # Preparing the data, which the first batch waits for, may take hours: it is neither watched nor
    # kept up at a signal, as there is nothing to save yet.
    batches = itertools.chain([next(batches)], batches)
    preemption.check()
    waiting: tuple[int, dict[str, jax.Array]] | None = None
    with contextlib.ExitStack() as stack:
        stack.push(functools.partial(_finish_begun, checkpoints))
        stack.callback(watchdog.disarm)
        stack.enter_context(preemption.deferred())
        for step in range(first + 1, steps + 1):
            batch = next(batches)
            watchdog.arm(f"step {step}", PATIENCE if step == first + 1 else 1)
            state, metrics = train_step(state, frozen, sharding.put_batch(mesh, batch))
            bad_steps.watch(step, metrics, batch)
            # Metrics of an earlier step are fetched after this one was dispatched, so that the
            # device never waits for the host.
            if waiting is not None:
                _log(*waiting, progress, write_scalars)
            waiting = (step, metrics) if step % log_every == 0 or step == first + 1 else None
            stopped, score = preemption.reached(), None
            # Evaluation sees the state that the checkpoint holds, and both come before the next
            # batch.
            evaluates = due.evaluates(step) and not stopped
            if evaluates:
                watchdog.disarm()
                try:
                    with progress.paused(), preemption.immediate():
                        score = evaluate(state)
                except Preempted as asked:
                    stopped = str(asked)
            if due.saves(step, evaluates) or stopped:
                watchdog.arm(f"saving step {step}", PATIENCE)
                bad_steps.flush()
                _log(step, metrics, progress, write_scalars)
                waiting = None
                checkpoints.save(state, score)
            if stopped:
                checkpoints.finish(state)
                raise Preempted(f"{stopped}: saved step {step} of {steps}")
            watchdog.arm(f"the batch of step {step + 1}")
        watchdog.arm(f"saving step {steps}", PATIENCE)
        checkpoints.finish(state)
    return state


def _finish_begun(
    checkpoints: Checkpoints,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
) -> None:
    """Whatever ends the run, a checkpoint that was begun is finished."""
    del kind, trace
    if error is None or isinstance(error, Preempted):  # on all hosts alike
        checkpoints.wait()
    else:
        checkpoints.settle()


class _Due:
    """Tells what is to be done after a step, on all hosts alike; for the arguments see `train`."""

    def __init__(
        self,
        steps: int,
        checkpoint_every: int,
        checkpoint_minutes: float,
        eval_every: int,
        keep_best: bool,
        ask_every: int,
    ):
        self._steps, self._every, self._eval_every = steps, checkpoint_every, eval_every
        self._keep_best, self._ask_every = keep_best, ask_every
        self._seconds = 60 * checkpoint_minutes
        self._saved = time.monotonic()

    def evaluates(self, step: int) -> bool:
        """The last step only where its score is wanted: the caller evaluates after it."""
        now = self._eval_every > 0 and step % self._eval_every == 0
        return now and (step < self._steps or self._keep_best)

    def saves(self, step: int, evaluated: bool) -> bool:
        """Asked once after every step; the next checkpoint by time counts from a yes."""
        late = self._late(step)
        now = step == self._steps or step % self._every == 0 or (evaluated and self._keep_best)
        if now or late:
            self._saved = time.monotonic()
        return now or late

    def _late(self, step: int) -> bool:
        """The first host's clock decides; with many, it is asked every `ask_every` steps only."""
        if not self._seconds:
            return False
        late = time.monotonic() - self._saved >= self._seconds
        if jax.process_count() > 1 and step % self._ask_every:
            return False
        return distributed.agreed(late)


class Progress:
    """Speed and time left; the first step, which compiles, does not count."""

    def __init__(self, first: int, last: int, batch_size: int, stream: TextIO):
        self._first, self._last = first, last
        self._batch_size, self._stream = batch_size, stream
        self._start, self._origin = time.perf_counter(), first
        self._away = 0.0

    def paused(self) -> "Progress":
        """A context whose time does not count as training."""
        self._pause = time.perf_counter()
        return self

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._away += time.perf_counter() - self._pause

    def line(self, step: int, values: dict[str, float]) -> dict[str, float]:
        """Writes one line; returns the speeds."""
        seconds = time.perf_counter() - self._start - self._away
        if self._origin == self._first:  # the first step done: count from here
            self._put(f"step {step}/{self._last}  compiled and ran in {seconds:.1f} s")
            self._origin, self._start, self._away = step, time.perf_counter(), 0.0
            return {}
        rate = (step - self._origin) / max(seconds, 1e-9)
        left = (self._last - step) / max(rate, 1e-9)
        self._put(
            f"step {step}/{self._last}  loss {values['loss']:.4f}  "
            f"token accuracy {100 * values['token_accuracy']:.1f}%  {rate:.2f} steps/s  "
            f"{rate * self._batch_size:.0f} examples/s  {_clock(left)} left"
        )
        return {"steps_per_second": rate, "examples_per_second": rate * self._batch_size}

    def _put(self, text: str) -> None:
        if jax.process_index() == 0:
            print(text, file=self._stream, flush=True)


def _log(
    step: int,
    metrics: dict[str, jax.Array],
    progress: Progress,
    write_scalars: Callable[[int, dict[str, float]], None],
) -> None:
    values = {name: float(value) for name, value in metrics.items() if name != "skipped"}
    write_scalars(step, values | progress.line(step, values))


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds + 0.5), 60)
    return (
        f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
        if minutes >= 60
        else (f"{minutes}:{seconds:02d}")
    )
