"""A deployment's page: who answers, what is known of each, and the buttons by which it goes on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from noria.monitoring.console import deployments, shown
from noria.monitoring.console.desk import Desk
from noria.monitoring.console.drawing import drawn
from noria.monitoring.console.html import Child, Markup, table, tag
from noria.monitoring.console.layout import Page, badge, button, page
from noria.monitoring.judge import Comparison, Verdict
from noria.monitoring.judge import shown as valued
from noria.monitoring.report import Report, between, in_words, steps, tolerated
from noria.registry import Deployment

_KINDS = {"worse": "bad", "better": "good", "open": ""}


def deployment(desk: Desk, model: str) -> Page:
    """A model's present or last deployment."""
    report = deployments.look(desk, model)
    one = report.deployment
    return page(
        f"{one.kind} {one.label}",
        _state(one),
        _buttons(one),
        map(_judged, report.verdicts),
        tag("h2", "Who answers"),
        table(
            ("variant", "version", "share", "requests", "errors", "latency", "reward"),
            _variants(report),
            right=range(1, 7),
        ),
        tag("p", "Steps: ", steps(report)) if one.steps else None,
        tag("h2", f"Compared with {one.control.name}{', in this step' if one.step else ''}"),
        table(
            ("variant", "in", "it has", "instead of", "difference", "", "tolerated", "it is"),
            _comparisons(report.verdicts),
        ),
        tag(
            "p",
            f"All intervals hold at once and at every moment, by {shown.percent(1 - one.judging.alpha)}: "
            "looking often doesn't make them wrong.",
            class_="quiet",
        ),
        _notes(report),
        place="/",
        live=not one.over,
    )


def _state(one: Deployment) -> Markup:
    why = f": {one.why}" if one.why else ""
    model, began = shown.model(one.model), shown.instant(one.started)
    return tag("p", shown.state(one), " of ", model, ", began ", began, " UTC", why)


def _judged(verdict: Verdict) -> Markup:
    finding = badge(verdict.finding, _KINDS[verdict.finding])
    return tag(
        "p", finding, " ", tag("b", f"{verdict.variant.name} {verdict.variant.version}"), f": {in_words(verdict)}"
    )


def _buttons(one: Deployment) -> Markup | None:
    path = f"/api/deployments/{quote(one.model, safe='')}"
    number = {"number": one.number}
    if one.over:
        return None
    pause = button("Pause", f"{path}/pause", ask=f"Pause {one.label}? It takes no further steps.", body=number)
    if one.state == "paused":
        pause = button(
            "Resume", f"{path}/resume", ask=f"Resume {one.label}? Its present step begins anew.", body=number
        )
    winners = [variant.name for variant in (*one.tried, one.control)] if one.kind != "canary" else [one.tried[0].name]
    finish = [
        button(
            f"Finish: {name} wins",
            f"{path}/finish",
            ask=f"Finish {one.label}, with {name} as the champion?",
            body={**number, "winner": name},
        )
        for name in winners
    ]
    if one.kind == "shadow":
        finish.append(button("Finish without a winner", f"{path}/finish", ask=f"Finish {one.label}?", body=number))
    abort = button(
        "Abort", f"{path}/abort", ask=f"Abort {one.label}? The champion alone answers then.", body=number, danger=True
    )
    back = button(
        "Roll back",
        f"/api/models/{quote(one.model, safe='')}/rollback",
        ask=f"Roll back {one.model}? It aborts {one.label}.",
        danger=True,
    )
    return tag("div", pause if one.steps or one.state == "paused" else None, finish, abort, back)


def _variants(report: Report) -> Iterator[list[Child]]:
    one = report.deployment
    for variant in (*one.tried, one.control):
        tally = report.evidence.totals.get(variant.name)
        reward = report.rewards.get(variant.name)
        good = tally.requests - tally.errors if tally and variant in one.variants else 0  # a shadow waits
        yield [
            variant.name,
            variant.version,
            shown.percent(variant.share) if variant in one.variants else "on the side",
            f"{tally.requests:,}" if tally else "0",
            valued("errors", tally.errors / tally.requests) if tally and tally.requests else "–",
            valued("latency", math.exp(tally.log_seconds / good)) if tally and good else "–",
            f"{valued('reward', reward.mean)} of {reward.n:,}" if reward else "–",
        ]


def _comparisons(verdicts: list[Verdict]) -> Iterator[list[Any]]:
    for verdict in verdicts:
        for one in verdict.comparisons:
            yield [
                verdict.variant.name,
                one.question,
                *_both(one),
                between(one) or "not known yet",
                drawn(one),
                tolerated(one),
                badge(one.finding, _KINDS[one.finding]),
            ]


def _both(one: Comparison) -> list[str]:
    return ["–" if value is None else valued(one.question, value) for value in (one.tried, one.control)]


def _notes(report: Report) -> Iterator[Markup]:
    for verdict in report.verdicts:
        if verdict.agreed is not None and verdict.agreement is not None:
            low, high = (shown.percent(end) for end in (verdict.agreement.lower, verdict.agreement.upper))
            agreed = (
                f"{shown.percent(verdict.agreed)} of the answers of {verdict.variant.name} agree ({low} to {high})."
            )
            yield tag("p", agreed)
    if report.note:
        yield tag("p", f"The rewards can't be looked up: {report.note}", class_="bad")
    for name, problem in report.evidence.failed.items():
        yield tag("p", f"{name} can't be loaded everywhere: {problem}", class_="bad")
    if report.waits:
        yield tag("p", f"Reward: {report.waits}.", class_="quiet")
    for name in report.unmet():
        yield tag("p", f"No entity has met {name} yet: does the key have few values?", class_="quiet")
    servers = report.evidence.servers
    yield tag(
        "p", f"Servers that follow: {', '.join(servers)}." if servers else "No server follows yet.", class_="quiet"
    )
