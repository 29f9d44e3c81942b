"""A server follows a registry in PostgreSQL, and goes on with what it has while the database is away or hangs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from databases import Server, postgresql
from doubler import Doubler
from wire_cutter import WireCutter

from noria.core import Settings, StorageError, StorageSettings
from noria.registry import ModelRegistry, ModelVersion
from noria.serving import ModelServer
from noria.serving.follower import Follower
from noria.storage import Workspace
from noria.telemetry import MetricsCollector, MLLogger

pytest.importorskip("psycopg")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with postgresql() as server:
        yield server


@pytest.fixture
def registry(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelRegistry]:
    """Of a project that has three versions."""

    def load(version: ModelVersion, workspace: Workspace) -> Doubler:
        assert ModelRegistry.of(workspace).files(version)
        return Doubler(version.name, version.version)

    monkeypatch.setattr("noria.serving.follower.load_servable", load)
    with Workspace.open(settings(tmp_path, server.url)) as workspace:
        registry = ModelRegistry.of(workspace)
        for run in "abc":
            registry.register("doubler", {"m": b"x"}, servable="x", run_id=run)
        registry.promote("doubler", 1)
        yield registry


def settings(root: Path, url: str) -> Settings:
    return replace(Settings(root), storage=StorageSettings(records=url))


@contextmanager
def serving(root: Path, url: str) -> Iterator[str]:
    """A server that follows."""
    logger, metrics = MLLogger(root / "log.jsonl"), MetricsCollector()
    with Workspace.open(settings(root, url), for_serving=True) as workspace:
        server = ModelServer([Doubler()], metrics=metrics)
        follower = Follower(server, workspace, logger, metrics)
        serve = server.serve

        async def with_follower(*words: object, **more: object) -> None:
            await serve(*words, background=[follower.follow], **more)  # type: ignore[arg-type]

        server.serve = with_follower  # type: ignore[method-assign, assignment]
        with server.running() as address:
            yield address
    logger.close()


def version_of(url: str) -> int:
    answer = httpx.post(f"{url}/predict", json={"x": 1}, timeout=30)
    assert answer.status_code == 200, answer.text
    return int(answer.json()["version"])


def until(found: Callable[[], object], wanted: object, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while (last := found()) != wanted:
        assert time.monotonic() < end, f"{last} instead of {wanted}"
        time.sleep(0.05)


def test_a_database_that_is_away_and_comes_back(server: Server, registry: ModelRegistry, tmp_path: Path) -> None:
    with WireCutter(server.port) as wire, serving(tmp_path, server.url_of(port=wire.port)) as url:
        registry.promote("doubler", 2)
        until(lambda: version_of(url), 2)
        wire.down()
        registry.promote("doubler", 3)
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            assert version_of(url) == 2
            time.sleep(0.05)
        until(lambda: "can't be used" in (tmp_path / "log.jsonl").read_text(), True)
        with pytest.raises(StorageError, match="can't be used"):  # and a server that starts says why it can't
            Workspace.open(settings(tmp_path, server.url_of(port=wire.port)), for_serving=True)
        wire.up()
        until(lambda: version_of(url), 3)


def test_a_database_that_hangs(
    server: Server, registry: ModelRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("noria.storage.postgresql_records.ANSWER_SECONDS", 2.0)
    with WireCutter(server.port) as wire, serving(tmp_path, server.url_of(port=wire.port)) as url:
        registry.promote("doubler", 2)
        until(lambda: version_of(url), 2)
        wire.hold()
        log = tmp_path / "log.jsonl"
        until(lambda: (version_of(url), "timeout expired" in log.read_text()), (2, True))
        registry.promote("doubler", 1)
        wire.up()
        until(lambda: version_of(url), 1)
