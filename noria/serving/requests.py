"""What is checked of every request before it is answered: its method, how many there are, the kind of its body."""

from __future__ import annotations

import math

from noria.core import RequestError
from noria.serving.exchange import Exchange


class MethodNotAllowedError(RequestError):
    """The path doesn't know this method."""

    def __init__(self, method: bytes, allowed: str) -> None:
        super().__init__(f"{method.decode('latin-1')} is not allowed here", status=405, hint=f"use {allowed}")
        self.allowed = allowed


class TooManyRequestsError(RequestError):
    """More requests came than the API key is good for.

    Attributes:
        retry_after: whole seconds until the next one may come.
    """

    def __init__(self, wait: float) -> None:
        self.retry_after = max(1, math.ceil(wait))
        super().__init__("this API key's rate is used up", status=429, hint=f"ask again in {self.retry_after} s")


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
                f"the body is {kind.decode('latin-1')!r}",
                status=415,
                hint="send JSON: Content-Type: application/json; a prediction's rows may be an Arrow stream too",
            )
    coding = exchange.headers.get(b"content-encoding", b"").strip().lower()
    if coding not in (b"", b"identity"):
        raise RequestError(
            f"the body is compressed ({coding[:50].decode('latin-1')})", status=415, hint="send it as it is"
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
