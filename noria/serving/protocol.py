"""One HTTP/1.1 connection: an asyncio protocol around the parser llhttp (httptools).

Requests are given to a handler as they are complete; answers go out in the order of the requests, whenever they are
ready. What can't be a request is refused with a problem document, and the connection closed: after a broken message
nobody knows where the next one begins. HAProxy stands in front for TLS, HTTP/2 and slow clients.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from dataclasses import dataclass
from typing import Protocol, cast

import httptools

from noria.core import RequestError

MAX_HEAD = 32_768
"""Bytes that a request's line and headers may have."""
MAX_PIPELINED = 64
"""Unanswered requests of one connection; then it isn't read from until some are answered."""

_REASONS = {
    200: b"OK", 400: b"Bad Request", 401: b"Unauthorized", 404: b"Not Found", 405: b"Method Not Allowed",
    408: b"Request Timeout", 409: b"Conflict", 413: b"Content Too Large", 415: b"Unsupported Media Type",
    422: b"Unprocessable Content", 431: b"Request Header Fields Too Large", 500: b"Internal Server Error",
    503: b"Service Unavailable",
}  # fmt: skip
_KEPT = frozenset((b"content-type", b"authorization", b"x-api-key", b"x-request-id", b"accept"))
_ID = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")


@dataclass(frozen=True)
class Limits:
    """What a connection may ask for.

    Attributes:
        max_body_bytes: a larger body gets status 413.
        read_seconds: a request that is still incomplete after this gets status 408.
        idle_seconds: a connection without any request is closed after this.
    """

    max_body_bytes: int = 1_048_576
    read_seconds: float = 15.0
    idle_seconds: float = 75.0


class Exchange:
    """One request and, later, its answer."""

    __slots__ = ("_protocol", "answer", "body", "headers", "keep_alive", "method", "path", "request_id", "started")

    def __init__(self, protocol: HttpProtocol, method: bytes, path: bytes, headers: dict[bytes, bytes]) -> None:
        self._protocol = protocol
        self.method = method
        self.path = path
        self.headers = headers
        self.body = b""
        self.keep_alive = True
        self.started = time.perf_counter()
        self.answer: bytes | None = None
        given = headers.get(b"x-request-id", b"")
        self.request_id = given if given and _ID.fullmatch(given) else b""

    def respond(self, status: int, body: bytes, kind: bytes = b"application/json", extra: bytes = b"") -> None:
        """Answer; the bytes go out when all earlier requests of the connection have been answered."""
        close = b"" if self.keep_alive else b"connection: close\r\n"
        self.answer = b"HTTP/1.1 %d %b\r\ncontent-type: %b\r\ncontent-length: %d\r\nx-request-id: %b\r\n%b%b\r\n%b" % (
            status,
            _REASONS.get(status, b"Error"),
            kind,
            len(body),
            self.request_id,
            extra,
            close,
            b"" if self.method == b"HEAD" else body,
        )
        self._protocol.flush()


class Handler(Protocol):
    """Who answers requests."""

    limits: Limits
    connections: set[HttpProtocol]

    def handle(self, exchange: Exchange) -> None:
        """A complete request has arrived; call `exchange.respond`, now or later."""
        ...

    def refuse(self, exchange: Exchange, error: RequestError) -> None:
        """What arrived is no proper request; answer with the error."""
        ...


