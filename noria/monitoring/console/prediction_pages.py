"""The pages of recorded predictions."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from noria.monitoring.console import predictions as recorded
from noria.monitoring.console import shown
from noria.monitoring.console.desk import Desk
from noria.monitoring.console.html import Markup, table, tag
from noria.monitoring.console.layout import Page, labelled, page

_MOST_ROWS = 20


def predictions(desk: Desk, query: recorded.Newest) -> Page:
    """The newest ones."""
    rows = [
        (
            shown.instant(one.at),
            tag("a", one.id if len(one.id) <= 16 else f"{one.id[:13]}…", href=f"/predictions/{quote(one.id, safe='')}"),
            one.kind
            if one.model is None
            else (shown.model(one.model), f" {one.version}", tag("small", f" {one.variant}")),
            f"{one.latency * 1000:.1f}",
            shown.short(_given(one.inputs)),
            shown.short(_given(one.output, "model", "version")),
        )
        for one in recorded.listing(desk, query)
    ]
    share = desk.project.settings.predictions.log_share
    return page(
        "Predictions",
        tag(
            "p",
            f"Servers record {shown.percent(share)} of the requests, and at least one a second each. The newest:"
            if share
            else "Servers record none: predictions.log_share is 0.",
            class_="quiet",
        ),
        tag(
            "form",
            labelled("model, or model@version", "model", value=query.model or "", size=24),
            labelled("at most", "limit", type="number", min=1, max=10_000, value=query.limit),
            tag("button", "Show"),
            method="get",
        ),
        table(
            ("answered (UTC)", "id", "model", "ms", "asked", "answered"), rows, right=(3,), empty="None is recorded."
        ),
        place="/predictions",
    )


def _given(value: Any, *known: str) -> Any:
    """What was said, without what was left out or is known."""
    if isinstance(value, dict):
        return {name: part for name, part in value.items() if part is not None and name not in known}
    return value


def prediction(desk: Desk, id: str) -> Page:
    """One, with its model and features."""
    return page(f"Prediction {id}", [_told(one) for one in recorded.show(desk, id)], place="/predictions")


def _told(one: dict[str, Any]) -> Markup:
    known = one.get("registered") or {}
    facts = {
        "answered": f"{one['at']} in {one['latency'] * 1000:.1f} ms",
        "by": (shown.model(one["model"]), f" version {one['version']} {one.get('variant', '')}")
        if one.get("model")
        else one["kind"],
        "registered": f"{known['at'][:19]} by run {known['run']}" if known else "",
        "trained on": ", ".join(f"{name} version {version}" for name, version in known.get("data", {}).items()),
        "chosen": {"share": "by chance", "second": "as the only one of its second"}.get(one["chosen"], one["chosen"]),
        "traceparent": one.get("traceparent", ""),
    }
    return tag(
        "section",
        tag("dl", ((tag("dt", name), tag("dd", value)) for name, value in facts.items() if value)),
        tag("h2", "Asked"),
        shown.json(one.get("inputs")),
        tag("h2", "Answered"),
        shown.json(one.get("output")),
        (_read(read) for read in one["groups"]),
    )


def _read(read: dict[str, Any]) -> Markup:
    def status(at: int) -> str:
        return "expired" if read["expired"][at] else "present" if read["found"][at] else "missing"

    rows = [
        (
            ", ".join(map(str, entity)) if isinstance(entity, list) else entity,
            name,
            shown.short(column[at]),
            status(at),
            (read["event_times"][at] or "–")[:19],
        )
        for at, entity in enumerate(read["ids"][:_MOST_ROWS])
        for name, column in read["values"].items()
    ]
    as_of = f", as of {read['as_of']}" if read.get("as_of") else ""
    more = tag("p", f"… of {read['rows']} entities", class_="quiet") if read["rows"] > _MOST_ROWS else None
    title = tag("h2", f"Features: {read['version'] or read['place']}{as_of}")
    return tag("section", title, table(("entity", "feature", "value", "status", "newest event"), rows), more)
