"""Models: their versions, who answers, and the trail of what was done."""

from __future__ import annotations

import msgspec

from noria.core import RequestError
from noria.monitoring.console.desk import Desk
from noria.registry import CHAMPION, AuditEntry, Deployment, ModelVersion


class ModelSummary(msgspec.Struct, frozen=True):
    """A model in short.

    Attributes:
        aliases: which version each of them means.
        champion: the version that answers; none while nothing was promoted.
        tried: the present or last deployment.
    """

    name: str
    aliases: dict[str, int]
    champion: ModelVersion | None
    tried: Deployment | None


class ModelDetails(msgspec.Struct, frozen=True):
    """A model with all its versions and deployments, the newest first."""

    name: str
    aliases: dict[str, int]
    versions: list[ModelVersion]
    deployments: list[Deployment]


class Promote(msgspec.Struct, forbid_unknown_fields=True):
    """Which version answers from now on, and why.

    Attributes:
        force: even if it doesn't pass its gates, or another one is tried; then `why` must be told.
    """

    version: int
    why: str = ""
    force: bool = False


class Reason(msgspec.Struct, forbid_unknown_fields=True):
    """Why, for the audit trail."""

    why: str = ""


class RolledBack(msgspec.Struct, frozen=True):
    """Who answers again, and the deployment that was aborted for it, if one was."""

    champion: int
    aborted: str | None


class Trail(msgspec.Struct):
    """Which entries: of one model, and how many at most."""

    model: str | None = None
    limit: int = 100


def listing(desk: Desk) -> list[ModelSummary]:
    """All models."""
    registry, tried = desk.registry, {one.model: one for one in desk.deployments.all()}
    return [
        ModelSummary(
            name, aliases, registry.get(name, aliases[CHAMPION]) if CHAMPION in aliases else None, tried.get(name)
        )
        for name, aliases in registry.models().items()
    ]


def show(desk: Desk, model: str) -> ModelDetails:
    """A model with its versions and deployments."""
    versions = desk.registry.versions(model)
    deployments = desk.deployments
    present, over = deployments.get(model), deployments.history(model)
    tried = [present, *over] if present is not None and not present.over else over
    return ModelDetails(model, desk.registry.models().get(model, {}), versions, tried)


def version(desk: Desk, model: str, version: int) -> ModelVersion:
    """A version, with its metrics, parameters, signature and lineage."""
    return desk.registry.get(model, version)


def promote(desk: Desk, model: str, body: Promote) -> ModelSummary:
    """Make a version the champion, at once and for everybody.

    It has to pass the gates that were declared when it was trained.
    """
    if body.force and not body.why.strip():
        raise RequestError("a forced promotion needs its reason", status=422, field="why")
    found = desk.registry.get(model, body.version)
    if found.parameters.get("gates"):
        _past_gates(desk, found, body)
        return next(one for one in listing(desk) if one.name == model)
    if not body.force:
        desk.deployments.check_idle(model)
    desk.registry.files(found)  # says so if they are damaged
    desk.registry.promote(model, body.version, why=body.why, who=desk.who)
    return next(one for one in listing(desk) if one.name == model)


def _past_gates(desk: Desk, version: ModelVersion, body: Promote) -> None:
    from noria.training.gating import kept_gates, promote  # brings model libraries, which the console starts without

    workspace = desk.project.workspace()
    promote(workspace, version, kept_gates(version), force=body.force, why=body.why, who=desk.who)


def rollback(desk: Desk, model: str, body: Reason) -> RolledBack:
    """Take back what was changed last: what is tried now, or else the champion."""
    tried = desk.deployments.tried(model)
    back = desk.deployments.rollback(model, why=body.why, who=desk.who)
    return RolledBack(back.version, None if tried is None else tried.label)


def audit(desk: Desk, query: Trail) -> list[AuditEntry]:
    """Who did what to models, when and why, the newest first."""
    if query.model is not None:
        desk.registry.versions(query.model)  # says so if there is no such model
    return desk.registry.audit(query.model)[: max(query.limit, 0)]
