"""Seeded damage: copies of a good file, each altered as disks, networks and careless tools do."""

import pathlib
import re
from collections.abc import Callable, Iterator

import numpy as np

_EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFF_FFFF, 0xFFFF_FFFF)


def mutations(data: bytes, rng: np.random.Generator) -> Iterator[bytes]:
    """An endless stream of damaged copies of `data`.

    Args:
      data: the good file; at least one byte.
      rng: decides everything: the same generator state gives the same copies.

    Yields:
      A copy with one to four changes. Half of them touch only the first 256 bytes, where most
      formats keep what matters.
    """
    while True:
        copy = bytearray(data)
        first = bool(rng.integers(2))
        for _ in range(rng.integers(1, 5)):
            change = _CHANGES[rng.integers(len(_CHANGES))]
            change(copy, min(len(copy), 256) if first else len(copy), rng)
            if not copy:
                break
        yield bytes(copy)


def peak_megabytes() -> float:
    """The most memory that this process has had, as Linux counts it.

    Not `ru_maxrss`: a process that a larger one started begins with that one's.
    """
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024


def _span(end: int, rng: np.random.Generator) -> slice:
    """A place before `end`, and some bytes from there; short spans are the likeliest."""
    start = int(rng.integers(end))
    return slice(start, start + int(2 ** rng.uniform(0, 8)))


def _flip(copy: bytearray, end: int, rng: np.random.Generator) -> None:
    copy[rng.integers(end)] ^= 1 << int(rng.integers(8))


def _overwrite(copy: bytearray, end: int, rng: np.random.Generator) -> None:
    span = _span(end, rng)
    copy[span] = rng.bytes(len(copy[span]))


def _number(copy: bytearray, end: int, rng: np.random.Generator) -> None:
    """A length, an offset or a size becomes an extreme one, in either order of bytes."""
    start, width = int(rng.integers(end)), int(rng.choice([1, 2, 4]))
    value = int(rng.choice(_EXTREMES)) % 256**width
    copy[start : start + width] = value.to_bytes(width, str(rng.choice(["big", "little"])))


def _cut(copy: bytearray, end: int, rng: np.random.Generator) -> None:
    del copy[rng.integers(end) :]


def _remove(copy: bytearray, end: int, rng: np.random.Generator) -> None:
    del copy[_span(end, rng)]


def _repeat(copy: bytearray, end: int, rng: np.random.Generator) -> None:
    span = _span(end, rng)
    copy[span.start : span.start] = copy[span] * int(rng.integers(1, 4))


def _insert(copy: bytearray, end: int, rng: np.random.Generator) -> None:
    span = _span(end, rng)
    copy[span.start : span.start] = rng.bytes(span.stop - span.start)


def _zero(copy: bytearray, end: int, rng: np.random.Generator) -> None:
    span = _span(end, rng)
    copy[span] = bytes(len(copy[span]))


def _move(copy: bytearray, end: int, rng: np.random.Generator) -> None:
    span = _span(end, rng)
    taken = copy[span]
    del copy[span]
    place = int(rng.integers(len(copy) + 1))
    copy[place:place] = taken


_CHANGES: tuple[Callable[[bytearray, int, np.random.Generator], None], ...] = (
    _flip,
    _overwrite,
    _number,
    _cut,
    _remove,
    _repeat,
    _insert,
    _zero,
    _move,
)
