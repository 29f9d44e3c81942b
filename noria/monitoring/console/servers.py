"""Servers: how those of the running gateway are, and other numbers, weights and processes of them."""

from __future__ import annotations

from typing import Any

import msgspec

from noria.gateway.control import conversation
from noria.gateway.errors import GatewayError
from noria.gateway.operations import ServerStatus
from noria.monitoring.console.desk import Desk
from noria.monitoring.console.pulse import read_servers


class Done(msgspec.Struct, frozen=True):
    """What came of it, and what happened on the way."""

    result: Any
    events: list[dict[str, Any]]


class Nothing(msgspec.Struct, forbid_unknown_fields=True):
    """An empty object."""


class Scale(msgspec.Struct, forbid_unknown_fields=True):
    """So many replicas; with a maximum as many in between as the load asks for."""

    minimum: int
    maximum: int | None = None


class Elsewhere(msgspec.Struct, forbid_unknown_fields=True):
    """A server on another machine: `host:port`, and its part of the requests (0 to 256)."""

    address: str
    weight: int = 100


class Weight(msgspec.Struct, forbid_unknown_fields=True):
    """A server's part of the requests: 0 (none) to 256; it has 100 unless told otherwise."""

    weight: int


def listing(desk: Desk) -> list[ServerStatus]:
    """How each server is, with what the load balancer counts of it."""
    return read_servers(desk.project.run_dir)


def scale(desk: Desk, body: Scale) -> Done:
    """Have another number of replicas; answers when they are there."""
    return _do(desk, "scale", minimum=body.minimum, maximum=body.maximum)


def restart(desk: Desk, body: Nothing) -> Done:
    """Replace the replicas one after the other by new processes; no request fails."""
    return _do(desk, "restart")


def add(desk: Desk, body: Elsewhere) -> Done:
    """Send requests to a server on another machine, too."""
    return _do(desk, "add", address=body.address, weight=body.weight)


def remove(desk: Desk, name: str, body: Nothing) -> Done:
    """Take a server on another machine out, when it has finished what it has."""
    return _do(desk, "remove", name=name)


def drain(desk: Desk, name: str, body: Nothing) -> Done:
    """Send a server no new requests."""
    return _do(desk, "drain", name=name)


def resume(desk: Desk, name: str, body: Nothing) -> Done:
    """Send requests to a drained server again."""
    return _do(desk, "resume", name=name)


def weigh(desk: Desk, name: str, body: Weight) -> Done:
    """Let a server have another part of the requests."""
    return _do(desk, "weigh", name=name, weight=body.weight)


def _do(desk: Desk, what: str, **fields: Any) -> Done:
    events: list[dict[str, Any]] = []
    for line in conversation(desk.project.run_dir, what, **fields):
        if "result" in line:
            return Done(line["result"], events)
        events.append(line)
    raise GatewayError("the gateway has ended before it answered", hint="its output and .noria/serve/logs tell why")
