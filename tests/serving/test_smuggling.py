"""Request smuggling: what can be read in two ways is refused, or read in the one way that RFC 9112 allows.

The same bytes go to a server alone and through HAProxy. A server writes down what it took for requests: that has to be
as many as HAProxy passed on, and never what was hidden in a body.
"""

from __future__ import annotations

import re
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from noria.gateway import Supervisor

BODY = b'{"x": 2.5}'
HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n"
NEXT = b"GET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
CHUNKED = b"a\r\n" + BODY + b"\r\n0\r\n\r\n"
REPLICA = str(Path(__file__).with_name("recording_replica.py"))


def post(*lines: bytes, body: bytes = BODY, start: bytes = b"POST /predict HTTP/1.1") -> bytes:
    return b"\r\n".join([start, b"Host: a", *lines, b"", body])


def get(*lines: bytes, start: bytes = b"GET / HTTP/1.1", host: bytes = b"Host: a\r\n") -> bytes:
    return start + b"\r\n" + host + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def chunks(body: bytes) -> bytes:
    return post(b"Transfer-Encoding: chunked", body=body)


LENGTH = b"Content-Length: 10"
FINE = [
    post(LENGTH),
    post(b"content-length:10"),
    post(b"Content-Length: \t10 "),
    post(b"Content-Length: 00000000000000000000000010"),
    post(b"Transfer-Encoding: chunked", body=CHUNKED),
    post(b"Transfer-Encoding:\tcHuNkEd ", body=CHUNKED),
    post(b"Connection: transfer-encoding", b"Transfer-Encoding: chunked", body=CHUNKED),
    post(b"Connection: content-length", LENGTH),
    chunks(CHUNKED.replace(b"a\r\n", b"000A\r\n")),
    chunks(CHUNKED.replace(b"a\r\n", b"a;name=value\r\n")),
    chunks(CHUNKED.replace(b"a\r\n", b'a;name="quo\\"ted;"\r\n')),
    chunks(CHUNKED.replace(b"0\r\n", b"000;x\r\nTrailer: y\r\n")),
    chunks(b"1\r\n" + BODY[:1] + b"\r\n9\r\n" + BODY[1:] + b"\r\n0\r\n\r\n"),
    post(LENGTH, start=b"POST http://a/predict HTTP/1.1"),
    post(LENGTH, start=b"POST /predict?a=b HTTP/1.1"),
    post(LENGTH, b"Upgrade: h2c"),  # without `Connection: upgrade` it means nothing
    get(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"),
    get(
        b"Connection: Upgrade",
        b"Upgrade: websocket",
        b"Sec-WebSocket-Version: 13",
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ),
    get(b"X: \xff\xe2"),
    get(start=b"OPTIONS * HTTP/1.1"),
    get(start=b"GET http://a HTTP/1.1"),
    get(start=b"GET //a/../ HTTP/1.1"),
    get(host=b"Host:\r\n"),
    get(host=b"Host: [::1]:80\r\n"),
    get(LENGTH) + BODY,
    get(LENGTH, start=b"HEAD / HTTP/1.1") + BODY,
    get(b"Transfer-Encoding: chunked") + CHUNKED,
    b"\r\n\r\n" + get(),
]
ENCODINGS = [
    b"xchunked", b"chunked, identity", b"identity, chunked", b"identity", b"chunked, chunked", b"\x0bchunked", b"chunked\x0c",
    b'"chunked"', b"chunk", b"chunked,", b",chunked", b"chunked;q=1", b"chunked\x00", b"x\r\nTransfer-Encoding: chunked",
    b"chunked\r\nTransfer-Encoding: x", b"chunked\r\nTransfer-Encoding: chunked", b"\xe2chunked", b"gzip, chunked",
    b"x\nTransfer-Encoding: chunked", b"", b"chunked\r\n folded", b"\r\n chunked", b"\r\n\tchunked", b"chunked\r", b"chunked\n",
    b"trailers", b"ch\xc3\xbcnked",
]  # fmt: skip
LENGTHS = [
    b"+10", b"-10", b"-0", b"0x0a", b"1e1", b"10,10", b"10, 11", b"10 10", b"10;10", b"10.0", b"1_0", b"", b" ", b"\xb2", b"a", b"10\x00",
    b"\x0b10", b"10\x0c", b"10\r\nContent-Length: 10", b"10\r\nContent-Length: 11", b"0\r\nContent-Length: 10", b"10\r\n 0",
    b"9223372036854775808", b"18446744073709551616", b"18446744073709551626", b"9" * 5000, b"\xd9\xa1\xd9\xa0",
]  # fmt: skip
NAMES = [
    b"Transfer-Encoding : chunked", b"Transfer-Encoding\t: chunked", b" Transfer-Encoding: chunked", b"Transfer-Encoding\n: chunked",
    b"Transfer\x00-Encoding: chunked", b"X: x\nTransfer-Encoding: chunked", b"X: x\rTransfer-Encoding: chunked",
    b"X\r\n Transfer-Encoding: chunked", b"X: x\r\n Transfer-Encoding: chunked", b"\x0bTransfer-Encoding: chunked",
]  # fmt: skip
BAD_CHUNKS = [
    b"0xa\r\n" + BODY, b"+a\r\n" + BODY, b"-a\r\n" + BODY, b" a\r\n" + BODY, b"a;x\n" + BODY, b"a;x\ry\r\n" + BODY, b"a\n" + BODY,
    b"a\r" + BODY, b"a;x\x00\r\n" + BODY, b"\r\n" + BODY, b"g\r\n" + BODY, b"10000000000000000a\r\n" + BODY, b"a\r\n" + BODY + b"\n0\r\n\r\n",
    b"a\r\n" + BODY + b"0\r\n\r\n", b"a\r\n" + BODY + b"XX0\r\n\r\n", b"a\r\n" + BODY + b"!\r\n0\r\n\r\n", b"a\r\n" + BODY + b"\r\n0\n\n",
    b"a\r\n" + BODY + b"\r\n0\r\n\n", b"a\r\n" + BODY + b"\r\n0\r\nno colon\r\n\r\n", b"a\r\n" + BODY + b"\r\n0\r\nX: y\r\n" + HIDDEN,
    b"a\r\n" + BODY + b"\r\n0\r\nX: y\n\r\n",
]  # fmt: skip
REFUSED = [
    *(post(b"Transfer-Encoding: " + value, body=CHUNKED) for value in ENCODINGS),
    *(post(b"Content-Length: %d" % len(CHUNKED), b"Transfer-Encoding: " + value, body=CHUNKED) for value in ENCODINGS),
    *(post(b"Content-Length: " + value) for value in LENGTHS),
    *(post(name, body=CHUNKED) for name in NAMES),
    *(post(b"Content-Length: %d" % len(CHUNKED), name, body=CHUNKED) for name in NAMES),
    *(post(name + b": 10") for name in (b"Content-Length ", b" Content-Length", b"Content-Length\x0b", b"Content\x00-Length")),
    *map(chunks, BAD_CHUNKS),
    post(b"Content-Length: 6", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n" + HIDDEN),  # CL.TE
    post(b"Transfer-Encoding: chunked", b"Content-Length: 4", body=b"%x\r\n%b\r\n0\r\n\r\n" % (len(HIDDEN), HIDDEN)),  # TE.CL
    post(b"Transfer-Encoding: chunked", start=b"POST /predict HTTP/1.0", body=CHUNKED),
    post(b"Connection: keep-alive", b"Content-Length: 10", b"Transfer-Encoding: chunked", start=b"POST /predict HTTP/1.0", body=CHUNKED),
    post(b"Connection: Upgrade", b"Upgrade: h2c", b"Content-Length: %d" % len(HIDDEN), body=HIDDEN),
    post(LENGTH).replace(b"\r\n", b"\n"),
    get(b"X: a\r\n folded"), get(b" X: a"), get(b": x"), get(b"no colon"), get(b"X: a\x00b"), get(b"X\x00: a"), get(b"X\xff: a"),
    get(b"X: a\x01b"), get(b"X: a\x7fb"), get(b"X(: a"), get(b"X: a\nY: b"), get(b"X: a\rY: b"), get(b"X: a\r"),
    get(host=b""), get(host=b"Host: a\r\nHost: b\r\n"), get(host=b"Host: a\r\nHost: a\r\n"), get(host=b"Host: a b\r\n"),
    get(host=b"Host: a/b\r\n"), get(host=b"Host: u@a\r\n"), get(host=b"Host: a:x\r\n"), get(host=b"Host: a, b\r\n"),
    get(start=b"GET /\x00 HTTP/1.1"), get(start=b"GET /\xff HTTP/1.1"), get(start=b"GET / HTTP/1.1 "), get(start=b"GET /a b HTTP/1.1"),
    get(start=b" GET / HTTP/1.1"), get(start=b"GET\t/\tHTTP/1.1"), get(start=b"get / HTTP/1.1"), get(start=b"GETT / HTTP/1.1"),
    get(start=b"GET / HTTP/2.0"), get(start=b"GET / HTTP/1.2"), get(start=b"GET / HTTP/1.01"), get(start=b"GET / HTTP/0.9"), get(start=b"GET /"),
    get(start=b"GET / http/1.1"), get(start=b"GET http:// HTTP/1.1"), get(start=b"GET a:80 HTTP/1.1"), get(start=b"CONNECT a:80 HTTP/1.1"),
    get(start=b"CONNECT / HTTP/1.1"), get(start=b"GET predict HTTP/1.1"), get(start=b"GET ?a HTTP/1.1"), get(start=b"GET /#a HTTP/1.1"),
    get().replace(b"\r\n", b"\n"), get().replace(b"HTTP/1.1\r\n", b"HTTP/1.1\n"), get()[:-2] + b"\n", get()[:-2] + b"\r\r\n",
]  # fmt: skip


class Backend(NamedTuple):
    direct: tuple[str, int]
    proxy: tuple[str, int]
    seen: Path

    def send(self, address: tuple[str, int], data: bytes) -> tuple[list[int], int, list[bytes], bool]:
        """All statuses, how many are noria's own, what the server took for requests, and whether it was closed."""
        self.seen.write_bytes(b"")
        received, closed = b"", True
        with socket.create_connection(address, timeout=10) as connection:
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(data)
            connection.settimeout(0.3)
            try:
                while part := connection.recv(1 << 16):
                    received += part
            except TimeoutError:
                closed = False
            except ConnectionResetError:
                pass
        statuses = [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", received) if status != b"100"]
        return statuses, received.lower().count(b"\r\nx-request-id: "), self.seen.read_bytes().splitlines(), closed


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    folder = tmp_path_factory.mktemp("smuggling")
    seen = folder / "seen"

    def command(index: int, port: int) -> list[str]:
        return [sys.executable, REPLICA, str(port), str(seen)]

    with Supervisor(command, 1, port=0, run_dir=folder / "run") as supervisor:
        (replica,) = supervisor.status()
        direct, proxy = ((h, int(p)) for h, p in (a.split(":") for a in (replica.address, supervisor.url[7:])))
        yield Backend(direct, proxy, seen)


@pytest.mark.parametrize("data", FINE)
def test_what_rfc_9112_allows_is_read_in_one_way(backend: Backend, data: bytes) -> None:
    for address in (backend.direct, backend.proxy):
        statuses, ours, seen, closed = backend.send(address, data + NEXT)
        assert len(statuses) == ours == len(seen) == 2
        assert statuses[0] in (200, 404)
        assert seen[1].startswith(b"GET /next ")
        assert closed
        if data.startswith(b"POST"):
            assert seen[0] == b"POST /predict " + BODY.hex().encode()


def test_what_can_be_read_in_two_ways_is_refused_and_the_connection_closed(backend: Backend) -> None:
    for data in REFUSED:
        statuses, ours, seen, closed = backend.send(backend.direct, data + HIDDEN + NEXT)
        assert (len(statuses), ours, len(seen), closed) == (1, 1, 1, True), (data, statuses, seen)
        assert statuses[0] in (400, 413, 505), (data, statuses)
        assert seen[0].startswith(b"refused "), (data, seen)


def test_behind_the_balancer_a_server_sees_as_many_requests_as_were_passed_on(backend: Backend) -> None:
    for data in REFUSED:
        _, ours, seen, _ = backend.send(backend.proxy, data + NEXT)
        assert ours == len(seen), (data, seen)
        assert not any(b"/hidden" in line for line in seen), data
    statuses, _, seen, _ = backend.send(backend.proxy, post(LENGTH) + NEXT)
    assert (statuses, len(seen)) == ([200, 404], 2)  # nothing is left over on the connections that HAProxy keeps


def test_what_is_hidden_in_a_body_stays_there(backend: Backend) -> None:
    prefix = b"POST /predict HTTP/1.1\r\nContent-Length: 100\r\n\r\n"
    for address in (backend.direct, backend.proxy):
        for data in (
            post(b"Content-Length: %d" % len(HIDDEN), body=HIDDEN),
            chunks(b"%x\r\n%b\r\n0\r\n\r\n" % (len(HIDDEN), HIDDEN)),
            chunks(b"%x\r\n%b\r\n0\r\n\r\n" % (len(prefix), prefix)),
        ):
            statuses, ours, seen, _ = backend.send(address, data + NEXT)
            assert (statuses, ours) == ([400, 404], 2)
            assert [line.split()[1] for line in seen] == [b"/predict", b"/next"]


@pytest.mark.parametrize("last", [b"Connection: close", b"connection: keep-alive, CLOSE"])
def test_what_follows_a_last_request_is_no_request(backend: Backend, last: bytes) -> None:
    statuses, _, seen, closed = backend.send(backend.direct, post(LENGTH, last) + HIDDEN + b"nonsense\r\n\r\n")
    assert (statuses, len(seen), closed) == ([200], 1, True)
