from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from doubler import Doubler

from noria.core import Settings
from noria.monitoring.evidence import gather
from noria.monitoring.rollout import GRACE, tend
from noria.registry import Deployments, ModelRegistry, ModelVersion, Variant
from noria.serving import ModelServer
from noria.serving.exposures import TALLIES, Tally, tallies_of, tally_key
from noria.serving.follower import Follower
from noria.storage import Workspace
from noria.telemetry import MetricsCollector, MLLogger


class Broken(Doubler):
    def warm_up(self) -> None:
        raise RuntimeError("no such weights")


class Picky(Doubler):
    """Understands other requests than the one before."""

    def describe(self, operation: str) -> dict[str, object]:
        return {**super().describe(operation), "example": {"x": 1.5}}

    def decode(self, operation: str, body: bytes):  # type: ignore[no-untyped-def]
        return super().decode(operation, body.replace(b'"x"', b'"y"'))


KINDS: dict[bytes, type[Doubler]] = {b"good": Doubler, b"broken": Broken, b"picky": Picky}


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace.open(Settings.load(tmp_path, {})) as workspace:
        yield workspace


@pytest.fixture
def register(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], int]:
    def load(version: ModelVersion, workspace: Workspace) -> Doubler:
        (file,) = ModelRegistry.of(workspace).files(version).values()
        return KINDS[file.read_bytes().partition(b" ")[0]](version.name, version.version)

    monkeypatch.setattr("noria.serving.follower.load_servable", load)
    registry, runs = ModelRegistry.of(workspace), iter(range(99))

    def register(kind: str = "good") -> int:
        run = f"{kind} {next(runs)}"
        return registry.register("doubler", {"model": run.encode()}, servable="x", run_id=run).version

    assert register() == 1
    registry.promote("doubler", 1)
    return register


@contextmanager
def following(workspace: Workspace, tmp_path: Path, **options: object) -> Iterator[tuple[str, MetricsCollector]]:
    metrics, logger = MetricsCollector(), MLLogger(tmp_path / "log.jsonl")
    server = ModelServer([Doubler()], metrics=metrics)
    follower = Follower(server, workspace, logger, metrics, **options)  # type: ignore[arg-type]
    serve = server.serve

    async def with_follower(*args: object, **more: object) -> None:
        await serve(*args, background=[follower.follow], **more)  # type: ignore[arg-type]

    server.serve = with_follower  # type: ignore[method-assign, assignment]
    with server.running() as url:
        yield url, metrics
    logger.close()


def until(found: Callable[[], object], wanted: object, seconds: float = 2.0) -> None:
    end = time.monotonic() + seconds
    while (last := found()) != wanted:
        assert time.monotonic() < end, f"{last} instead of {wanted}"
        time.sleep(0.02)


def version_of(url: str, **headers: str) -> int:
    answer = httpx.post(f"{url}/predict", json={"x": 1}, headers=headers)
    assert answer.status_code == 200, answer.text
    return int(answer.json()["version"])


def test_champions_and_deployments_are_followed_within_a_second_or_two(
    workspace: Workspace, tmp_path: Path, register: Callable[[str], int]
) -> None:
    registry, deployments = ModelRegistry.of(workspace), Deployments.of(workspace)
    register("good"), register("good")
    with following(workspace, tmp_path) as (url, _):
        registry.promote("doubler", 2)
        until(lambda: version_of(url), 2)
        deployments.start("doubler", [Variant("canary", 3, 1.0)])
        until(lambda: version_of(url), 3)
        for _ in range(10):
            version_of(url)
        key = tally_key("doubler", 1)

        def told() -> int:
            found = workspace.records.list(TALLIES, key)
            return tallies_of(found[0].data).get("canary", Tally()).requests if found else 0

        until(lambda: told() >= 11, True)
        deployments.rollback("doubler")
        until(lambda: version_of(url), 2)
        deployments.rollback("doubler")
        until(lambda: version_of(url), 1)


