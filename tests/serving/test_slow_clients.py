"""Slow and bad clients: they cost little, are got rid of, and those beside them notice nothing."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from doubler import Doubler

from noria.gateway import ProxyOptions, Supervisor
from noria.serving import Limits, ModelServer

REPLICA = str(Path(__file__).with_name("recording_replica.py"))
LIMITS = Limits(max_body_bytes=100_000, read_seconds=1.0, idle_seconds=1.5)
GOOD = b'POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n{"x": 2.5}'

Address = tuple[str, int]


@pytest.fixture(scope="module")
def address() -> Iterator[Address]:
    with ModelServer([Doubler()], limits=LIMITS).running() as url:
        host, _, port = url[7:].partition(":")
        yield host, int(port)


@contextlib.contextmanager
def balanced(folder: Path, **options: float) -> Iterator[tuple[Address, int]]:
    """The address of a balancer with one replica, and the replica's process."""

    def command(index: int, port: int) -> list[str]:
        return [sys.executable, REPLICA, str(port), str(folder / "seen")]

    given = ProxyOptions(**options)  # type: ignore[arg-type]
    with Supervisor(command, 1, port=0, run_dir=folder / "run", options=given) as supervisor:
        host, _, port = supervisor.url[7:].partition(":")
        (replica,) = supervisor.status()
        assert replica.pid
        yield (host, int(port)), replica.pid


