"""`ModelServer`: servables behind HTTP. All requests that arrive in one turn of the event loop become one batch."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import msgspec

from noria.core import ConfigError, NoriaError, NotFoundError, RequestError, StorageError, allowed
from noria.serving.access import Access
from noria.serving.batches import Batches
from noria.serving.events import EventDoor, describe
from noria.serving.feast import describe_feast, feast_routes
from noria.serving.feature_door import FeatureDoor
from noria.serving.openapi import document
from noria.serving.prediction_log import PredictionLog
from noria.serving.protocol import Exchange, HttpProtocol, Limits
from noria.serving.requests import MethodNotAllowedError, TooManyRequestsError, check_body
from noria.serving.scopes import scope_of
from noria.serving.servable import Servable
from noria.telemetry import MetricsCollector, MLLogger
from noria.telemetry.metrics import OPENMETRICS, TEXT, Gauge

__all__ = ["Limits", "ModelServer"]

Background = Callable[[], Awaitable[None]]

_PROBLEM = b"application/problem+json"
_DRAIN_SECONDS = 10.0
_GET = (b"GET", b"HEAD")


class ModelServer:
    """Serves the operations of its servables: `POST /predict`, `POST /models/NAME/predict`, and so on.

    Also: `/health/live`, `/health/ready`, `/metrics`, `/openapi.json`, and `/`, which says what is served.

    Args:
        servables: loaded versions of different models; they are warmed up before the server says that it is ready.
        metrics: where requests are counted.
        logger: where errors, and a sample of the predictions, are logged.
        keys: judges the requests' API keys; without it everybody is served.
        limits: of a connection.
        events: where `POST /events` goes; without it there is no such path.
        features: where `POST /features` goes; without it there is no such path.
        predictions: where a sample of the predictions is recorded.
    """

    def __init__(
        self,
        servables: Sequence[Servable],
        *,
        metrics: MetricsCollector | None = None,
        logger: MLLogger | None = None,
        keys: Access | None = None,
        limits: Limits | None = None,
        events: EventDoor | None = None,
        features: FeatureDoor | None = None,
        predictions: PredictionLog | None = None,
    ) -> None:
        names = [servable.model for servable in servables]
        if not (names or events or features) or len(set(names)) < len(names):
            raise ConfigError(f"a server needs at least one model, each once; got {names}")
        self._events = events
        self._features = features
        routes = feast_routes(features, events) if events or features else {}
        self._feast = describe_feast(routes)
        if events is not None:
            routes["/events"] = events.accept
        if features is not None:
            routes["/features"] = features.accept
        self._doors = {path.encode(): (path, accept) for path, accept in routes.items()}
        self.limits = limits or Limits()
        self.connections: set[HttpProtocol] = set()
        self._metrics = metrics or MetricsCollector()
        self._logger = logger
        self._keys = keys or Access()
        self._ready = False
        self._stop: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._request_prefix = secrets.token_hex(4).encode()
        self._requests = 0
        self._batches = Batches(self._metrics, logger, predictions)
        self._servables = {servable.model: servable for servable in servables}
        self._route()

    @property
    def servables(self) -> tuple[Servable, ...]:
        """Who answers now."""
        return tuple(self._servables.values())

    def swap(self, servable: Servable) -> None:
        """Put another, warmed-up version of a model in the place of the present one, between two requests."""
        if servable.model not in self._servables:
            raise NotFoundError(f"this server has no model {servable.model!r}", hint=", ".join(self._servables))
        before = self._servables[servable.model]
        self._batches.answer_all()  # what was accepted by the old version is answered by it
        self._batches.forget(before)
        self._servables = {**self._servables, servable.model: servable}
        self._info(before).set(0)
        self._route()
        before.close()

    async def serve(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        background: Sequence[Background] = (),
        on_ready: Callable[[str, int], None] | None = None,
    ) -> None:
        """Serve until `stop`; then accept nothing new, answer what is open, and return.

        Raises:
            StorageError: the address can't be listened on.
        """
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        for servable in self.servables:
            servable.warm_up()
        try:
            server = await self._loop.create_server(lambda: HttpProtocol(self), host, port, backlog=1024)
        except (OSError, OverflowError) as error:
            raise StorageError(f"can't listen on {host}:{port}: {error}", hint="choose another port") from error
        self._ready = True
        fresh = [self._features.keep_fresh] if self._features is not None else []
        tasks = [asyncio.ensure_future(work()) for work in (self._watch_time, *fresh, *background)]
        if on_ready is not None:
            on_ready(*server.sockets[0].getsockname()[:2])
        await self._stop.wait()
        self._ready = False
        server.close()
        for task in tasks:
            task.cancel()
        await self._drain()

    def run(self, host: str = "127.0.0.1", port: int = 8080, *, background: Sequence[Background] = ()) -> None:
        """Serve in this process on uvloop until SIGTERM or SIGINT."""
        import uvloop

        async def main() -> None:
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self.stop)
            await self.serve(host, port, background=background)

        uvloop.run(main())

    def stop(self) -> None:
        """Let `serve` return, from any thread."""
        if self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)

    @contextlib.contextmanager
    def running(self, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
        """Serve in a background thread for the block; gives the URL."""
        import uvloop

        address: list[tuple[str, int]] = []
        errors: list[BaseException] = []
        started = threading.Event()

        def ready(host: str, port: int) -> None:
            address.append((host, port))
            started.set()

        def work() -> None:
            try:
                uvloop.run(self.serve(host, port, on_ready=ready))
            except BaseException as error:
                errors.append(error)
                started.set()

        thread = threading.Thread(target=work, name="noria-server", daemon=True)
        thread.start()
        started.wait()
        if errors:
            raise errors[0]
        try:
            yield f"http://{address[0][0]}:{address[0][1]}"
        finally:
            self.stop()
            thread.join()

    # --- what connections call

    def handle(self, exchange: Exchange) -> None:
        """Answer a request, or put it into the batch of this turn."""
        self._requests += 1
        exchange.request_id = exchange.request_id or b"%b-%x" % (self._request_prefix, self._requests)
        try:
            self._keys.check(exchange, scope_of(exchange.path))
            servable = self._operations.get(exchange.path)
            if servable is not None and exchange.method == b"POST":
                self._accept(exchange, *servable)
            elif exchange.path in self._doors and exchange.method == b"POST":
                check_body(exchange)
                self._doors[exchange.path][1](exchange, self._answer_door)
            else:
                self._answer_other(exchange)
        except NoriaError as error:
            self._problem(exchange, error)
        except Exception as error:
            self._batches.fail(exchange, error)

    def refuse(self, exchange: Exchange, error: RequestError) -> None:
        """Answer what is no proper request."""
        self._requests += 1
        exchange.request_id = b"%b-%x" % (self._request_prefix, self._requests)
        self._problem(exchange, error)

    # --- its own

    def _route(self) -> None:
        """Work out who answers which path; done again when a servable changes."""
        self._operations: dict[bytes, tuple[Servable, str]] = {}
        offers: dict[str, list[Servable]] = {}
        for servable in self.servables:
            for operation in servable.operations:
                offers.setdefault(operation, []).append(servable)
                self._operations[f"/models/{servable.model}/{operation}".encode()] = (servable, operation)
        self._several = {
            f"/{o}".encode(): [s.model for s in offered] for o, offered in offers.items() if len(offered) > 1
        }
        alone = {operation: offered[0] for operation, offered in offers.items() if len(offered) == 1}
        for operation, servable in alone.items():
            self._operations[f"/{operation}".encode()] = (servable, operation)
        self._alone = alone
        for servable in self.servables:
            self._info(servable).set(1)

    def _info(self, servable: Servable) -> Gauge:
        labels = {"model": servable.model, "version": str(servable.version)}
        return self._metrics.gauge("noria_model_info", "1 for the versions that answer.", **labels)

    def _accept(self, exchange: Exchange, servable: Servable, operation: str) -> None:
        check_body(exchange)
        self._batches.add(exchange, servable, operation, servable.decode(operation, exchange.body))

    def _answer_door(self, exchange: Exchange, status: int, answer: bytes | Exception) -> None:
        if isinstance(answer, NoriaError):
            self._problem(exchange, answer)
        elif isinstance(answer, Exception):
            self._batches.fail(exchange, answer)
        else:
            self._batches.count(exchange, self._doors[exchange.path][0], status)
            exchange.respond(status, answer)

    def _answer_other(self, exchange: Exchange) -> None:
        path = exchange.path
        if path in self._doors:
            raise MethodNotAllowedError(exchange.method, "POST")
        if path in self._operations or path in self._several:
            if exchange.method != b"POST":
                raise MethodNotAllowedError(exchange.method, "POST")
            models = self._several[path]
            ways = ", ".join(f"/models/{model}{path.decode()}" for model in models)
            raise RequestError(f"several models can answer {path.decode()}", hint=f"choose one: {ways}")
        page = {
            b"/health/live": self._live,
            b"/health/ready": self._readiness,
            b"/health": self._readiness,
            b"/metrics": self._exposition,
            b"/openapi.json": self._openapi,
            b"/": self._front,
        }.get(path)
        if page is None:
            shown = path.decode("utf-8", "replace")
            paths = [known.decode() for known in (*self._operations, *self._doors)]
            raise NotFoundError(f"there is nothing at {shown}", hint=f"{allowed(paths, shown)}; see /openapi.json")
        if exchange.method not in _GET:
            raise MethodNotAllowedError(exchange.method, "GET, HEAD")
        exchange.respond(*page(exchange))

    def _live(self, exchange: Exchange) -> tuple[int, bytes, bytes]:
        return 200, b'{"status":"alive"}', b"application/json"

    def _readiness(self, exchange: Exchange) -> tuple[int, bytes, bytes]:
        if not self._ready:
            raise StorageError("the server is starting or stopping")
        return 200, b'{"status":"ready"}', b"application/json"

    def _exposition(self, exchange: Exchange) -> tuple[int, bytes, bytes]:
        openmetrics = b"application/openmetrics-text" in exchange.headers.get(b"accept", b"")
        text = self._metrics.exposition(openmetrics=openmetrics).encode()
        return 200, text, (OPENMETRICS if openmetrics else TEXT).encode()

    def _openapi(self, exchange: Exchange) -> tuple[int, bytes, bytes]:
        more = dict(self._feast)
        if self._events is not None:
            more["/events"] = describe(self._events.intake)
        if self._features is not None:
            more["/features"] = self._features.describe()
        return 200, msgspec.json.encode(document(self.servables, self._alone, more)), b"application/json"

    def _front(self, exchange: Exchange) -> tuple[int, bytes, bytes]:
        models = [{"model": s.model, "version": s.version, "operations": s.operations} for s in self.servables]
        about: dict[str, Any] = {"name": "noria", "models": models}
        if self._events is not None:
            about["streams"] = list(self._events.intake.specs)
        if self._features is not None:
            about["features"] = self._features.about()
        about["links"] = ["/openapi.json", "/metrics", "/health/ready"]
        return 200, msgspec.json.encode(about), b"application/json"

    def _problem(self, exchange: Exchange, error: NoriaError) -> None:
        problem: dict[str, Any] = {**error.to_problem(), "request_id": exchange.request_id.decode()}
        if exchange.path:
            problem["instance"] = exchange.path.decode("utf-8", "replace")
        extra = {401: b"www-authenticate: Bearer\r\n", 503: b"retry-after: 1\r\n"}.get(error.status, b"")
        if isinstance(error, MethodNotAllowedError):
            extra = b"allow: %b\r\n" % error.allowed.encode()
        elif isinstance(error, TooManyRequestsError):
            extra = b"retry-after: %d\r\n" % error.retry_after
        known = exchange.path in self._operations or exchange.path in self._doors
        self._batches.count(exchange, exchange.path.decode() if known else "other", error.status)
        exchange.respond(error.status, msgspec.json.encode(problem), _PROBLEM, extra)

    async def _watch_time(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            now = time.monotonic()
            for connection in list(self.connections):
                connection.check_time(now)

    async def _drain(self) -> None:
        deadline = time.monotonic() + _DRAIN_SECONDS
        if self._events is not None:
            await self._events.drain()
        while self.connections and time.monotonic() < deadline:
            for connection in list(self.connections):
                connection.drain()
            await asyncio.sleep(0.02)
        for connection in list(self.connections):
            connection.close()
