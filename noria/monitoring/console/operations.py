"""The table of everything that can be asked of the console: the API, its documents, and the pages.

An operation is a plain function. Its parameters say what it takes: those that stand in the path by their names, `query`
a class of query parameters, `body` a class of JSON; what it returns is the answer's type, and its docstring's first
line what it does. The OpenAPI document is made of the same.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_type_hints

import msgspec

from noria.core import NoriaError
from noria.monitoring.console import deployments, keys, models, predictions, servers
from noria.monitoring.console.desk import Desk
from noria.monitoring.console.exposition import gathered

TEXT = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True)
class Raw:
    """An answer that is no JSON.

    Attributes:
        policy: what a document may load and run: its content security policy; empty for what is no document.
    """

    body: bytes
    kind: str
    status: int = 200
    policy: str = ""


@dataclass(frozen=True)
class Operation:
    """One of them.

    Attributes:
        method: `GET`, or `POST` for what changes something.
        path: with the names of its parameters: `/api/models/{model}`.
        do: the function.
        public: whether it needs no API key.
    """

    method: str
    path: str
    do: Callable[..., Any]
    public: bool = False

    @property
    def name(self) -> str:
        """`models_promote`: unique."""
        return f"{self.do.__module__.rpartition('.')[2]}_{self.do.__name__}"

    @property
    def summary(self) -> str:
        """What it does, in one line."""
        return (inspect.getdoc(self.do) or "").partition("\n")[0]

    @property
    def types(self) -> dict[str, Any]:
        """The types of its parameters by name, and of its answer: `return`."""
        return {name: kind for name, kind in get_type_hints(self.do).items() if name != "desk"}

    @property
    def in_path(self) -> list[str]:
        """The parameters that stand in the path."""
        return re.findall(r"{(\w+)}", self.path)


def health(desk: Desk) -> Raw:
    """Whether the registry can be read (else the status is 503), and whether a gateway runs here."""
    try:
        desk.registry.models()
        registry = True
    except (NoriaError, OSError, ValueError):
        registry = False
    try:
        gateway = bool(servers.listing(desk))
    except (NoriaError, OSError, ValueError):
        gateway = False
    body = msgspec.json.encode({"registry": registry, "gateway": gateway})
    return Raw(body, "application/json", 200 if registry else 503)


def metrics(desk: Desk) -> Raw:
    """Prometheus metrics of the load balancer and of every replica, labelled by replica."""
    return Raw(gathered(desk.project.run_dir, desk.key).encode(), TEXT)


def _get(path: str, do: Callable[..., Any], *, public: bool = False) -> Operation:
    return Operation("GET", path, do, public)


def _post(path: str, do: Callable[..., Any]) -> Operation:
    return Operation("POST", path, do)


API = (
    _get("/health", health, public=True),
    _get("/metrics", metrics),
    _get("/api/models", models.listing),
    _get("/api/models/{model}", models.show),
    _get("/api/models/{model}/versions/{version}", models.version),
    _post("/api/models/{model}/promote", models.promote),
    _post("/api/models/{model}/rollback", models.rollback),
    _get("/api/models/{model}/deployments", deployments.history),
    _get("/api/deployments", deployments.listing),
    _get("/api/deployments/{model}", deployments.show),
    _post("/api/deployments/{model}", deployments.start),
    _post("/api/deployments/{model}/pause", deployments.pause),
    _post("/api/deployments/{model}/resume", deployments.resume),
    _post("/api/deployments/{model}/abort", deployments.abort),
    _post("/api/deployments/{model}/finish", deployments.finish),
    _get("/api/servers", servers.listing),
    _post("/api/servers", servers.add),
    _post("/api/servers/scale", servers.scale),
    _post("/api/servers/restart", servers.restart),
    _post("/api/servers/{name}/drain", servers.drain),
    _post("/api/servers/{name}/resume", servers.resume),
    _post("/api/servers/{name}/weight", servers.weigh),
    _post("/api/servers/{name}/remove", servers.remove),
    _get("/api/keys", keys.listing),
    _post("/api/keys", keys.create),
    _get("/api/keys/changes", keys.changes),
    _post("/api/keys/{name}/rotate", keys.rotate),
    _post("/api/keys/{name}/revoke", keys.revoke),
    _get("/api/audit", models.audit),
    _get("/api/predictions", predictions.listing),
    _get("/api/predictions/{id}", predictions.show),
)
