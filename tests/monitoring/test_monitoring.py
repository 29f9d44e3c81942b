from __future__ import annotations

import polars as pl
import pytest

from noria.core import ConfigError, DataError
from noria.monitoring import Alert, AlertManager, DriftMonitor, Rule
from noria.telemetry import MetricsCollector


def test_drift_of_numbers_categories_and_missing_values() -> None:
    before = pl.DataFrame({"same": range(100), "moved": range(100), "text": ["a", "b"] * 50, "gaps": [1.0] * 100})
    after = pl.DataFrame(
        {"same": range(100), "moved": range(90, 190), "text": ["a", "c"] * 50, "gaps": [1.0] * 50 + [None] * 50}
    )
    found = {column.column: column for column in DriftMonitor.of(before).compare(after)}
    assert {name for name, column in found.items() if column.drifted} == {"moved", "text", "gaps"}
    assert found["same"].psi < 0.01
    assert (found["gaps"].missing_before, found["gaps"].missing_now) == (0.0, 0.5)


def test_drift_is_named_when_it_cannot_be_measured() -> None:
    frame = pl.DataFrame({"x": [1]})
    with pytest.raises(ConfigError, match="no column 'y'"):
        DriftMonitor.of(frame, ["y"])
    with pytest.raises(DataError, match="empty"):
        DriftMonitor.of(frame).compare(frame.clear())


def test_alerts_start_once_and_end_once() -> None:
    metrics, told = MetricsCollector(), list[Alert]()
    alerts = AlertManager(metrics, [Rule("errors", "error_rate", ">", 0.1, lasting="10s")], [told.append])
    history = [(0, 0.0), (1, 0.5), (5, 0.5), (12, 0.5), (13, 0.6), (14, 0.0), (15, 0.0)]
    for second, value in history:
        metrics.record_metric("error_rate", value, at=second * 1_000_000)
        alerts.check()
    assert [(alert.firing, alert.value) for alert in told] == [(True, 0.5), (False, 0.0)]


def test_wrong_rules_are_refused() -> None:
    with pytest.raises(ConfigError, match="unknown comparison"):
        Rule("x", "y", "=>", 1.0)
    with pytest.raises(ConfigError, match="not a duration"):
        Rule("x", "y", ">", 1.0, lasting="soon")
