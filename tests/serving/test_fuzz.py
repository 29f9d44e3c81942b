"""Bytes at random: how they are cut into packets changes no answer, and no connection is left open without one."""

from __future__ import annotations

import contextlib
import re
import socket
import time
from collections.abc import Iterator

import pytest
from doubler import Doubler
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_server import answers

from noria.serving import Limits, ModelServer

SLOW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
LONG = settings(SLOW, max_examples=3000)
SECONDS = Limits(max_body_bytes=1000, read_seconds=1.0, idle_seconds=1.0)

REFUSALS = (400, 413, 431, 505)
BODIES = [b'{"x": 2.5}', b'{"x": 1, "do": "crash"}', b'{"x": 1, "do": "refuse"}', b"{", b'{"y": 1}', b'{"x": "\xff"}']


def posted(body: bytes, extra: bytes) -> bytes:
    return b"POST /predict HTTP/1.1\r\nHost: a\r\n%bContent-Length: %d\r\n\r\n%b" % (extra, len(body), body)


def chunked(body: bytes, size: int) -> bytes:
    parts = [body[start : start + size] for start in range(0, len(body), size)]
    return (
        b"POST /predict HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"".join(b"%x;a=b\r\n%b\r\n" % (len(part), part) for part in parts)
        + b"0\r\nTrailer: x\r\n\r\n"
    )


EXTRAS = st.sampled_from(
    [b"", b"X-Request-Id: mine\r\n", b"Expect: 100-continue\r\n", b"Upgrade: h2c\r\n", b"X: " + b"a" * 3000 + b"\r\n"]
)
REQUESTS = st.one_of(
    st.builds(posted, st.sampled_from(BODIES), EXTRAS),
    st.builds(chunked, st.sampled_from(BODIES), st.integers(1, 12)),
    st.sampled_from(
        [
            b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /nothing?a=b HTTP/1.1\r\nHost: a\r\n\r\n",
            b"PUT http://a/predict HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
            b"\r\n\r\n",
        ]
    ),
)
STREAMS = st.lists(REQUESTS, min_size=1, max_size=6).map(b"".join)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A stream of requests in which some bytes were changed, left out, doubled or put in."""
    data = bytearray(draw(STREAMS))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        end = min(len(data), at + draw(st.integers(0, 8)))
        put = draw(
            st.binary(max_size=4)
            | st.sampled_from([b"\r\n", b"\n", b"\r", b"\0", b":", b" ", b"\t", b"0", b";", bytes(data[at:end]) * 2])
        )
        data[at:end] = put
    return bytes(data)


@st.composite
def packets(draw: st.DrawFn, streams: st.SearchStrategy[bytes]) -> tuple[bytes, list[int]]:
    data = draw(streams)
    return data, sorted(draw(st.sets(st.integers(1, max(1, len(data) - 1)), max_size=8)))


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[str, int]]:
    with ModelServer([Doubler()], limits=SECONDS).running() as url:
        host, _, port = url[7:].partition(":")
        yield host, int(port)


def ask(address: tuple[str, int], packets: list[bytes]) -> tuple[bytes, bool]:
    """What is received until the server closes; and whether it did so within the limits of its patience."""
    received, began = b"", time.monotonic()
    with socket.create_connection(address, timeout=8) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            for packet in packets:
                connection.sendall(packet)
                if len(packets) > 1:
                    time.sleep(0.001)
            connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(1 << 16):
                received += part
        except ConnectionError:  # it was refused while more was being sent
            pass
        except TimeoutError:
            return received, False
    return received, time.monotonic() - began < 8


def told(received: bytes) -> list[tuple[int, bytes]]:
    """Statuses and bodies, but for what is new with each request."""
    return [(status, re.sub(rb'"request_id":"[^"]*"', b"", body)) for status, body in answers(received)]


def cut(data: bytes, places: list[int]) -> list[bytes]:
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True) if a < b]


def check_cut(address: tuple[str, int], stream: tuple[bytes, list[int]]) -> None:
    data, places = stream
    whole, in_time = ask(address, [data])
    parts, parts_in_time = ask(address, cut(data, places))
    assert in_time
    assert parts_in_time
    wanted, found = told(whole), told(parts)
    if any(status in REFUSALS for status, _ in wanted):
        # Of two faults either may be the one that is told; and it may be lost where more is sent after it.
        same = [one if one[0] not in REFUSALS else "refused" for one in wanted]
        assert [one if one[0] not in REFUSALS else "refused" for one in found] == same[: len(found)]
    else:
        assert found == wanted


@SLOW
@given(packets(STREAMS))
def test_answers_do_not_depend_on_how_requests_are_cut(
    address: tuple[str, int], stream: tuple[bytes, list[int]]
) -> None:
    data, places = stream
    whole, in_time = ask(address, [data])
    assert in_time
    assert told(ask(address, cut(data, places))[0]) == told(whole)


@SLOW
@given(packets(mutated()))
def test_mutated_requests_get_the_same_answers_however_they_are_cut(
    address: tuple[str, int], stream: tuple[bytes, list[int]]
) -> None:
    check_cut(address, stream)


def check_random(address: tuple[str, int], data: bytes) -> None:
    received, in_time = ask(address, [data])
    assert in_time
    statuses = [status for status, _ in answers(received)]
    assert all(status in (200, 400, 404, 405, 409, 413, 415, 422, 431, 500, 505) for status in statuses)
    assert [status for status, _ in answers(ask(address, [posted(BODIES[0], b"")])[0])] == [200]


@SLOW
@given(st.binary(max_size=400) | mutated())
def test_random_bytes_are_answered_or_closed(address: tuple[str, int], data: bytes) -> None:
    check_random(address, data)


def test_a_connection_that_stays_open_is_closed_by_the_server(address: tuple[str, int]) -> None:
    good = posted(BODIES[0], b"")
    with contextlib.ExitStack() as stack:
        connections = []
        for data in (
            b"",
            b"\r\n",
            b"P",
            good[:-1],
            good,
            b"nonsense",
            chunked(BODIES[0], 3)[:-1],
            good + b"P",
            good * 200,
        ):
            connections.append(stack.enter_context(socket.create_connection(address, timeout=8)))
            connections[-1].sendall(data)
        for connection in connections:
            while connection.recv(1 << 16):
                pass


@pytest.mark.soak
@LONG
@given(packets(mutated() | STREAMS))
def test_cuts_for_long(address: tuple[str, int], stream: tuple[bytes, list[int]]) -> None:
    check_cut(address, stream)


@pytest.mark.soak
@LONG
@given(st.binary(max_size=2000) | mutated())
def test_random_bytes_for_long(address: tuple[str, int], data: bytes) -> None:
    check_random(address, data)
