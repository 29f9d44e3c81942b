"""One request and, later, its answer: what the parts of a server hand to each other."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable
from typing import Any, Protocol

from noria.core import NoriaError

_REASONS = {
    200: b"OK", 202: b"Accepted", 400: b"Bad Request", 401: b"Unauthorized", 403: b"Forbidden", 404: b"Not Found",
    405: b"Method Not Allowed",
    408: b"Request Timeout", 409: b"Conflict", 413: b"Content Too Large", 415: b"Unsupported Media Type",
    422: b"Unprocessable Content", 429: b"Too Many Requests", 431: b"Request Header Fields Too Large",
    500: b"Internal Server Error", 503: b"Service Unavailable", 504: b"Gateway Timeout",
    505: b"HTTP Version Not Supported",
}  # fmt: skip
_STARTS = {
    (status, kind): b"HTTP/1.1 %d %b\r\ncontent-type: %b\r\ncontent-length: " % (status, reason, kind)
    for status, reason in _REASONS.items()
    for kind in (b"application/json", b"application/problem+json")
}
_OK = _STARTS[200, b"application/json"]
_ID = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")


class Connection(Protocol):
    """Where an exchange came in."""

    @property
    def connected(self) -> bool:
        """Whether the client is still there, as far as is known."""
        ...

    def flush(self) -> None:
        """Send the answers that are ready and have no unanswered request before them."""
        ...


class Exchange:
    """One request and, later, its answer.

    Attributes:
        route: the known path that it came in by, for metrics.
        deadline: on the clock of `started`; nobody waits for an answer after it.
        make, write: how another protocol's body becomes a servable's request, and its answer a body (see `Door`).
        explain: how another protocol tells an error.
        servable: who was asked, if a model was.
        trial, variant: the deployment that it takes part in, and who answers.
        twin: the variant for whose sake the control answers it apart from its other requests.
        entity: for whom it is, where a deployment has to know.
    """

    # Not __slots__: a request sets few of these, and what it doesn't set costs it nothing.
    answer: bytes | None = None
    body = b""
    deadline = math.inf
    entity = ""
    explain: Explain | None = None
    keep_alive = True
    make: Callable[[Any], Any] | None = None
    route = "other"
    servable: Any = None
    trial: Any = None
    twin = ""
    variant = ""
    write: Write | None = None
    counts = True
    """Whether it is one of the requests that metrics tell."""

    def __init__(self, protocol: Connection, method: bytes, path: bytes, headers: dict[bytes, bytes]) -> None:
        self._protocol = protocol
        self.method = method
        self.path = path
        self.headers = headers
        self.started = time.monotonic()
        given = headers.get(b"x-request-id", b"")
        self.request_id = given if given and _ID.fullmatch(given) else b""

    @property
    def awaited(self) -> bool:
        """Whether somebody still waits for the answer.

        Who has closed the sending half of its connection before its turn came is taken to be gone, as by nginx.
        """
        return self.answer is None and self._protocol.connected

    def abandon(self) -> None:
        """Give up answering somebody who is gone."""
        if self.answer is None:
            self.keep_alive = False
            self.respond(499, b"")

    def respond(self, status: int, body: bytes, kind: bytes = b"application/json", extra: bytes = b"") -> None:
        """Answer, once; the bytes go out when all earlier requests of the connection have been answered."""
        if self.answer is not None:
            return
        start = _OK if status == 200 and kind == b"application/json" else _STARTS.get((status, kind))
        start = start or b"HTTP/1.1 %d %b\r\ncontent-type: %b\r\ncontent-length: " % (
            status,
            _REASONS.get(status, b"Error"),
            kind,
        )
        if not self.keep_alive:
            extra += b"connection: close\r\n"
        sent = b"" if self.method == b"HEAD" else body
        self.answer = b"%b%d\r\nx-request-id: %b\r\n%b\r\n%b" % (start, len(body), self.request_id, extra, sent)
        self._protocol.flush()


Reply = tuple[bytes, bytes, bytes]
"""A body, its content type, and further header lines, each ended by CRLF."""
Write = Callable[[Any, Any], Reply]
"""Makes the reply out of the servable that answered, and its answer."""
Explain = Callable[[NoriaError, bytes], Reply]
"""Makes the reply that tells an error, out of the error and the request's id."""
