"""The forms by which a version is tried."""

from __future__ import annotations

import json
from urllib.parse import quote

from noria.monitoring.console.html import Markup, tag
from noria.monitoring.console.layout import choice, form, labelled
from noria.monitoring.console.models import ModelDetails
from noria.registry import CHAMPION


def forms(found: ModelDetails) -> Markup | None:
    """One for each kind of deployment; None while there is nothing to try."""
    now = found.aliases.get(CHAMPION)
    others = [one.version for one in found.versions if one.version != now]
    if now is None or not others:
        return None
    post = f"/api/deployments/{quote(found.name, safe='')}"
    made = (_canary(post, others), _steps(post, others), _shadow(post, others), _experiment(post, now, others))
    return tag("section", tag("h2", "Try a version"), made)


def _canary(post: str, others: list[int]) -> Markup:
    percent = {"type": "number", "min": 0, "max": 100, "step": "any", "value": 10, "data_kind": "share"}
    return form(
        post,
        _version("canary", others),
        labelled("share of the entities, %", "canary", **percent),
        submit="Start canary",
        ask="Start this canary? What is worse for certain goes back by itself.",
    )


def _steps(post: str, others: list[int]) -> Markup:
    return form(
        post,
        _version("canary in steps", others),
        labelled("shares, %", "steps", value="1, 10, 50, 100", required=True, data_kind="shares"),
        labelled("each lasts", "every", value="10m", size=6, required=True),
        submit="Start steps",
        ask="Start this canary in steps? After the last one it is the champion.",
    )


def _shadow(post: str, others: list[int]) -> Markup:
    return form(
        post,
        _version("shadow", others),
        tag("input", type="hidden", name="shadow", value='{"shadow": true}', data_kind="json"),
        submit="Start shadow",
        ask="Start this shadow? Its answers go to nobody.",
    )


def _experiment(post: str, now: int, others: list[int]) -> Markup:
    def arms(treatment: int) -> str:
        found = [{"name": "control", "version": now}, {"name": "treatment", "version": treatment}]
        return json.dumps({"ab": found})

    shown = {arms(version): f"control {now}, treatment {version}: half and half" for version in others}
    return form(
        post,
        choice("experiment", "ab", shown, "json"),
        submit="Start experiment",
        ask="Start this experiment?",
    )


def _version(label: str, others: list[int]) -> Markup:
    return choice(label, "version", {str(version): f"version {version}" for version in others}, "number")
