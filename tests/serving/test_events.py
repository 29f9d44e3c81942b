from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from doubler import Doubler

import noria as nr
from noria.core import ConfigError, RequestError, Settings, StorageError
from noria.pipelines.intake import Intake, StreamSpec, publish, published
from noria.serving import ModelServer
from noria.serving import events as events_module
from noria.serving.events import EventDoor
from noria.storage import Workspace
from noria.telemetry import MetricsCollector

SCHEMA = {"user": "int64", "kind": "str?", "x": "float32?", "small": "int8?", "at": "timestamp[ms]"}
CLICKS = StreamSpec("clicks", "clicks", 2, SCHEMA, "user")
GOOD = {"user": 1, "kind": "a", "x": 1.5, "small": 7, "at": 1, "more": [1]}


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace.open(Settings(tmp_path)) as opened:
        yield opened


@pytest.fixture
def client(workspace: Workspace) -> Iterator[httpx.Client]:
    metrics = MetricsCollector()
    server = ModelServer([Doubler()], metrics=metrics, events=EventDoor([CLICKS], workspace, metrics))
    with server.running() as url, httpx.Client(base_url=url) as made:
        yield made


def stored(workspace: Workspace) -> list[dict[str, Any]]:
    log = workspace.log
    if "clicks" not in log.topics():
        return []
    return [
        json.loads(v)
        for p, (start, _) in log.bounds("clicks").items()
        for v in log.read("clicks", p, start, 10_000).values
    ]


def test_events_are_in_the_log_when_they_are_answered(client: httpx.Client, workspace: Workspace) -> None:
    answer = client.post("/events", json={"events": [GOOD, {"user": 2, "at": 5}]})
    assert (answer.status_code, answer.json()) == (200, {"appended": 2})
    assert sorted(stored(workspace), key=lambda e: e["user"]) == [GOOD, {"user": 2, "at": 5}]
    keys = [
        k for p, (s, _) in workspace.log.bounds("clicks").items() for k in workspace.log.read("clicks", p, s, 9).keys
    ]
    assert sorted(keys, key=str) == [b"1", b"2"]
    quick = client.post("/events", json={"stream": "clicks", "events": [GOOD], "durable": False})
    assert (quick.status_code, quick.json()) == (202, {"accepted": 1})
    assert client.post("/events", json={"events": []}).json() == {"appended": 0}
    assert 'noria_events_taken_total{stream="clicks"}' in client.get("/metrics").text
    assert client.get("/").json()["streams"] == ["clicks"]
    assert "/events" in client.get("/openapi.json").json()["paths"]


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"events": [GOOD, {**GOOD, "user": "x"}]}, 422, "events[1].user"),
        ({"events": [{**GOOD, "small": 300}]}, 422, "events[0].small"),
        ({"events": [{"user": 1}]}, 422, "events[0]"),
        ({"events": [1]}, 422, "events[0]"),
        ({"events": {}}, 422, None),
        ({"events": [GOOD], "stream": "click"}, 422, "stream"),
        ({"events": [GOOD], "producer": "me"}, 422, "sequence"),
        ({"events": [GOOD], "producer": "me", "sequence": -1}, 422, "sequence"),
        ({"events": [GOOD], "producer": "me", "sequence": 2**63}, 422, "sequence"),
        ({"events": [GOOD], "producer": "me", "sequence": 2**70}, 422, "sequence"),
        ({"events": [], "producer": "me", "sequence": -1}, 422, "sequence"),
        ({"events": [GOOD], "durably": True}, 422, None),
    ],
)
def test_a_wrong_event_is_named_and_none_is_taken(
    client: httpx.Client, workspace: Workspace, body: Any, status: int, field: str | None
) -> None:
    answer = client.post("/events", json=body)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json().get("field") == field
    assert stored(workspace) == []


def test_what_is_no_request_for_events_is_refused(client: httpx.Client) -> None:
    assert client.post("/events", content=b"{").status_code == 400
    assert client.post("/events", content=b"").status_code == 400
    assert client.post("/events", content=b"\xff").status_code == 400
    assert client.get("/events").status_code == 405
    assert client.post("/events", content=b"a,b", headers={"content-type": "text/csv"}).status_code == 415


