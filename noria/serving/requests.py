"""What is checked of every request before it is answered: its method, its key, the kind of its body."""

from __future__ import annotations

import hmac
from collections.abc import Sequence

from noria.core import RequestError
from noria.serving.keys import digest
from noria.serving.protocol import Exchange


class MethodNotAllowedError(RequestError):
    """The path doesn't know this method."""

    def __init__(self, method: bytes, allowed: str) -> None:
        super().__init__(f"{method.decode('latin-1')} is not allowed here", status=405, hint=f"use {allowed}")
        self.allowed = allowed


def check_key(exchange: Exchange, digests: Sequence[str]) -> None:
    """Refuse whoever brings none of the keys with these digests.

    Raises:
        RequestError: status 401.
    """
    given = exchange.headers.get(b"x-api-key") or _bearer(exchange.headers.get(b"authorization", b""))
    found = digest(given.decode("latin-1"))
    # Every key is compared, in constant time, so that the time says nothing about them.
    if not sum(hmac.compare_digest(found, key) for key in digests):
        raise RequestError("a valid API key is needed", status=401, hint="send it as: Authorization: Bearer KEY")


def check_body(exchange: Exchange) -> None:
    """Refuse a body that is empty, or says that it isn't JSON; curl says `x-www-form-urlencoded` of everything.

    Raises:
        RequestError: status 400 or 415.
    """
    kind = exchange.headers.get(b"content-type", b"application/json")
    if kind != b"application/json":
        kind = kind.split(b";")[0].strip().lower()
        if kind not in (b"application/json", b"application/x-www-form-urlencoded", b"") and not kind.endswith(b"+json"):
            raise RequestError(
                f"the body is {kind.decode('latin-1')!r}", status=415, hint="send JSON: Content-Type: application/json"
            )
    if not exchange.body:
        raise RequestError("the body is empty", hint="see /openapi.json")


def timeout_of(exchange: Exchange) -> float:
    """Seconds in which the client wants its answer: the header `X-Request-Timeout`, as in `0.25` or `250ms`.

    Raises:
        RequestError: it is none.
    """
    text = exchange.headers[b"x-request-timeout"].strip().lower()
    number, unit = (text[:-2], 0.001) if text.endswith(b"ms") else (text.removesuffix(b"s"), 1.0)
    try:
        seconds = float(number) * unit
    except ValueError:
        seconds = -1.0
    if not 0.0 < seconds <= 3600.0:
        raise RequestError(
            f"X-Request-Timeout is {text[:50].decode('latin-1')!r}",
            hint="write seconds, as in 0.25, or milliseconds, as in 250ms; at most an hour",
            field="X-Request-Timeout",
        )
    return seconds


def _bearer(authorization: bytes) -> bytes:
    scheme, _, key = authorization.partition(b" ")
    return key.strip() if scheme.lower() == b"bearer" else b""
