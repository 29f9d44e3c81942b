"""A model's page: its versions, what is and was tried of it, and who did what."""

from __future__ import annotations

from urllib.parse import quote

from noria.monitoring.console import models, shown
from noria.monitoring.console.desk import Desk
from noria.monitoring.console.html import Markup, table, tag
from noria.monitoring.console.layout import Page, button, page
from noria.monitoring.console.trial_forms import forms
from noria.registry import CHAMPION, ModelVersion

REPORT = "report.html"
"""The version's file with its report, where it has one."""


def model(desk: Desk, model: str) -> Page:
    """A model with its versions, deployments and trail."""
    found = models.show(desk, model)
    path = f"/api/models/{quote(model, safe='')}"
    tried = next((one for one in found.deployments if not one.over), None)
    now = found.aliases.get(CHAMPION)
    rows = [
        (
            (tag("b", one.version), " ", shown.aliases(one.version, found.aliases), _report(one)),
            shown.instant(one.created),
            shown.metrics(one.metrics),
            one.servable,
            None if tried or one.version == now else _promote(one, path),
        )
        for one in found.versions
    ]
    rollback = button("Roll back", f"{path}/rollback", ask=f"Roll {model} back to what was before?", danger=True)
    trail = [
        (shown.instant(one.at), one.who, one.action, one.version, one.why)
        for one in models.audit(desk, models.Trail(model))
    ]
    return page(
        model,
        tag(
            "p",
            "Champion: ",
            tag("b", f"version {now}" if now else "none yet"),
            "   ",
            rollback if tried or now else None,
        ),
        _tried(found),
        tag("h2", "Versions"),
        table(("version", "trained (UTC)", "metrics", "kind", ""), rows),
        map(_details, found.versions),
        None if tried else forms(found),
        tag("h2", "Audit trail"),
        table(("at (UTC)", "who", "what", "version", "why"), trail),
        place="/",
    )


def _report(one: ModelVersion) -> Markup | None:
    """Where to read how good it is."""
    path = f"/models/{quote(one.name, safe='')}/{one.version}/report"
    return tag("small", " ", tag("a", "report", href=path)) if REPORT in one.files else None


def _promote(one: ModelVersion, path: str) -> Markup:
    return button(
        "Promote",
        f"{path}/promote",
        ask=f"Promote {one.label}? It answers everybody at once.",
        body={"version": one.version},
    )


def _details(one: ModelVersion) -> Markup:
    """Where the version comes from."""
    size = sum(blob.size for blob in one.files.values())
    parts = {
        "run": one.run_id,
        "files": f"{', '.join(one.files)} ({size:,} bytes)",
        "data": ", ".join(f"{name} version {version}" for name, version in one.lineage.data.items()),
        "features": ", ".join(f"{name} {version}" for name, version in one.lineage.features.items()),
        "code": ", ".join(f"{name} {version}" for name, version in one.lineage.code.items()),
        "takes": ", ".join(f"{name} {kind}" for name, kind in one.signature.inputs.items()),
        "gives": ", ".join(f"{name} {kind}" for name, kind in one.signature.outputs.items()),
    }
    listed = tag("dl", ((tag("dt", name), tag("dd", value)) for name, value in parts.items() if value))
    return tag(
        "details",
        tag("summary", f"Where {one.label} comes from"),
        listed,
        shown.json({"metrics": one.metrics, "parameters": one.parameters}),
    )


def _tried(found: models.ModelDetails) -> Markup:
    rows = [
        (
            shown.deployment(one) if at == 0 else one.label,
            one.kind,
            shown.state(one),
            shown.instant(one.started),
            shown.answering(one),
            one.why,
        )
        for at, one in enumerate(found.deployments)
    ]
    header = ("deployment", "kind", "state", "began (UTC)", "who answered", "why")
    return tag("section", tag("h2", "Deployments"), table(header, rows, empty="Nothing was tried yet."))
