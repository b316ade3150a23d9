"""When a run logs, evaluates and saves."""

import dataclasses
import time

import jax
import ml_collections

from omni_smola.training import distributed


@dataclasses.dataclass(frozen=True)
class Plan:
    """The length of a run, and what happens how often.

    Attributes:
      steps: of the whole run.
      batch_size: examples per step, of all processes together.
      log_every: steps between lines of progress.
      eval_every: steps between evaluations; 0 for none.
      checkpoint_every: steps between checkpoints; the last step is always saved.
      checkpoint_minutes: the same in time; 0 for none by time.
      keep_best: whether every evaluated state is saved with its score, the last one too.
    """

    steps: int
    batch_size: int
    log_every: int
    eval_every: int = 0
    checkpoint_every: int = 1000
    checkpoint_minutes: float = 0.0
    keep_best: bool = False

    @classmethod
    def of(cls, config: ml_collections.ConfigDict) -> "Plan":
        """The plan of a run's config."""
        return cls(
            steps=config.steps,
            batch_size=config.batch_size,
            log_every=config.log_every,
            eval_every=config.eval.every,
            checkpoint_every=config.checkpoint.every,
            checkpoint_minutes=config.checkpoint.minutes,
            keep_best=bool(config.checkpoint.keep_best),
        )

    def logs(self, step: int, first: int) -> bool:
        """Whether there is a line of this step, of a run whose first one is `first`."""
        return step % self.log_every == 0 or step == first

    def evaluates(self, step: int) -> bool:
        """Whether the loop evaluates this step.

        Of the last step only where its score decides what is kept: the caller evaluates after it.
        """
        now = self.eval_every > 0 and step > 0 and step % self.eval_every == 0
        return now and (step < self.steps or self.keep_best)


class SaveTimes:
    """Tells after which steps a run saves, on all processes alike."""

    def __init__(self, plan: Plan):
        self._plan = plan
        self._saved = time.monotonic()

    def due(self, step: int, evaluated: bool) -> bool:
        """Asked once after every step; the next checkpoint by time counts from a yes."""
        plan = self._plan
        by_step = step == plan.steps or step % plan.checkpoint_every == 0
        late = self._late(step)
        now = by_step or late or (evaluated and plan.keep_best)
        if now:
            self._saved = time.monotonic()
        return now

    def _late(self, step: int) -> bool:
        """The primary process's clock decides; of many, it is asked at logged steps only."""
        if not self._plan.checkpoint_minutes:
            return False
        late = time.monotonic() - self._saved >= 60 * self._plan.checkpoint_minutes
        if jax.process_count() > 1 and step % self._plan.log_every:
            return False
        return distributed.agreed(late)
