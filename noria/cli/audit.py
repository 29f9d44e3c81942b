"""`noria audit`: the trail of who did what to models, when and why."""

from __future__ import annotations

from argparse import Namespace

from noria.cli.predictions import instant
from noria.cli.show import json_out, out, table
from noria.core import NotFoundError, Settings
from noria.registry import AuditEntry, ModelRegistry, parse_label
from noria.storage import Workspace


def audit(options: Namespace) -> int:
    """Show the audit trail, the newest first; or check that it is what was written."""
    with Workspace.open(Settings.load(options.project)) as workspace:
        registry = ModelRegistry.of(workspace)
        model, version = _which(registry, options.model)
        if options.verify:
            return _verify(registry, model, options.json)
        found = registry.audit(
            model,
            version=version,
            who=options.who,
            action=options.action,
            since=None if options.since is None else instant(options.since),
            until=None if options.until is None else instant(options.until, "until"),
            limit=max(options.limit, 0),
        )
    if options.json:
        json_out(found)
    elif not found:
        chosen = any((options.model, options.who, options.action, options.since, options.until))
        out("nothing of that was done" if chosen else "nothing was done yet")
    else:
        rows = [(one.at[:19], one.who, one.action, f"{one.model}@{one.version}", _why(one)) for one in found]
        out(table(("at (UTC)", "who", "what", "model", "why"), rows))
    return 0


def _which(registry: ModelRegistry, label: str | None) -> tuple[str | None, int | None]:
    """The model and the version that are asked for; says so if there is no such model."""
    if label is None:
        return None, None
    name, version = parse_label(label)
    if name not in registry.models():
        registry.get(name)
    return name, None if version is None else registry.get(name, version).version


def _why(entry: AuditEntry) -> str:
    """The reason, and which gates were closed."""
    closed = [f"{one['gate']}: {one['why']}" for one in entry.verdicts if not one["passed"]]
    return "; ".join(part for part in (entry.why, *closed) if part)


def _verify(registry: ModelRegistry, model: str | None, as_json: bool) -> int:
    names = [model] if model is not None else sorted({*registry.models(), *registry.trail.models()})
    found = [registry.trail.check(name) for name in names]
    if not found:
        raise NotFoundError("there is no model yet, and so no trail", hint="call `noria run`")
    if as_json:
        json_out(found)
    else:
        for one in found:
            out(f"{one.model}: {one.entries:,} entries, " + ("; ".join(one.wrong) or "all as they were written"))
            out(f"  newest digest {one.digest or 'none: the entries are older than the chain'}")
    return 1 if any(one.wrong for one in found) else 0
