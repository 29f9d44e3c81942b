"""What a stream tells of itself."""

from __future__ import annotations

from noria.telemetry import MetricsCollector


class StreamMetrics:
    """What a stream tells of itself."""

    def __init__(self, metrics: MetricsCollector, stream: str) -> None:
        name = "noria_stream_events"
        self._outcomes = {
            outcome: metrics.counter(name, "Events by what became of them.", stream=stream, outcome=outcome)
            for outcome in ("out", "quarantined", "filtered", "late")
        }
        self._lag = metrics.gauge("noria_stream_lag_events", "Events in the log that aren't processed.", stream=stream)
        self._delay = metrics.gauge("noria_stream_watermark_delay_seconds", "From the watermark to now.", stream=stream)
        self._seconds = metrics.histogram("noria_stream_batch_seconds", "To process a batch.", stream=stream)

    def rows(self, out: int, bad: int, filtered: int, late: int) -> None:
        for outcome, count in zip(("out", "quarantined", "filtered", "late"), (out, bad, filtered, late), strict=True):
            if count:
                self._outcomes[outcome].inc(count)

    def batch(self, events: int, seconds: float, lag: int, delay: float) -> None:
        self._seconds.observe(seconds)
        self._lag.set(lag)
        self._delay.set(delay)
