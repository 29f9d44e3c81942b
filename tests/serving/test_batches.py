from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from doubler import Ask, Doubler
from hypothesis import given
from hypothesis import strategies as st

from noria.serving import Limits, ModelServer
from noria.serving.cost import Cost


class Slow(Doubler):
    """Takes as many seconds as each request says, and remembers by which threads it was asked."""

    def __init__(self, model: str = "slow", seconds: float = 0.0) -> None:
        super().__init__(model)
        self.seconds = seconds
        self.threads: set[str] = set()
        self.answered: list[float] = []

    def answer(self, operation: str, requests: Sequence[Ask]) -> Sequence[Any]:
        self.threads.add(threading.current_thread().name.rpartition("_")[0] or threading.current_thread().name)
        time.sleep(self.seconds * len(requests))
        self.answered += [request.x for request in requests]
        return super().answer(operation, requests)


def ask(url: str, x: float, **headers: str) -> httpx.Response:
    return httpx.post(f"{url}/models/slow/predict", json={"x": x}, headers=headers, timeout=30)


def test_a_slow_model_does_not_hold_up_a_fast_one() -> None:
    slow = Slow(seconds=0.05)
    with (
        ModelServer([slow, Doubler("fast")], limits=Limits(max_wait_seconds=30)).running() as url,
        ThreadPoolExecutor(8) as pool,
        httpx.Client() as client,
    ):
        asked = [pool.submit(ask, url, x) for x in range(24)]
        waits = []
        while not all(one.done() for one in asked):
            started = time.monotonic()
            assert client.post(f"{url}/models/fast/predict", json={"x": 1}).json()["value"] == 2
            waits.append(time.monotonic() - started)
    assert [one.result().json()["value"] for one in asked] == [2 * x for x in range(24)]
    assert sorted(waits)[len(waits) // 2] < 0.05
    assert "noria-batch" in slow.threads


def test_a_fast_model_is_answered_in_the_loop() -> None:
    fast = Slow()
    with ModelServer([fast]).running() as url:
        for x in range(5):
            ask(url, x)
    assert fast.threads == {"noria-server"}


def test_who_would_wait_too_long_is_told_at_once() -> None:
    slow = Slow(seconds=0.2)
    with ModelServer([slow], limits=Limits(max_wait_seconds=0.5)).running() as url, ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda x: ask(url, x), range(12)))
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) == {200, 503}
    assert 1 <= statuses.count(200) <= 5
    refused = next(answer for answer in answers if answer.status_code == 503)
    assert 1 <= int(refused.headers["retry-after"]) <= 3
    assert "more to do" in refused.json()["detail"]


def test_a_deadline_is_kept_and_its_work_not_begun() -> None:
    slow = Slow(seconds=0.3)
    with ModelServer([slow], limits=Limits(max_wait_seconds=30)).running() as url, ThreadPoolExecutor(4) as pool:
        first = pool.submit(ask, url, 1.0)
        time.sleep(0.1)
        late = ask(url, 2.25, **{"x-request-timeout": "0.1"})
        assert late.status_code in (
            503,
            504,
        )  # 504: the first has just come, on a busy machine
        assert not first.done()
        assert first.result().status_code == 200
        late = ask(url, 3.0, **{"x-request-timeout": "100ms"})
        assert late.status_code == 504
        assert 3.0 not in slow.answered
        assert ask(url, 4.0, **{"x-request-timeout": "10s"}).status_code == 200
        for wrong in ("soon", "-1", "nan", "0", "1e9"):
            assert ask(url, 5.0, **{"x-request-timeout": wrong}).status_code == 400
    assert 2.25 not in slow.answered  # 2.0 is among what the server tries at the start


def test_who_has_gone_is_not_answered() -> None:
    slow = Slow(seconds=0.2)
    with ModelServer([slow], limits=Limits(max_wait_seconds=30)).running() as url, ThreadPoolExecutor(4) as pool:
        first = pool.submit(ask, url, 1.0)
        time.sleep(0.1)
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{url}/models/slow/predict", json={"x": 2.25}, timeout=0.02)
        first.result()
        assert ask(url, 3.0).status_code == 200
    assert 2.25 not in slow.answered
    assert {1.0, 3.0} <= set(slow.answered)


def test_a_swap_lets_the_old_version_finish() -> None:
    old, new = Slow(seconds=0.1), Slow()
    new.version = 2
    server = ModelServer([old], limits=Limits(max_wait_seconds=30))
    with server.running() as url, ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(ask, url, x) for x in range(4)]
        time.sleep(0.15)
        server.swap(new)
        assert ask(url, 9).json()["version"] == 2
        assert all(one.result().status_code == 200 for one in asked)
        until = time.monotonic() + 5
        while not old.closed and time.monotonic() < until:
            time.sleep(0.01)
    assert old.closed


def test_a_crash_in_a_thread_concerns_one_request() -> None:
    slow = Slow(seconds=0.02)
    with ModelServer([slow], limits=Limits(max_wait_seconds=30)).running() as url, ThreadPoolExecutor(6) as pool:

        def one(x: int) -> int:
            body = {"x": x, "do": "crash" if x == 3 else "double"}
            return httpx.post(f"{url}/predict", json=body, timeout=30).status_code

        assert list(pool.map(one, range(6))) == [200, 200, 200, 500, 200, 200]


@given(st.floats(0, 0.01), st.floats(1e-7, 0.01), st.lists(st.integers(1, 1000), min_size=2, max_size=30))
def test_costs_are_learnt(fixed: float, per_row: float, sizes: list[int]) -> None:
    cost = Cost()
    for rows in sizes:
        cost.learn(rows, fixed + per_row * rows)
    for rows in sizes:
        assert cost.seconds(rows) == pytest.approx(fixed + per_row * rows, rel=0.05, abs=1e-4) or len(set(sizes)) == 1
    assert cost.per_row >= 0
    assert cost.fixed >= 0
    assert cost.rows(0.05) >= 1


class Rows(Slow):
    """Requests of so many rows as their number says; each row takes its time."""

    def size(self, operation: str, request: Ask) -> int:
        return int(request.x)

    def answer(self, operation: str, requests: Sequence[Ask]) -> Sequence[Any]:
        self.threads.add(threading.current_thread().name.rpartition("_")[0] or threading.current_thread().name)
        time.sleep(sum(request.x for request in requests) * 0.0002)
        return Doubler.answer(self, operation, requests)


def test_the_first_large_request_goes_to_a_thread_and_keeps_its_deadline() -> None:
    rows = Rows()
    with ModelServer([rows]).running() as url:
        for _ in range(12):
            assert ask(url, 1.0).status_code == 200
        rows.threads.clear()
        late = ask(url, 4000.0, **{"x-request-timeout": "0.1"})
        assert late.status_code == 504
        assert rows.threads == {"noria-batch"}


def test_a_deadline_that_has_passed_when_the_answer_is_there_is_kept_too() -> None:
    with ModelServer([Slow()]).running() as url:
        late = ask(url, 1.0, **{"x-request-timeout": "0.000001"})
    assert late.status_code == 504
    assert late.json()["detail"] == "there was no answer within the 1e-06 s of X-Request-Timeout"


def test_a_first_burst_of_large_requests_is_not_refused_for_what_small_ones_cost() -> None:
    rows = Rows()
    with ModelServer([rows], limits=Limits(max_wait_seconds=0.6)).running() as url, ThreadPoolExecutor(8) as pool:
        for _ in range(12):
            assert ask(url, 1.0).status_code == 200
        assert {one.status_code for one in pool.map(lambda _: ask(url, 300.0), range(8))} == {200}
