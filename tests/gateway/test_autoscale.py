from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from traffic import request, traffic, until

from noria.core.errors import ConfigError
from noria.gateway import Load, ScaleLimits, Supervisor, wanted
from noria.gateway.autoscale import busy_seconds

Start = Callable[..., Supervisor]
BUSY = st.floats(0, 1.2)
LOADS = st.lists(st.builds(Load, BUSY, st.integers(0, 3)), max_size=12)


@given(st.integers(0, 12), LOADS, st.integers(1, 6), st.integers(0, 6))
def test_stays_within_the_limits_and_never_leaps(replicas: int, loads: list[Load], minimum: int, more: int) -> None:
    limits = ScaleLimits(minimum, minimum + more, up_after=2, down_after=4)
    count = wanted(replicas, loads, limits)
    assert limits.minimum <= count <= limits.maximum
    if limits.minimum <= replicas <= limits.maximum:
        assert replicas - 1 <= count <= 2 * replicas


@given(st.integers(1, 10), st.floats(0.05, 1.0), st.floats(0.1, 0.65), st.floats(0, 0.5))
def test_does_not_swing_under_a_steady_load(start: int, work: float, target: float, band: float) -> None:
    """The same work, spread over as many as there are: it comes to rest, and stays where it came to rest."""
    limits = ScaleLimits(1, 30, target=target, band=band, up_after=2, down_after=3)
    total, count, seen = work * 10, start, []
    for _ in range(60):
        count = wanted(count, [Load(min(1.0, total / count))] * 3, limits)
        seen.append(count)
    assert len(set(seen[40:])) == 1
    if total / 30 <= target:
        assert total / count <= target * (1 + band) + 1e-9
    if count > 1:
        assert total / (count - 1) >= target * (1 - band) - 1e-9


@given(st.integers(1, 8), st.lists(BUSY, min_size=3, max_size=3))
def test_grows_as_the_mildest_of_the_last_loads_asks(replicas: int, busy: list[float]) -> None:
    limits = ScaleLimits(1, 100, target=0.5, band=0.2, up_after=3, down_after=100)
    count = wanted(replicas, [Load(0.0), *map(Load, busy)], limits)
    if min(busy) <= 0.6:
        assert count == replicas
    else:
        assert count == min(2 * replicas, max(replicas + 1, math.ceil(replicas * min(busy) / 0.5)))


def test_a_queue_asks_for_more_and_forbids_fewer() -> None:
    limits = ScaleLimits(1, 8, up_after=2, down_after=3)
    assert wanted(2, [Load(0.1, queued=1)] * 2, limits) == 3
    assert wanted(2, [Load(0.0, queued=1), Load(0.0), Load(0.0)], limits) == 2
    assert wanted(2, [Load(0.0)] * 3, limits) == 1
    assert wanted(1, [Load(0.0)] * 99, limits) == 1


def test_wrong_limits_are_refused() -> None:
    for wrong in (
        {"minimum": 3, "maximum": 2},
        {"target": 0.0},
        {"target": 0.9},
        {"band": 1.0},
        {"interval": 0},
        {"up_after": 0},
    ):
        with pytest.raises(ConfigError):
            ScaleLimits(**wrong)  # type: ignore[arg-type]


def test_processor_time_of_processes_that_are_gone() -> None:
    assert busy_seconds([1 << 22]) == {}


def test_replicas_follow_the_load(supervise: Start) -> None:
    script = str(Path(__file__).with_name("tiny_replica.py"))
    supervisor = supervise(
        1,
        command=lambda _, port: [sys.executable, "-I", "-S", script, str(port)],
        scaling=ScaleLimits(1, 2, target=0.1, interval=0.2, up_after=2, down_after=4),
    )
    with traffic(supervisor.url, clients=3, path="/work/burn") as answers:
        until(lambda: len(supervisor.status()) == 2)
    until(lambda: [s.state for s in supervisor.status()] == ["ready"])
    assert answers.failures == []
    assert request(supervisor.url, "/predict")[0] == 200
    supervisor.scale(2, 3)
    time.sleep(1.2)
    assert len(supervisor.status()) == 2  # the load is nothing, and two is now the least
