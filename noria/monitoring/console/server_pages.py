"""The servers' page, and their figures."""

from __future__ import annotations

from urllib.parse import quote

from noria.core import NoriaError
from noria.gateway.operations import ServerStatus
from noria.monitoring.console import shown
from noria.monitoring.console.desk import Desk
from noria.monitoring.console.html import Child, Markup, table, tag
from noria.monitoring.console.layout import Page, badge, button, form, labelled, page
from noria.monitoring.console.pulse import read_servers

_SERVERS = (
    "server",
    "address",
    "state",
    "weight",
    "in flight",
    "queued",
    "requests",
    "errors",
    "5xx",
    "restarts",
    "check",
)
_NUMBERS = range(3, 10)


def servers(desk: Desk) -> Page:
    """The servers, and what can be done to them."""
    try:
        found = read_servers(desk.project.run_dir)
    except (NoriaError, OSError, ValueError) as error:
        hint = error.hint if isinstance(error, NoriaError) else ""
        return page(
            "Servers",
            tag("p", badge("no servers", "bad"), f" {error.args[0]}"),
            tag("p", hint, class_="quiet"),
            place="/servers",
            live=True,
        )
    return page(
        "Servers",
        figures(desk),
        table((*_SERVERS, ""), map(_row, found), right=_NUMBERS),
        _forms(),
        place="/servers",
        live=True,
    )


def _forms() -> list[Markup]:
    restart = "Restart all replicas, one after the other? No request fails."
    many = (
        labelled("replicas", "minimum", type="number", min=0, required=True, data_kind="number"),
        labelled("at most, by load", "maximum", type="number", min=0, data_kind="number"),
    )
    elsewhere = (
        labelled("address", "address", placeholder="host:port", required=True),
        labelled("weight", "weight", type="number", min=0, max=256, value=100, data_kind="number"),
    )
    return [
        button("Restart all", "/api/servers/restart", ask=restart, why=False),
        tag("h2", "How many"),
        form("/api/servers/scale", *many, submit="Scale", ask="Scale to this many replicas?", why=False),
        tag("h2", "A server on another machine"),
        form("/api/servers", *elsewhere, submit="Add", ask="Add this server?", why=False),
        tag("p", "Both hold until ", tag("code", "noria serve"), " starts anew, by its settings.", class_="quiet"),
    ]


def _row(one: ServerStatus) -> list[Child]:
    state, proxy = _state(one), one.proxy
    kind = {"up": "good", "drained": "busy", "ejected": "busy", "starting": "busy"}.get(state, "bad")
    address = (one.address, tag("br"), tag("small", f"process {one.pid}")) if one.pid else one.address
    counted: list[Child] = [None] * 6
    if proxy is not None:
        totals = (f"{count:,}" for count in (proxy.requests, proxy.errors, proxy.failures))
        counted = [proxy.weight, proxy.sessions, proxy.queued, *totals]
    restarts, check = one.restarts if one.replica else None, proxy.check if proxy else None
    return [one.name, address, badge(state, kind), *counted, restarts, check, _buttons(one)]


def _buttons(one: ServerStatus) -> list[Markup]:
    path, name = f"/api/servers/{quote(one.name, safe='')}", one.name
    if one.drained or one.ejected:
        found = [button("Resume", f"{path}/resume", ask=f"Resume {name}?", why=False)]
    else:
        found = [button("Drain", f"{path}/drain", ask=f"Drain {name}? It gets no new requests.", why=False)]
    for weight in (50, 100):
        if one.proxy and one.proxy.weight != weight:
            question, body = f"Weight {weight} for {name}?", {"weight": weight}
            found.append(button(f"Weight {weight}", f"{path}/weight", ask=question, body=body, why=False))
    if not one.replica:
        found.append(button("Remove", f"{path}/remove", ask=f"Remove {name}?", why=False, danger=True))
    return found


def _state(one: ServerStatus) -> str:
    if one.drained or one.ejected:
        return "drained" if one.drained else "ejected"
    if one.replica not in ("", "ready"):
        return one.replica
    return one.proxy.state.partition(" ")[0].lower() if one.proxy else "unknown"  # `UP 1/2` is up, and being checked


def figures(desk: Desk) -> Markup:
    """The servers in numbers."""
    try:
        servers = read_servers(desk.project.run_dir)
    except (NoriaError, OSError, ValueError) as error:
        told = error.message if isinstance(error, NoriaError) else str(error)
        return tag("p", badge("no servers", "bad"), " ", told)
    up = sum(_state(one) == "up" for one in servers)
    rates = desk.project.pulse.rates()
    busy = [one.proxy for one in servers if one.proxy]
    figures = [
        (f"{up} of {len(servers)}", "servers up", "good" if up == len(servers) else "bad"),
        (shown.rate(rates.requests) if rates else "–", "requests a second", ""),
        (
            shown.rate(rates.failures) if rates else "–",
            "of them failed (5xx)",
            "bad" if rates and rates.failures else "",
        ),
        (shown.rate(rates.errors) if rates else "–", "broken connections", "bad" if rates and rates.errors else ""),
        (f"{sum(one.sessions for one in busy):,}", "in flight", ""),
        (f"{sum(one.queued for one in busy):,}", "waiting", ""),
    ]
    return tag(
        "div",
        (tag("div", tag("b", value, class_=kind), tag("span", what)) for value, what, kind in figures),
        class_="figures",
    )
