"""Logs: JSON lines about training, predictions and errors, written beside the request path.

Records go through a bounded queue to a writer thread. When the disk is slow or full, records are dropped and counted;
the one who logs never waits and never fails.
"""

from __future__ import annotations

import logging.handlers
import queue
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

import msgspec

from noria.core import Clock, SystemClock, to_iso

MAX_BYTES = 10 * 1024 * 1024
BACKUPS = 5
_QUEUE = 10_000


class MLLogger:
    """Writes `path`, rotating at 10 MB with five backups (`path.1` is the newest).

    One process, one file: rotation by two processes would lose lines. A record has `at` (RFC 3339, UTC), `event`, and
    the event's fields.
    """

    def __init__(self, path: Path | str, clock: Clock | None = None, *, max_bytes: int = MAX_BYTES) -> None:
        self._path = Path(path)
        self._clock = clock or SystemClock()
        self._max_bytes = max_bytes
        self._queue: queue.Queue[dict[str, Any] | None] = queue.Queue(_QUEUE)
        self._dropped = 0
        self._complained = False
        self._closed = False
        self._writer = threading.Thread(target=self._write_all, name="noria-log", daemon=True)
        self._writer.start()

    @property
    def dropped(self) -> int:
        """Records that could not be written."""
        return self._dropped

    def log(self, event: str, **fields: Any) -> None:
        """Write a record of any event."""
        try:
            if self._closed:
                raise queue.Full
            self._queue.put_nowait({"at": to_iso(self._clock.now()), "event": event, **fields})
        except queue.Full:
            self._dropped += 1

    def log_training(self, model: str, version: int | None, metrics: dict[str, Any], step: int | None = None) -> None:
        """Write a model's metrics, of a step of its training or of the whole."""
        self.log("training", model=model, version=version, metrics=metrics, step=step)

    def log_prediction(
        self, model: str, version: int, request_id: str, inputs: Any, output: Any, latency_seconds: float
    ) -> None:
        """Write a prediction with what it was asked and how long it took."""
        self.log(
            "prediction",
            model=model,
            version=version,
            request_id=request_id,
            inputs=inputs,
            output=output,
            latency_seconds=latency_seconds,
        )

    def log_error(self, error: BaseException, **context: Any) -> None:
        """Write an error with its traceback."""
        trace = "".join(traceback.format_exception(error))
        self.log("error", type=type(error).__name__, message=str(error), traceback=trace, **context)

    def flush(self) -> None:
        """Wait until everything that was logged so far has been written or dropped."""
        self._queue.join()

    def close(self) -> None:
        """Write what is left and stop."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
            self._writer.join()

    def _write_all(self) -> None:
        handler: logging.handlers.RotatingFileHandler | None = None
        while True:
            record = self._queue.get()
            try:
                if record is None:
                    break
                handler = handler or self._open()
                self._write(handler, record)
            except Exception as error:
                self._dropped += 1
                self._complain(error)
            finally:
                self._queue.task_done()
        if handler is not None:
            handler.close()

    def _open(self) -> logging.handlers.RotatingFileHandler:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        return logging.handlers.RotatingFileHandler(
            self._path, maxBytes=self._max_bytes, backupCount=BACKUPS, encoding="utf-8"
        )

    def _write(self, handler: logging.handlers.RotatingFileHandler, record: dict[str, Any]) -> None:
        line = msgspec.json.encode(record, enc_hook=repr).decode()
        entry = logging.LogRecord("noria", logging.INFO, "", 0, line, None, None)
        # Not `emit`: it would swallow errors and print a stack trace for each of them.
        if handler.shouldRollover(entry):
            handler.doRollover()
        if handler.stream is not None:
            handler.stream.write(line + "\n")
            handler.flush()

    def _complain(self, error: Exception) -> None:
        if not self._complained:
            self._complained = True
            sys.stderr.write(f"noria: can't write the log {self._path}: {error}; records are dropped and counted\n")
