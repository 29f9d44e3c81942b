"""What goes back to clients: answers and errors, counted; a few of them logged."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from noria.core import NoriaError, RequestError
from noria.serving.exchange import Exchange, Reply
from noria.telemetry import MetricsCollector, MLLogger, RequestTracer
from noria.telemetry.metrics import SECONDS_BUCKETS, Counter, Histogram

PROBLEM = b"application/problem+json"

_METHODS = frozenset((b"DELETE", b"GET", b"HEAD", b"OPTIONS", b"PATCH", b"POST", b"PUT", b""))


class OverloadedError(RequestError):
    """More is asked for than can be answered in time."""

    def __init__(self, message: str, *, seconds: float) -> None:
        super().__init__(message, status=503, hint="try again after the seconds in Retry-After, or add servers")
        self.retry_after = max(1, min(60, round(seconds + 0.5)))


class Replies:
    """Sends a server's replies.

    Args:
        metrics: where they are counted.
        logger: where errors are logged, and every request if `access_log`.
        access_log: whether to log every request; it costs a third of the requests a second.
        tracer: makes spans of them.
    """

    def __init__(
        self,
        metrics: MetricsCollector,
        logger: MLLogger | None,
        *,
        access_log: bool = False,
        tracer: RequestTracer | None = None,
    ) -> None:
        self._metrics = metrics
        self._logger = logger
        self._access_log = logger if access_log else None
        self._tracer = tracer
        self._counted: dict[tuple[bytes, str, int], tuple[Counter, Histogram]] = {}

    def send(self, exchange: Exchange, status: int, reply: Reply) -> None:
        """Answer."""
        if exchange.answer is None:
            if exchange.counts:
                self._count(exchange, status)
            exchange.respond(status, *reply)
            if self._tracer is not None and exchange.counts:
                self._tracer.record(exchange, status)

    def fail(self, exchange: Exchange, error: BaseException) -> None:
        """Answer with an error; one that isn't the user's is logged with its traceback and told without details."""
        if exchange.answer is not None:
            return
        if isinstance(error, NoriaError):
            told = error
        else:
            self.log_error(error, exchange)
            told = RequestError("the server failed to answer this request", status=500, hint="see the server's log")
        explain = exchange.explain or _problem(exchange)
        body, kind, extra = explain(told, exchange.request_id)
        if told.status == 401:
            extra += b"www-authenticate: Bearer\r\n"
        elif told.status in (429, 503):
            extra += b"retry-after: %d\r\n" % getattr(told, "retry_after", 1)
        elif allow := getattr(told, "allowed", ""):
            extra += b"allow: %b\r\n" % allow.encode()
        self.send(exchange, told.status, (body, kind, extra))

    def log_error(self, error: BaseException, exchange: Exchange) -> None:
        """Write an error down with the request that met it."""
        if self._logger is not None:
            trace = exchange.headers.get(b"traceparent", b"").decode("latin-1")
            more = {"traceparent": trace} if trace else {}
            self._logger.log_error(error, request_id=exchange.request_id.decode(), **more)

    def _count(self, exchange: Exchange, status: int) -> None:
        seconds = time.monotonic() - exchange.started
        found = self._counted.get((exchange.method, exchange.route, status))
        if found is None:
            method = (exchange.method.decode() or "-") if exchange.method in _METHODS else "_OTHER"
            labels = {"method": method, "path": exchange.route, "code": str(status)}
            found = self._counted[exchange.method, exchange.route, status] = (
                self._metrics.counter("noria_http_requests", "Answered HTTP requests.", **labels),
                self._metrics.histogram(
                    "noria_http_request_duration_seconds", "From request to answer.", SECONDS_BUCKETS, **labels
                ),
            )
        found[0].inc()
        found[1].observe(seconds)
        if self._access_log is not None:
            self._access_log.log(
                "access",
                method=exchange.method.decode("latin-1"),
                path=exchange.path.decode("utf-8", "replace"),
                status=status,
                seconds=seconds,
                request_id=exchange.request_id.decode(),
                variant=exchange.variant,
            )


def _problem(exchange: Exchange) -> Any:
    """Tells an error as a problem document (RFC 9457)."""

    def explain(error: NoriaError, request_id: bytes) -> Reply:
        problem: dict[str, Any] = {**error.to_problem(), "request_id": request_id.decode()}
        if exchange.path:
            problem["instance"] = exchange.path.decode("utf-8", "replace")
        return msgspec.json.encode(problem), PROBLEM, b""

    return explain
