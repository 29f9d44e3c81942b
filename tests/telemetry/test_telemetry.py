from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from noria.core import ConfigError
from noria.telemetry import MetricsCollector, MLLogger
from noria.testing import ManualClock


def test_recorded_points_are_found_by_time_name_and_labels() -> None:
    clock = ManualClock(100)
    metrics = MetricsCollector(clock)
    metrics.record_metric("auc", 0.5, {"model": "a"})
    clock.advance(100)
    metrics.record_metric("auc", 0.7, {"model": "a"})
    metrics.record_metric("auc", 0.9, {"model": "b"}, at=50)
    metrics.record_metric("loss", 1.0)
    assert [(p.value, p.at) for p in metrics.get_metrics("auc")] == [(0.9, 50), (0.5, 100), (0.7, 200)]
    assert [p.value for p in metrics.get_metrics("auc", start=100, end=200)] == [0.5]
    assert [p.labels for p in metrics.get_metrics("auc", labels={"model": "b"})] == [{"model": "b"}]
    assert len(metrics.get_metrics()) == 4
    assert metrics.get_metrics("nothing") == []


def test_the_exposition_is_prometheus_text() -> None:
    metrics = MetricsCollector()
    metrics.counter("hits", "How\nmany.", path='a"b\\c\n').inc(2)
    metrics.gauge("level_bytes").set(1.5)
    histogram = metrics.histogram("wait_seconds", "", (0.1, 1.0), op="x")
    for value in (0.1, 0.5, 7):
        histogram.observe(value)
    assert metrics.exposition().splitlines() == [
        "# HELP hits_total How\\nmany.",
        "# TYPE hits_total counter",
        'hits_total{path="a\\"b\\\\c\\n"} 2',
        "# TYPE level_bytes gauge",
        "level_bytes 1.5",
        "# TYPE wait_seconds histogram",
        'wait_seconds_bucket{op="x",le="0.1"} 1',
        'wait_seconds_bucket{op="x",le="1"} 2',
        'wait_seconds_bucket{op="x",le="+Inf"} 3',
        'wait_seconds_sum{op="x"} 7.6',
        'wait_seconds_count{op="x"} 3',
    ]
    openmetrics = metrics.exposition(openmetrics=True)
    assert "# TYPE hits counter\n" in openmetrics
    assert openmetrics.endswith("# EOF\n")


def test_wrong_names_are_refused() -> None:
    metrics = MetricsCollector()
    for name in ("a b", "1a", "", "hits_total"):
        with pytest.raises(ConfigError, match="can't be the name"):
            metrics.counter(name)
    with pytest.raises(ConfigError, match="can't be a metric's label"):
        metrics.record_metric("x", 1.0, {"a-b": "c"})
    metrics.counter("x")
    with pytest.raises(ConfigError, match="is a counter"):
        metrics.gauge("x")


def test_threads_may_record_at_once() -> None:
    metrics = MetricsCollector()

    def work() -> None:
        for i in range(500):
            metrics.record_metric("x", i)
            metrics.exposition()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(metrics.get_metrics("x")) == 2000


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_records_are_json_lines(tmp_path: Path) -> None:
    logger = MLLogger(tmp_path / "logs" / "a.jsonl", ManualClock(0))
    logger.log_training("late", 3, {"f1": 0.5}, step=2)
    logger.log_prediction("late", 3, "id-1", {"x": 1}, [True], 0.25)
    try:
        _ = 1 / 0
    except ZeroDivisionError as error:
        logger.log_error(error, request_id="id-2")
    logger.log("odd", value={1, 2}.__class__, text="zwei\nZeilen")
    logger.flush()
    training, prediction, error_record, odd = lines(tmp_path / "logs" / "a.jsonl")
    assert training == {
        "at": "1970-01-01T00:00:00Z",
        "event": "training",
        "model": "late",
        "version": 3,
        "metrics": {"f1": 0.5},
        "step": 2,
    }
    assert prediction["latency_seconds"] == 0.25
    assert "ZeroDivisionError" in str(error_record["traceback"])
    assert error_record["request_id"] == "id-2"
    assert odd["text"] == "zwei\nZeilen"
    logger.close()
    logger.log("after the end")
    assert logger.dropped == 1


def test_the_file_rotates_with_five_backups(tmp_path: Path) -> None:
    logger = MLLogger(tmp_path / "a.jsonl", max_bytes=1000)
    for i in range(200):
        logger.log("number", i=i)
    logger.close()
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["a.jsonl", *(f"a.jsonl.{n}" for n in range(1, 6))]
    assert all(file.stat().st_size <= 1000 for file in files)
    assert lines(tmp_path / "a.jsonl")[-1]["i"] == 199


def test_a_path_that_can_not_be_written_costs_records_not_the_server(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    logger = MLLogger(tmp_path / "file" / "a.jsonl")
    for i in range(10):
        logger.log("number", i=i)
    logger.close()
    assert logger.dropped == 10
    assert capsys.readouterr().err.count("can't write the log") == 1


def test_when_the_writer_can_not_keep_up_records_are_dropped_and_counted(tmp_path: Path) -> None:
    logger = MLLogger(tmp_path / "a.jsonl")
    for i in range(60_000):
        logger.log("number", i=i)
    logger.close()
    assert len(lines(tmp_path / "a.jsonl")) + logger.dropped == 60_000
