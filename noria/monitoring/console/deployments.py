"""Deployments: what is tried of a model, what is known of it, and how it goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from noria.core import ConfigError, ConflictError, duration
from noria.monitoring.confidence import checked
from noria.monitoring.console.desk import Desk
from noria.monitoring.report import Report, report
from noria.monitoring.rewards import check_reward
from noria.registry import Deployment, Judging, Reward, Variant


class Arm(msgspec.Struct, forbid_unknown_fields=True):
    """A variant of an experiment; those without a share have equal parts of the rest."""

    name: str
    version: int
    share: float | None = None


class RewardGiven(msgspec.Struct, forbid_unknown_fields=True):
    """Events that show how good an answer was: their number, or the sum of a column.

    Attributes:
        source: whose table has them.
        value: the column to be summed; empty to count the events.
        by: `id` where they name the answer's id in `request_id`, else the column with the entity.
        within: how long after the answer they count: `1h`.
        time: the column with their times; the only one where it is empty.
    """

    source: str
    value: str = ""
    by: str = "id"
    within: str = "1h"
    time: str = ""


class Limits(msgspec.Struct, forbid_unknown_fields=True):
    """When a variant is worse; see `noria deploy --help`. Shares are from 0 to 1."""

    alpha: float = 0.05
    errors: float = 0.001
    latency: float = 1.5
    reward: RewardGiven | None = None
    reward_loss: float = 0.0


class Deploy(msgspec.Struct, forbid_unknown_fields=True):
    """What to try: a canary (`version`, and `canary` or `steps`), a shadow (`version`), or an experiment (`ab`).

    Attributes:
        canary: the share of the entities that it answers, from 0 to 1.
        steps, every: shares one after another, and how long each lasts at least: `10m`.
        shadow: whether the version is asked on the side, and its answers go to nobody.
        ab: variants; the one called `control`, or else the first one, is what the others are compared with.
    """

    version: int | None = None
    canary: float | None = None
    steps: list[float] = []
    every: str = ""
    shadow: bool = False
    ab: list[Arm] = []
    judging: Limits = msgspec.field(default_factory=Limits)
    why: str = ""


class Change(msgspec.Struct, forbid_unknown_fields=True):
    """Why, and optionally which deployment is meant, so that a later one isn't hit."""

    why: str = ""
    number: int | None = None


class Finish(msgspec.Struct, forbid_unknown_fields=True):
    """Who has won, where several could have; `force` even if the champion has changed meanwhile."""

    winner: str | None = None
    force: bool = False
    why: str = ""
    number: int | None = None


def listing(desk: Desk) -> list[Deployment]:
    """Every model's present or last deployment."""
    return desk.deployments.all()


def history(desk: Desk, model: str) -> list[Deployment]:
    """A model's deployments that are over, the newest first."""
    desk.registry.versions(model)
    return desk.deployments.history(model)


def look(desk: Desk, model: str) -> Report:
    """A model's present or last deployment with what its judge sees.

    Raises:
        NotFoundError: there was none.
    """
    found = desk.deployments.get(model) or desk.deployments.running(model)
    return report(desk.project.workspace(), found)


def show(desk: Desk, model: str) -> dict[str, Any]:
    """A model's present or last deployment with the judge's verdict."""
    return look(desk, model).plain()


def start(desk: Desk, model: str, body: Deploy) -> Deployment:
    """Try a version beside the champion: a canary, in steps or not, a shadow, or an experiment."""
    limits = _judging(desk, body.judging)
    begin = desk.deployments.start
    if body.ab:
        if body.version is not None or body.canary is not None or body.steps or body.shadow:
            raise ConfigError("an experiment's versions stand in `ab`", hint="leave the others out", field="ab")
        tried, control = _arms(body.ab)
        return begin(model, tried, kind="ab", control=control, judging=limits, why=body.why, who=desk.who)
    if body.version is None:
        raise ConfigError("it isn't said which version to try", hint="give `version`, or `ab`", field="version")
    if body.shadow:
        if limits.reward is not None or body.canary is not None or body.steps:
            raise ConfigError(
                "a shadow's answers go to nobody: it has no share and no reward",
                hint="leave `canary`, `steps` and `reward` out",
                field="shadow",
            )
        return begin(model, [], kind="shadow", shadow=body.version, judging=limits, why=body.why, who=desk.who)
    if (body.canary is None) == (not body.steps) or bool(body.steps) != bool(body.every):
        raise ConfigError(
            "a canary has either one share or steps",
            hint='as in {"canary": 0.1} or {"steps": [0.01, 0.1, 1], "every": "10m"}',
            field="canary",
        )
    canary = Variant("canary", body.version, body.steps[0] if body.steps else body.canary or 0.0)
    every = duration(body.every) if body.steps else 0
    return begin(model, [canary], steps=body.steps, every=every, judging=limits, why=body.why, who=desk.who)


def pause(desk: Desk, model: str, body: Change) -> Deployment:
    """Take no further steps; the shares stay as they are, and what is worse still goes back."""
    return _change(desk, model, body, desk.deployments.pause)


def resume(desk: Desk, model: str, body: Change) -> Deployment:
    """Take steps again; the present one begins anew."""
    return _change(desk, model, body, desk.deployments.resume)


def abort(desk: Desk, model: str, body: Change) -> Deployment:
    """Give every request to the champion again."""
    return _change(desk, model, body, desk.deployments.abort)


def finish(desk: Desk, model: str, body: Finish) -> Deployment:
    """End it, and make the winner the champion."""
    _meant(desk, model, body.number)
    return desk.deployments.finish(model, winner=body.winner, force=body.force, why=body.why, who=desk.who)


def _change(desk: Desk, model: str, body: Change, change: Callable[..., Deployment]) -> Deployment:
    _meant(desk, model, body.number)
    return change(model, why=body.why, who=desk.who)


def _meant(desk: Desk, model: str, number: int | None) -> None:
    if number is None:
        return
    found = desk.deployments.running(model)
    if found.number != number:
        raise ConflictError(f"{model}/{number} is over; {found.label} runs now", hint="look again")


def _arms(arms: list[Arm]) -> tuple[list[Variant], Variant]:
    open_ones = sum(arm.share is None for arm in arms)
    left = 1.0 - sum(arm.share or 0.0 for arm in arms)
    if len(arms) < 2 or left < -1e-9 or (not open_ones and left > 1e-9):
        raise ConfigError(
            f"{len(arms)} variants share {1.0 - left:.4%} of the entities",
            hint="give at least two, whose shares add up to 1",
            field="ab",
        )
    made = [
        Variant(arm.name, arm.version, max(left, 0.0) / open_ones if arm.share is None else arm.share) for arm in arms
    ]
    control = next((one for one in made if one.name == "control"), made[0])
    return [one for one in made if one is not control], control


def _judging(desk: Desk, given: Limits) -> Judging:
    if min(given.errors, given.reward_loss) < 0.0 or given.latency < 1.0:
        raise ConfigError("a limit is too small", hint="errors and reward_loss from 0, latency from 1", field="judging")
    reward = None
    if given.reward is not None:
        one = given.reward
        reward = Reward(one.source, one.value, one.by, duration(one.within), one.time)
        table = desk.project.workspace().table(one.source)
        if table.version() is None:
            raise ConfigError(
                f"there is no table {one.source!r} with rewards", hint="name a source that has been run", field="reward"
            )
        check_reward(reward, table.scan().collect_schema())
    return Judging(checked(given.alpha), given.errors, given.latency, reward, given.reward_loss)
