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
from noria.serving.exchange import Exchange

MAX_HEAD = 32_768
"""Bytes that a request's line and headers may have."""
MAX_PIPELINED = 64
"""Unanswered requests of one connection; then it isn't read from, and what came already waits for its turn."""

_KEPT = frozenset(
    (
        b"accept", b"authorization", b"content-encoding", b"content-type", b"inference-header-content-length",
        b"traceparent", b"x-api-key", b"x-entity-id", b"x-request-id", b"x-request-timeout",
    )
)  # fmt: skip
_LOWER = {
    spelled.encode(): spelled.lower().encode()
    for spelled in ("Host", "Content-Type", "Content-Length", "Accept", "Authorization", "User-Agent", "Connection")
}
_PLAIN: set[bytes] = set()
"""Targets that are nothing but a path: a few, to be looked at only once."""
_MAX_PLAIN = 256
_HOST = re.compile(rb"([A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Za-z:.]+\])(:[0-9]*)?")  # RFC 9112, section 3.2


@dataclass(frozen=True)
class Limits:
    """What a connection may ask for.

    Attributes:
        max_body_bytes: a larger body gets status 413.
        read_seconds: a request that is still incomplete after this gets status 408.
        idle_seconds: a connection without any request is closed after this.
        max_wait_seconds: a request that would wait longer than this for its turn gets status 503.
    """

    max_body_bytes: int = 1_048_576
    read_seconds: float = 15.0
    idle_seconds: float = 75.0
    max_wait_seconds: float = 1.0


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
    """A connection. httptools calls the `on_…` methods.

    Complete requests are admitted to the handler while fewer than `MAX_PIPELINED` are unanswered and the client reads
    its answers; the others are held, and nothing more is read, so that no client can make the server hoard.
    """

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._limits = handler.limits
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: deque[Exchange] = deque()
        self._held: deque[tuple[Exchange, RequestError | None]] = deque()
        self._admitting = False
        self._unread = False  # the client doesn't read its answers
        self._paused = False
        self._closing = False
        self._refused = False
        self._at_end = False
        self._draining = False
        self._unsent = 0
        self._known_host = b""
        self._reset()
        self.since = time.monotonic()  # when the connection began to wait for what it is waiting for

    def _reset(self) -> None:
        self._in_request = False
        self._head = 0
        self._fruitless = 0
        self._in_head = True
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._expects = self._has_host = self._has_body = False
        self._parts: list[bytes] = []
        self._size = 0

    @property
    def connected(self) -> bool:
        """Whether the client is still there, as far as is known."""
        return self._transport is not None and not self._at_end

    # --- what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._handler.connections.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._waiting.clear()
        self._held.clear()
        self._handler.connections.discard(self)

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        self._fruitless += len(data)
        try:
            self._feed(data)
            if self._fruitless > MAX_HEAD:  # one header, or one chunk's line, that doesn't end
                raise self._long_head()
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            self._refuse(cause if isinstance(cause, RequestError) else RequestError("the request can't be read"))
        except httptools.HttpParserError as error:
            self._refuse(RequestError(f"not a proper HTTP request: {error}"))
        except RequestError as error:
            self._refuse(error)

    def _feed(self, data: bytes) -> None:
        while True:
            try:
                return self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as offer:  # to speak another protocol: declined by going on in this one
                data = data[offer.args[0] :]

    def pause_writing(self) -> None:
        self._unread = True
        self._pause_or_resume()

    def resume_writing(self) -> None:
        self._unread = False
        self._admit_held()

    def eof_received(self) -> bool:
        # The client has sent all that it will: answer what is still open, then close.
        self._closing = self._at_end = True
        return bool(self._waiting or self._held)

    # --- what the parser calls

    def on_message_begin(self) -> None:
        self._in_request = True
        self.since = time.monotonic()

    def on_url(self, url: bytes) -> None:
        self._url = self._url + url if self._url else url
        self._head += len(url)
        if self._head > MAX_HEAD:
            raise self._long_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head += len(name) + len(value) + 4
        if self._head > MAX_HEAD:
            raise self._long_head()
        if not self._in_head:  # a trailer
            return
        name = _LOWER.get(name) or name.lower()
        if name in _KEPT:
            # Of several, no traceparent counts (W3C Trace Context).
            self._headers[name] = b"" if name == b"traceparent" and name in self._headers else value
        elif name == b"host":
            self._check_host(value)
        elif name == b"content-length":
            length = int(value)
            if length > self._limits.max_body_bytes:
                raise self._too_large()
            self._has_body = length > 0
        elif name == b"expect":
            self._expects = value.lower() == b"100-continue" and self._parser.get_http_version() != "1.0"
        elif name == b"transfer-encoding":
            if value.strip().lower() != b"chunked" or self._parser.get_http_version() == "1.0":
                raise RequestError(f"the transfer encoding {value[:50].decode('latin-1')!r} is not supported here")
            self._has_body = True

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._fruitless = 0
        version = self._parser.get_http_version()
        if version == "1.1":
            if not self._has_host:
                raise RequestError("the header Host is missing", hint="HTTP/1.1 demands it, if only an empty one")
        elif version != "1.0":
            raise RequestError(f"HTTP/{version} is not spoken here", status=505, hint="speak HTTP/1.1")
        if self._expects:
            self._invite_body()

    def on_body(self, part: bytes) -> None:
        self._fruitless = 0
        self._size += len(part)
        if self._size > self._limits.max_body_bytes:
            raise self._too_large()
        self._parts.append(part)

    def on_message_complete(self) -> None:
        method = self._parser.get_method()
        if method == b"CONNECT":
            raise RequestError("this server is no proxy: it makes no tunnels")
        if self._has_body and self._parser.should_upgrade():  # httptools would take the body for the next request
            raise RequestError("this server speaks HTTP/1.1 only", hint="send no Upgrade header with a body")
        url = self._url
        path = url if url in _PLAIN else _path(url)
        exchange = Exchange(self, method, path, self._headers)
        exchange.body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        exchange.keep_alive = self._parser.should_keep_alive() and not self._draining
        self._closing = not exchange.keep_alive
        self.since = exchange.started
        self._reset()
        self._admit(exchange)

    # --- what the server calls

    def flush(self) -> None:
        """Send the answers that are ready and have no unanswered request before them."""
        waiting = self._waiting
        if len(waiting) == 1 and waiting[0].keep_alive and not (self._held or self._paused or self._closing):
            exchange = waiting[0]  # as nearly always
            if exchange.answer is not None and self._transport is not None and not self._expects:
                waiting.clear()
                self._transport.write(exchange.answer)
                return
        ready = []
        while self._waiting and self._waiting[0].answer is not None:
            exchange = self._waiting.popleft()
            ready.append(exchange.answer or b"")
            if not exchange.keep_alive:
                self._closing = True
                self._waiting.clear()
                self._held.clear()
        if ready and not (self._waiting or self._in_request):
            self.since = time.monotonic()  # an answer that took long has not been idleness
        if ready and self._transport is not None:
            self._transport.write(ready[0] if len(ready) == 1 else b"".join(ready))
            if self._closing and not self._waiting and not self._held:
                self._finish()
            elif self._held or self._paused or self._expects:
                self._admit_held()

    def check_time(self, now: float) -> None:
        """Close the connection if it has kept the server waiting for too long."""
        if self._transport is None:
            return
        unsent = self._transport.get_write_buffer_size()
        if unsent != self._unsent:  # it reads, however slowly
            self._unsent, self.since = unsent, now
        waited = now - self.since
        if unsent or self._closing:
            if waited > (self._limits.idle_seconds if unsent or self._waiting else self._limits.read_seconds):
                self._transport.abort()
        elif self._in_request and not self._paused and waited > self._limits.read_seconds:
            self._refuse(RequestError(f"the request was not complete after {waited:.0f} s", status=408))
        elif not self._in_request and not self._waiting and waited > self._limits.idle_seconds:
            self.close()

    def drain(self) -> bool:
        """Answer what is open and then close; true when nothing is open any more."""
        self._draining = True
        if self._held:
            self._held[-1][0].keep_alive = False
        elif self._waiting:
            self._waiting[-1].keep_alive = False
        elif not self._in_request:
            self.close()
        return self._transport is None

    def close(self) -> None:
        """Close as soon as what was answered has been sent."""
        self._closing = True
        if self._transport is not None:
            self._transport.close()

    # --- its own

    def _admit(self, exchange: Exchange, error: RequestError | None = None) -> None:
        """Give a request to the handler, or hold it until there is room."""
        if self._held or self._unread or len(self._waiting) >= MAX_PIPELINED:
            self._held.append((exchange, error))
            self._pause_or_resume()
            return
        self._waiting.append(exchange)
        if error is None:
            self._handler.handle(exchange)
        else:
            self._handler.refuse(exchange, error)

    def _admit_held(self) -> None:
        if self._admitting:  # an answer given at once comes back here: the loop below goes on
            return
        self._admitting = True
        try:
            while self._held and not self._is_full():
                exchange, error = self._held.popleft()
                self._waiting.append(exchange)
                if error is None:
                    self._handler.handle(exchange)
                else:
                    self._handler.refuse(exchange, error)
        finally:
            self._admitting = False
        if self._expects and not self._in_head:
            self._invite_body()
        self._pause_or_resume()

    def _is_full(self) -> bool:
        return self._unread or len(self._waiting) >= MAX_PIPELINED

    def _pause_or_resume(self) -> None:
        paused = bool(self._held) or self._is_full()
        if self._transport is None or paused == self._paused or self._closing:
            return
        self._paused = paused
        if paused:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()
            self.since = time.monotonic()  # what was not read until now is not late

    def _invite_body(self) -> None:
        """Tell a client that waits for it to send the body, once the answers before it are out."""
        if self._transport is not None and not self._waiting and not self._held:
            self._expects = False
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _check_host(self, value: bytes) -> None:
        """Refuse a second Host, or one that is none: who stands in front may have read another (RFC 9112, 3.2)."""
        if self._has_host or (value != self._known_host and not _HOST.fullmatch(value)):
            raise RequestError(f"the header Host is wrong: {value[:50].decode('latin-1')!r}", hint="send one, once")
        self._has_host, self._known_host = True, value

    def _long_head(self) -> RequestError:
        return RequestError(f"the request's headers are longer than {MAX_HEAD} bytes", status=431)

    def _too_large(self) -> RequestError:
        return RequestError(
            f"the body is larger than {self._limits.max_body_bytes} bytes",
            status=413,
            hint="send fewer rows at a time, or raise serve.max_body_bytes",
        )

    def _refuse(self, error: RequestError) -> None:
        self._refused = True
        if self._closing:  # what follows a last request is no request
            return
        self._closing = True
        exchange = Exchange(self, b"", b"", {})
        exchange.keep_alive = False
        self.since = exchange.started
        self._reset()
        self._admit(exchange, error)

    def _finish(self) -> None:
        """Close; after a refusal only the sending half, since closing on unread bytes would destroy the answer."""
        if self._transport is None:
            return
        if self._refused and self._transport.can_write_eof():
            if self._paused:
                self._transport.resume_reading()  # to throw it away until the client has closed its half
            self._transport.write_eof()
        else:
            self._transport.close()


def _path(url: bytes) -> bytes:
    """The path of a request's target.

    Raises:
        RequestError: it can't be read.
    """
    if url.startswith(b"/") and b"?" not in url and b"#" not in url:
        if len(_PLAIN) < _MAX_PLAIN and len(url) < 100:
            _PLAIN.add(url)
        return url
    if b"#" in url:
        raise RequestError(
            "the URL has a fragment", hint="a fragment is the client's own affair: send what is before #"
        )
    try:
        return httptools.parse_url(url).path or b"/"
    except httptools.HttpParserInvalidURLError as error:
        raise RequestError("the URL can't be read") from error