@pytest.mark.parametrize(("kind", "said"), [("broken", "no such weights"), ("picky", "doesn't understand")])
def test_a_version_that_cannot_take_over_leaves_everything_as_it_is(
    workspace: Workspace, tmp_path: Path, register: Callable[[str], int], kind: str, said: str
) -> None:
    bad = register(kind)
    with following(workspace, tmp_path) as (url, metrics):
        Deployments.of(workspace).start("doubler", [Variant("canary", bad, 1.0)])
        key = tally_key("doubler", 1)
        until(lambda: len(workspace.records.list(TALLIES, key)), 1)
        assert said in workspace.records.list(TALLIES, key)[0].data["failed"]["canary"]
        assert version_of(url) == 1
        Deployments.of(workspace).abort("doubler")
        ModelRegistry.of(workspace).promote("doubler", bad)
        time.sleep(1.2)
        assert version_of(url) == 1
        assert "noria_versions_refused_total 1" in metrics.exposition()  # not again each time that it is looked at
    assert said in (tmp_path / "log.jsonl").read_text()


def test_a_canary_that_no_server_can_load_is_taken_back(
    workspace: Workspace, tmp_path: Path, register: Callable[[str], int]
) -> None:
    bad, deployments = register("broken"), Deployments.of(workspace)
    with following(workspace, tmp_path) as (url, _):
        for number in (1, 2):  # the second one's totals are the same as the first one's, and are told all the same
            trial = deployments.start("doubler", [Variant("canary", bad, 0.5)])
            until(lambda trial=trial: list(gather(workspace.records, trial).failed), ["canary"])
            front = httpx.get(url).json()["models"][0]
            assert (front["deployment"], front["variants"]) == (f"doubler/{number}", {"champion": 1})
            assert gather(workspace.records, trial).servers == {"server": 0}
            assert tend(workspace, trial.started + GRACE - 1) == []
            (done,) = tend(workspace, trial.started + GRACE)
            assert (done.action, done.why) == ("abort", f"canary {bad} can't be loaded: no such weights")


def test_a_version_that_is_missing_is_tried_again(
    workspace: Workspace, tmp_path: Path, register: Callable[[str], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("noria.serving.follower.AGAIN_SECONDS", 0.1)
    bad = register("broken")
    with following(workspace, tmp_path) as (url, metrics):
        trial = Deployments.of(workspace).start("doubler", [Variant("canary", bad, 1.0)])
        until(lambda: list(gather(workspace.records, trial).failed), ["canary"])
        until(lambda: "noria_versions_refused_total 3" in metrics.exposition(), True, 5.0)
        monkeypatch.setitem(KINDS, b"broken", Doubler)
        until(lambda: version_of(url), bad)
        until(lambda: gather(workspace.records, trial).failed, {})
        assert httpx.get(url).json()["models"][0]["variants"] == {"canary": bad, "champion": 1}


def test_a_pinned_version_stays(workspace: Workspace, tmp_path: Path, register: Callable[[str], int]) -> None:
    register("good"), register("good")
    with following(workspace, tmp_path, pins={"doubler": frozenset({1})}) as (url, _):
        ModelRegistry.of(workspace).promote("doubler", 2)
        until(lambda: version_of(url), 2)
        assert httpx.post(f"{url}/models/doubler/versions/1/predict", json={"x": 1}).json()["version"] == 1


def test_a_registry_that_cannot_be_read_changes_nothing(
    workspace: Workspace, tmp_path: Path, register: Callable[[str], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    register("good")
    with following(workspace, tmp_path) as (url, _):
        whole = workspace.records.get
        monkeypatch.setattr(workspace.records, "get", lambda *_: 1 / 0)
        time.sleep(1.2)
        assert version_of(url) == 1
        monkeypatch.setattr(workspace.records, "get", whole)
        ModelRegistry.of(workspace).promote("doubler", 2)
        until(lambda: version_of(url), 2)
