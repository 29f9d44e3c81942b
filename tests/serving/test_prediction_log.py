from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest
from doubler import Ask, Doubler
from shop_features import MICROS, PAIR, RECENT, TASTE, materialize

from noria.core import Settings
from noria.core.settings import PredictionSettings
from noria.features import OnlineFeatures, OnlineReader
from noria.features.reads import MAX_ROWS, GroupRead, Read
from noria.serving import ModelServer, Prediction, PredictionLog, PredictionReader
from noria.serving import line_log as module
from noria.serving.feature_door import FeatureDoor
from noria.serving.prediction_files import Segments, segments
from noria.serving.prediction_log import MAX_LINE, Sampler
from noria.storage import Workspace
from noria.telemetry import MetricsCollector
from noria.testing import ManualClock


class Looker(Doubler):
    """A doubler that reads a feature first."""

    def __init__(self, reader: OnlineReader) -> None:
        super().__init__("looker", 3)
        self._reader = reader

    def answer_traced(self, operation: str, requests: Sequence[Ask]) -> tuple[Sequence[Any], Sequence[Sequence[Read]]]:
        spec = self._reader.specs[0]
        reads = [[Read(spec, [int(r.x)], self._reader.read("taste", [int(r.x)]))] for r in requests]
        return self.answer(operation, requests), reads


def log_in(folder: Path, share: float = 1.0, **options: Any) -> PredictionLog:
    clock, max_bytes = options.pop("clock", ManualClock(5)), options.pop("max_bytes", 1_000_000)
    metrics = options.pop("metrics", MetricsCollector())
    return PredictionLog(
        Segments(folder, "w", max_bytes, clock), share, metrics=metrics, clock=clock, random=Random(1), **options
    )


