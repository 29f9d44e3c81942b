"""The pages for people, of the same operations that programs ask for."""

from __future__ import annotations

from urllib.parse import quote

from noria.core import NoriaError
from noria.gateway.control import ask
from noria.gateway.operations import ServerStatus
from noria.monitoring.console import keys, models, shown
from noria.monitoring.console.api_page import documents
from noria.monitoring.console.deployment_page import deployment
from noria.monitoring.console.desk import Desk
from noria.monitoring.console.html import Child, Markup, table, tag
from noria.monitoring.console.layout import Page, badge, button, form, labelled, page
from noria.monitoring.console.model_page import model
from noria.monitoring.console.operations import Operation
from noria.monitoring.console.prediction_pages import prediction, predictions
from noria.monitoring.console.pulse import read_servers
from noria.registry import AuditEntry
from noria.serving.scopes import SCOPES

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


def overview(desk: Desk) -> Page:
    """Everything in short."""
    found = models.listing(desk)
    rows = [
        (
            shown.model(one.name),
            f"version {one.champion.version}" if one.champion else "none yet",
            shown.metrics(one.champion.metrics) if one.champion else None,
            shown.instant(one.champion.created) if one.champion else None,
            (
                shown.deployment(one.tried),
                " ",
                shown.state(one.tried),
                tag("br"),
                tag("small", shown.answering(one.tried)),
            )
            if one.tried and not one.tried.over
            else "nothing",
        )
        for one in found
    ]
    return page(
        "Overview",
        _figures(desk),
        _clients(desk),
        tag("h2", "Models"),
        table(("model", "champion", "metrics", "trained (UTC)", "tried"), rows, empty="No models yet: call noria run."),
        tag("h2", "Done last"),
        trail(models.audit(desk, models.Trail(limit=8))),
        place="/",
        live=True,
    )


def _figures(desk: Desk) -> Markup:
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


def _clients(desk: Desk) -> Markup | None:
    """Where they come in."""
    try:
        url = ask(desk.project.run_dir, "addresses")["url"]
    except (NoriaError, OSError, ValueError):
        return None
    return tag(
        "p", "Clients come in at ", tag("code", url), ". ", tag("a", "What they can ask", href="/docs"), class_="quiet"
    )


def trail(entries: list[AuditEntry]) -> Markup:
    """The audit trail as a table."""
    rows = [
        (shown.instant(one.at), one.who, one.action, (shown.model(one.model), f" {one.version}"), one.why)
        for one in entries
    ]
    return table(("at (UTC)", "who", "what", "model", "why"), rows, empty="Nothing was done yet.")


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
        _figures(desk),
        table((*_SERVERS, ""), map(_row, found), right=_NUMBERS),
        button(
            "Restart all",
            "/api/servers/restart",
            ask="Restart all replicas, one after the other? No request fails.",
            why=False,
        ),
        tag("h2", "How many"),
        tag(
            "form",
            labelled("replicas", "minimum", type="number", min=0, required=True, data_kind="number", size=5),
            labelled("at most, by load", "maximum", type="number", min=0, data_kind="number", size=5),
            tag("button", "Scale"),
            data_post="/api/servers/scale",
            data_ask="Scale to this many replicas?",
        ),
        tag("h2", "A server on another machine"),
        tag(
            "form",
            labelled("address", "address", placeholder="host:port", required=True),
            labelled("weight", "weight", type="number", min=0, max=256, value=100, data_kind="number"),
            tag("button", "Add"),
            data_post="/api/servers",
            data_ask="Add this server?",
        ),
        tag(
            "p",
            "Until the next start of ",
            tag("code", "noria serve"),
            ", which reads its settings anew.",
            class_="quiet",
        ),
        place="/servers",
        live=True,
    )


