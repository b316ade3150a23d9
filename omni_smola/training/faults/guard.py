"""What the training loop asks about faults: signals, hangs and steps that are not finite."""

import contextlib
import functools
import itertools
import math
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

import numpy as np

from omni_smola.errors import Preempted
from omni_smola.training.checkpoint import Checkpoints
from omni_smola.training.faults.non_finite import BadSteps
from omni_smola.training.faults.preemption import Preemption
from omni_smola.training.faults.watchdog import PATIENCE, Watchdog
from omni_smola.training.step import TrainState

Batch = dict[str, np.ndarray]


class Guard:
    """Watches a run for its loop.

    Args:
      bad_steps: counts the steps that were skipped.
      preemption: None for a run that ends by its own means only.
      watchdog: None to watch nothing.

    Attributes:
      stopped: the name of the signal that ends the run, on all processes alike; "" without one.
    """

    def __init__(
        self,
        bad_steps: BadSteps,
        preemption: Preemption | None = None,
        watchdog: Watchdog | None = None,
    ):
        self._bad_steps = bad_steps
        self._preemption = preemption or Preemption(math.inf)
        self._watchdog = watchdog or Watchdog(0)
        self._started = False
        self.stopped = ""

    def opened(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The same batches, the first of which is there.

        The first batch waits for the preparation of the data, which may take hours. It is not
        watched, and a signal ends it at once: there is nothing to save yet.

        Raises:
          Preempted: all processes agree to end before the first step.
        """
        batches = itertools.chain([next(batches)], batches)
        self._preemption.check()
        return batches

    @contextlib.contextmanager
    def training(self, checkpoints: Checkpoints) -> Iterator[None]:
        """The context of all steps: signals wait for a step's end, checkpoints are finished."""
        with contextlib.ExitStack() as stack:
            stack.push(functools.partial(_finish_begun, checkpoints))
            stack.callback(self._watchdog.disarm)
            stack.enter_context(self._preemption.deferred())
            yield

    def step(self, step: int) -> None:
        """A step begins. The first one compiles and gets more time."""
        self._watchdog.arm(f"step {step}", 1 if self._started else PATIENCE)
        self._started = True

    def dispatched(self, step: int, metrics: dict[str, Any], batch: Batch) -> None:
        """Looks at steps before this one, and whether the run has to end.

        Raises:
          UserError: too many skipped steps in a row.
        """
        self._bad_steps.watch(step, metrics, batch)
        self.stopped = self._preemption.reached()

    def evaluated(
        self, evaluate: Callable[[TrainState], float | None], state: TrainState
    ) -> float | None:
        """What `evaluate` gives for a state; None where a signal gives it up."""
        self._watchdog.disarm()
        try:
            with self._preemption.immediate():
                return evaluate(state)
        except Preempted as asked:
            self.stopped = str(asked)
            return None

    def saving(self, step: int) -> None:
        """A state will be saved: every loss up to it is looked at before.

        Raises:
          UserError: too many skipped steps in a row.
        """
        self._watchdog.arm(f"saving step {step}", PATIENCE)
        self._bad_steps.flush()

    def next_batch(self, step: int) -> None:
        """The loop waits for the batch of a step."""
        self._watchdog.arm(f"the batch of step {step}")

    def end_if_stopped(self, state: TrainState, steps: int, checkpoints: Checkpoints) -> None:
        """Raises Preempted, with the state saved, if a signal ends the run."""
        if self.stopped:
            checkpoints.finish(state)
            raise Preempted(f"{self.stopped}: saved step {int(state.step)} of {steps}")


def _finish_begun(
    checkpoints: Checkpoints,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
) -> None:
    """Whatever ends the run, a checkpoint that was begun is finished."""
    del kind, trace
    if error is None or isinstance(error, Preempted):  # on all processes alike
        checkpoints.wait()
    else:
        checkpoints.settle()
