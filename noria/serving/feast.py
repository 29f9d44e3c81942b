"""Feast's own forms: a Feast client reads from this server, and pushes to its streams, without a change.

A feature view is a feature group, or a stream where rows are pushed to it. What Feast calls `view:feature` is
`group.feature` here. Rows that are pushed become events of a stream's topic like those of `POST /events`: there is one
path, and its processor brings them both to the table and online.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import msgspec

from noria.core import RequestError, allowed, to_iso
from noria.core.bodies import decode
from noria.serving.events import EventDoor
from noria.serving.exchange import Exchange
from noria.serving.feature_door import Answer, FeatureDoor, Found
from noria.serving.feature_groups import Plan

READ, PUSH, WRITE = "/get-online-features", "/push", "/write-to-online-store"

_NEVER = "1970-01-01T00:00:00Z"
_STATUS = {"present": "PRESENT", "missing": "NOT_FOUND", "expired": "OUTSIDE_MAX_AGE"}
_EVENT = re.compile(r"events\[(\d+)\](?:\.([^:]+))?")

Column = list[msgspec.Raw]


class _Read(msgspec.Struct):
    entities: dict[str, Any]
    features: tuple[str, ...] = ()
    feature_service: str | None = None
    full_feature_names: bool = False


class _Push(msgspec.Struct):
    push_source_name: str
    df: dict[str, Column]
    to: Literal["online", "offline", "online_and_offline"] = "online"


class _Write(msgspec.Struct):
    feature_view_name: str
    df: dict[str, Column]


_read, _push, _write = msgspec.json.Decoder(_Read), msgspec.json.Decoder(_Push), msgspec.json.Decoder(_Write)
_encode = msgspec.json.Encoder().encode


def feast_routes(
    features: FeatureDoor | None, events: EventDoor | None
) -> dict[str, Callable[[Exchange, Answer], None]]:
    """The paths that a server answers for Feast's clients, with what answers them."""
    routes: dict[str, Callable[[Exchange, Answer], None]] = {
        PUSH: partial(_accept_push, events),
        WRITE: partial(_accept_write, events),
    }
    return routes if features is None else {READ: partial(_accept_read, features), **routes}


# --- reading


def _accept_read(door: FeatureDoor, exchange: Exchange, answer: Answer) -> None:
    request = decode(_read, exchange.body)
    if request.feature_service is not None:
        raise RequestError(
            f"there is no feature service {request.feature_service!r}: noria has none",
            status=422,
            field="feature_service",
            hint='name the features: {"features": ["group:feature"]}',
        )
    if not request.features:
        raise RequestError(
            "which features? none is named",
            status=422,
            field="features",
            hint=f'{{"features": ["group:feature"]}}; groups {allowed(door.groups.by_name)}',
        )
    names = tuple(_name(place, reference) for place, reference in enumerate(request.features))
    shown = _shown(names, request)
    door.ask(exchange, (), names, request.entities, partial(_answer, shown, request.entities), answer)


def _name(place: int, reference: str) -> str:
    group, colon, feature = reference.partition(":")
    if not colon:
        raise RequestError(
            f"features[{place}]: {reference!r} names no feature",
            status=422,
            field=f"features[{place}]",
            hint="write group:feature",
        )
    return f"{group}.{feature}"


def _shown(names: tuple[str, ...], request: _Read) -> dict[str, str]:
    """How each feature is called in the answer."""
    if request.full_feature_names:
        return {name: name.replace(".", "__", 1) for name in names}
    shown: dict[str, str] = {}
    taken = set(request.entities)
    for place, name in enumerate(names):
        if name in shown:
            continue
        short = name.partition(".")[2]
        if short in taken:
            raise RequestError(
                f"features[{place}]: something else is called {short!r} in this request too",
                status=422,
                field=f"features[{place}]",
                hint='tell them apart: "full_feature_names": true',
            )
        taken.add(short)
        shown[name] = short
    return shown


