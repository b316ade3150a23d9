"""Steps that were skipped because their loss or gradients are not finite: counted, told, ended.

The jitted step leaves the state as it is (`step`); here it is looked at, two steps later, so that
the device is never waited for.
"""

import os
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any, TextIO

import jax
import numpy as np

from omni_smola.errors import UserError

Batch = dict[str, np.ndarray]
Metrics = dict[str, Any]
_LAG = 2


class BadSteps:
    """Counts skipped steps and ends the run after some in a row.

    Args:
      limit: so many in a row end the run; the last batch of them is saved.
      folder: where that batch is saved, `bad_batch-step-{step}.npz`, each host its own rows.
      write_scalars: (step, name -> value), of every skipped step.
      stream: where they are told.

    Attributes:
      total: skipped so far.
    """

    def __init__(
        self,
        limit: int,
        folder: str,
        write_scalars: Callable[[int, dict[str, float]], None],
        stream: TextIO = sys.stderr,
    ):
        self.total = 0
        self._limit, self._folder = limit, folder
        self._write, self._stream = write_scalars, stream
        self._waiting: deque[tuple[int, Metrics, Batch]] = deque()
        self._in_a_row = 0

    def watch(self, step: int, metrics: Metrics, batch: Batch) -> None:
        """Takes note of a step that was dispatched and looks at those before the last two.

        Raises:
          UserError: the limit is reached.
        """
        self._waiting.append((step, metrics, batch))
        while len(self._waiting) > _LAG:
            self._look(*self._waiting.popleft())

    def flush(self) -> None:
        """Looks at all steps that were noted; raises as `watch`."""
        while self._waiting:
            self._look(*self._waiting.popleft())

    def _look(self, step: int, metrics: Metrics, batch: Batch) -> None:
        if not float(metrics.get("skipped", 0.0)):
            self._in_a_row = 0
            return
        self.total += 1
        self._in_a_row += 1
        values = {name: float(metrics[name]) for name in ("loss", "gradient_norm")}
        seen = ", ".join(f"{name} {value}" for name, value in values.items())
        self._write(step, {"skipped_steps": float(self.total)})
        if jax.process_index() == 0:
            print(
                f"[{time.strftime('%H:%M:%S')}] step {step} SKIPPED, nothing learned from it: "
                f"{seen} ({self._in_a_row} in a row, {self.total} in all)",
                file=self._stream,
                flush=True,
            )
        if self._in_a_row >= self._limit:
            path = self._save(step, batch)
            raise UserError(
                f"The updates of {self._in_a_row} steps in a row, up to step {step}, were not "
                f"finite ({seen}): lower --config.optimizer.learning_rate or "
                f"--config.optimizer.clip_norm, or look at the batch of that step, {path}. The "
                "checkpoints are kept."
            )

    def _save(self, step: int, batch: Batch) -> str:
        host = f"-host-{jax.process_index()}" if jax.process_count() > 1 else ""
        path = os.path.join(self._folder, f"bad_batch-step-{step}{host}.npz")
        try:
            np.savez(path, **batch)
        except OSError as error:
            return f"which could not be saved ({error.strerror})"
        return path
