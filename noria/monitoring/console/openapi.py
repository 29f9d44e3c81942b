"""The OpenAPI 3.1 document of the console's API, made of the operations themselves."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib import metadata
from typing import Any

import msgspec

from noria.monitoring.console.operations import API, Operation, Raw

_REF = "#/components/schemas/{name}"
_PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "hint": {"type": "string"},
        "field": {"type": "string"},
    },
    "description": "What is wrong, and what to do (RFC 9457).",
}


def document(operations: Iterable[Operation] = API) -> dict[str, Any]:
    """The document."""
    operations = tuple(operations)
    kinds = [kind for one in operations for name, kind in one.types.items() if name == "body" or name == "return"]
    kinds = [kind for kind in kinds if kind is not Raw]
    schemas, components = msgspec.json.schema_components(kinds, ref_template=_REF)
    known = dict(zip(map(str, kinds), schemas, strict=True))
    paths: dict[str, Any] = {}
    for one in operations:
        paths.setdefault(one.path, {})[one.method.lower()] = _described(one, known)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "noria console",
            "version": metadata.version("noria"),
            "description": "Administration. What changes something is a POST with `Content-Type: application/json`.",
        },
        "paths": paths,
        "components": {
            "schemas": {"Problem": _PROBLEM, **components},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "basic": {"type": "http", "scheme": "basic", "description": "the key is the password"},
                "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
        "security": [{"bearer": []}, {"basic": []}, {"header": []}],
    }


def _described(one: Operation, known: dict[str, Any]) -> dict[str, Any]:
    types = one.types
    answer = types["return"]
    content = {"text/plain": {}} if answer is Raw else {"application/json": {"schema": known[str(answer)]}}
    problem = {"application/problem+json": {"schema": {"$ref": _REF.format(name="Problem")}}}
    made: dict[str, Any] = {
        "operationId": one.name,
        "summary": one.summary,
        "parameters": [
            *({"name": name, "in": "path", "required": True, "schema": _schema(types[name])} for name in one.in_path),
            *_query(types.get("query")),
        ],
        "responses": {
            "200": {"description": "OK", "content": content},
            "4XX": {"description": "The request is wrong.", "content": problem},
            "5XX": {"description": "The registry or the gateway can't be asked.", "content": problem},
        },
    }
    if "body" in types:
        body = {"application/json": {"schema": known[str(types["body"])]}}
        made["requestBody"] = {"required": True, "content": body}
    if one.public:
        made["security"] = []
    return made


def _query(kind: type[msgspec.Struct] | None) -> list[dict[str, Any]]:
    if kind is None:
        return []
    found = []
    for field in msgspec.structs.fields(kind):
        schema = {
            **_schema(field.type),
            **({} if field.default in (None, msgspec.NODEFAULT) else {"default": field.default}),
        }
        found.append({"name": field.name, "in": "query", "required": field.required, "schema": schema})
    return found


def _schema(kind: Any) -> dict[str, Any]:
    return msgspec.json.schema(kind)


def template(path: str) -> str:
    """A path as Starlette has it: a prediction's id may have slashes.

    >>> template("/api/predictions/{id}")
    '/api/predictions/{id:path}'
    """
    return re.sub(r"{id}$", "{id:path}", path)