def _answer(shown: Mapping[str, str], entities: Mapping[str, Any], plan: Plan, found: Sequence[Found]) -> bytes:
    """Feast's answer: a result for each key and feature, in the order of the names."""
    keys = {key for part in plan for key in part.group.spec.keys}
    names, results = [key for key in entities if key in keys], []
    for key in names:
        rows = len(entities[key])
        results.append(_result(entities[key], ["PRESENT"] * rows, [_NEVER] * rows))
    columns: dict[str, dict[str, Any]] = {}
    for read in found:
        statuses = [_STATUS[status] for status in read.statuses]
        times = [
            to_iso(time) if time is not None and status != "missing" else _NEVER
            for time, status in zip(read.event_times, read.statuses, strict=True)
        ]
        absent = [place for place, status in enumerate(read.statuses) if status != "present"]
        for name, values in read.columns.items():
            if absent:  # in a copy: the prediction log keeps what was read
                values = values.copy()
            for place in absent:
                values[place] = None
            columns[name] = _result(values, statuses, times)
    names += shown.values()
    results += [columns[name] for name in shown]
    return _encode({"metadata": {"feature_names": names}, "results": results})


def _result(values: list[Any], statuses: list[str], times: list[str]) -> dict[str, Any]:
    return {"values": values, "statuses": statuses, "event_timestamps": times}


# --- pushing


def _accept_push(door: EventDoor | None, exchange: Exchange, answer: Answer) -> None:
    request = decode(_push, exchange.body)
    _append(door, "push_source_name", request.push_source_name, request.df, exchange, answer)


def _accept_write(door: EventDoor | None, exchange: Exchange, answer: Answer) -> None:
    request = decode(_write, exchange.body)
    _append(door, "feature_view_name", request.feature_view_name, request.df, exchange, answer)


def _append(
    door: EventDoor | None, field: str, stream: str, columns: dict[str, Column], exchange: Exchange, answer: Answer
) -> None:
    streams = {} if door is None else door.intake.specs
    if door is None or stream not in streams:
        raise RequestError(
            f"there is no stream {stream!r} to push to", status=422, field=field, hint=allowed(streams, stream)
        )
    exchange.body = _events(stream, columns)
    try:
        door.accept(exchange, answer)
    except RequestError as error:
        raise _in_columns(error) from error


def _events(stream: str, columns: dict[str, Column]) -> bytes:
    """The rows as the body of `POST /events`; values are copied as they were written."""
    lengths = {name: len(column) for name, column in columns.items()}
    for name, length in lengths.items():
        if length != max(lengths.values()):
            raise RequestError(
                f"df.{name} has {length} values, another column has {max(lengths.values())}",
                status=422,
                field=f"df.{name}",
                hint="give as many in each",
            )
    names = [_encode(name) + b":" for name in columns]
    rows = [
        b"{%b}" % b",".join([name + bytes(value) for name, value in zip(names, row, strict=True)])
        for row in zip(*columns.values(), strict=True)
    ]
    return b'{"stream":%b,"events":[%b]}' % (_encode(stream), b",".join(rows))


def _in_columns(error: RequestError) -> RequestError:
    """The error about `events[3].user` as one about `df.user[3]`, which is how it was sent."""

    def place(found: re.Match[str]) -> str:
        return f"df.{found[2]}[{found[1]}]" if found[2] else f"df, row {found[1]}"

    field = _EVENT.sub(place, error.field) if error.field else None
    return RequestError(_EVENT.sub(place, error.message), status=error.status, hint=error.hint, field=field)


def describe_feast(routes: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The OpenAPI entries of these routes."""
    told = {
        READ: ("get_online_features", _Read, "Features in the form of Feast's feature server."),
        PUSH: ("push", _Push, "Rows for a stream's log, in the form of Feast's feature server."),
        WRITE: ("write_to_online_store", _Write, "The same, as Feast's remote online store writes."),
    }
    entries = {}
    for path in routes:
        operation, kind, summary = told[path]
        schema, components = msgspec.json.schema_components(
            [kind], ref_template="#/components/schemas/Feast{name}", schema_hook=lambda _: {}
        )
        entries[path] = {
            "components": {f"Feast{name}": component for name, component in components.items()},
            "post": {
                "operationId": operation,
                "summary": summary,
                "requestBody": {"required": True, "content": {"application/json": {"schema": schema[0]}}},
                "responses": {"200": {"description": "OK", "content": {"application/json": {}}}},
            },
        }
    return entries
