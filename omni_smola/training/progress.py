"""Lines of progress and scalars, written without making the device wait."""

import sys
import time
from collections.abc import Callable, Mapping
from typing import TextIO

import jax

from omni_smola.training.plan import Plan

WriteScalars = Callable[[int, dict[str, float]], None]
_NOT_LOGGED = "skipped"  # counted by `faults.non_finite`


class Progress:
    """Speed and time left; the first step, which compiles, does not count.

    Args:
      first: the step that the run starts or resumes from.
      last: the step that it ends with.
      batch_size: examples per step.
      stream: where lines are written, by the primary process alone.
    """

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

    def line(self, step: int, values: Mapping[str, float]) -> dict[str, float]:
        """Writes one line; returns the speeds."""
        seconds = time.perf_counter() - self._start - self._away
        if self._origin == self._first:  # the first step is done: count from here
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


class StepLog:
    """Logs the metrics of steps after the next one was dispatched.

    Reading a metric waits for its step. So the device never waits for the host.

    Args:
      plan: says which steps are logged.
      write_scalars: (step, name -> value).
      stream: where lines of progress are written.
    """

    def __init__(self, plan: Plan, write_scalars: WriteScalars, stream: TextIO | None = None):
        self._plan, self._write = plan, write_scalars
        self._stream = stream or sys.stderr
        self._waiting: tuple[int, Mapping[str, jax.Array]] | None = None

    def start(self, first: int) -> None:
        """The clock starts; `first` is the step that the run starts or resumes from."""
        self._first = first
        self._progress = Progress(first, self._plan.steps, self._plan.batch_size, self._stream)

    def paused(self) -> Progress:
        """A context whose time does not count as training."""
        return self._progress.paused()

    def dispatched(self, step: int, metrics: Mapping[str, jax.Array]) -> None:
        """Takes note of a step and logs the one before, if that is to be logged."""
        if self._waiting is not None:
            self._log(*self._waiting)
        self._waiting = (step, metrics) if self._plan.logs(step, self._first + 1) else None

    def flush(self, step: int, metrics: Mapping[str, jax.Array]) -> None:
        """Logs the newest step now."""
        self._waiting = None
        self._log(step, metrics)

    def _log(self, step: int, metrics: Mapping[str, jax.Array]) -> None:
        values = {name: float(value) for name, value in metrics.items() if name != _NOT_LOGGED}
        self._write(step, values | self._progress.line(step, values))


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds + 0.5), 60)
    return (
        f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
        if minutes >= 60
        else (f"{minutes}:{seconds:02d}")
    )