def memory(pid: int) -> int:
    """Bytes of a process's own memory."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return 1024 * int(re.search(r"Pss_Anon: +(\d+)", text)[1])  # type: ignore[index]


def predict(address: Address, times: int = 20) -> None:
    with httpx.Client(base_url=f"http://{address[0]}:{address[1]}", timeout=10) as client:
        for x in range(times):
            assert client.post("/predict", json={"x": x}).json()["value"] == 2 * x


def received(connection: socket.socket) -> bytes:
    found = b""
    with contextlib.suppress(ConnectionError):
        while part := connection.recv(1 << 16):
            found += part
    return found


def trickle(connection: socket.socket, data: bytes, pause: float) -> None:
    with contextlib.suppress(OSError):
        for byte in data:
            connection.sendall(bytes([byte]))
            time.sleep(pause)


def test_who_sends_a_byte_now_and_then_is_told_that_it_takes_too_long(address: Address) -> None:
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(socket.create_connection(address, timeout=10)) for _ in range(30)]
        whole_headers_body = (GOOD, GOOD[:20], GOOD[:-10] + b"{")
        threads = [
            threading.Thread(target=trickle, args=(one, whole_headers_body[number % 3], 0.3))
            for number, one in enumerate(slow)
        ]
        for thread in threads:
            thread.start()
        predict(address)
        assert all(received(one).startswith(b"HTTP/1.1 408 ") for one in slow)
        for one in slow:
            one.close()
        for thread in threads:
            thread.join(10)


def test_behind_the_balancer_slow_clients_never_reach_a_server(tmp_path: Path) -> None:
    with balanced(tmp_path, request_timeout=1.0) as (proxy, _), contextlib.ExitStack() as stack:
        slow = [stack.enter_context(socket.create_connection(proxy, timeout=10)) for _ in range(20)]
        threads = [threading.Thread(target=trickle, args=(one, GOOD, 0.3)) for one in slow]
        for thread in threads:
            thread.start()
        predict(proxy)
        assert all(received(one).startswith(b"HTTP/1.1 408 ") for one in slow)
        for thread in threads:
            thread.join(10)
        assert len((tmp_path / "seen").read_bytes().splitlines()) == 20


def test_who_reads_slowly_gets_everything_and_who_does_not_read_is_dropped(address: Address) -> None:
    body = b'{"x": 1, "do": "large"}'
    large = b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    with contextlib.ExitStack() as stack:
        slow, deaf = (stack.enter_context(socket.socket()) for _ in range(2))
        for one in (slow, deaf):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
            one.settimeout(10)
            one.connect(address)
            one.sendall(large)
        count, began = 0, time.monotonic()
        while count < 5_000_000 and time.monotonic() - began < 2 * LIMITS.idle_seconds:  # longer than any limit
            count += len(slow.recv(1 << 15))
            time.sleep(0.02)
        predict(address)
        while count < 5_000_000:
            count += len(slow.recv(1 << 20))
        time.sleep(1.2)
        assert len(received(deaf)) < 5_000_000  # it was dropped, with the rest of the answer unsent


def test_half_open_connections_and_floods_of_resets_do_no_harm(address: Address) -> None:
    now = struct.pack("ii", 1, 0)
    for number in range(600):
        connection = socket.create_connection(address, timeout=10)
        with contextlib.suppress(OSError):
            connection.sendall((b"", GOOD, GOOD * 50, GOOD[:30], b"\x16\x03\x01nonsense")[number % 5])
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, now)  # close with a reset
        connection.close()
    with socket.create_connection(address, timeout=10) as half:
        half.sendall(GOOD)
        half.shutdown(socket.SHUT_WR)
        assert received(half).startswith(b"HTTP/1.1 200 ")
    predict(address)


def test_who_sends_a_gigabyte_is_refused_early_and_memory_stays_flat(tmp_path: Path) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: a\r\n"
    piece = b" " * (1 << 16)
    with balanced(tmp_path) as (proxy, pid):
        host, _, port = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[2:5]
        predict(proxy)
        before = memory(pid)
        for where in (proxy, ("127.0.0.1", int(next(part for part in (host, port) if part.isdigit())))):
            for framing, start in (
                (b"Content-Length: 1000000000", b""),
                (b"Transfer-Encoding: chunked", b"3b9aca00\r\n"),
            ):
                sent = 0
                with socket.create_connection(where, timeout=10) as connection, contextlib.suppress(OSError):
                    connection.sendall(head + framing + b"\r\n\r\n" + start)
                    connection.settimeout(0.001)
                    answer = b""
                    while sent < 1_000_000_000 and not answer:
                        with contextlib.suppress(TimeoutError):
                            sent += connection.send(piece)
                        with contextlib.suppress(TimeoutError):
                            answer = connection.recv(1 << 16)
                    assert b" 413 " in answer.partition(b"\r\n")[0]
                assert sent < 30_000_000
        assert memory(pid) - before < 20_000_000
        predict(proxy)


def crowd(tmp_path: Path, count: int) -> None:
    """Idle connections through the balancer, and a normal client beside them."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(count, hard // 4 - 300)  # HAProxy wants four descriptors for each
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        with balanced(tmp_path, max_connections=count + 100) as (proxy, pid), contextlib.ExitStack() as stack:
            predict(proxy)
            used = memory(pid)
            for number in range(count):
                one = stack.enter_context(socket.create_connection(proxy, timeout=10))
                if number % 10 == 0:  # these have asked before, and keep their connection
                    one.sendall(GOOD)
                    assert one.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
            began = time.monotonic()
            predict(proxy, 200)
            print(f"{count} idle connections; a request beside them took {5 * (time.monotonic() - began):.2f} ms")
            assert memory(pid) - used < 20_000_000
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_thousand_idle_connections_disturb_nobody(tmp_path: Path) -> None:
    crowd(tmp_path, 1000)


@pytest.mark.soak
def test_ten_thousand_idle_connections_disturb_nobody(tmp_path: Path) -> None:
    crowd(tmp_path, 10_000)


def test_who_sends_and_never_reads_is_not_read_from_any_more(address: Address) -> None:
    before = memory(os.getpid())
    with contextlib.ExitStack() as stack:
        sent = []
        for _ in range(5):
            one = stack.enter_context(socket.create_connection(address, timeout=0.2))
            count = 0
            with contextlib.suppress(OSError):
                while count < 50_000_000:
                    count += one.send(GOOD * 200)
            sent.append(count)
        assert max(sent) < 50_000_000
        predict(address)
        assert memory(os.getpid()) - before < 60_000_000
