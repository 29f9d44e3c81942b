"""The prediction log: a sample of what was asked, what was read to answer it, and what was answered.

The request path draws how many requests to let pass before the next one is recorded, so that a batch without one costs
a comparison. What is recorded goes to a bounded queue; a thread writes it five times a second. Nobody waits: when the
queue is full or the disk can't be written, entries are dropped and counted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random
from typing import Any

import msgspec

from noria.core import Clock, Settings, SystemClock
from noria.serving.line_log import LineLog
from noria.serving.prediction_files import Prediction, Segments
from noria.telemetry import MetricsCollector

Chosen = Sequence[tuple[int, str]]
"""Positions in a batch, and why each was chosen."""

MAX_LINE = 262_144
"""Bytes of one entry; a longer one is kept without inputs and output."""

_NEVER = 1 << 62


class Sampler:
    """Chooses requests, each with the same chance, and one in a second in which there would be none.

    >>> sampler = Sampler(1.0, Random(0))
    >>> sampler.choose(2, now=0.0)
    [(0, 'share'), (1, 'share')]
    """

    def __init__(self, share: float, random: Random) -> None:
        self._share = share
        self._random = random
        self._ahead = self._gap()  # requests up to and with the next one
        self._due = -math.inf

    def choose(self, count: int, now: float) -> Chosen:
        """Which of the next `count` requests are recorded; `now` in seconds of any steady clock."""
        if self._ahead > count and now < self._due:
            self._ahead -= count
            return ()
        chosen = []
        while self._ahead <= count:
            chosen.append((self._ahead - 1, "share"))
            self._ahead += self._gap()
        self._ahead -= count
        self._due = now + 1.0
        return chosen or [(self._random.randrange(count), "second")]

    def _gap(self) -> int:
        """From one recorded request to the next: geometrically distributed."""
        if self._share >= 1.0:
            return 1
        if self._share <= 0.0:
            return _NEVER
        return 1 + int(math.log(1.0 - self._random.random()) / math.log1p(-self._share))


class PredictionLog:
    """Records for one process. `choose` and `record` are called in one thread.

    Args:
        segments: where entries are written.
        share: of the requests, from 0 to 1; besides, at least one a second.
        metrics: where entries that were written and dropped are counted.
        clock: what entries' times come from.
        random: what decides.
    """

    def __init__(
        self,
        segments: Segments,
        share: float,
        *,
        metrics: MetricsCollector,
        clock: Clock | None = None,
        random: Random | None = None,
    ) -> None:
        self.choose = Sampler(share, random or Random()).choose
        self.now = (clock or SystemClock()).now
        written = metrics.counter("noria_prediction_log_written", "Entries of the prediction log.")
        dropped = metrics.counter("noria_prediction_log_dropped", "Entries that could not be written.")
        self._log = LineLog(segments, _line, "the prediction log", written, dropped)
        self.record = self._log.put
        self.close = self._log.close

    @staticmethod
    def of(settings: Settings, writer: str, metrics: MetricsCollector, clock: Clock) -> PredictionLog | None:
        """The log of a project's server, or None where it is switched off."""
        share, max_bytes = settings.predictions.log_share, settings.predictions.log_max_bytes
        if share == 0:
            return None
        segments = Segments(settings.state_dir / "predictions", writer, max_bytes, clock)
        return PredictionLog(segments, share, metrics=metrics, clock=clock)


def _line(prediction: Prediction) -> bytes | None:
    """An entry's line; None where it is too long even without inputs and output."""
    line = msgspec.json.encode(prediction, enc_hook=_written)
    if len(line) > MAX_LINE:
        line = msgspec.json.encode(msgspec.structs.replace(prediction, inputs=None, output=None), enc_hook=_written)
    return None if len(line) > MAX_LINE else line


def _written(value: Any) -> Any:
    """What stands for a request that is no JSON itself: its rows where it has them at hand, else how many."""
    return value.to_builtins() if hasattr(value, "to_builtins") else repr(value)
