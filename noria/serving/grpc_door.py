"""The door of the Open Inference Protocol over gRPC, on a port of its own in the server's event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any, Protocol

from noria.core import MissingExtraError, NoriaError, StorageError
from noria.serving.doors import Host, found_model
from noria.serving.exchange import Exchange, Reply
from noria.serving.open_inference import Inference, index_entry, model_metadata, server_metadata
from noria.serving.open_inference_door import AllStatistics, check_repository, model_statistics
from noria.serving.protocol import Limits
from noria.serving.scopes import PREDICT
from noria.serving.servable import Servable
from noria.serving.tabular import check_tabular

try:
    import grpc
    from grpc import aio

    from noria.serving.grpc_inference import parsed, read_infer, write_infer
    from noria.serving.grpc_messages import MESSAGES, SERVICE
except ImportError as error:
    raise MissingExtraError("grpcio", "grpc", "serving over gRPC") from error

_PUBLIC = ("ServerLive", "ServerReady")
_GRACE_SECONDS = 5.0
_KEPT = ("authorization", "traceparent", "x-api-key", "x-entity-id", "x-request-id", "x-request-timeout")
_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    409: grpc.StatusCode.FAILED_PRECONDITION,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}


class GrpcHost(Host, Protocol):
    """The server, as this door sees it."""

    limits: Limits

    def admit(self, exchange: Exchange, scope: str | None) -> None:
        """Number a request, and check its key."""
        ...

    def fail(self, exchange: Exchange, error: Exception) -> None:
        """Answer with an error."""
        ...


class _Line:
    """What stands for a connection: whether the client still waits."""

    connected = True

    def flush(self) -> None:
        """Nothing waits: each call has its own answer."""


class Call(Exchange):
    """One call; `reply` is set to the status, as in HTTP, and the body."""

    def __init__(self, name: str, context: Any) -> None:
        metadata = {key.encode(): _bytes(value) for key, value in context.invocation_metadata() or () if key in _KEPT}
        self.line = _Line()
        super().__init__(self.line, b"POST", f"/{SERVICE}/{name}".encode(), metadata)
        self.route = f"/{SERVICE}/{name}"
        self.explain = _explain
        self.reply: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        remaining = context.time_remaining()
        if remaining is not None:
            self.deadline = self.started + remaining

    def respond(self, status: int, body: bytes, kind: bytes = b"", extra: bytes = b"") -> None:
        """Hand the answer to the coroutine that waits for it, if it still does."""
        if self.answer is None:
            self.answer = b"-"
            if not self.reply.done():
                self.reply.set_result((status, body))


class GrpcDoor:
    """Answers the protocol's calls.

    Args:
        host: the address to listen on.
        port: 0 for any; `port` says which it is once the door is open.
        statistics: where answers are counted.

    Raises:
        MissingExtraError: when this module is imported, where grpcio isn't installed.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0, statistics: AllStatistics | None = None) -> None:
        self.address = host
        self.port = port
        self.statistics = AllStatistics() if statistics is None else statistics
        self._server: Any = None

    async def open(self, host: GrpcHost) -> None:
        """Listen, and answer by the server.

        Raises:
            StorageError: the address can't be listened on.
        """
        limit = host.limits.max_body_bytes
        options = [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", limit)]
        self._server = aio.server(options=options)
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(partial(self._unary, host, name, answer))
            for name, answer in _ANSWERS.items()
        }
        handlers["ModelInfer"] = grpc.unary_unary_rpc_method_handler(partial(self._infer, host))
        handlers["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(partial(self._stream, host))
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        where = f"[{self.address}]" if ":" in self.address else self.address
        try:
            self.port = self._server.add_insecure_port(f"{where}:{self.port}")
        except RuntimeError as error:
            await self.close()
            raise StorageError(f"can't listen on {where}:{self.port} for gRPC", hint="choose another port") from error
        await self._server.start()

    async def close(self) -> None:
        """Take nothing new, and answer what is open."""
        if self._server is not None:
            await self._server.stop(_GRACE_SECONDS)

    async def _unary(self, host: GrpcHost, name: str, answer: _Answer, data: bytes, context: Any) -> bytes:
        call = Call(name, context)
        try:
            host.admit(call, None if name in _PUBLIC else PREDICT)
            message = answer(host, self.statistics, parsed(f"{name}Request", data))
            host.reply(call, 200, (message.SerializeToString(), b"", b""))
        except Exception as error:
            host.fail(call, error)
        return await _answered(call, context)

    async def _infer(self, host: GrpcHost, data: bytes, context: Any) -> bytes:
        call = Call("ModelInfer", context)
        try:
            self._ask(host, call, data)
            return await _answered(call, context)
        finally:
            call.line.connected = False

    async def _stream(self, host: GrpcHost, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        response = MESSAGES["ModelStreamInferResponse"]
        async for data in requests:
            call = Call("ModelStreamInfer", context)
            try:
                self._ask(host, call, data)
                status, body = await call.reply
            finally:
                call.line.connected = False
            if status == 200:
                yield response(infer_response=MESSAGES["ModelInferResponse"].FromString(body)).SerializeToString()
            else:
                yield response(error_message=body.decode()).SerializeToString()

    def _ask(self, host: GrpcHost, call: Call, data: bytes) -> None:
        try:
            host.admit(call, PREDICT)
            request = parsed("ModelInferRequest", data)
            model, version = found_model(host.models, request.model_name, request.model_version)
            inference = _Inference(call, request, self.statistics)
            call.make, call.write = inference.make, inference.write
            host.ask(call, model, "predict", version)
        except Exception as error:
            host.fail(call, error)


class _Inference:
    """How one call to infer is read and its answer written."""

    def __init__(self, call: Call, request: Any, statistics: AllStatistics) -> None:
        self._call = call
        self._request = request
        self._statistics = statistics
        self._asked: Inference | None = None

    def make(self, servable: Servable) -> Any:
        tabular = check_tabular(servable)
        self._asked = read_infer(self._request, tabular)
        return tabular.table(self._asked.columns)

    def write(self, servable: Servable, answer: Any) -> Reply:
        assert self._asked is not None
        tabular = check_tabular(servable)
        columns = tabular.columns(answer)
        rows = len(next(iter(columns.values())))
        self._statistics[servable.model, servable.version].add(rows, time.monotonic() - self._call.started)
        return write_infer(tabular, self._asked, columns).SerializeToString(), b"", b""


# --- what is answered without a model

_Answer = Callable[[GrpcHost, AllStatistics, Any], Any]


def _live(host: GrpcHost, statistics: AllStatistics, request: Any) -> Any:
    return MESSAGES["ServerLiveResponse"](live=True)


def _ready(host: GrpcHost, statistics: AllStatistics, request: Any) -> Any:
    return MESSAGES["ServerReadyResponse"](ready=host.ready)


def _about(host: GrpcHost, statistics: AllStatistics, request: Any) -> Any:
    return MESSAGES["ServerMetadataResponse"](**server_metadata())


def _model_ready(host: GrpcHost, statistics: AllStatistics, request: Any) -> Any:
    found_model(host.models, request.name, request.version)
    return MESSAGES["ModelReadyResponse"](ready=host.ready)


def _model_metadata(host: GrpcHost, statistics: AllStatistics, request: Any) -> Any:
    model, number = found_model(host.models, request.name, request.version)
    servable = check_tabular(model.control if number is None else model.versions[number])
    told = model_metadata(servable, model.versions if number is None else [number])
    return MESSAGES["ModelMetadataResponse"](**told)


def _model_statistics(host: GrpcHost, statistics: AllStatistics, request: Any) -> Any:
    if request.name:
        model, number = found_model(host.models, request.name, request.version)
        servables = list(model.versions.values()) if number is None else [model.versions[number]]
    else:
        servables = [servable for model in host.models.values() for servable in model.versions.values()]
    return MESSAGES["ModelStatisticsResponse"](**model_statistics(statistics, servables))


def _index(host: GrpcHost, statistics: AllStatistics, request: Any) -> Any:
    servables = [servable for model in host.models.values() for servable in model.versions.values()]
    return MESSAGES["RepositoryIndexResponse"](models=map(index_entry, servables))


def _load(what: str, host: GrpcHost, statistics: AllStatistics, request: Any) -> Any:
    check_repository(host, request.model_name, what)
    return MESSAGES[f"RepositoryModel{what.capitalize()}Response"]()


_ANSWERS: dict[str, _Answer] = {
    "ServerLive": _live,
    "ServerReady": _ready,
    "ServerMetadata": _about,
    "ModelReady": _model_ready,
    "ModelMetadata": _model_metadata,
    "ModelStatistics": _model_statistics,
    "RepositoryIndex": _index,
    "RepositoryModelLoad": partial(_load, "load"),
    "RepositoryModelUnload": partial(_load, "unload"),
}


async def _answered(call: Call, context: Any) -> bytes:
    status, body = await call.reply
    if status != 200:
        await context.abort(_CODES.get(status, grpc.StatusCode.INTERNAL), body.decode())
    return body


def _explain(error: NoriaError, request_id: bytes) -> Reply:
    return (f"{error.message}; {error.hint}" if error.hint else error.message).encode(), b"", b""


def _bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode("latin-1", "replace")
