"""Traces: a span for an answered request, sent to an OpenTelemetry collector (OTLP over HTTP).

A request whose caller traces it says so in its header `traceparent` (W3C Trace Context), and noria's span becomes a
child of the caller's. A span is made after its answer has gone out, and sent by a thread, from a bounded queue: nobody
waits for a collector, and what a dead one doesn't take is dropped and counted.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Sequence
from random import Random
from typing import Any, Protocol, cast

from noria.core import MissingExtraError, Settings
from noria.telemetry.logs import MLLogger
from noria.telemetry.metrics import MetricsCollector

MAX_WAITING = 2_048
"""Spans that wait to be sent; further ones are dropped."""

_AT_ONCE = 256
_EVERY_SECONDS = 1.0
_LONGEST_PARENT = 512
_LONGEST_VALUE = 1_024
_METHODS = frozenset(("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"))
_SDK_LOG = "opentelemetry"


class Answered(Protocol):
    """What a span tells of a request.

    Attributes:
        route: the known path that it came in by, or `other`.
        started: seconds of the monotonic clock.
        servable: the loaded model version that was asked (it has `model` and `version`), if any.
        variant: of the deployment that it took part in, or empty.
    """

    method: bytes
    path: bytes
    route: str
    headers: dict[bytes, bytes]
    started: float
    request_id: bytes
    servable: Any
    variant: str


class RequestTracer:
    """Makes spans and has them sent. `record` is called in one thread.

    Headers that the collector wants, certificates and time limits come from the variables `OTEL_EXPORTER_OTLP_…`, and
    what else shall be known of the service from `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES`.

    Args:
        url: of the collector, such as `http://127.0.0.1:4318`; spans go to `/v1/traces` below it.
        share: of the requests without a parent that are traced, from 0 to 1; the others are as their parent says.
        server: a name for this process.
        metrics: where spans that were sent and dropped are counted.
        logger: takes what the exporter complains of, which otherwise goes the way of all Python logging.
        random: decides which requests are the share.

    Raises:
        MissingExtraError: OpenTelemetry is not installed.
    """

    def __init__(
        self,
        url: str,
        share: float = 0.0,
        *,
        server: str = "server",
        metrics: MetricsCollector | None = None,
        logger: MLLogger | None = None,
        random: Random | None = None,
    ) -> None:
        try:
            from opentelemetry.context import Context
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.trace import SpanLimits, TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.sdk.trace.sampling import ALWAYS_ON
            from opentelemetry.trace import SpanKind, StatusCode, get_current_span
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError as error:
            raise MissingExtraError("the OpenTelemetry SDK", "otel", "telemetry.otlp") from error
        self._share = share
        self._chance = (random or Random()).random
        self._complaints = _Forward(logger) if logger is not None else None
        self._exporter = _Counted(OTLPSpanExporter(endpoint=_traces(url)), metrics or MetricsCollector())
        self._processor = BatchSpanProcessor(cast(Any, self._exporter), MAX_WAITING, 1000 * _EVERY_SECONDS, _AT_ONCE)
        limits = SpanLimits(max_attribute_length=_LONGEST_VALUE)
        provider = TracerProvider(ALWAYS_ON, _resource(server), shutdown_on_exit=False, span_limits=limits)
        provider.add_span_processor(self._processor)
        self._start = provider.get_tracer("noria").start_span
        self._kind, self._failed = SpanKind.SERVER, StatusCode.ERROR
        self._extract, self._span_of = TraceContextTextMapPropagator().extract, get_current_span
        self._root: Any = Context()  # not the one of the thread

    @staticmethod
    def of(settings: Settings, server: str, metrics: MetricsCollector, logger: MLLogger) -> RequestTracer | None:
        """The tracer that a project's settings ask for, if they ask for one."""
        asked = settings.telemetry
        if not asked.otlp:
            return None
        return RequestTracer(asked.otlp, asked.trace_share, server=server, metrics=metrics, logger=logger)

    def record(self, request: Answered, status: int) -> None:
        """Make the span of a request that has just been answered, if it is to be traced."""
        context, traced = self._parent(request.headers.get(b"traceparent"))
        if not traced or not self._exporter.has_room():
            return
        now, seconds = time.time_ns(), time.monotonic() - request.started
        name, attributes = _described(request, status)
        span = self._start(name, context, self._kind, attributes, start_time=now - round(seconds * 1e9))
        if span.is_recording():  # it isn't where OTEL_SDK_DISABLED is set
            if status >= 500:
                span.set_status(self._failed)
            self._exporter.made += 1
            span.end(now)

    def close(self, seconds: float = 2.0) -> None:
        """Send what waits, for so long at most, and stop; what a dead collector has not taken by then is dropped."""
        ending = threading.Thread(target=self._processor.shutdown, name="noria-traces-end", daemon=True)
        ending.start()
        ending.join(seconds)
        if ending.is_alive():
            self._exporter.shutdown()
        if self._complaints is not None:
            self._complaints.close()

    def _parent(self, given: bytes | None) -> tuple[Any, bool]:
        """The caller's context, and whether to trace. A header that is no proper one counts as none, by the spec."""
        if given and len(given) <= _LONGEST_PARENT:
            context = self._extract({"traceparent": given.decode("latin-1")})
            caller = self._span_of(context).get_span_context()
            if caller.is_valid:
                return context, caller.trace_flags.sampled
        return self._root, self._chance() < self._share


