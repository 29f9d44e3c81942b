"""What `noria deployment show` tells."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from noria.cli.show import table
from noria.core import NoriaError, to_iso
from noria.monitoring.confidence import Interval, Moments
from noria.monitoring.evidence import Evidence, gather
from noria.monitoring.judge import Comparison, Verdict, judge, shown
from noria.monitoring.rewards import rewards
from noria.monitoring.rollout import ENOUGH
from noria.registry import Deployment, ModelRegistry
from noria.storage import Workspace


@dataclass(frozen=True)
class Report:
    """A deployment with what is known of it.

    Attributes:
        champion: the version that is the champion now.
        rewards: by variant; empty while there are none.
        note: why the rewards couldn't be looked up.
    """

    deployment: Deployment
    champion: int
    evidence: Evidence
    rewards: dict[str, Moments]
    verdicts: list[Verdict]
    note: str

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
            "verdicts": [_verdict(one) for one in self.verdicts],
        }


def report(workspace: Workspace, deployment: Deployment) -> Report:
    """Look at a deployment as its judge does."""
    evidence = gather(workspace.records, deployment)
    found, note = {}, ""
    if deployment.judging.reward is not None:
        now = workspace.clock.now()
        try:
            found = rewards(workspace, deployment, deployment.judging.reward, evidence.since, now)
        except NoriaError as error:
            note = error.message
    champion = ModelRegistry.of(workspace).get(deployment.model).version
    return Report(deployment, champion, evidence, found, judge(deployment, evidence, found), note)


def told(report: Report) -> Iterator[str]:
    """The report in lines."""
    deployment = report.deployment
    why = f": {deployment.why}" if deployment.why else ""
    started = to_iso(deployment.started)[:19]
    yield f"{deployment.label}  {deployment.kind}, {deployment.state}{why}  (started {started} UTC)"
    yield table(("variant", "version", "share", "requests", "errors", "latency", "reward"), _rows(report), _RIGHT)
    if deployment.steps:
        yield f"\nsteps: {_steps(report)}"
    since = " of this step" if deployment.step else ""
    yield f"\ncompared with {deployment.control.name}, by the requests{since}:"
    header = ("variant", "in", "it has", "instead of", "difference", "tolerated", "it is")
    yield table(header, (row for one in report.verdicts for row in _compared(one)))
    for verdict in report.verdicts:
        if verdict.agreed is not None and verdict.agreement is not None:
            between = " to ".join(f"{end * 100:.4g}%" for end in (verdict.agreement.lower, verdict.agreement.upper))
            yield f"{verdict.variant.name}: {verdict.agreed * 100:.4g}% of its answers agree ({between})"
        yield f"{verdict.variant.name} {verdict.variant.version}: {_in_words(verdict)}"
    if not deployment.over and report.champion not in deployment.versions:
        yield f"version {report.champion} has become the champion meanwhile; it answers nobody until this is over"
    better = [one.variant.name for one in report.verdicts if one.finding == "better"]
    if deployment.kind == "ab" and better and not deployment.over:
        yield f"to end it: noria deployment finish {deployment.model} --winner {better[0]}"
    if report.note:
        yield f"the rewards can't be looked up: {report.note}"
    for name, problem in report.evidence.failed.items():
        yield f"{name} can't be loaded everywhere: {problem}"
    step = deployment.step
    servers = [
        name if at == step else f"{name} (still at step {at + 1})" for name, at in report.evidence.servers.items()
    ]
    yield (
        f"servers that follow: {', '.join(servers)}" if servers else "no server follows yet: is `noria serve` running?"
    )


_RIGHT = ("version", "share", "requests", "errors", "latency", "reward")


def _rows(report: Report) -> Iterator[tuple[Any, ...]]:
    """What each variant did since the deployment began; rewards are of the present step."""
    deployment = report.deployment
    for variant in (*deployment.tried, deployment.control):
        tally = report.evidence.totals.get(variant.name)
        reward = report.rewards.get(variant.name)
        good = tally.requests - tally.errors if tally else 0
        yield (
            variant.name,
            variant.version,
            "asked too" if variant not in deployment.variants else f"{variant.share * 100:.4g}%",
            tally.requests if tally else 0,
            shown("errors", tally.errors / tally.requests) if tally and tally.requests else None,
            shown("latency", math.exp(tally.log_seconds / good)) if tally and good else None,
            f"{shown('reward', reward.mean)} of {reward.n:,}" if reward else None,
        )


def _steps(report: Report) -> str:
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


def _compared(verdict: Verdict) -> Iterator[tuple[Any, ...]]:
    for one in verdict.comparisons:
        both = [None if value is None else shown(one.question, value) for value in (one.tried, one.control)]
        yield verdict.variant.name, one.question, *both, _between(one), _tolerated(one), one.finding


def _between(one: Comparison) -> str | None:
    low, high = one.difference.lower, one.difference.upper
    if not math.isfinite(high) or one.tried is None or one.control is None:
        return None
    if one.question == "latency":
        return f"{low:.3g} to {high:.3g} times"
    if one.question == "errors":
        return f"{low * 100:+.3g} to {high * 100:+.3g} points"
    return f"{low:+.3g} to {high:+.3g}"


def _tolerated(one: Comparison) -> str:
    if one.question == "latency":
        return f"{one.tolerated:.3g} times"
    return f"{one.tolerated * 100:+.3g} points" if one.question == "errors" else f"{one.tolerated or 0.0:+.3g}"


def _in_words(verdict: Verdict) -> str:
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
