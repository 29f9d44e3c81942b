"""The doors of MLflow's scoring server (`/invocations`) and of version 1 of KServe's protocol (`/v1/models`)."""

from __future__ import annotations

import re
from functools import partial
from importlib import metadata
from typing import Any

import msgspec

from noria.core import NoriaError, NotFoundError, RequestError, StorageError
from noria.serving.doors import Host, check_method, found_model, only_model
from noria.serving.exchange import Exchange, Reply
from noria.serving.frames import read_csv, read_json
from noria.serving.servable import Servable
from noria.serving.tabular import check_tabular, fields_of

_JSON = b"application/json"
_GET = (b"GET", b"HEAD")
_CODES = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "RESOURCE_DOES_NOT_EXIST",
    429: "REQUEST_LIMIT_EXCEEDED",
    503: "TEMPORARILY_UNAVAILABLE",
}
_INVOKE = re.compile(r"(?:/models/([^/]+))?/invocations")
_V1 = re.compile(r"/v1/models(?:/([^/:]+)(?:/versions/([^/:]+))?(:predict)?)?")

_encode = msgspec.json.Encoder().encode


class MlflowDoor:
    """Answers what MLflow's clients ask of a scoring server, and `/models/NAME/invocations` where there are several."""

    segments = (b"invocations", b"ping", b"version")

    def accept(self, exchange: Exchange, host: Host) -> None:
        path = exchange.path.decode("utf-8", "replace")
        exchange.route = path if path in ("/ping", "/version") else "/invocations"
        if found := _INVOKE.fullmatch(path):
            self._invoke(exchange, host, found[1] or "")
        elif path in ("/ping", "/version"):
            check_method(exchange, *_GET)
            if not host.ready:
                raise StorageError("the server is starting or stopping")
            body = b"\n" if path == "/ping" else metadata.version("noria").encode()
            host.reply(exchange, 200, (body, _JSON, b""))
        else:
            raise NotFoundError(f"there is nothing at {path[:200]}", hint="POST /invocations")

    def _invoke(self, exchange: Exchange, host: Host, name: str) -> None:
        check_method(exchange, b"POST")
        kind, _, options = exchange.headers.get(b"content-type", _JSON).partition(b";")
        kind = kind.strip().lower()
        if kind not in (_JSON, b"text/csv") or options.strip().lower() not in (b"", b"charset=utf-8"):
            raise RequestError(
                f"the body is {exchange.headers[b'content-type'][:60].decode('latin-1')!r}",
                status=415,
                hint="send application/json or text/csv, in UTF-8",
            )
        exchange.make, exchange.write = partial(self._make, exchange, kind == b"text/csv"), _write
        host.ask(exchange, found_model(host.models, name)[0] if name else only_model(host.models), "predict")

    def explain(self, error: NoriaError, request_id: bytes) -> Reply:
        message = f"{error.message}; {error.hint}" if error.hint else error.message
        code = _CODES.get(error.status, "INTERNAL_ERROR" if error.status >= 500 else "BAD_REQUEST")
        return _encode({"error_code": code, "message": message}), _JSON, b""

    def _make(self, exchange: Exchange, is_csv: bool, servable: Servable) -> Any:
        tabular = check_tabular(servable)
        try:
            if is_csv:
                return tabular.table(read_csv(exchange.body, fields_of(tabular)))
            return tabular.table(read_json(exchange.body, tabular.inputs))
        except RequestError as error:
            if error.status != 422:
                raise
            raise RequestError(error.message, hint=error.hint, field=error.field) from error  # MLflow says 400


class KServeDoor:
    """Answers `/v1/models`, `/v1/models/NAME`, `/v1/models/NAME:predict`; of a version too, as TensorFlow Serving."""

    segments = (b"v1",)

    def accept(self, exchange: Exchange, host: Host) -> None:
        path = exchange.path.decode("utf-8", "replace")
        found = _V1.fullmatch(path)
        exchange.route = "/v1/models"
        if found is None:
            raise NotFoundError(f"there is nothing at {path[:200]}", hint="POST /v1/models/NAME:predict")
        name, version, predicts = found[1], found[2] or "", found[3]
        if name is None:
            check_method(exchange, *_GET)
            host.reply(exchange, 200, (_encode({"models": list(host.models)}), _JSON, b""))
            return
        model, number = found_model(host.models, name, version)
        if predicts:
            check_method(exchange, b"POST")
            exchange.route = "/v1/predict"
            exchange.make, exchange.write = partial(self._make, exchange), _write
            host.ask(exchange, model, "predict", number)
        else:
            check_method(exchange, *_GET)
            host.reply(exchange, 200, (_encode({"name": name, "ready": host.ready}), _JSON, b""))

    def explain(self, error: NoriaError, request_id: bytes) -> Reply:
        return _encode({"error": f"{error.message}; {error.hint}" if error.hint else error.message}), _JSON, b""

    def _make(self, exchange: Exchange, servable: Servable) -> Any:
        tabular = check_tabular(servable)
        return tabular.table(read_json(exchange.body, tabular.inputs, ("instances", "inputs")))


def _write(servable: Servable, answer: Any) -> Reply:
    return _encode({"predictions": check_tabular(servable).columns(answer)["predictions"]}), _JSON, b""
