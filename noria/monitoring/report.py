"""Report: a deployment with what is known of it, as its judge sees it, and in the words that people read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from noria.core import NoriaError, to_iso
from noria.monitoring.confidence import Interval, Moments
from noria.monitoring.evidence import Evidence, gather
from noria.monitoring.judge import Comparison, Verdict, judge
from noria.monitoring.rewards import awaited, rewards
from noria.monitoring.rollout import ENOUGH
from noria.registry import Deployment, ModelRegistry
from noria.serving.exposures import Tally
from noria.storage import Workspace

_SOON = 10_000_000
"""Microseconds in which servers take a deployment up."""
_UNMET = 10
"""So many requests a variant would have had, were each somebody else's: that none came isn't chance any more."""


@dataclass(frozen=True)
class Report:
    """A deployment with what is known of it.

    Attributes:
        champion: the version that is the champion now.
        rewards: by variant; empty while there are none.
        note: why the rewards couldn't be looked up.
        waits: what is missing of the rewards, where there are none yet.
        at: when it was looked at, microseconds.
    """

    deployment: Deployment
    champion: int
    evidence: Evidence
    rewards: dict[str, Moments]
    verdicts: list[Verdict]
    note: str
    waits: str = ""
    at: int = 0

    @property
    def followed(self) -> str:
        """Which servers follow, in words."""
        deployment = self.deployment
        servers = self.evidence.servers
        if servers:
            late = {name: f" (still at step {at + 1})" if at != deployment.step else "" for name, at in servers.items()}
            return f"servers that follow: {', '.join(name + late[name] for name in servers)}"
        if not deployment.over and 0 <= self.at - deployment.started < _SOON:
            return "no server follows yet; servers take it up within a few seconds"
        return "no server follows yet: is `noria serve` running?"

    def unmet(self) -> list[str]:
        """The variants that no entity has met, though there were enough requests for it."""
        deployment, totals = self.deployment, self.evidence.totals
        asked = totals.get(deployment.control.name, Tally()).requests
        return [
            one.name
            for one in deployment.variants[:-1]
            if one.name not in self.evidence.failed
            and not totals.get(one.name, Tally()).requests
            and asked * one.share >= _UNMET
        ]

    def plain(self) -> dict[str, Any]:
        """As plain JSON data; an end of an interval that is infinite is null."""
        return {
            **self.deployment.to_dict(),
            "label": self.deployment.label,
            "champion": self.champion,
            "servers": self.evidence.servers,
            "failed": self.evidence.failed,
            "since": self.evidence.since,
            "counted": {"step": self.evidence.step, "total": self.evidence.totals},
            "rewards": self.rewards,
            "note": self.note,
            "waits": self.waits,
            "unmet": self.unmet(),
            "verdicts": [_verdict(one) for one in self.verdicts],
        }


def report(workspace: Workspace, deployment: Deployment) -> Report:
    """Look at a deployment as its judge does."""
    evidence = gather(workspace.records, deployment)
    found, note, waits = {}, "", ""
    now = workspace.clock.now()
    wanted = deployment.judging.reward
    if wanted is not None:
        try:
            found = rewards(workspace, deployment, wanted, evidence.since, now)
            waits = "" if found else awaited(workspace, deployment, wanted, evidence.since)
        except NoriaError as error:
            note = error.message
    champion = ModelRegistry.of(workspace).get(deployment.model).version
    return Report(deployment, champion, evidence, found, judge(deployment, evidence, found), note, waits, now)


def steps(report: Report) -> str:
    """The steps of a canary, which of them are done, and when the next one is due."""
    deployment = report.deployment
    parts = []
    for at, share in enumerate(deployment.steps):
        over = at < deployment.step or deployment.state == "finished"
        mark = " done" if over else " now" if at == deployment.step and not deployment.over else ""
        parts.append(f"{share * 100:.4g}%{mark}")
    text = ", ".join(parts)
    if deployment.state != "running":
        return text
    requests = report.evidence.of(deployment.variants[0].name).requests
    lacking = f", and {ENOUGH - requests} more requests" if requests < ENOUGH else ""
    last = deployment.step + 1 == len(deployment.steps)
    due = to_iso(deployment.stepped + deployment.every)[:19]
    return f"{text}; {'it becomes the champion' if last else 'the next'} not before {due} UTC{lacking}"


def between(one: Comparison) -> str | None:
    """The interval in which the difference is; None while nothing is known of it."""
    low, high = one.difference.lower, one.difference.upper
    if not math.isfinite(high) or one.tried is None or one.control is None:
        return None
    if one.question == "latency":
        return f"{low:.3g} to {high:.3g} times"
    if one.question == "errors":
        return f"{low * 100:+.3g} to {high * 100:+.3g} points"
    return f"{low:+.3g} to {high:+.3g}"


def tolerated(one: Comparison) -> str:
    """How large the difference may be."""
    if one.question == "latency":
        return f"{one.tolerated:.3g} times"
    return f"{one.tolerated * 100:+.3g} points" if one.question == "errors" else f"{one.tolerated or 0.0:+.3g}"


def in_words(verdict: Verdict) -> str:
    """What is known of a variant, and by what."""
    known = [one.in_words() for one in verdict.comparisons if one.finding == verdict.finding]
    if verdict.finding == "open":
        return "neither worse nor better, as far as can be known"
    return f"{verdict.finding}, by {', '.join(known)}"


def _verdict(verdict: Verdict) -> dict[str, Any]:
    return {
        "variant": verdict.variant.name,
        "version": verdict.variant.version,
        "requests": verdict.requests,
        "finding": verdict.finding,
        "agreed": verdict.agreed,
        "agreement": _ends(verdict.agreement),
        "comparisons": [
            {
                "question": one.question,
                "tried": one.tried,
                "control": one.control,
                "difference": _ends(one.difference),
                "tolerated": one.tolerated,
                "finding": one.finding,
            }
            for one in verdict.comparisons
        ],
    }


def _ends(interval: Interval | None) -> list[float | None] | None:
    if interval is None:
        return None
    return [end if math.isfinite(end) else None for end in (interval.lower, interval.upper)]