class HttpProtocol(asyncio.Protocol):
    """A connection. httptools calls the `on_…` methods."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._limits = handler.limits
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: deque[Exchange] = deque()
        self._paused = False
        self._closing = False
        self._reset()
        self.since = time.monotonic()  # when the connection began to wait for what it is waiting for

    def _reset(self) -> None:
        self._in_request = False
        self._head = 0
        self._in_head = True
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._length = -1
        self._expects = False
        self._parts: list[bytes] = []
        self._size = 0

    # --- what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._handler.connections.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._waiting.clear()
        self._handler.connections.discard(self)

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        try:
            if self._in_head:
                self._count_head(data)
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            self._refuse(cause if isinstance(cause, RequestError) else RequestError("the request can't be read"))
        except httptools.HttpParserError as error:
            self._refuse(RequestError(f"not a proper HTTP request: {error}"))
        except RequestError as error:
            self._refuse(error)

    def pause_writing(self) -> None:
        self._pause(paused=True)

    def resume_writing(self) -> None:
        self._pause(paused=len(self._waiting) >= MAX_PIPELINED)

    def eof_received(self) -> bool:
        # The client has sent all that it will: answer what is still open, then close.
        self._closing = True
        return bool(self._waiting)

    # --- what the parser calls

    def on_message_begin(self) -> None:
        self._in_request = True
        self.since = time.monotonic()

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name in _KEPT:
            self._headers[name] = value
        elif name == b"content-length":
            self._check_length(value)
        elif name == b"expect":
            self._expects = value.lower() == b"100-continue"
        elif name == b"transfer-encoding" and value.strip().lower() != b"chunked":
            raise RequestError(f"the transfer encoding {value[:50].decode('latin-1')!r} is not supported", status=400)

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self._expects and self._transport is not None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, part: bytes) -> None:
        self._size += len(part)
        if self._size > self._limits.max_body_bytes:
            raise self._too_large()
        self._parts.append(part)

    def on_message_complete(self) -> None:
        if self._parser.should_upgrade():
            raise RequestError("this server speaks HTTP/1.1 only", hint="send no Upgrade header")
        exchange = self._exchange()
        exchange.body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        exchange.keep_alive = self._parser.should_keep_alive()
        self._closing = not exchange.keep_alive
        self._reset()
        self.since = time.monotonic()
        self._waiting.append(exchange)
        if len(self._waiting) >= MAX_PIPELINED:
            self._pause(paused=True)
        self._handler.handle(exchange)

    # --- what the server calls

    def flush(self) -> None:
        """Send the answers that are ready and have no unanswered request before them."""
        ready = []
        while self._waiting and self._waiting[0].answer is not None:
            exchange = self._waiting.popleft()
            ready.append(exchange.answer or b"")
            if not exchange.keep_alive:
                self._closing = True
                self._waiting.clear()
        if ready and self._transport is not None:
            self._transport.write(ready[0] if len(ready) == 1 else b"".join(ready))
            if self._closing and not self._waiting:
                self._transport.close()
            elif self._paused and len(self._waiting) < MAX_PIPELINED:
                self._pause(paused=False)

    def check_time(self, now: float) -> None:
        """Close the connection if it has kept the server waiting for too long."""
        waited = now - self.since
        if self._in_request and waited > self._limits.read_seconds:
            self._refuse(RequestError(f"the request was not complete after {waited:.0f} s", status=408))
        elif not self._in_request and not self._waiting and waited > self._limits.idle_seconds:
            self.close()

    def drain(self) -> bool:
        """Answer what is open and then close; true when nothing is open any more."""
        for exchange in self._waiting:
            exchange.keep_alive = False
        if not self._waiting and not self._in_request:
            self.close()
        return self._transport is None

    def close(self) -> None:
        """Close now."""
        self._closing = True
        if self._transport is not None:
            self._transport.close()

    # --- its own

    def _exchange(self) -> Exchange:
        try:
            method, path = self._parser.get_method(), httptools.parse_url(self._url).path or b"/"
        except httptools.HttpParserInvalidURLError as error:
            raise RequestError("the URL can't be read") from error
        return Exchange(self, method, path, self._headers)

    def _count_head(self, data: bytes) -> None:
        # An upper bound: the first bytes of a body may be in here, so only what comes without an end is counted.
        if b"\r\n\r\n" not in data:
            self._head += len(data)
        if self._head > MAX_HEAD or (self._head == 0 and data.find(b"\r\n\r\n") > MAX_HEAD):
            raise RequestError(f"the request's headers are longer than {MAX_HEAD} bytes", status=431)

    def _check_length(self, value: bytes) -> None:
        if not value.isdigit() or (self._length >= 0 and int(value) != self._length):
            raise RequestError("the Content-Length is not one whole number", status=400)
        self._length = int(value)
        if self._length > self._limits.max_body_bytes:
            raise self._too_large()

    def _too_large(self) -> RequestError:
        return RequestError(
            f"the body is larger than {self._limits.max_body_bytes} bytes",
            status=413,
            hint="send fewer rows at a time, or raise serve.max_body_bytes",
        )

    def _pause(self, *, paused: bool) -> None:
        if self._transport is not None and paused != self._paused and not self._closing:
            self._paused = paused
            (self._transport.pause_reading if paused else self._transport.resume_reading)()

    def _refuse(self, error: RequestError) -> None:
        self._closing = True
        exchange = Exchange(self, b"", b"", {})
        exchange.keep_alive = False
        self._reset()
        self._waiting.append(exchange)
        self._handler.refuse(exchange, error)