@pytest.mark.parametrize("depth", [900, 1_500, 100_000])
@pytest.mark.parametrize(
    "around", [b'{"events":[{"user":1,"at":1,"more":%b}]}', b'{"events":[%b]}', b'{"events":%b}', b"%b"]
)
def test_what_is_nested_deeply_is_refused(client: httpx.Client, around: bytes, depth: int) -> None:
    answer = client.post("/events", content=around % (b"[" * depth + b"]" * depth))
    assert answer.status_code in ((200, 422) if depth < 1_000 else (422,))
    if answer.status_code == 422:
        assert answer.headers["content-type"] == "application/problem+json"


def test_the_greatest_sequence_is_taken(client: httpx.Client) -> None:
    body = {"events": [GOOD], "producer": "app-1", "sequence": 2**63 - 1}
    assert client.post("/events", json=body).json() == {"appended": 1}
    assert client.post("/events", json=body).json() == {"appended": 0}


def test_a_request_that_is_sent_again_is_taken_once(client: httpx.Client, workspace: Workspace) -> None:
    body = {"events": [GOOD, GOOD], "producer": "app-1", "sequence": 7}
    assert client.post("/events", json=body).json() == {"appended": 2}
    assert client.post("/events", json=body).json() == {"appended": 0}
    assert client.post("/events", json={**body, "sequence": 8}).json() == {"appended": 2}
    assert len(stored(workspace)) == 4


def test_many_clients_at_once_lose_nothing(client: httpx.Client, workspace: Workspace) -> None:
    def work(number: int) -> None:
        with httpx.Client(base_url=client.base_url) as own:
            for turn in range(20):
                events = [{**GOOD, "user": number * 1000 + turn * 10 + n} for n in range(10)]
                assert own.post("/events", json={"events": events}).json() == {"appended": 10}

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    users = sorted(e["user"] for e in stored(workspace))
    assert users == sorted(n * 1000 + t * 10 + i for n in range(4) for t in range(20) for i in range(10))


def test_a_log_that_fails_is_an_error_for_each_and_the_server_goes_on(
    client: httpx.Client, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace.log.create("clicks", 2)

    def full(*_: object, **__: object) -> int:
        raise StorageError("the disk is full", hint="make room")

    with monkeypatch.context() as patched:
        patched.setattr(type(workspace.log), "append", full)
        answer = client.post("/events", json={"events": [GOOD]})
        assert (answer.status_code, answer.json()["detail"]) == (503, "the disk is full")
        assert answer.headers["retry-after"] == "1"
    assert client.post("/events", json={"events": [GOOD]}).status_code == 200


def test_more_than_can_wait_is_sent_away(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_module, "MAX_WAITING", 3)
    answer = client.post("/events", json={"events": [GOOD] * 4})
    assert answer.status_code == 503
    assert client.post("/events", json={"events": [GOOD] * 3}).status_code == 200


def test_a_server_may_serve_events_alone_and_must_serve_something(workspace: Workspace) -> None:
    metrics = MetricsCollector()
    with (
        ModelServer([], events=EventDoor([CLICKS], workspace, metrics)).running() as url,
        httpx.Client(base_url=url) as client,
    ):
        assert client.post("/events", json={"events": [GOOD]}).status_code == 200
        assert client.get("/health/ready").status_code == 200
    with pytest.raises(ConfigError, match="at least one model"):
        ModelServer([])


def test_what_servers_know_of_streams_is_written_down(tmp_path: Path) -> None:
    settings = Settings(tmp_path)
    assert published(settings) == []
    stream = nr.Stream("clicks", {"user": "int64", "at": nr.Timestamp("s")}, key="user", topic="web", partitions=3)
    arrow = nr.Stream("tables", {"user": "int64"}, format=nr.Arrow())
    publish([stream, arrow], settings)
    (spec,) = published(settings)
    assert spec == StreamSpec("clicks", "web", 3, {"user": "int64", "at": "timestamp[s]"}, "user")
    _, _, values, keys = Intake([spec]).decode(b'{"events":[{"user":5,"at":1}, {"user": 6, "at": 2}]}')
    assert (values, keys) == ([b'{"user":5,"at":1}', b'{"user": 6, "at": 2}'], [b"5", b"6"])
    with pytest.raises(RequestError, match="which stream"):
        Intake([spec, StreamSpec("other", "other", 1, {"a": "str"}, None)]).decode(b'{"events":[]}')
