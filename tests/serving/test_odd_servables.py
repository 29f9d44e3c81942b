"""Servables that misbehave, and work that is under way when versions change or the server stops: all are answered."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from doubler import Ask, Doubler, exchange
from test_batches import Slow
from test_trials import Many, Personal, canary

from noria.core import Settings
from noria.pipelines.intake import StreamSpec
from noria.registry import Deployment, Variant
from noria.serving import Limits, ModelServer, server
from noria.serving.events import EventDoor
from noria.storage import Workspace
from noria.telemetry import MetricsCollector

PATIENT = Limits(max_wait_seconds=30)


def in_loop(server: ModelServer, work: Callable[[], Any]) -> Any:
    """Call something in the server's loop, and wait for it."""
    assert server._loop is not None

    async def call() -> Any:
        return work()

    return asyncio.run_coroutine_threadsafe(call(), server._loop).result(10)


def until(condition: Callable[[], bool], seconds: float = 8.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.01)


class Exits(Slow):
    """Raises what no handler of exceptions expects."""

    errors: tuple[type[BaseException], ...] = (
        SystemExit,
        KeyboardInterrupt,
        GeneratorExit,
        asyncio.CancelledError,
        StopIteration,
    )

    def answer(self, operation: str, requests: Sequence[Ask]) -> Sequence[Any]:
        for request in requests:
            if request.do.isdigit():
                raise self.errors[int(request.do)]
        return super().answer(operation, requests)


@pytest.mark.parametrize("seconds", [0.0, 0.01])
def test_whatever_a_servable_raises_each_request_is_answered(seconds: float) -> None:
    with ModelServer([Exits(seconds=seconds)], limits=PATIENT).running() as url, ThreadPoolExecutor(8) as pool:

        def one(number: int) -> int:
            body = {"x": number, "do": str(number % 10) if number % 10 < 5 else "double"}
            return httpx.post(f"{url}/predict", json=body, timeout=20).status_code

        statuses = list(pool.map(one, range(40)))
        assert statuses == [500 if number % 10 < 5 else 200 for number in range(40)]
        assert httpx.post(f"{url}/predict", json={"x": 1}).status_code == 200


def test_a_deadline_that_ends_between_two_pieces_is_told() -> None:
    slow = Slow(seconds=0.005)
    posts = b"".join(
        b"POST /predict HTTP/1.1\r\nHost: a\r\nX-Request-Timeout: %dms\r\nContent-Length: 8\r\n\r\n" % (250 + 5 * n)
        + b'{"x": 1}'
        for n in range(60)
    )
    with ModelServer([slow], limits=PATIENT).running() as url:
        host, _, port = url[7:].partition(":")
        slow.seconds = 0.05  # it has become slower than was measured: more is taken on than can be done in time
        received = b""
        with socket.create_connection((host, int(port)), timeout=8) as connection:
            connection.sendall(posts)
            while received.count(b"HTTP/1.1 ") < 60:
                received += connection.recv(1 << 16)
    assert received.count(b" 504 ") >= 1


def test_a_thread_that_hangs_gathers_no_requests() -> None:
    free, begun = threading.Event(), threading.Event()

    class Hanging(Slow):
        def answer(self, operation: str, requests: Sequence[Ask]) -> Sequence[Any]:
            if requests[0].x < 0:
                begun.set()
                free.wait(20)
            return super().answer(operation, requests)

    with (
        ModelServer([Hanging(seconds=0.01)], limits=Limits(max_wait_seconds=0.3)).running() as url,
        ThreadPoolExecutor(2) as pool,
    ):
        first = pool.submit(httpx.post, f"{url}/predict", json={"x": -1}, timeout=20)
        assert begun.wait(10)
        time.sleep(0.4)
        assert httpx.post(f"{url}/predict", json={"x": 1}, timeout=20).status_code == 503
        free.set()
        assert first.result().status_code == 200
        until(lambda: httpx.post(f"{url}/predict", json={"x": 1}).status_code == 200)


