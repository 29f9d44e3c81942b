"""A log of lines that a request path feeds: a bounded queue, which a thread writes to files five times a second.

Nobody waits: when the queue is full or the disk can't be written, entries are dropped and counted.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from noria.serving.prediction_files import Segments
from noria.telemetry.metrics import Counter

MAX_WAITING = 1000
"""Entries that may wait to be written, by default."""

_PAUSE = 0.2


class LineLog:
    """Writes entries to segments.

    Args:
        segments: where they are written.
        line: an entry as JSON without line end, in the writer's thread; None where it can't be written.
        name: of the log, for messages.
        written, dropped: count them.
        max_waiting: entries that may wait.
    """

    def __init__(
        self,
        segments: Segments,
        line: Callable[[Any], bytes | None],
        name: str,
        written: Counter,
        dropped: Counter,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        self._segments = segments
        self._encode = line
        self._name = name
        self._written, self._dropped = written, dropped
        self._max_waiting = max_waiting
        self._waiting: deque[Any] = deque()
        self._complained = False
        self._stop = threading.Event()
        self._writer = threading.Thread(target=self._write_all, name="noria-lines", daemon=True)
        self._writer.start()

    def put(self, entry: Any) -> None:
        """Have an entry written soon, or drop it."""
        if len(self._waiting) >= self._max_waiting or self._stop.is_set():
            self._dropped.inc()
        else:
            self._waiting.append(entry)

    def close(self) -> None:
        """Write what waits, and stop."""
        if not self._stop.is_set():
            self._stop.set()
            self._writer.join()

    def _write_all(self) -> None:
        while not self._stop.wait(_PAUSE):
            self._write_waiting()
        self._write_waiting()
        self._segments.close()

    def _write_waiting(self) -> None:
        count = len(self._waiting)
        if not count:
            return
        taken = [self._waiting.popleft() for _ in range(count)]
        lines = [line + b"\n" for entry in taken if (line := self._line(entry))]
        try:
            self._segments.write(b"".join(lines))
        except OSError as error:
            self._dropped.inc(len(lines))
            self._complain(error)
        else:
            self._written.inc(len(lines))

    def _line(self, entry: Any) -> bytes | None:
        try:
            line = self._encode(entry)
        except Exception as error:
            self._complain(error)
            line = None
        if line is None:
            self._dropped.inc()
        return line

    def _complain(self, error: Exception) -> None:
        if not self._complained:
            self._complained = True
            sys.stderr.write(f"noria: {self._name} can't be written: {error}; entries are dropped and counted\n")
