"""Iterating over a tf.data dataset, and letting go of it where that cannot hang."""

import atexit
import collections
import os
import weakref
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

# Let go, but not yet destroyed. Appending is atomic: the garbage collector may do it anywhere.
_gone: collections.deque[list] = collections.deque()


class Reader(Iterator[dict[str, Any]]):
    """Iterates over a dataset in NumPy, with a bounded number of threads of its own.

    Destroying a dataset's iterator waits for its threads, and those may call Python. So it is left
    neither to the garbage collector, which runs in any thread and under any lock that those
    threads may wait for, nor to the shutdown of the interpreter, where they could never finish:
    the next read of any Reader does it, or else the exit.
    """

    def __init__(self, dataset: tf.data.Dataset):
        options = tf.data.Options()
        options.deterministic = True
        options.threading.private_threadpool_size = max(4, min(os.cpu_count() or 1, 32))
        options.threading.max_intra_op_parallelism = 1
        self._held = [dataset.with_options(options).as_numpy_iterator()]
        atexit.register(self._held.clear)
        weakref.finalize(self, _gone.append, self._held).atexit = False

    def __next__(self) -> dict[str, Any]:
        _destroy_gone()
        return next(self._held[0])


def _destroy_gone() -> None:
    while True:
        try:
            held = _gone.popleft()
        except IndexError:
            return
        atexit.unregister(held.clear)
        held.clear()
