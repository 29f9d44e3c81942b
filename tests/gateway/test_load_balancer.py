from __future__ import annotations

import asyncio
import doctest
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.core.errors import ConfigError
from noria.gateway import LoadBalancer, NoHealthyServerError, Server, load_balancer
from noria.gateway import server as server_module


class Clock:
    time = 0

    def now(self) -> int:
        return self.time


def addresses(n: int) -> list[str]:
    return [f"127.0.0.1:{8000 + i}" for i in range(n)]


@contextmanager
def answering(act: Callable[[socket.socket], None]) -> Iterator[int]:
    """A raw server that does `act` with each connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            try:
                while True:
                    act(listener.accept()[0])
            except OSError:
                pass

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def say(answer: bytes) -> Callable[[socket.socket], None]:
    def act(connection: socket.socket) -> None:
        with connection:
            connection.recv(4096)
            connection.sendall(answer)

    return act


def test_docstrings() -> None:
    assert doctest.testmod(load_balancer).failed == doctest.testmod(server_module).failed == 0


def test_takes_turns_among_the_healthy_only() -> None:
    balancer = LoadBalancer(addresses(3))
    assert [balancer.get_server().port for _ in range(6)] == [8000, 8001, 8002] * 2
    balancer.mark_down("http://127.0.0.1:8001")
    assert [balancer.get_server().port for _ in range(4)] == [8000, 8002] * 2
    balancer.mark_up(Server("127.0.0.1", 8001))
    assert Counter(balancer.get_server().port for _ in range(6)) == {8000: 2, 8001: 2, 8002: 2}


def test_none_healthy_is_a_503_and_passes_with_time() -> None:
    clock = Clock()
    balancer = LoadBalancer(addresses(2), clock=clock, retry_after="10s")
    for server in balancer.servers:
        balancer.mark_down(server)
    with pytest.raises(NoHealthyServerError, match=r"127\.0\.0\.1:8001") as error:
        balancer.get_server()
    assert error.value.to_problem()["status"] == 503
    assert "1970-01-01T00:00:10Z" in error.value.hint
    clock.time = 10_000_000
    assert balancer.get_server().port == 8000


@given(st.integers(1, 6), st.sets(st.integers(0, 5)), st.integers(1, 40))
def test_shares_are_even(n: int, down: set[int], requests: int) -> None:
    balancer = LoadBalancer(addresses(n))
    for i in down & set(range(n)):
        balancer.mark_down(addresses(n)[i])
    up = [s.port for s in balancer.healthy()]
    if not up:
        with pytest.raises(NoHealthyServerError):
            balancer.get_server()
        return
    counts = Counter(balancer.get_server().port for _ in range(requests))
    assert set(counts) <= set(up)
    assert max(counts.values()) - min(counts.get(port, 0) for port in up) <= 1


def test_threads_share_it() -> None:
    balancer, counts, lock = LoadBalancer(addresses(4)), Counter[int](), threading.Lock()

    def work() -> None:
        mine = Counter(balancer.get_server().port for _ in range(1000))
        with lock:
            counts.update(mine)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(counts.values()) == {1000}


def test_health_check_marks_up_and_down() -> None:
    with (
        answering(say(b"HTTP/1.1 200 OK\r\n\r\n")) as well,
        answering(say(b"HTTP/1.1 503 Service Unavailable\r\n\r\n")) as ill,
        answering(say(b"\xff\x00nonsense\r\n")) as foreign,
        answering(say(b"")) as mute,
        answering(say(b"x" * 200_000)) as endless,
        socket.create_server(("127.0.0.1", 0)) as silent,  # the kernel accepts, nobody answers
        socket.socket() as closed,
    ):
        closed.bind(("127.0.0.1", 0))
        ports = [well, ill, foreign, mute, endless, silent.getsockname()[1], closed.getsockname()[1]]
        balancer = LoadBalancer([f"127.0.0.1:{port}" for port in ports])
        balancer.mark_down(f"127.0.0.1:{well}")
        result = balancer.health_check(timeout=0.3)
    assert result == {f"127.0.0.1:{port}": port == well for port in ports}
    assert [s.port for s in balancer.healthy()] == [well]


def test_health_check_works_inside_an_event_loop() -> None:
    async def notebook() -> dict[str, bool]:
        return LoadBalancer(["127.0.0.1:1"]).health_check(timeout=0.2)

    assert asyncio.run(notebook()) == {"127.0.0.1:1": False}


def test_unknown_policy_lists_the_allowed() -> None:
    with pytest.raises(ConfigError, match="did you mean 'round_robin'") as error:
        LoadBalancer(addresses(1), policy="round-robin")
    assert error.value.field == "policy"


@pytest.mark.parametrize(
    "address", ["", "localhost", "host:0", "host:99999", "host:x", "https://h:1", "http://h:1/path", "[::1", 8000, None]
)
def test_wrong_addresses_are_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="host:port"):
        LoadBalancer([address])


def test_wrong_lists_are_refused() -> None:
    for servers in ([], "127.0.0.1:80", ["a:1", "http://a:1"]):
        with pytest.raises(ConfigError):
            LoadBalancer(servers)
    with pytest.raises(ConfigError, match="not one of the servers"):
        LoadBalancer(["a:1"]).mark_down("b:1")


def test_ipv6_address() -> None:
    assert Server.of("http://[::1]:8001/") == Server("::1", 8001)
    assert Server("::1", 8001).url == "http://[::1]:8001"
