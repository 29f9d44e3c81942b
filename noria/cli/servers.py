"""`noria servers`, `scale` and `restart`: ask the `noria serve` that runs in this project."""

from __future__ import annotations

import re
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from noria.cli.serve import event_line, not_running, run_directory
from noria.cli.show import json_out, out, say, table
from noria.core import ConfigError, Settings
from noria.gateway.control import conversation
from noria.gateway.errors import NoGatewayError

_CHANGES = {"replica_ready": "started", "replica_retired": "ended"}
_COLUMNS = ("sessions", "queued", "requests", "errors", "failures")


def listing(options: Namespace) -> int:
    """A line for each server."""
    servers = _ask(options, "servers")
    if options.json:
        json_out(servers)
        return 0
    header = ("SERVER", "ADDRESS", "PID", "STATE", "WEIGHT", *map(str.upper, _COLUMNS), "RESTARTS", "CHECK")
    out(table(header, map(_row, servers), right=("PID", "WEIGHT", *map(str.upper, _COLUMNS), "RESTARTS")))
    return 0


def scale(options: Namespace) -> int:
    """Have another number of replicas."""
    found = re.fullmatch(r"(\d+)(?:-(\d+))?", options.replicas)
    if not found:
        raise ConfigError(f"{options.replicas!r} is no number of servers", hint="write 4, or 2-8 to scale by load")
    fields: dict[str, Any] = {"minimum": int(found[1]), "maximum": found[2] and int(found[2])}
    if options.force:  # else it isn't said: a gateway of an older noria doesn't know it
        fields["force"] = True
    counts = Counter[str]()
    _ask(options, "scale", counts, **fields)
    done = [f"{counts[event]} {word}" for event, word in _CHANGES.items() if counts[event]]
    out(f"{found[0]} {'server' if found[0] == '1' else 'servers'}{': ' if done else ''}{', '.join(done)}")
    return 0


def restart(options: Namespace) -> int:
    """Replace the replicas one after the other."""
    _ask(options, "restart")
    out("all servers are new")
    return 0


def add(options: Namespace) -> int:
    """Put a server elsewhere behind the load balancer."""
    name = _ask(options, "add", address=options.address, weight=options.weight)
    out(f"{name} gets requests as soon as it is healthy; until the next start, see serve.servers")
    return 0


def remove(options: Namespace) -> int:
    """Take a server elsewhere out."""
    _ask(options, "remove", name=options.name)
    out(f"{options.name} is out")
    return 0


def drain(options: Namespace) -> int:
    """Send a server nothing new."""
    done = _ask(options, "drain", name=options.name)
    out(f"{options.name} gets no new requests{'' if done else ', and is still busy with some'}")
    return 0


def resume(options: Namespace) -> int:
    """Send a server requests again."""
    _ask(options, "resume", name=options.name)
    out(f"{options.name} gets requests again")
    return 0


def weight(options: Namespace) -> int:
    """Let a server have more or less."""
    _ask(options, "weigh", name=options.name, weight=options.weight)
    out(f"{options.name} has weight {options.weight}")
    return 0


def _ask(options: Namespace, do: str, counts: Counter[str] | None = None, **fields: Any) -> Any:
    """The result; what happens on the way is told, or only counted where it is what was asked for."""
    for line in _lines(Settings.load(options.project), do, fields):
        if counts is not None and line.get("event") in _CHANGES:
            counts[line["event"]] += 1
        elif "event" in line:
            say(event_line(line.pop("event"), line))
        else:
            return line["result"]
    raise ConfigError("noria serve has ended before it answered", hint="its output and .noria/serve/logs tell why")


def _lines(settings: Settings, do: str, fields: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    try:
        yield from conversation(run_directory(settings), do, **fields)
    except NoGatewayError as error:
        raise not_running(settings) from error


def _row(server: Mapping[str, Any]) -> tuple[Any, ...]:
    proxy = server["proxy"] or {}
    wish = "drained" if server["drained"] else "ejected" if server["ejected"] else ""
    state = server["replica"] if server["replica"] not in ("", "ready") else proxy.get("state", "unknown")
    return (
        server["name"],
        server["address"],
        None if server["pid"] is None else str(server["pid"]),
        wish or state.lower(),
        proxy.get("weight"),
        *(proxy.get(column) for column in _COLUMNS),
        server["restarts"] if server["replica"] else None,
        proxy.get("check") or None,
    )
