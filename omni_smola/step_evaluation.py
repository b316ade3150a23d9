"""The evaluation of a run's states: each step once, however often it is asked for."""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping

import jax
import numpy as np

from omni_smola.evaluation import report
from omni_smola.evaluation.evaluator import Evaluator, Generate, Unwritten
from omni_smola.run import Batch, Run, say
from omni_smola.training import distributed
from omni_smola.training.faults.preemption import Preemption
from omni_smola.training.faults.watchdog import PATIENCE
from omni_smola.training.state import Tree
from omni_smola.training.step import TrainState

WriteScalars = Callable[[int, dict[str, float]], None]


@contextlib.contextmanager
def watched(run: Run, trainable: Tree, preemption: Preemption | None = None) -> Iterator[Generate]:
    """A context with `run.generate` of these experts, in which no evaluation may hang.

    On many hosts, whose data are all prepared at the first batch, the run's watchdog watches what
    follows a batch's decoding, too, to the end of the context.

    Args:
      preemption: asked after every batch; None for what ends by its own means only.
    """

    def generate(batch: Batch) -> np.ndarray:
        ids = run.generate(trainable, batch)
        if jax.process_count() > 1:
            run.watchdog.arm("reading or gathering of an evaluation", PATIENCE)
        if preemption is not None:
            preemption.check()
        return ids

    try:
        yield generate
    finally:
        run.watchdog.disarm()


class StepEvaluation:
    """Evaluates states on the config's tasks and writes predictions, scores and scalars.

    Args:
      evaluator: of the config's tasks. label: names what is evaluated in file names.
      write_scalars: (step, name -> value). preemption: see `watched`.
    """

    def __init__(
        self,
        run: Run,
        evaluator: Evaluator,
        label: str,
        write_scalars: WriteScalars,
        preemption: Preemption | None = None,
    ):
        self._run, self._evaluator, self._label = run, evaluator, label
        self._write, self._preemption = write_scalars, preemption
        self._last: tuple[int, float | None] | None = None

    def path(self, step: int) -> str:
        """The file of a step's scores."""
        return os.path.join(self._run.workdir, "scores", f"{self._label}-{step}.json")

    def done(self, step: int) -> bool:
        """Whether a step's results are there: of the examples that are evaluated now, and with the
        score in the checkpoint where the best one is kept.

        All processes get the primary one's answer.
        """
        identity = report.identity(self.path(step))
        there = identity is not None and identity == self._evaluator.identity
        keep_best = self._run.config.checkpoint.keep_best
        return distributed.agreed(there) and (
            not keep_best or self._run.checkpoints.has_score(step)
        )

    def __call__(self, state: TrainState) -> float | None:
        """The mean score of the tasks that have one; None without any.

        Raises:
          OSError: the results cannot be written.
          Preempted: the run has to end.
        """
        return self._evaluate(state, None)

    def while_training(self, state: TrainState) -> float | None:
        """The same; results that cannot be written are told and end nothing."""
        failed: list[OSError] = []
        score = self._evaluate(state, failed.append)
        if failed:
            say(
                f"THE EVALUATION OF STEP {int(state.step)} COULD NOT BE WRITTEN ({failed[0]}): "
                "make room there. The run goes on"
            )
        if distributed.agreed(bool(failed)):  # one host writes; all evaluate again, or none
            self._last = None
        return score

    def _evaluate(self, state: TrainState, unwritten: Unwritten | None) -> float | None:
        step = int(state.step)
        if self._last is None or self._last[0] != step:
            where = (self._run.workdir, self._label, step)
            with watched(self._run, state.trainable, self._preemption) as generate:
                scores = self._evaluator.run(generate, *where, unwritten)
            self._write(step, {f"eval/{t}/{m}": v for t, s in scores.items() for m, v in s.items()})
            self._evaluator.write_scores(self.path(step), unwritten)
            self._last = (step, _mean(scores))
        return self._last[1]


def _mean(scores: Mapping[str, Mapping[str, float]]) -> float | None:
    """The mean of the tasks' first metrics, by which they are reported."""
    firsts = [next(iter(own.values())) for own in scores.values() if own]
    return float(np.mean(firsts)) if firsts else None
