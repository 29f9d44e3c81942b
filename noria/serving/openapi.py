"""The OpenAPI 3.1 document of a server: what its servables say of themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

from noria.serving.servable import Servable

_PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "field": {"type": "string"},
        "hint": {"type": "string"},
        "instance": {"type": "string"},
    },
}


def document(
    servables: Sequence[Servable], default: Mapping[str, Servable], more: Mapping[str, dict[str, Any]]
) -> dict[str, Any]:
    """The document for these servables; `default` says who answers the short route of each operation.

    `more` has further paths: for each its entry `post`, and the `components` that it refers to.
    """
    paths: dict[str, Any] = {}
    schemas: dict[str, Any] = {"Problem": _PROBLEM}
    for servable in servables:
        for operation in servable.operations:
            described = servable.describe(operation)
            schemas |= described.get("components", {})
            entry = {"post": _operation(servable, operation, described)}
            paths[f"/models/{servable.model}/{operation}"] = entry
            if default.get(operation) is servable:
                paths[f"/{operation}"] = {"post": {**entry["post"], "operationId": operation}}
    for path, described in more.items():
        schemas |= described["components"]
        paths[path] = {"post": described["post"]}
    for path, summary in (
        ("/health/live", "The process is alive."),
        ("/health/ready", "The models are loaded."),
        ("/health", "The same, as Feast's clients ask for it."),
        ("/metrics", "Prometheus metrics."),
    ):
        paths[path] = {"get": {"summary": summary, "responses": {"200": {"description": "OK"}}}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "noria", "version": metadata.version("noria")},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _operation(servable: Servable, operation: str, described: dict[str, Any]) -> dict[str, Any]:
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        "operationId": f"{operation}_{servable.model}",
        "summary": f"{operation.capitalize()} with {servable.model}, version {servable.version}.",
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": described["request"], "example": described.get("example")}},
        },
        "responses": {
            "200": {"description": "OK", "content": {"application/json": {"schema": described["response"]}}},
            "4XX": {"description": "The request is wrong; `field` says where.", "content": problem},
            "5XX": {"description": "The server is at fault.", "content": problem},
        },
    }
