"""The API keys' page."""

from __future__ import annotations

from urllib.parse import quote

from noria.monitoring.console import keys as known
from noria.monitoring.console import shown
from noria.monitoring.console.desk import Desk
from noria.monitoring.console.html import Child, Markup, table, tag
from noria.monitoring.console.layout import Page, badge, button, form, labelled, page
from noria.serving.scopes import SCOPES


def keys(desk: Desk) -> Page:
    """The API keys."""
    changed = [
        (shown.instant(one.at), one.who, one.action, one.name, one.detail, one.why)
        for one in known.changes(desk, known.Changes(limit=20))
    ]
    header = ("name", "scopes", "rate", "status", "keys", "made (UTC)", "")
    return page(
        "API keys",
        table(header, map(_row, known.listing(desk)), empty="None yet: this machine's users need none."),
        tag("h2", "A new one"),
        _form(),
        tag("h2", "Changes"),
        table(("at (UTC)", "who", "what", "name", "", "why"), changed),
        place="/keys",
    )


def _row(one: known.KeyInfo) -> list[Child]:
    ids = [
        (tag("code", f"noria_{key.id}_…"), f" until {key.until[:19]}" if key.until else "", tag("br"))
        for key in one.keys
    ]
    kind = {"valid": "good", "revoked": "bad"}.get(one.status, "")
    about = [one.name, ", ".join(one.scopes), one.rate, badge(one.status, kind), ids, shown.instant(one.created)]
    return [*about, None if one.revoked else _buttons(one.name)]


def _buttons(name: str) -> list[Markup]:
    path = f"/api/keys/{quote(name, safe='')}"
    rotate = f"Rotate {name}? The key before works for another 24 hours."
    revoke = f"Revoke {name}? Its keys end within a second."
    return [
        button("Rotate", f"{path}/rotate", ask=rotate),
        button("Revoke", f"{path}/revoke", ask=revoke, danger=True),
    ]


def _form() -> Markup:
    scopes = [
        tag(
            "label",
            tag("input", type="checkbox", name="scopes", value=scope, checked=scope == "predict"),
            tag("span", scope, title=what),
            class_="check",
        )
        for scope, what in SCOPES.items()
    ]
    return form(
        "/api/keys",
        labelled("name", "name", required=True, pattern="[a-z][a-z0-9_\\-]*", maxlength=64),
        scopes,
        labelled("rate", "rate", placeholder="100/s", size=8),
        labelled("ends after", "expires", placeholder="90d", size=8),
        submit="Create",
        ask="Create this key?",
    )
