"""A running gateway is changed while clients ask without a pause: no request may fail."""

from __future__ import annotations

import os
import random
import resource
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from traffic import request, traffic, until

from noria.core.errors import ConfigError, NotFoundError
from noria.core.settings import BALANCES
from noria.gateway import POLICIES, GatewayError, OutlierLimits, ProxyOptions, ServerStatus, Supervisor
from noria.gateway.ports import free_port
from noria.gateway.proxy_options import ALGORITHMS, default_connections

Start = Callable[..., Supervisor]
Tiny = Callable[..., Any]
SCRIPT = str(Path(__file__).with_name("tiny_replica.py"))


@contextmanager
def elsewhere(mode: str = "", port: int = 0) -> Iterator[tuple[str, int]]:
    """A server that is nobody's replica: its address and pid."""
    port = port or free_port()
    with subprocess.Popen([sys.executable, "-I", "-S", SCRIPT, str(port), mode]) as process:
        try:
            until(lambda: _listens(port))
            yield f"127.0.0.1:{port}", process.pid
        finally:
            process.kill()


def _listens(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


def named(supervisor: Supervisor, name: str) -> ServerStatus:
    return next(server for server in supervisor.servers() if server.name == name)


def pids(supervisor: Supervisor) -> set[bytes]:
    return {str(status.pid).encode() for status in supervisor.status() if status.pid}


def state(supervisor: Supervisor, name: str) -> str:
    proxy = named(supervisor, name).proxy
    return proxy.state if proxy else ""


@pytest.mark.parametrize("keep_alive", [True, False])
def test_scaling_up_and_down_loses_nothing(supervise: Start, keep_alive: bool) -> None:
    supervisor = supervise(1)
    with traffic(supervisor.url, keep_alive=keep_alive) as answers:
        for count in (3, 1, 2):
            supervisor.scale(count)
            assert [status.state for status in supervisor.status()] == ["ready"] * count
            mark = len(answers.bodies)
            until(lambda mark=mark: answers.since(mark) == pids(supervisor))
    assert answers.failures == []
    assert {server.name for server in supervisor.servers()} == {"replica-0", "replica-1"}


def test_a_rolling_restart_replaces_all_and_loses_nothing(supervise: Start) -> None:
    supervisor = supervise(2)
    supervisor.set_weight("replica-0", 50)
    old = pids(supervisor)
    with traffic(supervisor.url) as answers, traffic(supervisor.url, 2, path="/events") as events:
        supervisor.restart()
        mark = len(answers.bodies)
        until(lambda: answers.since(mark) == pids(supervisor))
    assert answers.failures == events.failures == []
    assert not pids(supervisor) & old
    assert sorted(server.proxy.weight for server in supervisor.servers() if server.proxy) == [50, 100]


def test_a_rolling_restart_waits_for_long_requests(supervise: Start) -> None:
    supervisor = supervise(1)
    with traffic(supervisor.url, clients=3, path="/slow/work") as answers:  # 0.5 s each, and it may not run twice
        time.sleep(0.2)
        supervisor.restart()
    assert answers.failures == []
    assert len(set(answers.bodies)) == 2


def test_new_code_that_does_not_start_changes_nothing(supervise: Start, tmp_path: Path, tiny_command: Tiny) -> None:
    broken = tmp_path / "broken"

    def command(index: int, port: int) -> list[str]:
        return list(tiny_command("broken" if broken.exists() else "")(index, port))

    supervisor = supervise(2, command=command)
    before = pids(supervisor)
    broken.touch()
    with traffic(supervisor.url) as answers:
        with pytest.raises(GatewayError, match="the model file is missing"):
            supervisor.restart()
        with pytest.raises(GatewayError, match="the model file is missing"):
            supervisor.scale(4)
    assert answers.failures == []
    assert pids(supervisor) == before
    broken.unlink()
    supervisor.scale(3)
    assert len(pids(supervisor)) == 3


@pytest.mark.parametrize("keep_alive", [True, False])
def test_a_reload_loses_nothing_and_forgets_nothing(supervise: Start, keep_alive: bool) -> None:
    supervisor = supervise(2)
    supervisor.set_weight("replica-0", 30)
    with (
        elsewhere() as (address, pid),
        elsewhere() as (drained, _),
        traffic(supervisor.url, keep_alive=keep_alive) as answers,
    ):
        name = supervisor.add_server(address, weight=70)
        supervisor.drain_server(supervisor.add_server(drained))
        for options in (ProxyOptions(policy="least_connections"), None, ProxyOptions(max_queue=7)):
            supervisor.reload(options)
        mark = len(answers.bodies)
        until(lambda: answers.since(mark) == {*pids(supervisor), str(pid).encode()})
        servers = {server.name: server for server in supervisor.servers()}
    assert answers.failures == []
    weights = {name: server.proxy.weight for name, server in servers.items() if server.proxy}
    assert weights == {"replica-0": 30, "replica-1": 100, name: 70, drained: 100}
    assert servers[drained].drained


def test_a_reload_that_fails_changes_nothing(supervise: Start, tmp_path: Path) -> None:
    supervisor = supervise(1)
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("no certificate")
    with traffic(supervisor.url) as answers:
        with pytest.raises(GatewayError, match="HAProxy doesn't start"):
            supervisor.reload(ProxyOptions(certificate=nonsense))
        supervisor.set_weight("replica-0", 7)
        mark = len(answers.bodies)
        until(lambda: len(answers.bodies) > mark)
    assert answers.failures == []
    proxy = named(supervisor, "replica-0").proxy
    assert proxy is not None
    assert proxy.weight == 7


def test_weights_share_the_requests_out(supervise: Start) -> None:
    supervisor = supervise(2)
    supervisor.set_weight("replica-0", 25)
    counts = Counter(request(supervisor.url, "/predict")[1] for _ in range(100))
    light, heavy = (str(status.pid).encode() for status in supervisor.status())
    assert counts == {light: 20, heavy: 80}
    os.kill(int(light), signal.SIGKILL)  # its weight outlives the process
    until(lambda: [status.state for status in supervisor.status()] == ["ready", "ready"])
    until(lambda: named(supervisor, "replica-0").restarts == 1 and state(supervisor, "replica-0") == "UP")
    proxy = named(supervisor, "replica-0").proxy
    assert proxy is not None
    assert proxy.weight == 25


def test_servers_elsewhere_come_and_go(supervise: Start) -> None:
    supervisor = supervise(1)
    with ExitStack() as stack:
        answers = stack.enter_context(traffic(supervisor.url))
        with elsewhere() as (address, pid):
            name = supervisor.add_server(address)
            until(lambda: str(pid).encode() in answers.since(0))
            assert supervisor.drain_server(name)
            mark = len(answers.bodies)
            until(lambda: len(answers.bodies) > mark + 50)
            mark += 50  # what had been answered before may be written down only now
            until(lambda: len(answers.bodies) > mark + 50)
            assert answers.since(mark) == pids(supervisor)
            assert state(supervisor, name).startswith("DRAIN")
            supervisor.resume_server(name)
            until(lambda: str(pid).encode() in answers.since(mark))
            supervisor.remove_server(name)
        assert [server.name for server in supervisor.servers()] == ["replica-0"]
        with elsewhere() as (address, pid):  # this one just dies, as machines do
            name = supervisor.add_server(address)
            until(lambda: str(pid).encode() in answers.since(0))
        until(lambda: state(supervisor, name) == "DOWN")
    assert answers.failures == []
    for wrong in (address, "nonsense", "no.such.host.invalid:1"):
        with pytest.raises(ConfigError):
            supervisor.add_server(wrong)
    with pytest.raises(ConfigError, match="is a replica"):
        supervisor.remove_server("replica-0")
    with pytest.raises(NotFoundError, match="replica-0"):
        supervisor.set_weight("replica-9", 1)
    for weight in (-1, 257, 1.5):
        with pytest.raises(ConfigError, match="weight"):
            supervisor.set_weight("replica-0", weight)  # type: ignore[arg-type]


def test_servers_elsewhere_are_enough(supervise: Start) -> None:
    with elsewhere() as (one, _), elsewhere() as (other, _):
        supervisor = supervise(0, servers=[one, other])
        until(lambda: {server.proxy.state for server in supervisor.servers() if server.proxy} == {"UP"})
        assert len({request(supervisor.url, "/predict")[1] for _ in range(4)}) == 2
        supervisor.scale(1)
        until(lambda: len({request(supervisor.url, "/predict")[1] for _ in range(6)}) == 3)
        supervisor.scale(0)
        assert len(supervisor.servers()) == 2


def test_the_same_policies_before_the_gateway_and_in_python() -> None:
    assert set(ALGORITHMS) == set(POLICIES) == set(BALANCES)


def test_a_reload_does_not_forget_who_is_down(supervise: Start) -> None:
    supervisor = supervise(1, options=ProxyOptions(slow_start=0.2))
    with elsewhere() as (address, _):
        name = supervisor.add_server(address)
        until(lambda: state(supervisor, name).startswith("UP"))
    until(lambda: state(supervisor, name) == "DOWN")
    supervisor.reload()
    assert state(supervisor, name) == "DOWN"
    with elsewhere(port=int(address.partition(":")[2])):
        until(lambda: state(supervisor, name).startswith("UP"))


def test_an_entity_stays_with_its_server(supervise: Start) -> None:
    supervisor = supervise(3, options=ProxyOptions(policy="consistent_hash", hash_balance=100.0))

    def homes() -> list[bytes]:
        return [request(supervisor.url, "/predict", {"X-Entity-Id": f"user {n}"})[1] for n in range(90)]

    before = homes()
    assert before == homes()
    assert min(Counter(before).values()) > 10
    supervisor.drain_server("replica-2")
    gone = str(supervisor.status()[2].pid).encode()
    after = homes()
    assert all(new == old for old, new in zip(before, after, strict=True) if old != gone)
    supervisor.resume_server("replica-2")
    supervisor.reload()
    assert homes() == before
    no_header = Counter(request(supervisor.url, "/predict")[1] for _ in range(30))
    assert min(no_header.values()) >= 5


def test_an_outlier_is_taken_out_and_comes_back(supervise: Start) -> None:
    limits = OutlierLimits(interval=0.2, pause=0.6, min_requests=5)
    events: list[str] = []
    supervisor = supervise(
        3,
        command=lambda index, port: [sys.executable, "-I", "-S", SCRIPT, str(port), "fails" if index == 1 else ""],
        options=ProxyOptions(outliers=limits),
        on_event=lambda event, **_: events.append(event),
    )
    with traffic(supervisor.url, path="/work"):
        until(lambda: "server_ejected" in events)
        assert [s.name for s in supervisor.servers() if s.ejected] == ["replica-1"]
        until(lambda: "server_returned" in events)
        until(lambda: events.count("server_ejected") == 2)
    supervisor.reload(replace(ProxyOptions(), outliers=None))
    until(lambda: not any(server.ejected for server in supervisor.servers()))


@pytest.mark.parametrize(
    ("path", "twice"),
    [
        ("/models/m/versions/3/predict", True),
        ("/v1/models/m:predict", True),
        ("/v2/models/m/infer", True),
        ("/invocations", True),
        ("/get-online-features", True),
        ("/events", False),
        ("/models/predict/events", False),
        ("/unpredict", False),
    ],
)
def test_what_may_run_twice(supervise: Start, tmp_path: Path, path: str, twice: bool) -> None:
    first = tmp_path / "first"
    supervisor = supervise(2, env={"DIE_ONCE": str(first)})
    status, _ = request(supervisor.url, path, {"X-Die": "once"})
    assert status == (200 if twice else 502)


@pytest.mark.parametrize("rounds", [8, pytest.param(200, marks=pytest.mark.soak)])
def test_kills_scaling_rolls_and_reloads_together(supervise: Start, rounds: int) -> None:
    supervisor, dice = supervise(3), random.Random(7)
    with traffic(supervisor.url, 3) as kept, traffic(supervisor.url, 1, keep_alive=False) as fresh:
        for i in range(rounds):
            os.kill(int(dice.choice(sorted(pids(supervisor)))), signal.SIGKILL)
            [supervisor.reload, supervisor.restart, lambda: supervisor.scale(2), lambda: supervisor.scale(3)][i % 4]()
        until(lambda: {status.state for status in supervisor.status()} == {"ready"})
    assert kept.failures == fresh.failures == []
    assert len(kept.bodies) > 100


@pytest.mark.parametrize("idle", [1000, pytest.param(10_000, marks=pytest.mark.soak)])
def test_silent_clients_are_haproxys_to_bear(supervise: Start, idle: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if default_connections(hard) < idle:
        pytest.skip(f"this machine gives a process {hard} files: too few for {idle} clients")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, idle + 2000)), hard))
    supervisor = supervise(2)
    address = urlsplit(supervisor.url)
    half = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 9000\r\n\r\nx"
    with ExitStack() as stack:
        for i in range(idle):
            client = stack.enter_context(socket.create_connection((address.hostname, address.port)))
            if i % 3:
                client.sendall(half if i % 3 == 1 else b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n")
        with traffic(supervisor.url) as answers:
            supervisor.restart()
            until(lambda: len(answers.bodies) > 200)
    assert answers.failures == []
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
