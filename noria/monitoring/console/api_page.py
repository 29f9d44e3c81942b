"""The API page: the OpenAPI documents of the servers and of the console, as people read them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from noria.core import NoriaError
from noria.monitoring.console import shown
from noria.monitoring.console.desk import Desk
from noria.monitoring.console.exposition import answer
from noria.monitoring.console.html import Child, Markup, table, tag
from noria.monitoring.console.layout import Page, page
from noria.monitoring.console.openapi import document
from noria.monitoring.console.pulse import read_servers

Json = Mapping[str, Any]


def documents(desk: Desk) -> Page:
    """What can be asked, of the servers and of the console."""
    return page(
        "API",
        tag(
            "p",
            tag("a", "Servers", href="#servers"),
            ", ",
            tag("a", "Console", href="#console"),
            " (",
            tag("a", "OpenAPI", href="/api/openapi.json"),
            ")",
        ),
        tag("h2", "Servers", id="servers"),
        _servers(desk),
        tag("h2", "Console", id="console"),
        described(document(), "console"),
        place="/docs",
    )


def _servers(desk: Desk) -> Child:
    """The document of any server that is ready."""
    try:
        ready = [one.address for one in read_servers(desk.project.run_dir) if one.replica == "ready"]
    except (NoriaError, OSError, ValueError) as error:
        return tag("p", str(error.args[0]), class_="quiet")
    for address in ready:
        status, body = answer(f"http://{address}/openapi.json", desk.key) or (0, b"")
        if status == 200:
            return described(msgspec.json.decode(body), "servers")
        if status in (401, 403):
            return tag("p", "This API key lacks the scope predict, which the servers' document needs.", class_="quiet")
    return tag("p", "No server says what can be asked of it now.", class_="quiet")


def described(document: Json, name: str) -> Markup:
    """A document's operations, and the schemas that they refer to."""
    operations = [
        _operation(method, path, one, name)
        for path, methods in document.get("paths", {}).items()
        for method, one in methods.items()
        if isinstance(one, dict)
    ]
    schemas = document.get("components", {}).get("schemas", {})
    listed = [_schema(title, schema, name) for title, schema in schemas.items()]
    return tag(
        "section", operations, tag("details", tag("summary", f"{len(listed)} schemas"), listed, id=f"{name}-schemas")
    )


def _operation(method: str, path: str, one: Json, name: str) -> Markup:
    given = [
        (
            tag("code", part.get("name")),
            part.get("in"),
            _type(part.get("schema", {}), name),
            part.get("schema", {}).get("default"),
        )
        for part in one.get("parameters", ())
        if part.get("in") != "path"  # those stand in the address
    ]
    return tag(
        "div",
        tag("span", method.upper(), class_=f"method {method}"),
        " ",
        tag("code", path, class_="path"),
        tag("span", f"  {one.get('summary', '')}"),
        _facts(one, name),
        tag("details", tag("summary", "parameters"), table(("name", "in", "type", "default"), given))
        if given
        else None,
        class_="operation",
    )


def _facts(one: Json, name: str) -> Markup | None:
    body = one.get("requestBody", {}).get("content", {}).get("application/json", {})
    answer = one.get("responses", {}).get("200", {}).get("content", {}).get("application/json", {})
    parts = [
        (what, _type(found["schema"], name))
        for what, found in (("takes", body), ("answers", answer))
        if found.get("schema")
    ]
    listed = tag("dl", ((tag("dt", what), tag("dd", kind)) for what, kind in parts)) if parts else None
    example = tag("details", tag("summary", "example"), shown.json(body["example"])) if body.get("example") else None
    return tag("div", listed, example)


def _schema(title: str, schema: Json, name: str) -> Markup:
    needed = schema.get("required", ())
    rows = [
        (
            tag("code", field),
            _type(kind, name),
            "needed" if field in needed else _default(kind),
            kind.get("description"),
        )
        for field, kind in schema.get("properties", {}).items()
        if isinstance(kind, dict)
    ]
    about = (schema.get("description") or "").partition("\n\nAttributes:")[0]
    fields = table(("field", "type", "", ""), rows) if rows else tag("p", _type(schema, name))
    return tag(
        "div", tag("h3", title, id=f"{name}-{title}"), tag("p", about, class_="quiet") if about else None, fields
    )


def _default(schema: Json) -> str:
    found = schema.get("default")
    return "" if found is None or found == "" else msgspec.json.encode(found).decode()


def _type(schema: Any, name: str) -> Child:
    """A schema in a few words."""
    if not isinstance(schema, dict) or not schema:
        return "anything"
    if "$ref" in schema:
        title = str(schema["$ref"]).rpartition("/")[2]
        return tag("a", title, href=f"#{name}-{title}")
    if "enum" in schema:
        return " or ".join(map(str, schema["enum"]))
    if several := schema.get("anyOf") or schema.get("oneOf"):
        return list(_joined(several, name))
    kind = schema.get("type", "anything")
    if kind == "array":
        return ("list of ", _type(schema.get("items", {}), name))
    if kind == "object":
        values = schema.get("additionalProperties")
        if isinstance(values, dict) and values:
            return ("object of ", _type(values, name))
        fields = ", ".join(schema.get("properties", {}))
        return f"object: {fields}" if fields else "object"
    return " or ".join(map(str, kind)) if isinstance(kind, list) else str(kind)


def _joined(schemas: list[Any], name: str) -> Iterator[Child]:
    for at, one in enumerate(schemas):
        yield (" or " if at else "", _type(one, name))
