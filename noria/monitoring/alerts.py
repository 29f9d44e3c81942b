"""Alerts: a metric that has been beyond its threshold for some time is somebody's business."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from noria.core import Clock, ConfigError, SystemClock, allowed, duration
from noria.telemetry import MetricsCollector

_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    ">": lambda value, threshold: value > threshold,
    "<": lambda value, threshold: value < threshold,
}


@dataclass(frozen=True)
class Rule:
    """When to alert: the newest value of `metric` is `above` or below `threshold`, for at least `lasting`.

    Raises:
        ConfigError: for an unknown comparison or a wrong duration.
    """

    name: str
    metric: str
    comparison: str
    threshold: float
    lasting: str = "1s"
    labels: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.comparison not in _COMPARISONS:
            raise ConfigError(f"unknown comparison {self.comparison!r}", hint=allowed(_COMPARISONS), field="comparison")
        duration(self.lasting)

    def broken_by(self, value: float) -> bool:
        """Whether a value is on the wrong side."""
        return _COMPARISONS[self.comparison](value, self.threshold)


@dataclass(frozen=True)
class Alert:
    """A rule that began or ceased to be broken, at microseconds since 1970."""

    rule: Rule
    firing: bool
    value: float
    at: int


class AlertManager:
    """Checks rules against a collector's metrics and tells its listeners about changes.

    >>> metrics = MetricsCollector()
    >>> seen = []
    >>> alerts = AlertManager(metrics, [Rule("slow", "latency_seconds", ">", 0.1, lasting="1ms")], [seen.append])
    >>> metrics.record_metric("latency_seconds", 0.3, at=0)
    >>> metrics.record_metric("latency_seconds", 0.4, at=5_000)
    >>> [alert.firing for alert in alerts.check()]
    [True]
    """

    def __init__(
        self,
        metrics: MetricsCollector,
        rules: Iterable[Rule],
        listeners: Iterable[Callable[[Alert], None]] = (),
        clock: Clock | None = None,
    ) -> None:
        self._metrics = metrics
        self._rules = tuple(rules)
        self._listeners = tuple(listeners)
        self._clock = clock or SystemClock()
        self._firing: set[str] = set()

    def check(self) -> list[Alert]:
        """Look once at every rule; returns what changed, after telling the listeners."""
        changes = [alert for rule in self._rules if (alert := self._check(rule)) is not None]
        for alert in changes:
            for listener in self._listeners:
                listener(alert)
        return changes

    def _check(self, rule: Rule) -> Alert | None:
        points = self._metrics.get_metrics(rule.metric, labels=rule.labels or None)
        if not points:
            return None
        newest = max(points, key=lambda point: point.at)
        good = [point.at for point in points if not rule.broken_by(point.value)]
        bad = [point.at for point in points if rule.broken_by(point.value) and (not good or point.at > max(good))]
        firing = bool(bad) and newest.at - min(bad) >= duration(rule.lasting)
        if firing == (rule.name in self._firing) or (bad and not firing):
            return None
        (self._firing.add if firing else self._firing.discard)(rule.name)
        return Alert(rule, firing, newest.value, self._clock.now())
