"""What a run writes down, in `{workdir}/logs`: scalars, as TensorBoard events and as one JSON line
per step, and where it is asked for the hashes of its batches."""

import contextlib
import hashlib
import json
import math
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event


class ScalarWriter:
    """A context that writes scalars; on hosts that are not the primary one it writes nothing.

    Where the disk is full the run goes on, which is told once. Lines that could not be written wait
    in the file's buffer; of the events some are missing, and the next ones begin a new file.
    """

    def __init__(self, workdir: str, *, primary: bool = True):
        self._primary = primary
        self._told = False
        if primary:
            self._folder = os.path.join(workdir, "logs")
            os.makedirs(self._folder, exist_ok=True)
            self._events: EventsWriter | None = None
            self._files = 0
            self._lines = open(os.path.join(self._folder, "scalars.jsonl"), "a")

    def write(self, step: int, values: dict[str, float]) -> None:
        """Names without a slash are put under train/; NaN, unknown to JSON, is left out."""
        if not self._primary:
            return
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        named = {name if "/" in name else f"train/{name}": v for name, v in finite.items()}
        with self._told_once():
            self._lines.write(json.dumps({"step": step, **named}) + "\n")
            self._lines.flush()
        with self._told_once():
            self._write_events(step, named)

    def _write_events(self, step: int, values: dict[str, float]) -> None:
        # Not by tensorboardX' SummaryWriter: a full disk ends its thread, and then its queue is
        # full and it waits for ever.
        events, self._events = self._events, None  # a file that failed may end in half a record
        if events is None:
            self._files += 1
            prefix = os.path.join(self._folder, "events")
            events = EventsWriter(prefix, filename_suffix=f".{os.getpid()}.{self._files}")
        for name, value in values.items():
            scalar = summary.scalar(name, value)
            events.write_event(Event(wall_time=time.time(), step=step, summary=scalar))
        events.flush()
        self._events = events

    @contextlib.contextmanager
    def _told_once(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if not self._told:
                print(
                    f"THE LOG CANNOT BE WRITTEN in {self._folder} ({error.strerror}): make room "
                    "there. The run goes on; some scalars may be missing",
                    file=sys.stderr,
                    flush=True,
                )
            self._told = True

    def __enter__(self) -> "ScalarWriter":
        return self

    def __exit__(self, *_: Any) -> None:
        if self._primary:
            for file in filter(None, (self._events, self._lines)):
                with self._told_once():
                    file.close()


class BatchLog:
    """Appends the hash of every row of a host's batches to `{workdir}/logs/batches-host-{i}.jsonl`.

    Row by row, so that runs on different numbers of hosts compare.

    Args:
      host: index of the process. share: index of its share of every batch, the rows from share *
        rows on; processes may have the same.
    """

    def __init__(self, workdir: str, host: int = 0, share: int = 0):
        folder = os.path.join(workdir, "logs")
        os.makedirs(folder, exist_ok=True)
        self._share = share
        self._lines = open(os.path.join(folder, f"batches-host-{host}.jsonl"), "a")

    def written(
        self, batches: Iterator[dict[str, np.ndarray]], start_step: int
    ) -> Iterator[dict[str, np.ndarray]]:
        """The same batches, each written down when it is taken."""
        for step, batch in enumerate(batches, start_step):
            self.write(step, batch)
            yield batch

    def write(self, step: int, batch: dict[str, np.ndarray]) -> None:
        """One line: {step, first: index of the first row in the global batch, rows: hashes}."""
        count = len(batch["target"])
        hashes = [hashlib.sha256() for _ in range(count)]
        for name in sorted(batch):
            rows = np.ascontiguousarray(batch[name])
            for digest, row in zip(hashes, rows, strict=True):
                digest.update(f"{name} {row.dtype} {row.shape}".encode() + row.tobytes())
        line = {
            "step": step,
            "first": self._share * count,
            "rows": [digest.hexdigest()[:16] for digest in hashes],
        }
        self._lines.write(json.dumps(line) + "\n")
        self._lines.flush()
