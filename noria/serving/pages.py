"""What a server says of itself: health, metrics, its OpenAPI document, and what is served."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from noria.core import NotFoundError, RequestError, StorageError, allowed
from noria.serving.events import EventDoor, describe
from noria.serving.exchange import Exchange, Reply
from noria.serving.feature_door import FeatureDoor
from noria.serving.openapi import document
from noria.serving.requests import MethodNotAllowedError
from noria.serving.routes import Routes
from noria.serving.served import Served
from noria.telemetry import MetricsCollector
from noria.telemetry.metrics import OPENMETRICS, TEXT

_GET = (b"GET", b"HEAD")
_JSON = b"application/json"
_VERSION = re.compile(r"/models/([^/]+)/versions/([0-9]{1,9})/[^/]+")


class Pages:
    """Answers `GET`.

    Args:
        metrics: of the server.
        events, features: its doors.
        described: further entries of the OpenAPI document.
    """

    ready = False
    """Whether the server takes requests."""

    def __init__(
        self,
        metrics: MetricsCollector,
        events: EventDoor | None,
        features: FeatureDoor | None,
        described: Mapping[str, dict[str, Any]],
    ) -> None:
        self._metrics = metrics
        self._events = events
        self._features = features
        self._described = described

    def reply(self, exchange: Exchange, routes: Routes, models: Mapping[str, Served]) -> Reply:
        """The page at a path.

        Raises:
            RequestError: there is none (404), or it is asked for by the wrong method (405).
            StorageError: the server isn't ready, and was asked whether it is.
        """
        path = exchange.path
        if path in routes.operations or path in routes.several:
            if exchange.method != b"POST":
                raise MethodNotAllowedError(exchange.method, "POST")
            ways = ", ".join(f"/models/{model}{path.decode()}" for model in routes.several[path])
            raise RequestError(f"several models can answer {path.decode()}", hint=f"choose one: {ways}")
        pages = (b"/", b"/health", b"/health/live", b"/health/ready", b"/metrics", b"/openapi.json")
        if path not in pages:
            shown = path.decode("utf-8", "replace")
            _check_loaded(shown, models)
            known = [route.decode() for route in routes.operations]
            known += ["/events"] * (self._events is not None) + ["/features"] * (self._features is not None)
            raise NotFoundError(f"there is nothing at {shown}", hint=f"{allowed(known, shown)}; see /openapi.json")
        if exchange.method not in _GET:
            raise MethodNotAllowedError(exchange.method, "GET, HEAD")
        if path == b"/metrics":
            return self._exposition(exchange)
        if path == b"/openapi.json":
            return self._openapi(routes, models)
        if path == b"/":
            return self._front(models)
        return self._live() if path == b"/health/live" else self._readiness()

    def _live(self) -> Reply:
        return b'{"status":"alive"}', _JSON, b""

    def _readiness(self) -> Reply:
        if not self.ready:
            raise StorageError("the server is starting or stopping")
        return b'{"status":"ready"}', _JSON, b""

    def _exposition(self, exchange: Exchange) -> Reply:
        openmetrics = b"application/openmetrics-text" in exchange.headers.get(b"accept", b"")
        text = self._metrics.exposition(openmetrics=openmetrics).encode()
        return text, (OPENMETRICS if openmetrics else TEXT).encode(), b""

    def _openapi(self, routes: Routes, models: Mapping[str, Served]) -> Reply:
        more = dict(self._described)
        if self._events is not None:
            more["/events"] = describe(self._events.intake)
        if self._features is not None:
            more["/features"] = self._features.describe()
        servables = [model.control for model in models.values()]
        return msgspec.json.encode(document(servables, routes.alone, more)), _JSON, b""

    def _front(self, models: Mapping[str, Served]) -> Reply:
        about: dict[str, Any] = {"name": "noria", "models": list(map(_about, models.values()))}
        if self._events is not None:
            about["streams"] = list(self._events.intake.specs)
        if self._features is not None:
            about["features"] = self._features.about()
        about["links"] = ["/openapi.json", "/metrics", "/health/ready"]
        return msgspec.json.encode(about), _JSON, b""


def _check_loaded(path: str, models: Mapping[str, Served]) -> None:
    """Say so where a path asks a version that isn't here.

    Raises:
        NotFoundError: it does.
    """
    found = _VERSION.fullmatch(path)
    model = None if found is None else models.get(found[1])
    if found is not None and model is not None and int(found[2]) not in model.versions:
        loaded = ", ".join(map(str, sorted(model.versions)))
        raise NotFoundError(
            f"version {found[2]} of {model.name} isn't loaded here; loaded: {loaded}",
            hint=f"the champion is, and what is tried: noria deploy {model.name}@{found[2]} --shadow",
        )


def _about(model: Served) -> dict[str, Any]:
    control = model.control
    about: dict[str, Any] = {"model": model.name, "version": control.version, "operations": control.operations}
    deployment = model.deployment
    if deployment is not None:
        about |= {"deployment": deployment.label, "kind": deployment.kind}
        about["variants"] = {
            variant.name: variant.version for variant in deployment.variants if variant.version in model.versions
        }
    return about
