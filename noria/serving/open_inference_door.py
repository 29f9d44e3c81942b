"""The door of the Open Inference Protocol over REST: everything under `/v2`."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Any

import msgspec

from noria.core import ConflictError, NoriaError, NotFoundError, StorageError
from noria.serving.doors import Host, check_method, found_model
from noria.serving.exchange import Exchange, Reply
from noria.serving.open_inference import (
    HEADER,
    Inference,
    index_entry,
    model_metadata,
    read_inference,
    server_metadata,
    write_error,
    write_inference,
)
from noria.serving.servable import Servable
from noria.serving.tabular import check_tabular

_JSON = b"application/json"
_MODEL = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?(?:/(ready|stats|infer))?")
_REPOSITORY = re.compile(r"/v2/repository/models/([^/]+)/(load|unload)")
_GET = (b"GET", b"HEAD")


@dataclass
class Statistics:
    """What was answered by this protocol: requests, their rows, and nanoseconds from request to answer."""

    requests: int = 0
    rows: int = 0
    nanoseconds: int = 0
    last: int = 0

    def add(self, rows: int, seconds: float) -> None:
        """Count a request."""
        self.requests += 1
        self.rows += rows
        self.nanoseconds += round(seconds * 1e9)
        self.last = time.time_ns() // 1_000_000


class AllStatistics(dict[tuple[str, int], Statistics]):
    """The statistics of each model and version; REST and gRPC count in one place."""

    def __missing__(self, key: tuple[str, int]) -> Statistics:
        return self.setdefault(key, Statistics())


class OpenInferenceDoor:
    """Answers the protocol's paths; `statistics` has what was answered."""

    segments = (b"v2",)

    def __init__(self, statistics: AllStatistics | None = None) -> None:
        self.statistics = AllStatistics() if statistics is None else statistics

    def accept(self, exchange: Exchange, host: Host) -> None:
        path = exchange.path.decode("utf-8", "replace").rstrip("/")
        exchange.route = "/v2"
        if path in ("/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/stats"):
            check_method(exchange, *_GET)
            self._page(exchange, host, path)
        elif path == "/v2/repository/index":
            check_method(exchange, b"POST")
            versions = [servable for model in host.models.values() for servable in model.versions.values()]
            _reply(exchange, host, [index_entry(servable) for servable in versions])
        elif found := _MODEL.fullmatch(path):
            self._model(exchange, host, found[1], found[2] or "", found[3] or "")
        elif found := _REPOSITORY.fullmatch(path):
            check_method(exchange, b"POST")
            check_repository(host, found[1], found[2])
            _reply(exchange, host, {})
        else:
            raise NotFoundError(f"there is nothing at {path[:200]}", hint="see docs/serving.md, Other protocols")

    def explain(self, error: NoriaError, request_id: bytes) -> Reply:
        return write_error(error), _JSON, b""

    def _page(self, exchange: Exchange, host: Host, path: str) -> None:
        if path == "/v2":
            _reply(exchange, host, server_metadata())
        elif path == "/v2/models/stats":
            every = [servable for model in host.models.values() for servable in model.versions.values()]
            _reply(exchange, host, model_statistics(self.statistics, every))
        elif path == "/v2/health/ready" and not host.ready:
            raise StorageError("the server is starting or stopping")
        else:
            _reply(exchange, host, {"live" if path.endswith("live") else "ready": True})

    def _model(self, exchange: Exchange, host: Host, name: str, version: str, what: str) -> None:
        model, number = found_model(host.models, name, version)
        if what == "infer":
            exchange.route = "/v2/infer"
            check_method(exchange, b"POST")
            call = _Call(exchange, self.statistics)
            exchange.make, exchange.write = call.make, call.write
            host.ask(exchange, model, "predict", number)
            return
        check_method(exchange, *_GET)
        servables = list(model.versions.values()) if number is None else [model.versions[number]]
        if what == "ready":
            _reply(exchange, host, {"name": name, "ready": True})
        elif what == "stats":
            _reply(exchange, host, model_statistics(self.statistics, servables))
        else:
            control = check_tabular(model.control if number is None else model.versions[number])
            _reply(exchange, host, model_metadata(control, [servable.version for servable in servables]))


class _Call:
    """How one request to infer is read and its answer written."""

    def __init__(self, exchange: Exchange, statistics: AllStatistics) -> None:
        self._exchange = exchange
        self._statistics = statistics
        self._asked: Inference | None = None

    def make(self, servable: Servable) -> Any:
        tabular = check_tabular(servable)
        self._asked = read_inference(self._exchange.headers.get(HEADER), self._exchange.body, tabular)
        return tabular.table(self._asked.columns)

    def write(self, servable: Servable, answer: Any) -> Reply:
        assert self._asked is not None
        tabular = check_tabular(servable)
        columns = tabular.columns(answer)
        rows = len(next(iter(columns.values())))
        self._statistics[servable.model, servable.version].add(rows, time.monotonic() - self._exchange.started)
        return write_inference(tabular, self._asked, columns)


def check_repository(host: Host, name: str, what: str) -> None:
    """Allow what the registry has done already: models come and go by it, not by this protocol.

    Raises:
        NotFoundError: the model to be loaded isn't served here.
        ConflictError: the model to be unloaded is.
    """
    promote = "this server follows the registry: noria models promote, noria serve"
    if what == "load" and name not in host.models:
        raise NotFoundError(f"model {name!r} is not served here, and can't be loaded by this protocol", hint=promote)
    if what == "unload" and name in host.models:
        raise ConflictError(f"model {name!r} is deployed, and can't be unloaded by this protocol", hint=promote)


def model_statistics(statistics: AllStatistics, servables: list[Servable]) -> dict[str, Any]:
    """What was answered of these versions by this protocol; a batch isn't told from its requests."""
    told = []
    for servable in servables:
        one = statistics[servable.model, servable.version]
        success = {"count": one.requests, "ns": one.nanoseconds}
        told.append(
            {
                "name": servable.model,
                "version": str(servable.version),
                "last_inference": one.last,
                "inference_count": one.rows,
                "execution_count": one.requests,
                "inference_stats": {"success": success},
            }
        )
    return {"model_stats": told}


def _reply(exchange: Exchange, host: Host, data: Any) -> None:
    host.reply(exchange, 200, (msgspec.json.encode(data), _JSON, b""))
