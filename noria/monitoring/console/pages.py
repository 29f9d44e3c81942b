"""The pages for people, of the same operations that programs ask for."""

from __future__ import annotations

from noria.core import NoriaError, NotFoundError
from noria.gateway.control import ask
from noria.monitoring.console import models, shown
from noria.monitoring.console.api_page import documents
from noria.monitoring.console.deployment_page import deployment
from noria.monitoring.console.desk import Desk
from noria.monitoring.console.html import Markup, table, tag
from noria.monitoring.console.key_pages import keys
from noria.monitoring.console.layout import Page, page
from noria.monitoring.console.model_page import REPORT, model
from noria.monitoring.console.operations import Operation, Raw
from noria.monitoring.console.prediction_pages import prediction, predictions
from noria.monitoring.console.server_pages import figures, servers
from noria.registry import AuditEntry


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
        figures(desk),
        _clients(desk),
        tag("h2", "Models"),
        table(("model", "champion", "metrics", "trained (UTC)", "tried"), rows, empty="No models yet: call noria run."),
        tag("h2", "Done last"),
        trail(models.audit(desk, models.Trail(limit=8))),
        place="/",
        live=True,
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


def audit(desk: Desk, query: models.Trail) -> Page:
    """Who did what to models."""
    return page("Audit trail", trail(models.audit(desk, query)), place="/audit")


def report(desk: Desk, model: str, version: int) -> Raw:
    """A version's report, as it was kept: a document of its own, without scripts."""
    found = desk.registry.get(model, version)
    if REPORT not in found.files:
        raise NotFoundError(f"{found.label} has no report", hint="pipelines' models have one; older ones have none")
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; frame-ancestors 'none'"
    return Raw(desk.registry.files(found)[REPORT].read_bytes(), "text/html; charset=utf-8", policy=policy)


PAGES = (
    Operation("GET", "/", overview),
    Operation("GET", "/models/{model}", model),
    Operation("GET", "/models/{model}/{version}/report", report),
    Operation("GET", "/deployments/{model}", deployment),
    Operation("GET", "/servers", servers),
    Operation("GET", "/keys", keys),
    Operation("GET", "/predictions", predictions),
    Operation("GET", "/predictions/{id}", prediction),
    Operation("GET", "/audit", audit),
    Operation("GET", "/docs", documents),
)
