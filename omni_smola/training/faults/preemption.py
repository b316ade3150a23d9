"""What a run does when it is told to end: save, and leave with status 0.

Schedulers send SIGTERM and some seconds later SIGKILL. On one process a signal handler notes it and
the loop asks after every step; where nothing is to be saved (before and after the loop, during an
evaluation) the run ends at once. On many, the hosts agree on a moment, before the first step, after
a step or after a batch of an evaluation, by JAX's preemption service, which has a handler of its
own for SIGTERM.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import TextIO

import jax
from jax.experimental import multihost_utils

from omni_smola.errors import Preempted

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Preemption:
    """A context in which SIGTERM, and SIGINT once, end the run in good order.

    Args:
      grace_seconds: if the run has not ended by then after the signal, it ends with status 1.
      stream: where that is told; None for the standard error output.

    Outside of `deferred()` the signal raises Preempted in the main thread.
    """

    def __init__(self, grace_seconds: float, stream: TextIO | None = None):
        self._grace, self._stream = grace_seconds, stream
        self._asked = ""  # the signal's name
        self._deferred = False
        self._timer: threading.Timer | None = None
        self._before: dict[int, object] = {}
        self._many = False
        self._asked_for = 0  # times that this process has asked the others

    def __enter__(self) -> "Preemption":
        self._many = jax.distributed.is_initialized() and jax.process_count() > 1
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS[self._many :]:  # many hosts' SIGTERM is JAX's
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._timer is not None:
            self._timer.cancel()

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """A context in which the signal is only noted, for the next `reached` or the end."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False
        if self._asked:
            raise Preempted(self._asked)

    @contextlib.contextmanager
    def immediate(self) -> Iterator[None]:
        """A context, within `deferred`, in which the signal raises Preempted after all."""
        self._deferred = self._many
        try:
            if self._asked and not self._many:
                raise Preempted(self._asked)
            yield
        finally:
            self._deferred = True

    def reached(self) -> str:
        """The signal's name if the run has to end now, on all hosts alike; else "".

        All hosts must ask equally often.
        """
        if not self._many:
            return self._asked
        # The service counts from 0, and knows nothing of a run that was resumed.
        self._asked_for += 1
        if multihost_utils.reached_preemption_sync_point(self._asked_for):
            self._start_timer()
            return "SIGTERM"
        return ""

    def check(self) -> None:
        """Raises Preempted if the run has to end now, on many hosts; one is not asked but told."""
        if self._many and (asked := self.reached()):
            raise Preempted(asked)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        if number == signal.SIGINT:  # a second one ends the run the hard way
            signal.signal(number, signal.default_int_handler)
        if self._many:  # to JAX's handler, which tells the other hosts
            os.kill(os.getpid(), signal.SIGTERM)
            return
        if self._asked:
            return
        self._asked = signal.Signals(number).name
        self._start_timer()
        if not self._deferred:
            raise Preempted(self._asked)

    def _start_timer(self) -> None:
        self._timer = threading.Timer(self._grace, self._give_up)
        self._timer.daemon = True
        self._timer.start()

    def _give_up(self) -> None:
        print(
            f"omni_smola: the run was told to end and has not within {self._grace:g} s "
            "(config.checkpoint.grace_seconds): it ends now, with what was saved before.",
            file=self._stream or sys.stderr,
            flush=True,
        )
        os._exit(1)