def _row(one: ServerStatus) -> list[Child]:
    path = f"/api/servers/{quote(one.name, safe='')}"
    state, counted = _state(one), one.proxy
    kind = {"up": "good", "drained": "busy", "ejected": "busy", "starting": "busy"}.get(state, "bad")
    rest = button("Resume", f"{path}/resume", ask=f"Resume {one.name}?", why=False)
    if not (one.drained or one.ejected):
        rest = button("Drain", f"{path}/drain", ask=f"Drain {one.name}? It gets no new requests.", why=False)
    weights = [
        button(
            f"Weight {weight}",
            f"{path}/weight",
            ask=f"Weight {weight} for {one.name}?",
            body={"weight": weight},
            why=False,
        )
        for weight in (50, 100)
        if counted and counted.weight != weight
    ]
    gone = (
        None if one.replica else button("Remove", f"{path}/remove", ask=f"Remove {one.name}?", why=False, danger=True)
    )
    more = (
        [None] * 6
        if counted is None
        else [
            counted.weight,
            counted.sessions,
            counted.queued,
            f"{counted.requests:,}",
            f"{counted.errors:,}",
            f"{counted.failures:,}",
        ]
    )
    address = (one.address, tag("br"), tag("small", f"process {one.pid}")) if one.pid else one.address
    return [
        one.name,
        address,
        badge(state, kind),
        *more,
        one.restarts if one.replica else None,
        counted.check if counted else None,
        (rest, weights, gone),
    ]


def _state(one: ServerStatus) -> str:
    if one.drained or one.ejected:
        return "drained" if one.drained else "ejected"
    if one.replica not in ("", "ready"):
        return one.replica
    return one.proxy.state.lower() if one.proxy else "unknown"


def keys_page(desk: Desk) -> Page:
    """The API keys."""
    rows = []
    for one in keys.listing(desk):
        path = f"/api/keys/{quote(one.name, safe='')}"
        ids = [
            (tag("code", f"noria_{key.id}_…"), f" until {key.until[:19]}" if key.until else "", tag("br"))
            for key in one.keys
        ]
        act = (
            None
            if one.revoked
            else (
                button(
                    "Rotate", f"{path}/rotate", ask=f"Rotate {one.name}? The key before works for another 24 hours."
                ),
                button(
                    "Revoke", f"{path}/revoke", ask=f"Revoke {one.name}? Its keys end within a second.", danger=True
                ),
            )
        )
        kind = {"valid": "good", "revoked": "bad"}.get(one.status, "")
        rows.append(
            (one.name, ", ".join(one.scopes), one.rate, badge(one.status, kind), ids, shown.instant(one.created), act)
        )
    scopes = [
        tag(
            "label",
            tag("input", type="checkbox", name="scopes", value=scope, checked=scope == "predict"),
            tag("span", scope, title=what),
            class_="check",
        )
        for scope, what in SCOPES.items()
    ]
    changed = [
        (shown.instant(one.at), one.who, one.action, one.name, one.detail, one.why)
        for one in keys.changes(desk, keys.Changes(limit=20))
    ]
    return page(
        "API keys",
        table(
            ("name", "scopes", "rate", "status", "keys", "made (UTC)", ""),
            rows,
            empty="None yet: nobody is asked for a key, and only this machine can ask.",
        ),
        tag("h2", "A new one"),
        form(
            "/api/keys",
            labelled("name", "name", required=True, pattern="[a-z][a-z0-9_\\-]*", maxlength=64),
            scopes,
            labelled("rate", "rate", placeholder="100/s", size=8),
            labelled("ends after", "expires", placeholder="90d", size=8),
            submit="Create",
            ask="Create this key?",
        ),
        tag("h2", "Changes"),
        table(("at (UTC)", "who", "what", "name", "", "why"), changed),
        place="/keys",
    )


def audit(desk: Desk, query: models.Trail) -> Page:
    """Who did what to models."""
    return page("Audit trail", trail(models.audit(desk, query)), place="/audit")


PAGES = (
    Operation("GET", "/", overview),
    Operation("GET", "/models/{model}", model),
    Operation("GET", "/deployments/{model}", deployment),
    Operation("GET", "/servers", servers),
    Operation("GET", "/keys", keys_page),
    Operation("GET", "/predictions", predictions),
    Operation("GET", "/predictions/{id}", prediction),
    Operation("GET", "/audit", audit),
    Operation("GET", "/docs", documents),
)
