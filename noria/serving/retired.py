"""Which versions' metrics are still told: those of the loaded ones, and of the ones that were retired last."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from noria.serving.servable import Servable
from noria.telemetry import MetricsCollector

KEPT = 16
"""Versions that are not loaded any more but still told, so that their last counts are read."""


class Retired:
    """Forgets the metrics of versions, which come without end.

    Args:
        metrics: where they are.
    """

    def __init__(self, metrics: MetricsCollector) -> None:
        self._metrics = metrics
        self._versions: deque[tuple[str, int]] = deque()

    def add(self, servable: Servable, loaded: Iterable[Servable]) -> None:
        """Take note of a version that has been closed; the one that was noted first may be forgotten."""
        self._versions.append((servable.model, servable.version))
        if len(self._versions) <= KEPT:
            return
        model, version = oldest = self._versions.popleft()
        if oldest not in self._versions and all((one.model, one.version) != oldest for one in loaded):
            self._metrics.forget(model=model, version=str(version))
