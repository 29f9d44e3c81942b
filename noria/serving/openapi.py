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
        "request_id": {"type": "string"},
    },
}

_JSON = "application/json"
_TOLD = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
_ERRORS = {
    "4XX": {"description": "The request is wrong; `field` says where.", "content": _TOLD},
    "5XX": {"description": "The server is at fault, or has too much to do.", "content": _TOLD},
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
            described = _apart(servable.model, servable.describe(operation), schemas)
            schemas |= described.get("components", {})
            entry = {"post": _operation(servable, operation, described)}
            paths[f"/models/{servable.model}/{operation}"] = entry
            if default.get(operation) is servable:
                paths[f"/{operation}"] = {"post": {**entry["post"], "operationId": operation}}
    for path, described in more.items():
        schemas |= described["components"]
        post = described["post"]
        paths[path] = {"post": {**post, "responses": {**post["responses"], **_ERRORS}}}
    for path, summary, kind in (
        ("/", "What is served.", _JSON),
        ("/health/live", "The process is alive.", _JSON),
        ("/health/ready", "The models are loaded.", _JSON),
        ("/health", "The same, as Feast's clients ask for it.", _JSON),
        ("/metrics", "Prometheus metrics.", "text/plain"),
    ):
        found = {"description": "OK", "content": {kind: {}}}
        paths[path] = {"get": {"summary": summary, "responses": {"200": found, **_ERRORS}}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "noria", "version": metadata.version("noria")},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _apart(model: str, described: dict[str, Any], taken: Mapping[str, Any]) -> dict[str, Any]:
    """The description with other names for components that are called like other ones, of another model."""
    components = described.get("components", {})
    names = {name: f"{name}.{model}" for name, part in components.items() if taken.get(name, part) != part}

    def renamed(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                key: _renamed_reference(one, names) if key == "$ref" else renamed(one) for key, one in value.items()
            }
        return [renamed(one) for one in value] if isinstance(value, list) else value

    if not names:
        return described
    return {
        **described,
        "request": renamed(described["request"]),
        "response": renamed(described["response"]),
        "components": {names.get(name, name): renamed(part) for name, part in components.items()},
    }


def _renamed_reference(reference: Any, names: Mapping[str, str]) -> Any:
    start, _, name = str(reference).rpartition("/")
    return f"{start}/{names[name]}" if name in names else reference


def _operation(servable: Servable, operation: str, described: dict[str, Any]) -> dict[str, Any]:
    example = {} if described.get("example") is None else {"example": described["example"]}
    return {
        "operationId": f"{operation}_{servable.model}",
        "summary": f"{operation.capitalize()} with {servable.model}, version {servable.version}.",
        "requestBody": {
            "required": True,
            "content": {_JSON: {"schema": described["request"], **example}},
        },
        "responses": {
            "200": {"description": "OK", "content": {_JSON: {"schema": described["response"]}}},
            **_ERRORS,
        },
    }
