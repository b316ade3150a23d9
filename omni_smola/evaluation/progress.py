"""What is told of an evaluation while it runs."""

from typing import TextIO

NO_REFERENCES = "no public references"


class TaskLine:
    """One line per task, rewritten in place on a terminal, written once elsewhere."""

    def __init__(self, title: str, stream: TextIO | None) -> None:
        self._title, self._stream = title, stream
        self._live = stream is not None and stream.isatty()

    def update(self, examples: int, seconds: float) -> None:
        """So many examples are done after so many seconds."""
        if self._live:
            self._put(f"\r\x1b[K{self._line(examples, seconds)}")

    def finish(self, examples: int, seconds: float, score: str) -> None:
        """The line that stays: how many examples, how fast, and the score in words."""
        start = "\r\x1b[K" if self._live else ""
        self._put(f"{start}{self._line(examples, seconds)}, {score}\n")

    def _line(self, examples: int, seconds: float) -> str:
        return f"{self._title}: {examples} examples, {examples / max(seconds, 1e-9):.1f} examples/s"

    def _put(self, text: str) -> None:
        if self._stream is not None:
            self._stream.write(text)
            self._stream.flush()