class _Counted:
    """An exporter that counts, and knows how many spans are on their way to it.

    Attributes:
        made: how many spans were given to the processor; counted by the thread that records.
    """

    def __init__(self, exporter: Any, metrics: MetricsCollector) -> None:
        self._exporter = exporter
        self._sent = metrics.counter("noria_spans_sent", "Spans that the collector has taken.")
        self._lost = metrics.counter("noria_spans_dropped", "Spans that found the queue full, or no collector.")
        self._taken = 0
        self._ended = False
        self.made = 0

    def has_room(self) -> bool:
        """Whether one more may wait; if not, it counts as dropped."""
        if self.made - self._taken < MAX_WAITING:
            return True
        self._lost.inc()
        return False

    def export(self, spans: Sequence[Any]) -> Any:
        """Send, in the processor's thread."""
        self._taken += len(spans)
        result = self._exporter.export(spans)
        (self._sent if result.name == "SUCCESS" else self._lost).inc(len(spans))
        return result

    def shutdown(self) -> None:
        """Stop, also what is being tried again."""
        if not self._ended:
            self._ended = True
            self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nothing is held back here."""
        return True


class _Forward(logging.Handler):
    """What OpenTelemetry logs goes to the server's own log, which rotates, instead of to standard error."""

    def __init__(self, logger: MLLogger) -> None:
        super().__init__(logging.WARNING)
        self._logger = logger
        self._origin = logging.getLogger(_SDK_LOG)
        self._origin.addHandler(self)
        self._origin.propagate = False

    def emit(self, record: logging.LogRecord) -> None:
        self._logger.log("traces", level=record.levelname.lower(), message=record.getMessage())

    def close(self) -> None:
        self._origin.removeHandler(self)
        self._origin.propagate = True
        super().close()


def _described(request: Answered, status: int) -> tuple[str, dict[str, Any]]:
    """A span's name and attributes, by OpenTelemetry's conventions for HTTP servers; ours begin with `noria.`."""
    method = request.method.decode("latin-1")
    known = method in _METHODS
    found: dict[str, Any] = {
        "http.request.method": method if known else "_OTHER",
        "url.path": request.path.decode("utf-8", "replace"),
        "url.scheme": "http",
        "http.response.status_code": status,
        "noria.request_id": request.request_id.decode("latin-1"),
    }
    name = method if known else "HTTP"
    if method and not known:
        found["http.request.method_original"] = method
    if request.route != "other":
        found["http.route"] = request.route
        name = f"{name} {request.route}"
    if status >= 500:
        found["error.type"] = str(status)
    if request.servable is not None:
        found["noria.model"], found["noria.version"] = request.servable.model, request.servable.version
    if request.variant:
        found["noria.variant"] = request.variant
    return name, found


def _resource(server: str) -> Any:
    """Who sends the spans: `noria`, unless the environment says another name."""
    from opentelemetry.sdk.resources import Resource

    found = Resource.create({"noria.server": server})
    named = "OTEL_SERVICE_NAME" in os.environ or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    return found if named else found.merge(Resource({"service.name": "noria"}))


def _traces(url: str) -> str:
    """Where a collector takes spans.

    >>> _traces("http://127.0.0.1:4318/")
    'http://127.0.0.1:4318/v1/traces'
    """
    url = url.rstrip("/")
    return url if url.endswith("/v1/traces") else f"{url}/v1/traces"