def wait_for(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 20
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


@pytest.mark.parametrize("share", [0.01, 0.3, 1.0])
def test_every_request_has_the_same_chance_whatever_the_batches(share: float) -> None:
    sampler, sizes = Sampler(share, Random(7)), Random(8)
    seen, places = 0, []
    while seen < 200_000:
        count = sizes.randint(1, 50)
        places += [seen + at for at, why in sampler.choose(count, now=0.0) if why == "share"]
        seen += count
    assert len(places) / seen == pytest.approx(share, rel=0.1)
    assert len(set(places)) == len(places)
    halves = [sum(at % 2 == odd for at in places) for odd in (0, 1)]
    assert halves[0] / len(places) == pytest.approx(0.5, abs=0.05)


def test_a_second_never_passes_without_one() -> None:
    sampler = Sampler(1e-9, Random(7))
    chosen = [sampler.choose(3, now=second / 10) for second in range(100)]
    assert sum(map(len, chosen)) == 10
    assert {why for each in chosen for _, why in each} == {"second"}


def test_a_prediction_is_recorded_with_what_was_read_for_it(tmp_path: Path) -> None:
    with Workspace.open(Settings(tmp_path)) as workspace:
        materialize(workspace, TASTE)
        metrics = MetricsCollector()
        log = log_in(tmp_path / "log", metrics=metrics)
        server = ModelServer(
            [Looker(OnlineReader(workspace.online, [TASTE.online_spec()]))], metrics=metrics, predictions=log
        )
        with server.running() as url, httpx.Client(base_url=url) as client:
            client.post("/predict", json={"x": 1}, headers={"x-request-id": "mine"})
            assert client.post("/predict", json={"x": 1, "do": "refuse"}).status_code == 409
            wait_for(lambda: "noria_prediction_log_written_total 1" in client.get("/metrics").text)
        log.close()
    (found,) = PredictionReader(tmp_path / "log")
    assert (found.id, found.at, found.kind, found.model, found.version) == ("mine", 5, "predict", "looker", 3)
    assert found.chosen == "share"
    assert 0 < found.latency < 5
    assert found.output == {"value": 2.0, "model": "looker", "version": 3}
    assert found.inputs == {"x": 1.0, "do": "double"}
    assert found.groups == [
        GroupRead(
            TASTE.online_spec().place,
            [1],
            {"taste.mean_rating": [4.5], "taste.ratings": [2], "taste.last_items": [[8, 7]]},
            [True],
            [False],
            [MICROS],
            1,
            MICROS + 1,
        )
    ]


def test_a_model_that_reads_nothing_is_recorded_too(tmp_path: Path) -> None:
    log = log_in(tmp_path)
    with ModelServer([Doubler()], predictions=log).running() as url:
        assert httpx.post(f"{url}/predict", json={"x": 4}).status_code == 200
    log.close()
    (found,) = PredictionReader(tmp_path)
    assert (found.model, found.groups, found.output["value"]) == ("doubler", [], 8.0)


def test_reads_over_http_are_recorded_with_their_own_part_of_a_turn(tmp_path: Path) -> None:
    with Workspace.open(Settings(tmp_path)) as workspace:
        materialize(workspace, TASTE, PAIR, RECENT)
        log = log_in(tmp_path / "log")
        metrics = MetricsCollector()
        door = FeatureDoor(workspace, metrics, predictions=log)
        with ModelServer([], metrics=metrics, features=door).running() as url:
            body = {
                "groups": ["pair"],
                "features": ["taste.ratings", "recent.ratings"],
                "entities": {"user_id": [1, 9], "item_id": [7, 7]},
            }
            assert httpx.post(f"{url}/features", json=body).status_code == 200
        log.close()
    (found,) = PredictionReader(tmp_path / "log")
    assert (found.kind, found.model) == ("features", None)
    pair, taste, recent = found.groups
    assert (pair.group, pair.ids, pair.values) == ("pair", [[1, 7], [9, 7]], {"pair.stars": [4.0, None]})
    assert (taste.values, taste.as_of) == ({"taste.ratings": [2, 0]}, MICROS + 1)
    assert (recent.found, recent.expired) == ([True, False], [True, False])


def test_what_feast_calls_missing_is_recorded_as_it_was_read(tmp_path: Path) -> None:
    with Workspace.open(Settings(tmp_path)) as workspace:
        materialize(workspace, TASTE)
        log = log_in(tmp_path / "log")
        metrics = MetricsCollector()
        door = FeatureDoor(workspace, metrics, predictions=log)
        with ModelServer([], metrics=metrics, features=door).running() as url:
            body = {"features": ["taste:ratings"], "entities": {"user_id": [1, 9]}}
            answer = httpx.post(f"{url}/get-online-features", json=body).json()
            assert answer["results"][1]["values"] == [2, None]
        log.close()
    (found,) = PredictionReader(tmp_path / "log")
    assert found.groups[0].values == {"taste.ratings": [2, 0]}


def test_of_a_large_read_the_first_rows_are_kept() -> None:
    spec, count = TASTE.online_spec(), 10 * MAX_ROWS
    found = OnlineFeatures({"taste.ratings": [1] * count}, [True] * count, [False] * count, [0] * count, 1)
    kept = GroupRead.of(Read(spec, range(count), found))
    assert kept.rows == count
    assert {len(kept.ids), len(kept.found), len(kept.values["taste.ratings"])} == {MAX_ROWS}


def entry(number: int, size: int = 0) -> Prediction:
    return Prediction(str(number), number, "predict", "share", 0.1, inputs="x" * size)


def test_files_are_bounded_and_the_newest_stay(tmp_path: Path) -> None:
    clock = ManualClock(1)
    writers = [Segments(tmp_path, name, 16_000, clock) for name in ("a", "b")]
    for number in range(400):
        clock.advance(1)
        writers[number % 2].write(json.dumps({"id": str(number), "x": "x" * 200}).encode() + b"\n")
    assert sum(file.stat().st_size for file in segments(tmp_path)) < 16_000 * (1 + 2 / 16) + 500
    ids = {int(json.loads(line)["id"]) for file in segments(tmp_path) for line in file.read_text().splitlines()}
    assert {398, 399} <= ids
    assert min(ids) > 300
    assert segments(tmp_path)[0].stat().st_mode & 0o077 == 0


def test_a_writer_whose_file_was_removed_begins_another(tmp_path: Path) -> None:
    clock = ManualClock(1)
    writer = Segments(tmp_path, "a", 16_000, clock)
    writer.write(b"1\n")
    segments(tmp_path)[0].unlink()
    clock.advance(1)
    writer.write(b"2\n")
    assert [file.read_bytes() for file in segments(tmp_path)] == [b"2\n"]


def test_a_full_queue_and_a_disk_that_fails_drop_and_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PAUSE", 3600)
    metrics = MetricsCollector()
    (tmp_path / "file").write_text("")
    log = log_in(tmp_path / "file", metrics=metrics)
    for number in range(module.MAX_WAITING + 5):
        log.record(entry(number))
    assert "noria_prediction_log_dropped_total 5" in metrics.exposition()
    log.close()  # the folder is a file
    assert f"noria_prediction_log_dropped_total {module.MAX_WAITING + 5}" in metrics.exposition()
    log.record(entry(1))
    assert f"noria_prediction_log_dropped_total {module.MAX_WAITING + 6}" in metrics.exposition()


def test_what_is_too_long_is_kept_without_inputs(tmp_path: Path) -> None:
    log = log_in(tmp_path)
    log.record(entry(1, MAX_LINE))
    log.close()
    (found,) = PredictionReader(tmp_path)
    assert (found.id, found.inputs) == ("1", None)


def test_a_share_of_nothing_is_no_log(tmp_path: Path) -> None:
    settings = Settings(tmp_path, predictions=PredictionSettings(log_share=0.0))
    assert PredictionLog.of(settings, "w", MetricsCollector(), ManualClock()) is None
    log = PredictionLog.of(Settings(tmp_path), "w", MetricsCollector(), ManualClock())
    assert log is not None
    log.record(entry(1))
    log.close()
    assert len(list(PredictionReader(tmp_path / ".noria" / "predictions"))) == 1


def test_torn_lines_are_skipped_and_counted(tmp_path: Path) -> None:
    log = log_in(tmp_path)
    log.record(entry(1))
    log.record(entry(2))
    log.close()
    (file,) = segments(tmp_path)
    file.write_bytes(file.read_bytes()[:-10])
    reader = PredictionReader(tmp_path)
    assert [found.id for found in reader] == ["1"]
    assert reader.torn == 1


def test_a_server_killed_in_the_midst_leaves_what_it_wrote(tmp_path: Path) -> None:
    with Workspace.open(Settings(tmp_path)) as workspace:
        materialize(workspace, TASTE)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "noria.serving", "--project", str(tmp_path), "--port", str(port), "--features"]
    environ = {**os.environ, "NORIA_PREDICTIONS_LOG_SHARE": "1"}
    folder, body = tmp_path / ".noria" / "predictions", {"groups": ["taste"], "entities": {"user_id": [1]}}
    for turn in range(2):
        with (
            subprocess.Popen(words, env=environ) as process,
            httpx.Client(base_url=f"http://127.0.0.1:{port}") as client,
        ):
            try:
                wait_for(lambda client=client: answers(client))
                while len(segments(folder)) <= turn:
                    for _ in range(50):
                        assert client.post("/features", json=body).status_code == 200
            finally:
                process.send_signal(signal.SIGKILL)
    assert len(segments(folder)) == 2
    reader = PredictionReader(folder)
    found = list(reader)
    assert len(found) > 2
    assert reader.torn <= 2
    assert {p.groups[0].values["taste.ratings"][0] for p in found} == {2}


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/health/ready").status_code == 200
    except httpx.ConnectError:
        return False
