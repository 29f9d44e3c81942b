"""Outliers: servers that take requests and fail them, while others don't.

HAProxy itself takes out a server that can't be reached or isn't ready. One that is both, and yet answers much with
status 500 or not at all (a broken disk, a model half loaded), is found by comparing it with the rest: if all fail, the
requests are to blame, or something behind all servers, and taking servers out would only make it worse. The idea is
Envoy's outlier detection (success-rate ejection).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from noria.core.errors import ConfigError
from noria.gateway.statistics import ServerStatistics


@dataclass(frozen=True)
class OutlierLimits:
    """When a server is taken out for what it answers.

    Attributes:
        share: the share of failed requests (status 5xx, or no answer) within one interval from which it is one, if
            that is also twice the share of all the others together.
        min_requests: of an interval, below which nothing is said of a server.
        interval: seconds between two looks.
        pause: seconds for which it gets no requests; twice as long the next time in a row, up to eight times.
        max_ejected: the largest share of the servers that may be out at a time.
    """

    share: float = 0.5
    min_requests: int = 20
    interval: float = 2.0
    pause: float = 15.0
    max_ejected: float = 0.5

    def __post_init__(self) -> None:
        for name in ("share", "max_ejected"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}", hint="a share: above 0, up to 1", field=name)
        for name in ("min_requests", "interval", "pause"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}", hint="it must be positive", field=name)


def outliers(
    before: Mapping[str, ServerStatistics],
    after: Mapping[str, ServerStatistics],
    limits: OutlierLimits,
    ejected: int = 0,
) -> list[str]:
    """The servers to take out now, the worst first.

    Args:
        before, after: all servers at the beginning and the end of an interval, by name. Counters that went back are
            those of a new process.
        limits: when a server is an outlier.
        ejected: how many servers are out already.
    """
    counts = {name: _gained(before.get(name), now) for name, now in after.items()}
    room = int(len(after) * limits.max_ejected) - ejected
    found: list[tuple[float, str]] = []
    for name, (requests, failed) in counts.items():
        if requests < limits.min_requests or failed < limits.share * requests:
            continue
        others = [count for other, count in counts.items() if other != name]
        rest, rest_failed = sum(c[0] for c in others), sum(c[1] for c in others)
        if rest >= limits.min_requests and failed / requests >= 2 * rest_failed / rest:
            found.append((-failed / requests, name))
    return [name for _, name in sorted(found)[: max(0, room)]]


def _gained(before: ServerStatistics | None, after: ServerStatistics) -> tuple[int, int]:
    """Requests and failures since then."""
    requests, failed = after.requests, after.failures + after.errors
    if before is not None and before.requests <= requests:
        requests, failed = requests - before.requests, failed - before.failures - before.errors
    return requests, min(requests, max(0, failed))
