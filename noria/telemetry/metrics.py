"""Metrics: counters, gauges, histograms, and time series of recorded values; read by Prometheus.

Names follow Prometheus' rules: base units (seconds, bytes), `_total` on counters. An instrument's child is bound to
its labels once, so that counting on the request path is an attribute and an addition.
"""

from __future__ import annotations

import math
import re
import threading
from bisect import bisect_left
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from noria.core import Clock, ConfigError, SystemClock

SECONDS_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""OpenTelemetry's boundaries for durations."""
TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

_POINTS = 10_000
"""Points kept for each recorded series; the oldest go first."""
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class MetricPoint:
    """One recorded value, at microseconds since 1970."""

    name: str
    value: float
    labels: dict[str, str]
    at: int


class Counter:
    """A number that only grows. Additions are from one thread, or tolerate a lost one."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self, amount: float = 1.0) -> None:
        """Add."""
        self.value += amount

    def lines(self, name: str, labels: Labels) -> list[str]:
        """The samples in Prometheus' text format."""
        return [f"{name}_total{_braces(labels)} {_number(self.value)}"]


class Gauge:
    """A number that goes up and down."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def set(self, value: float) -> None:
        """Replace the value."""
        self.value = value

    def lines(self, name: str, labels: Labels) -> list[str]:
        """The sample in Prometheus' text format."""
        return [f"{name}{_braces(labels)} {_number(self.value)}"]


class Histogram:
    """How values are distributed over buckets with inclusive upper bounds."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def lines(self, name: str, labels: Labels) -> list[str]:
        """The cumulative buckets, the sum and the count in Prometheus' text format."""
        total, found = 0, []
        for bound, count in zip((*map(_number, self.bounds), "+Inf"), self.counts, strict=True):
            total += count
            found.append(f"{name}_bucket{_braces((*labels, ('le', bound)))} {total}")
        return [*found, f"{name}_sum{_braces(labels)} {_number(self.sum)}", f"{name}_count{_braces(labels)} {total}"]


class _Instrument(Protocol):
    def lines(self, name: str, labels: Labels) -> list[str]: ...


@dataclass
class _Family:
    kind: str
    help: str
    children: dict[Labels, _Instrument]


class MetricsCollector:
    """All metrics of a process.

    >>> metrics = MetricsCollector()
    >>> metrics.record_metric("accuracy", 0.93, {"model": "late"}, at=7)
    >>> metrics.get_metrics("accuracy", start=0, end=10)[0].value
    0.93
    >>> metrics.counter("requests", "Requests.", code="200").inc()
    >>> 'requests_total{code="200"} 1' in metrics.exposition()
    True
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._families: dict[str, _Family] = {}
        self._series: dict[tuple[str, Labels], deque[tuple[int, float]]] = {}

    def counter(self, name: str, help: str = "", **labels: str) -> Counter:
        """The counter of that name (without `_total`) and labels, made when it is new."""
        made = self._child("counter", name, help, labels, Counter())
        return made if isinstance(made, Counter) else Counter()

    def gauge(self, name: str, help: str = "", **labels: str) -> Gauge:
        """The gauge of that name and labels, made when it is new."""
        made = self._child("gauge", name, help, labels, Gauge())
        return made if isinstance(made, Gauge) else Gauge()

    def histogram(
        self, name: str, help: str = "", buckets: Sequence[float] = SECONDS_BUCKETS, **labels: str
    ) -> Histogram:
        """The histogram of that name and labels, made when it is new."""
        made = self._child("histogram", name, help, labels, Histogram(buckets))
        return made if isinstance(made, Histogram) else Histogram(buckets)

    def forget(self, **labels: str) -> None:
        """Tell no more of the instruments that have all these labels; recorded points stay."""
        wanted = set(_labels(labels))
        with self._lock:
            for family in self._families.values():
                family.children = {key: child for key, child in family.children.items() if not wanted <= set(key)}

    def record_metric(
        self, name: str, value: float, labels: Mapping[str, str] | None = None, at: int | None = None
    ) -> None:
        """Add a point to a time series; the newest point is also shown as a gauge.

        Raises:
            ConfigError: the name or a label is not allowed by Prometheus, or another kind of metric has the name.
        """
        key = _labels(labels or {})
        self.gauge(name, "", **dict(key)).set(value)
        with self._lock:
            series = self._series.setdefault((name, key), deque(maxlen=_POINTS))
            series.append((self._clock.now() if at is None else at, float(value)))

    def get_metrics(
        self,
        name: str | None = None,
        start: int | None = None,
        end: int | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> list[MetricPoint]:
        """Recorded points with start <= at < end (microseconds), by time; all names and labels by default."""
        wanted = set((labels or {}).items())
        with self._lock:
            series = [(key, list(points)) for key, points in self._series.items()]
        found = [
            MetricPoint(series_name, value, dict(series_labels), at)
            for (series_name, series_labels), points in series
            if name in (None, series_name) and wanted <= set(series_labels)
            for at, value in points
            if (start is None or at >= start) and (end is None or at < end)
        ]
        return sorted(found, key=lambda point: point.at)

    def exposition(self, *, openmetrics: bool = False) -> str:
        """Everything in Prometheus' text format, or in OpenMetrics'."""
        lines = []
        with self._lock:
            for name, family in sorted(self._families.items()):
                # Prometheus' own text format calls a counter by its sample's name, OpenMetrics by its family's.
                shown = f"{name}_total" if family.kind == "counter" and not openmetrics else name
                if family.help:
                    lines.append(f"# HELP {shown} {_escape(family.help)}")
                lines.append(f"# TYPE {shown} {family.kind}")
                for labels, child in family.children.items():
                    lines += child.lines(name, labels)
        return "\n".join([*lines, *(["# EOF"] if openmetrics else [])]) + "\n"

    def _child(self, kind: str, name: str, help: str, labels: Mapping[str, str], fresh: _Instrument) -> _Instrument:
        key = _labels(labels)
        if not _NAME.fullmatch(name) or (kind == "counter" and name.endswith("_total")):
            raise ConfigError(
                f"{name!r} can't be the name of a {kind}",
                hint="use letters, digits and '_'; a counter's `_total` is added by itself",
            )
        with self._lock:
            family = self._families.setdefault(name, _Family(kind, help, {}))
            if family.kind != kind:
                raise ConfigError(
                    f"metric {name!r} is a {family.kind}, not a {kind}", hint="give one of them another name"
                )
            return family.children.setdefault(key, fresh)


def _labels(labels: Mapping[str, str]) -> Labels:
    for name in labels:
        if not _NAME.fullmatch(name) or ":" in name or name == "le":
            raise ConfigError(f"{name!r} can't be a metric's label", hint="use letters, digits and '_'")
    return tuple(sorted((name, str(value)) for name, value in labels.items()))


def _braces(labels: Labels) -> str:
    return "{" + ",".join(f'{name}="{_escape(value)}"' for name, value in labels) + "}" if labels else ""


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)
