"""Training, in the order of events."""

from collections.abc import Callable, Iterator
from typing import Protocol

import jax
import numpy as np

from omni_smola.training.checkpoint import Checkpoints
from omni_smola.training.faults.guard import Guard
from omni_smola.training.plan import Plan, SaveTimes
from omni_smola.training.progress import StepLog
from omni_smola.training.step import TrainState

Batch = dict[str, np.ndarray]
Step = Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]


class Evaluation(Protocol):
    """What the loop asks of an evaluation."""

    def while_training(self, state: TrainState) -> float | None:
        """Evaluates a state and writes the results; its score, None without one."""
        ...

    def done(self, step: int) -> bool:
        """Whether all results of a step are there, on all processes alike."""
        ...


def train(
    state: TrainState,
    plan: Plan,
    *,
    step: Step,
    open_batches: Callable[[int], Iterator[Batch]],
    checkpoints: Checkpoints,
    guard: Guard,
    log: StepLog,
    evaluation: Evaluation | None = None,
) -> TrainState:
    """Trains from `state.step` to `plan.steps`.

    Args:
      state: fresh or restored; it is given up to the step.
      plan: how long, and what happens how often.
      step: (state, this process's rows of a batch) -> (state, metrics), dispatched and not waited
        for.
      open_batches: step -> the endless stream of batches from that step on.
      checkpoints: where states are saved.
      guard: what to do about signals, hangs and losses that are not finite.
      log: of metrics and speed.
      evaluation: of states every `plan.eval_every` steps; None where that is 0.

    Returns:
      The last state, which is saved.

    Raises:
      UserError: too many skipped steps in a row; or the last state could not be saved.
      Preempted: a signal ended the run; the state is saved.
    """
    first = int(state.step)
    # A signal may have ended the evaluation of the state that the run resumes from.
    if evaluation and plan.evaluates(first) and not evaluation.done(first):
        checkpoints.add_score(first, evaluation.while_training(state))
    if first >= plan.steps:
        return state
    log.start(first)
    save_times = SaveTimes(plan)
    batches = guard.opened(open_batches(first))
    with guard.training(checkpoints):
        for number in range(first + 1, plan.steps + 1):
            batch = next(batches)
            guard.step(number)
            state, metrics = step(state, batch)
            guard.dispatched(number, metrics, batch)
            log.dispatched(number, metrics)
            # Evaluation sees the state that the checkpoint holds, and both come before the next
            # batch.
            score, evaluates = None, plan.evaluates(number) and not guard.stopped
            if evaluation and evaluates:
                with log.paused():
                    score = guard.evaluated(evaluation.while_training, state)
            if save_times.due(number, evaluates) or guard.stopped:
                guard.saving(number)
                log.flush(number, metrics)
                checkpoints.save(state, score)
            guard.end_if_stopped(state, plan.steps, checkpoints)
            guard.next_batch(number + 1)
        guard.saving(plan.steps)
        checkpoints.finish(state)
    return state
