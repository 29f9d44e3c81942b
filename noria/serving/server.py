"""`ModelServer`: servables behind HTTP. All requests that arrive in one turn of the event loop become one batch."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from noria.core import ConfigError, NotFoundError, RequestError, StorageError
from noria.registry import Deployment
from noria.serving.access import Access
from noria.serving.arrow_door import speak_arrow
from noria.serving.batches import Batches
from noria.serving.doors import Door
from noria.serving.events import EventDoor
from noria.serving.exchange import Exchange, Reply
from noria.serving.exposures import Exposure
from noria.serving.feast import describe_feast, feast_routes
from noria.serving.feature_door import FeatureDoor
from noria.serving.frame_doors import KServeDoor, MlflowDoor
from noria.serving.inner import Part, Whole
from noria.serving.open_inference_door import OpenInferenceDoor
from noria.serving.pages import Pages
from noria.serving.prediction_log import PredictionLog
from noria.serving.protocol import HttpProtocol, Limits
from noria.serving.replies import Replies
from noria.serving.requests import MethodNotAllowedError, check_body, timeout_of
from noria.serving.routes import Routes
from noria.serving.scopes import scope_of
from noria.serving.servable import Divisible, Servable
from noria.serving.served import Served
from noria.serving.trial import Trial
from noria.telemetry import MetricsCollector, MLLogger, RequestTracer
from noria.telemetry.metrics import Gauge

if TYPE_CHECKING:
    from noria.serving.grpc_door import GrpcDoor

__all__ = ["Limits", "ModelServer"]

Background = Callable[[], Awaitable[None]]

_DRAIN_SECONDS = 10.0
_JSON = b"application/json"


class ModelServer:
    """Serves the operations of its servables: `POST /predict`, `POST /models/NAME/predict`, and so on.

    A version that is loaded can be asked by its number too: `POST /models/NAME/versions/3/predict`. Also:
    `/health/live`, `/health/ready`, `/metrics`, `/openapi.json`, and `/`, which says what is served.

    Args:
        servables: loaded versions of different models; they are warmed up before the server says that it is ready.
        metrics: where requests are counted.
        logger: where errors, and a sample of the predictions, are logged.
        keys: judges the requests' API keys; without it everybody is served.
        limits: of a connection.
        events: where `POST /events` goes; without it there is no such path.
        features: where `POST /features` goes; without it there is no such path.
        predictions: where a sample of the predictions is recorded.
        expose: takes who was answered by which variant of a deployment with a reward.
        access_log: whether to log every request.
        tracer: makes spans of requests.
        grpc: where the Open Inference Protocol is spoken over gRPC; `noria.serving.grpc_door` needs the extra `grpc`.
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
        expose: Callable[[Exposure], None] | None = None,
        access_log: bool = False,
        tracer: RequestTracer | None = None,
        grpc: GrpcDoor | None = None,
    ) -> None:
        names = [servable.model for servable in servables]
        if not (names or events or features) or len(set(names)) < len(names):
            raise ConfigError(f"a server needs at least one model, each once; got {names}")
        self._events = events
        self._features = features
        self._grpc = grpc
        routes = feast_routes(features, events) if events or features else {}
        self._metrics = metrics or MetricsCollector()
        self._pages = Pages(self._metrics, events, features, describe_feast(routes))
        if events is not None:
            routes["/events"] = events.accept
        if features is not None:
            routes["/features"] = features.accept
        self._doors = {path.encode(): (path, accept) for path, accept in routes.items()}
        foreign: tuple[Door, ...] = (
            OpenInferenceDoor(None if grpc is None else grpc.statistics),
            MlflowDoor(),
            KServeDoor(),
        )
        self._foreign = {segment: door for door in foreign for segment in door.segments}
        self.limits = limits or Limits()
        self.connections: set[HttpProtocol] = set()
        self._keys = keys or Access()
        self._expose = expose
        self._stop: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._request_prefix = secrets.token_hex(4).encode()
        self._requests = 0
        self._replies = Replies(self._metrics, logger, access_log=access_log, tracer=tracer)
        self._batches = Batches(self._metrics, self._replies, logger, predictions, self.limits.max_wait_seconds)
        self._models = {s.model: Served(s.model, {s.version: s}, s.version) for s in servables}
        self._route()

    @property
    def servables(self) -> tuple[Servable, ...]:
        """Who answers now, one for each model: the champion, or what a deployment's variants are compared with."""
        return tuple(model.control for model in self._models.values())

    @property
    def models(self) -> Mapping[str, Served]:
        """What is loaded of each model."""
        return self._models

    def swap(self, servable: Servable) -> None:
        """Put another, warmed-up version of a model in the place of the present one, between two requests."""
        self.deploy(servable.model, {servable.version: servable}, servable.version)

    def deploy(
        self, model: str, versions: Mapping[int, Servable], champion: int, deployment: Deployment | None = None
    ) -> None:
        """Say which versions of a model answer from now on, between two requests.

        Args:
            model: one of the server's models.
            versions: warmed-up servables by their numbers; those that were there and are not any more are closed.
            champion: one of them.
            deployment: what is tried; its control has to be one of them too.

        Raises:
            NotFoundError: the server has no such model.
        """
        if model not in self._models:
            raise NotFoundError(f"this server has no model {model!r}", hint=", ".join(self._models))
        before = self._models[model]
        after = before.changed(versions, champion, deployment, self._new_trial)
        if self._loop is not None:
            self._batches.answer_all()  # what was accepted by the old version is answered by it
        self._models = {**self._models, model: after}
        if before.trial is not None and before.trial is not after.trial:
            before.trial.end(lambda: self._models[model].control)
        self._route()
        for servable in before.versions.values():
            if servable not in versions.values():
                self._info(servable).set(0)
                self._batches.retire(servable)

    def warm_up(self, servable: Servable) -> None:
        """Prepare a servable for `deploy`, in any thread."""
        self._batches.warm_up(servable)

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
        for model in self._models.values():
            for servable in model.versions.values():
                self.warm_up(servable)
        try:
            server = await self._loop.create_server(lambda: HttpProtocol(self), host, port, backlog=1024)
        except (OSError, OverflowError) as error:
            raise StorageError(f"can't listen on {host}:{port}: {error}", hint="choose another port") from error
        if self._grpc is not None:
            try:
                await self._grpc.open(self)
            except StorageError:
                server.close()
                raise
        self._pages.ready = True
        fresh = [self._features.keep_fresh] if self._features is not None else []
        tasks = [asyncio.ensure_future(work()) for work in (self._watch_time, *fresh, *background)]
        if on_ready is not None:
            on_ready(*server.sockets[0].getsockname()[:2])
        await self._stop.wait()
        self._pages.ready = False
        server.close()
        for task in tasks:
            task.cancel()
        if self._grpc is not None:
            await self._grpc.close()
        await self._drain()
        self._batches.close()

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
            target = self._routes.operations.get(exchange.path)
            if target is not None:
                exchange.route, model, operation, version = target
            if target is not None and exchange.method == b"POST":
                self._keys.check(exchange, "predict")
                headers = exchange.headers
                usual = headers.get(b"content-type") == _JSON and exchange.body and len(headers) == 1
                if not usual and not speak_arrow(exchange):
                    check_body(exchange)
                self.ask(exchange, model, operation, version)
                return
            door, foreign = self._doors.get(exchange.path), self._foreign_door(exchange)
            if door is not None:
                exchange.route, accept = door
            self._keys.check(exchange, scope_of(exchange.path))
            if door is not None:
                if exchange.method != b"POST":
                    raise MethodNotAllowedError(exchange.method, "POST")
                check_body(exchange)
                accept(exchange, self._answer_door)
            elif foreign is not None:
                foreign.accept(exchange, self)
            else:
                exchange.respond(200, *self._pages.reply(exchange, self._routes, self._models))
        except Exception as error:
            self._replies.fail(exchange, error)

    def ask(self, exchange: Exchange, model: Served, operation: str, version: int | None = None) -> None:
        """Have a model answer, by a version or by who has to answer now.

        `exchange.make` makes the request for a servable (by default it decodes the body), `exchange.write` the reply
        out of a servable's answer (by default JSON).

        Raises:
            RequestError: the request is wrong, or there is too much to do.
        """
        if b"x-request-timeout" in exchange.headers:
            exchange.deadline = exchange.started + timeout_of(exchange)
        servable = model.control if version is None else model.versions[version]
        make = exchange.make
        request = servable.decode(operation, exchange.body) if make is None else make(servable)
        if model.trial is not None and version is None:
            self._try(exchange, model.trial, operation, request)
        else:
            self._batches.add(exchange, servable, operation, request)

    @property
    def ready(self) -> bool:
        """Whether requests are answered."""
        return self._pages.ready

    def admit(self, exchange: Exchange, scope: str | None) -> None:
        """Number a request that didn't come by HTTP, and check its key.

        Raises:
            RequestError: the key isn't good for this.
        """
        self._requests += 1
        exchange.request_id = exchange.request_id or b"%b-%x" % (self._request_prefix, self._requests)
        self._keys.check(exchange, scope)

    def fail(self, exchange: Exchange, error: Exception) -> None:
        """Answer with an error."""
        self._replies.fail(exchange, error)

    def reply(self, exchange: Exchange, status: int, reply: Reply) -> None:
        """Answer at once."""
        self._replies.send(exchange, status, reply)

    def refuse(self, exchange: Exchange, error: RequestError) -> None:
        """Answer what is no proper request."""
        self._requests += 1
        exchange.request_id = b"%b-%x" % (self._request_prefix, self._requests)
        self._replies.fail(exchange, error)

    # --- its own

    def _foreign_door(self, exchange: Exchange) -> Door | None:
        """Whose path of another protocol this is; from here on its clients are told errors in their own form."""
        path = exchange.path
        segment = path[1:].partition(b"/")[0]
        if path.startswith(b"/models/") and path.endswith(b"/invocations"):
            segment = b"invocations"
        door = self._foreign.get(segment)
        if door is not None:
            exchange.explain = door.explain
        return door

    def _try(self, exchange: Exchange, trial: Trial, operation: str, request: Any) -> None:
        """Have the variants of a deployment answer: one alone, or each its part of the request."""
        rows = trial.divide(exchange, operation, request)
        if len(rows) == 1:
            servable, request = trial.choose(exchange, next(iter(rows)), operation, request)
            self._batches.add(exchange, servable, operation, request)
            return
        control = cast(Divisible, trial.control)
        whole = Whole(exchange, control, operation, len(rows), self._replies, self._batches.encode)
        for assigned, places in rows.items():
            part = Part(exchange, operation, places, whole.tell)
            try:
                mine = control.part(operation, request, places)
                servable, mine = trial.choose(part, assigned, operation, mine)
                self._batches.add(part, servable, operation, mine)
            except Exception as error:
                self._replies.fail(part, error)

    def _new_trial(self, deployment: Deployment, versions: Mapping[int, Servable]) -> Trial:
        return Trial(deployment, versions, self._expose, self._ask_aside)

    def _ask_aside(self, exchange: Exchange, servable: Servable, operation: str, request: Any) -> None:
        self._batches.add(exchange, servable, operation, request, aside=True)

    def _route(self) -> None:
        """Work out who answers which path; done again when a model changes."""
        self._routes = Routes.of(self._models.values())
        for model in self._models.values():
            for servable in model.versions.values():
                self._info(servable).set(1)

    def _info(self, servable: Servable) -> Gauge:
        labels = {"model": servable.model, "version": str(servable.version)}
        return self._metrics.gauge("noria_model_info", "1 for the versions that are loaded.", **labels)

    def _answer_door(self, exchange: Exchange, status: int, answer: bytes | Exception) -> None:
        if isinstance(answer, Exception):
            self._replies.fail(exchange, answer)
        else:
            self._replies.send(exchange, status, (answer, _JSON, b""))

    async def _watch_time(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            now = time.monotonic()
            for connection in list(self.connections):
                connection.check_time(now)

    async def _drain(self) -> None:
        deadline = time.monotonic() + _DRAIN_SECONDS
        while self.connections and time.monotonic() < deadline:
            for connection in list(self.connections):
                connection.drain()
            await asyncio.sleep(0.02)
        for connection in list(self.connections):
            connection.close()
        if self._events is not None:  # only now: while clients send events, there is no end of them
            await self._events.drain()
