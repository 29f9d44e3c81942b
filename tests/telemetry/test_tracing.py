from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest
from doubler import Ask, Doubler, exchange
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from noria.core import MissingExtraError, Settings, TelemetrySettings
from noria.gateway import Supervisor
from noria.registry import Deployment, Variant
from noria.serving import ModelServer
from noria.serving.exchange import Exchange
from noria.storage import Workspace
from noria.telemetry import MetricsCollector, MLLogger, RequestTracer
from noria.telemetry.tracing import MAX_WAITING

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = f"00-{TRACE}-{CALLER}-01"
UNSAMPLED = f"00-{TRACE}-{CALLER}-00"


class Collector:
    """Takes OTLP over HTTP, as OpenTelemetry's own would."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.status = 200
        self.spans: list[Span] = []
        self.resources: list[dict[str, Any]] = []

    def take(self, path: str, body: bytes) -> None:
        assert path == "/v1/traces"
        for one in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.resources.append(values(one.resource.attributes))
            self.spans += [span for scope in one.scope_spans for span in scope.spans]


def values(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}


@pytest.fixture
def collector() -> Iterator[Collector]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if made.status == 200:
                made.take(self.path, body)
            self.send_response(made.status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made = Collector(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield made
        server.shutdown()
        thread.join()


@contextmanager
def served(tracer: RequestTracer, *servables: Doubler, deployment: Deployment | None = None) -> Iterator[httpx.Client]:
    """A server whose spans have been sent when the block is over."""
    first = servables[0] if servables else Doubler()
    server = ModelServer([first], tracer=tracer)
    if deployment is not None:
        server.deploy("doubler", {one.version: one for one in servables}, 1, deployment)
    with server.running() as url, httpx.Client(base_url=url) as client:
        yield client
    tracer.close(10.0)


def request(**headers: str) -> Exchange:
    made = Exchange(None, b"POST", b"/predict", {k.encode(): v.encode("latin-1") for k, v in headers.items()})  # type: ignore[arg-type]
    made.route = "/predict"
    return made


def count(metrics: MetricsCollector, name: str) -> float:
    line = next(line for line in metrics.exposition().splitlines() if line.startswith(f"{name}_total "))
    return float(line.split()[1])


def eventually(met: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_span_is_the_child_of_the_caller_s(collector: Collector) -> None:
    before = time.time_ns()
    with served(RequestTracer(collector.url, server="server-7")) as client:
        headers = {"traceparent": SAMPLED, "x-request-id": "my-1"}
        answer = client.post("/models/doubler/predict?a=b", json={"x": 2}, headers=headers)
        assert "traceresponse" not in answer.headers  # no part of Trace Context level 2
    (span,) = collector.spans
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, CALLER)
    assert span.span_id.hex() not in (CALLER, "0" * 16)
    assert (span.name, span.kind, span.status.code) == (
        "POST /predict",
        Span.SPAN_KIND_SERVER,
        Status.STATUS_CODE_UNSET,
    )
    assert values(span.attributes) == {
        "http.request.method": "POST",
        "http.route": "/predict",
        "http.response.status_code": 200,
        "url.path": "/models/doubler/predict",
        "url.scheme": "http",
        "noria.model": "doubler",
        "noria.version": 1,
        "noria.request_id": "my-1",
    }
    assert before < span.start_time_unix_nano < span.end_time_unix_nano < time.time_ns()
    (resource,) = collector.resources
    assert (resource["service.name"], resource["noria.server"]) == ("noria", "server-7")


def test_a_caller_that_does_not_trace_is_believed(collector: Collector) -> None:
    with served(RequestTracer(collector.url, 1.0)) as client:
        assert client.post("/predict", json={"x": 2}, headers={"traceparent": UNSAMPLED}).status_code == 200
        assert (
            client.post("/predict", json={"x": 2}, headers={"traceparent": f"00-{TRACE}-{CALLER}-02"}).status_code
            == 200
        )
        client.post("/predict", json={"x": 2}, headers={"traceparent": f"cc-{TRACE}-{CALLER}-03-more"})  # of the future
    assert [span.trace_id.hex() for span in collector.spans] == [TRACE]


@pytest.mark.parametrize(
    "given",
    [
        "",
        "yes",
        f"ff-{TRACE}-{CALLER}-01",
        f"00-{TRACE}-{CALLER}-01-more",
        f"00-{TRACE.upper()}-{CALLER}-01",
        f"00-{'0' * 32}-{CALLER}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{CALLER}",
        f"00-{TRACE}-{CALLER}-1",
        f"00-{TRACE}-{CALLER}-\xff1",
        f"cc-{TRACE}-{CALLER}-01-{'x' * 600}",
    ],
)
def test_a_malformed_parent_counts_as_none(collector: Collector, given: str) -> None:
    for share in (0.0, 1.0):
        tracer = RequestTracer(collector.url, share)
        tracer.record(request(traceparent=given), 200)
        tracer.close(10.0)
    (span,) = collector.spans
    assert span.parent_span_id == b""
    assert span.trace_id.hex() not in (TRACE, "0" * 32)


def test_of_several_parents_none_counts(collector: Collector) -> None:
    tracer = RequestTracer(collector.url)
    with served(tracer) as client:
        url = client.base_url
        body, several = b'{"x": 1}', b"traceparent: %b\r\n" % SAMPLED.encode()
        for times in (1, 2, 3):
            head = b"POST /predict HTTP/1.1\r\nhost: a\r\nconnection: close\r\n%bcontent-length: %d\r\n\r\n" % (
                several * times,
                len(body),
            )
            assert exchange((url.host, url.port or 0), head + body).startswith(b"HTTP/1.1 200")
    assert len(collector.spans) == 1


def test_a_share_of_the_requests_without_a_parent_is_traced(collector: Collector) -> None:
    metrics = MetricsCollector()
    tracer = RequestTracer(collector.url, 0.25, metrics=metrics, random=Random(5))
    for _ in range(1000):
        tracer.record(request(), 200)
    tracer.close(10.0)
    assert 200 < len(collector.spans) < 300
    assert len({span.trace_id for span in collector.spans}) == len(collector.spans)
    assert count(metrics, "noria_spans_sent") == len(collector.spans)
    assert count(metrics, "noria_spans_dropped") == 0


@pytest.mark.parametrize(
    ("method", "path", "body", "name", "status"),
    [
        ("POST", "/predict", '{"x": 1, "do": "crash"}', "POST /predict", 500),
        ("POST", "/predict", '{"x": 1, "do": "refuse"}', "POST /predict", 409),
        ("POST", "/predict", "{", "POST /predict", 400),
        ("GET", "/predict", "", "GET /predict", 405),
        ("GET", "/nowhere/%C3%A4?key=1", "", "GET", 404),
        ("PURGE", "/predict", "", "HTTP /predict", 405),
    ],
)
def test_errors_are_told(collector: Collector, method: str, path: str, body: str, name: str, status: int) -> None:
    with served(RequestTracer(collector.url, 1.0)) as client:
        assert client.request(method, path, content=body).status_code == status
    (span,) = collector.spans
    told = values(span.attributes)
    assert (span.name, told["http.response.status_code"]) == (name, status)
    ours = status >= 500  # a client's mistake is no failure of the server's
    assert span.status.code == (Status.STATUS_CODE_ERROR if ours else Status.STATUS_CODE_UNSET)
    assert told.get("error.type") == ("500" if ours else None)
    assert told.get("http.request.method_original") == ("PURGE" if method == "PURGE" else None)


def test_what_is_no_request_is_told_too_and_probes_are_not(collector: Collector) -> None:
    with served(RequestTracer(collector.url, 1.0)) as client:
        url = client.base_url
        for path in ("/health/ready", "/metrics", "/"):
            assert client.get(path, headers={"traceparent": SAMPLED}).status_code == 200
        assert exchange((url.host, url.port or 0), b"nonsense\r\n\r\n").startswith(b"HTTP/1.1 400")
    (span,) = collector.spans
    assert (span.name, values(span.attributes)["http.request.method"]) == ("HTTP", "_OTHER")


def test_the_variant_that_answered_is_told(collector: Collector) -> None:
    class Canary(Doubler):
        def answer(self, operation: str, requests: Sequence[Ask]) -> Sequence[Any]:
            if any(request.do == "only-here" for request in requests):
                raise ZeroDivisionError("by the canary")
            return super().answer(operation, requests)

    variants = (Variant("canary", 2, 1.0), Variant("champion", 1, 0.0))
    trial = Deployment("doubler", 1, "canary", variants, 0, shadow=1)
    with served(RequestTracer(collector.url, 1.0), Doubler(), Canary(version=2), deployment=trial) as client:
        for do in ("double", "only-here"):
            assert client.post("/predict", json={"x": 2, "do": do}).status_code == 200
    told = [values(span.attributes) for span in collector.spans]
    assert [(one["noria.variant"], one["noria.version"]) for one in told] == [("canary", 2), ("champion", 1)]


def test_nobody_waits_for_a_dead_collector(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    metrics, logger = MetricsCollector(), MLLogger(tmp_path / "server.jsonl")
    tracer = RequestTracer(url, 1.0, metrics=metrics, logger=logger)
    server = ModelServer([Doubler()], tracer=tracer)
    with server.running() as address, httpx.Client(base_url=address) as client:
        for _ in range(5):
            assert client.post("/predict", json={"x": 2}).status_code == 200
    tracer.close(0.5)
    eventually(lambda: count(metrics, "noria_spans_dropped") == 5)
    assert count(metrics, "noria_spans_sent") == 0
    logger.close()
    lines = [json.loads(line) for line in (tmp_path / "server.jsonl").read_text().splitlines()]
    assert {line["event"] for line in lines} == {"traces"}
    assert "Connection refused" in lines[0]["message"]


def test_what_waits_for_a_silent_collector_is_bounded() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        metrics = MetricsCollector()
        tracer = RequestTracer(f"http://127.0.0.1:{silent.getsockname()[1]}", 1.0, metrics=metrics)
        for _ in range(2 * MAX_WAITING):
            tracer.record(request(), 200)
        dropped = count(metrics, "noria_spans_dropped")
        assert MAX_WAITING // 2 < dropped <= MAX_WAITING  # all but the queue, and what is being sent
        tracer.close(0.1)


def test_a_refusal_of_the_collector_is_logged_and_the_next_spans_are_sent(collector: Collector, tmp_path: Path) -> None:
    metrics, logger = MetricsCollector(), MLLogger(tmp_path / "server.jsonl")
    tracer = RequestTracer(collector.url, 1.0, metrics=metrics, logger=logger)
    collector.status = 401
    tracer.record(request(), 200)
    eventually(lambda: count(metrics, "noria_spans_dropped") == 1)
    collector.status = 200
    tracer.record(request(), 200)
    tracer.close(10.0)
    logger.close()
    assert len(collector.spans) == count(metrics, "noria_spans_sent") == 1
    assert "401" in (tmp_path / "server.jsonl").read_text()


def test_settings_switch_it_on(collector: Collector, tmp_path: Path) -> None:
    metrics, logger = MetricsCollector(), MLLogger(tmp_path / "server.jsonl")
    assert RequestTracer.of(Settings(tmp_path), "server-0", metrics, logger) is None
    asked = Settings(tmp_path, telemetry=TelemetrySettings(f"{collector.url}/", 1.0))
    tracer = RequestTracer.of(asked, "server-0", metrics, logger)
    assert tracer is not None
    tracer.record(request(), 200)
    tracer.close(10.0)
    logger.close()
    assert len(collector.spans) == 1


def test_the_environment_names_the_service(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "shop")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    tracer = RequestTracer(collector.url, 1.0)
    tracer.record(request(), 200)
    tracer.close(10.0)
    (resource,) = collector.resources
    assert (resource["service.name"], resource["deployment.environment.name"]) == ("shop", "test")


@pytest.mark.parametrize("module", ["opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http.trace_exporter"])
def test_a_missing_extra_is_told_with_its_install_line(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=r"noria\[otel\]"):
        RequestTracer("http://127.0.0.1:4318")


def test_server_processes_behind_the_balancer_send_what_they_have_when_they_end(
    collector: Collector, tmp_path: Path
) -> None:
    def command(index: int, port: int) -> list[str]:
        words = [sys.executable, "-m", "noria.serving", "--project", str(tmp_path), "--features"]
        return [*words, "--port", str(port), "--replica", str(index)]

    Workspace.open(Settings(tmp_path)).close()  # a server makes no records itself
    env = {"NORIA_TELEMETRY_OTLP": collector.url}
    with Supervisor(command, 1, port=0, run_dir=tmp_path / "run", env=env) as supervisor:
        asked = {"groups": ["no-such"], "entities": {"id": [1]}}
        for headers in ({}, {"traceparent": SAMPLED}):
            assert httpx.post(f"{supervisor.url}/features", json=asked, headers=headers).status_code in (404, 422)
    (span,) = collector.spans
    assert (span.name, span.trace_id.hex(), span.parent_span_id.hex()) == ("POST /features", TRACE, CALLER)
    assert collector.resources[0]["noria.server"] == "server-0"
