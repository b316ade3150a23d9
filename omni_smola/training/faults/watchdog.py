"""Ends a run that hangs, so that its scheduler can start it again.

A storage that does not answer, a host that is gone: collectives and reads then wait for ever. What
is watched is a stretch of work with an end; whatever takes long with reason (preparing data,
downloading weights) is not watched.
"""

import contextlib
import dataclasses
import faulthandler
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import TextIO

# Times the limit, for what is compiled, too, or as large as all weights.
PATIENCE = 4


@dataclasses.dataclass
class _Stretch:
    """What is watched, the seconds that it was given, and those that are left of them."""

    what: str
    given: float
    left: float


class Watchdog:
    """A context with a thread that ends the process, with status 1, where work stands still.

    Args:
      minutes: that a watched stretch of work may take; 0 watches nothing.
      stream: a file with a descriptor, for the stack traces; None for the standard error output.

    A process that was stopped and goes on (SIGSTOP, a scheduler's suspend) is not ended: only time
    in which this process ran counts.
    """

    def __init__(self, minutes: float, stream: TextIO | None = None):
        self._limit = 60 * minutes
        self._poll = min(5.0, self._limit / 10)
        self._stream = stream or sys.stderr
        self._watched: _Stretch | None = None
        self._ended = threading.Event()

    def __enter__(self) -> "Watchdog":
        if self._limit:
            threading.Thread(target=self._run, name="watchdog", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.disarm()
        self._ended.set()

    def arm(self, what: str, patience: float = 1) -> None:
        """Watches `what` from now on, in place of what was watched before."""
        seconds = patience * self._limit
        self._watched = _Stretch(what, seconds, seconds)

    def disarm(self) -> None:
        """Watches nothing until the next `arm`."""
        self._watched = None

    @contextlib.contextmanager
    def watching(self, what: str, patience: float = 1) -> Iterator[None]:
        """A context in which `what` is watched."""
        self.arm(what, patience)
        try:
            yield
        finally:
            self.disarm()

    def _run(self) -> None:
        before = time.monotonic()
        while not self._ended.wait(self._poll):
            now = time.monotonic()
            # After a stop, the clock has leapt.
            passed, before = min(now - before, 2 * self._poll), now
            # For a call that holds the interpreter, and this thread with it, for ever.
            faulthandler.dump_traceback_later(
                2 * PATIENCE * self._limit + 60, exit=True, file=self._stream
            )
            if (watched := self._watched) is None:
                continue
            watched.left -= passed
            if watched.left <= 0 and watched is self._watched:
                self._end(watched)
        faulthandler.cancel_dump_traceback_later()

    def _end(self, watched: _Stretch) -> None:
        print(
            f"omni_smola: no progress in {watched.what} for {watched.given / 60:g} minutes "
            "(config.faults.watchdog_minutes): the run hangs and is ended. What its threads do:",
            file=self._stream,
            flush=True,
        )
        faulthandler.dump_traceback(self._stream, all_threads=True)
        self._stream.flush()
        os._exit(1)
