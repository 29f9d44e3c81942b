"""The ASGI application: each request is let in, understood, done in a thread, and answered; errors become problems."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from noria.core import ConfigError, NoriaError, NotFoundError, RequestError
from noria.monitoring.console.desk import Desk, Project
from noria.monitoring.console.guard import Guard
from noria.monitoring.console.layout import Page, failed, render
from noria.monitoring.console.openapi import document, template
from noria.monitoring.console.operations import API, Operation, Raw
from noria.monitoring.console.pages import PAGES
from noria.telemetry import MLLogger

MAX_BODY = 65_536
_SAFE = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


@dataclass(frozen=True)
class Console:
    """What the application works with.

    Attributes:
        project: what is administered.
        guard: who is let in.
        log: where changes and bugs are written down.
    """

    project: Project
    guard: Guard
    log: MLLogger


def application(console: Console) -> Starlette:
    """The ASGI application."""
    described = msgspec.json.encode(document())

    def openapi(desk: Desk) -> Raw:
        """This document."""
        return Raw(described, "application/json")

    operations = (*API, Operation("GET", "/api/openapi.json", openapi), *PAGES)
    routes = [Route(template(path), _Endpoint(console, found)) for path, found in _by_path(operations).items()]

    async def lost(request: Request, error: Exception) -> Response:
        unknown = NotFoundError(f"there is nothing at {request.url.path}", hint="see /docs, or /api/openapi.json")
        return _problem(request, unknown)

    return Starlette(routes=routes, exception_handlers={404: lost})


def _by_path(operations: Iterable[Operation]) -> dict[str, dict[str, Operation]]:
    found: dict[str, dict[str, Operation]] = {}
    for one in operations:
        found.setdefault(one.path, {})[one.method] = one
    return found


@dataclass(frozen=True)
class _Endpoint:
    """What is at one path. It is no function, since Starlette lets every method through to other callables alone."""

    console: Console
    operations: dict[str, Operation]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            response = await _answer(self.console, self.operations, request)
        except NoriaError as error:
            response = _problem(request, error)
        except ClientDisconnect:
            return
        except Exception as error:  # a bug of ours: the console goes on
            self.console.log.log_error(error, method=request.method, path=request.url.path)
            told = RequestError("the console failed to answer this request", status=500, hint="its log tells why")
            response = _problem(request, told)
        await response(scope, receive, send)


async def _answer(console: Console, operations: dict[str, Operation], request: Request) -> Response:
    console.guard.check_host(request.headers)
    one = operations.get("GET" if request.method == "HEAD" else request.method)
    if one is None:
        allow = ", ".join(sorted(operations))
        error = RequestError(f"{request.url.path} takes no {request.method}", status=405, hint=f"allowed: {allow}")
        return _problem(request, error, {"allow": allow})
    who, key = (None, b"") if one.public else console.guard.admit(request.headers)
    if one.method != "GET":
        console.guard.check_change(request.headers)
    given = _given(one, request, await _body(request))
    desk = Desk(console.project, who, key)
    done = await run_in_threadpool(one.do, desk, **given)
    if one.method != "GET":
        console.log.log("change", operation=one.name, who=who, path=request.url.path)
    return _response(done)


async def _body(request: Request) -> bytes:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY:
            raise RequestError("the request is too long", status=413, hint=f"at most {MAX_BODY} bytes")
    return body


def _given(one: Operation, request: Request, body: bytes) -> dict[str, Any]:
    """The function's arguments.

    Raises:
        RequestError: one is missing or wrong.
    """
    types, given = one.types, dict[str, Any]()
    try:
        for name in one.in_path:
            given[name] = msgspec.convert(request.path_params[name], types[name], strict=False)
        if "query" in types:
            given["query"] = msgspec.convert(dict(request.query_params), types["query"], strict=False)
        if "body" in types:
            given["body"] = msgspec.json.decode(body, type=types["body"])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RequestError(f"the request can't be read: {error}", hint="see /docs, or /api/openapi.json") from error
    return given


def _response(done: Any) -> Response:
    if isinstance(done, Page):
        return _html(render(done, nonce := secrets.token_urlsafe(16)), nonce, done.status)
    if isinstance(done, Raw):
        policy = {"content-security-policy": done.policy} if done.policy else {}
        return Response(done.body, done.status, {**_SAFE, **policy}, done.kind)
    return Response(msgspec.json.encode(done), 200, _SAFE, "application/json")


def _html(text: str, nonce: str, status: int, headers: dict[str, str] | None = None) -> Response:
    policy = (
        f"default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self'; "
        "img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    more = {**_SAFE, "content-security-policy": policy, **(headers or {})}
    return Response(text, status, more, "text/html; charset=utf-8")


def _problem(request: Request, error: NoriaError, headers: dict[str, str] | None = None) -> Response:
    """An error, as a problem document, or as a page where people look."""
    status = 422 if isinstance(error, ConfigError) and error.status == 500 else error.status
    headers = dict(headers or {})
    if status == 401:
        headers["www-authenticate"] = (
            'Basic realm="noria: an API key with the scope admin as password", charset="UTF-8"'
        )
    elif status in (429, 503):
        headers["retry-after"] = str(getattr(error, "retry_after", 1))
    machine = request.url.path.startswith(("/api/", "/metrics", "/health"))
    if not machine and "text/html" in request.headers.get("accept", ""):
        nonce = secrets.token_urlsafe(16)
        return _html(render(failed(error, status), nonce), nonce, status, headers)
    problem = {**error.to_problem(), "status": status, "instance": request.url.path}
    return Response(msgspec.json.encode(problem), status, {**_SAFE, **headers}, "application/problem+json")
