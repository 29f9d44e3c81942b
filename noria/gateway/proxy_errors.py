"""The errors that HAProxy answers itself: problem documents (RFC 9457), and gRPC's statuses.

Source of the statuses: github.com/grpc/grpc, `doc/http-grpc-status-mapping.md` and `doc/PROTOCOL-HTTP2.md`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

_ERRORS = {
    400: ("Bad request", "the request isn't valid HTTP, or its headers are too long"),
    403: ("Forbidden", "the gateway refuses this request"),
    408: ("Request timeout", "the request took too long to arrive"),
    500: ("Internal error", "the gateway failed"),
    502: ("Bad gateway", "the server ended the connection before it had answered"),
    503: ("Service unavailable", "no server is ready; try again in a moment"),
    504: ("Gateway timeout", "the server took too long to answer"),
}
_INVALID_ARGUMENT, _DEADLINE_EXCEEDED, _PERMISSION_DENIED, _INTERNAL, _UNAVAILABLE = 3, 4, 7, 13, 14
_STATUSES = {
    400: _INVALID_ARGUMENT,
    403: _PERMISSION_DENIED,
    408: _DEADLINE_EXCEEDED,
    500: _INTERNAL,
    504: _DEADLINE_EXCEEDED,
}
NO_SERVER = (_UNAVAILABLE, _ERRORS[503][1])
"""The status and the message when no server is ready."""


def as_problems() -> Sequence[str]:
    """HAProxy's lines for the errors of HTTP."""
    return [_problem(status, title, detail) for status, (title, detail) in _ERRORS.items()]


def as_grpc() -> Sequence[str]:
    """HAProxy's lines for the errors of gRPC: they say it in the headers alone (a *trailers-only* answer)."""
    return [_grpc_error(status, detail) for status, (_, detail) in _ERRORS.items()]


def _problem(status: int, title: str, detail: str) -> str:
    code = "unavailable" if status == 503 else title.lower().replace(" ", "-")
    problem = json.dumps({"type": f"urn:noria:{code}", "title": title, "status": status, "detail": detail})
    text = problem.replace("'", "\\u0027")
    retry = " hdr retry-after 1" if status == 503 else ""
    return f"http-error status {status} content-type application/problem+json string '{text}'{retry}"


def _grpc_error(status: int, detail: str) -> str:
    message = detail.replace("'", "%%27")  # gRPC's escape, of which HAProxy takes the first %
    return (
        f"http-error status {status} hdr grpc-status {_STATUSES.get(status, _UNAVAILABLE)} hdr grpc-message '{message}'"
    )