class Unjoinable(Many):
    def joined(self, operation: str, answers: Sequence[Any]) -> Any:
        raise KeyError("no rows")


@pytest.mark.parametrize("half_close", [True, False])
@pytest.mark.parametrize(("kind", "status"), [(Many, b"200"), (Unjoinable, b"500")])
def test_a_request_in_parts_is_answered(kind: type[Many], status: bytes, half_close: bool) -> None:
    first, second = kind(), kind(version=2)
    server = ModelServer([first])
    server.deploy("doubler", {1: first, 2: second}, 1, canary())
    body = b'{"xs": [%b]}' % b",".join(b"%d" % x for x in range(50))
    data = b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    with server.running() as url:
        host, _, port = url[7:].partition(":")
        assert exchange((host, int(port)), data * 3, half_close=half_close).count(b"HTTP/1.1 " + status) == 3


def test_a_shadow_s_odd_answers_are_counted_and_those_of_clients_that_left_compared() -> None:
    class Odd(Personal):
        def answer(self, operation: str, requests: Sequence[Ask]) -> Sequence[Any]:
            return [
                object() if request.do == "odd" else one
                for request, one in zip(requests, super().answer(operation, requests), strict=True)
            ]

    first, second = Personal(), Odd(version=2)
    server = ModelServer([first])
    deployment = Deployment("doubler", 1, "shadow", (Variant("champion", 1, 1.0),), 0, shadow=2)
    server.deploy("doubler", {1: first, 2: second}, 1, deployment)
    with server.running() as url:
        host, _, port = url[7:].partition(":")
        bodies = [b'{"x": 1}', b'{"x": 1, "do": "odd"}', b'{"x": 2}']
        posts = [b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(b), b) for b in bodies]
        last = posts[0].replace(b"Host: a", b"Host: a\r\nConnection: close")
        assert exchange((host, int(port)), b"".join([*posts, last])).count(b" 200 ") == 4
        trial = server.models["doubler"].trial
        assert trial is not None
        until(lambda: trial._shadowed == 0 and trial.tallies["shadow"].requests == 4)
        shadow = trial.tallies["shadow"]
        assert (shadow.errors, shadow.compared, shadow.agreed) == (1, 3, 3)


def test_what_an_ended_canary_fails_at_is_answered_by_who_answers_now() -> None:
    begun, go = threading.Event(), threading.Event()

    class Failing(Personal):
        def answer(self, operation: str, requests: Sequence[Ask]) -> Sequence[Any]:
            if requests[0].do == "fail":
                begun.set()
                go.wait(10)
                raise ZeroDivisionError
            time.sleep(0.01)  # so that it is answered by a thread
            return super().answer(operation, requests)

    first, second, third = Personal(), Failing(version=2), Personal(version=3)
    server = ModelServer([first])
    server.deploy("doubler", {1: first, 2: second}, 1, canary(1.0))
    with server.running() as url, ThreadPoolExecutor(1) as pool:
        failing = pool.submit(httpx.post, f"{url}/predict", json={"x": 1, "do": "fail"}, timeout=20)
        assert begun.wait(10)
        in_loop(server, lambda: server.deploy("doubler", {3: third}, 3))
        assert first.closed
        assert not second.closed
        go.set()
        assert failing.result().json()["version"] == 3
        until(lambda: second.closed)
        assert {lane.servable.version for lane in server._batches._lanes.values()} == {3}


def test_a_swap_while_requests_are_held_closes_the_old_version() -> None:
    swaps: list[Any] = []

    class Swapping(Doubler):
        def answer(self, operation: str, requests: Sequence[Ask]) -> Sequence[Any]:
            if requests[-1].do == "swap" and not swaps:
                swaps.append(asyncio.get_running_loop().call_soon(server.swap, Doubler(version=2)))
            return super().answer(operation, requests)

        def close(self) -> None:
            super().close()
            raise OSError("it can't be unmapped")

    old = Swapping()
    server = ModelServer([old])
    body = b'{"x": 1, "do": "swap"}'
    post = b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    with server.running() as url:
        host, _, port = url[7:].partition(":")
        assert exchange((host, int(port)), post * 300).count(b" 200 ") == 300
        until(lambda: old.closed)
        assert {lane.servable.version for lane in server._batches._lanes.values()} == {2}


def test_versions_come_and_go_and_the_metrics_stay_small() -> None:
    server = ModelServer([Doubler()])
    with server.running() as url, httpx.Client(base_url=url) as client:
        for version in range(2, 60):
            servable = Doubler(version=version)
            server.warm_up(servable)
            in_loop(server, lambda servable=servable: server.swap(servable))
            assert client.post("/predict", json={"x": 1}).json()["version"] == version
        for method in ("PROPFIND", "LOCK", "PURGE", "M-SEARCH", "OPTIONS"):
            assert client.request(method, "/predict").status_code == 405
        text = client.get("/metrics").text
    told = {line for line in text.splitlines() if line.startswith("noria_model_info")}
    assert len(told) == 17
    assert 'noria_model_info{model="doubler",version="59"} 1' in told
    assert 'noria_predictions_total{model="doubler",operation="predict",variant="champion",version="58"} 1' in text
    assert 'version="5"' not in text
    assert 'code="405",method="_OTHER",path="/predict"} 4' in text
    assert len(server._batches._lanes) == 1


def test_a_version_that_can_not_warm_up_leaves_nothing_behind() -> None:
    class Undescribed(Doubler):
        def describe(self, operation: str) -> dict[str, Any]:
            raise LookupError

    server = ModelServer([Doubler()])
    with pytest.raises(LookupError):
        server.warm_up(Undescribed(version=2))
    assert server._batches._lanes == {}


def test_a_server_stops_though_a_thread_is_at_work(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server, "_DRAIN_SECONDS", 0.3)
    slow = Slow(seconds=0.01)
    model_server = ModelServer([slow], limits=PATIENT)
    with caplog.at_level(logging.WARNING), model_server.running() as url:
        slow.seconds, before = 1.2, len(slow.answered)
        host, _, port = url[7:].partition(":")
        connection = socket.create_connection((host, int(port)))
        connection.sendall(b'POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\n{"x": 1}')
        until(lambda: any(lane.busy_until for lane in model_server._batches._lanes.values()))
        started = time.monotonic()
    took = time.monotonic() - started
    assert took < 1.1
    assert connection.recv(10) == b""
    connection.close()
    until(lambda: len(slow.answered) > before)  # the thread has ended, after the loop
    time.sleep(0.05)
    assert caplog.records == []


def test_a_server_stops_though_events_never_cease(tmp_path: Path) -> None:
    spec = StreamSpec("clicks", "clicks", 1, {"user_id": "int64"}, None)
    with Workspace.open(Settings(tmp_path)) as workspace:
        door = EventDoor([spec], workspace, MetricsCollector())
        body = b'{"events": [{"user_id": 1}], "durable": false}'
        post = b"POST /events HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        accepted = [0, 0]

        def client(number: int, address: tuple[str, int]) -> None:
            with socket.create_connection(address) as connection:
                try:
                    while True:
                        connection.sendall(post)
                        if not (part := connection.recv(10_000)):
                            return
                        accepted[number] += part.count(b" 202 ")
                except OSError:
                    return

        with ModelServer([], events=door).running() as url:
            host, _, port = url[7:].partition(":")
            threads = [threading.Thread(target=client, args=(number, (host, int(port)))) for number in range(2)]
            for thread in threads:
                thread.start()
            until(lambda: min(accepted) > 100)
        for thread in threads:
            thread.join(10)
            assert not thread.is_alive()
        first, end = workspace.log.bounds("clicks")[0]
        assert end - first == sum(accepted)
