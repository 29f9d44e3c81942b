"""What `noria deployment show` tells."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from noria.cli.show import table
from noria.core import to_iso
from noria.monitoring.judge import Verdict, shown
from noria.monitoring.report import Report, between, in_words, steps, tolerated


def told(report: Report) -> Iterator[str]:
    """The report in lines."""
    deployment = report.deployment
    why = f": {deployment.why}" if deployment.why else ""
    started = to_iso(deployment.started)[:19]
    yield f"{deployment.label}  {deployment.kind}, {deployment.state}{why}  (started {started} UTC)"
    yield table(("variant", "version", "share", "requests", "errors", "latency", "reward"), _rows(report), _RIGHT)
    if deployment.steps:
        yield f"\nsteps: {steps(report)}"
    since = " of this step" if deployment.step else ""
    yield f"\ncompared with {deployment.control.name}, by the requests{since}:"
    header = ("variant", "in", "it has", "instead of", "difference", "tolerated", "it is")
    yield table(header, (row for one in report.verdicts for row in _compared(one)))
    for verdict in report.verdicts:
        if verdict.agreed is not None and verdict.agreement is not None:
            between = " to ".join(f"{end * 100:.4g}%" for end in (verdict.agreement.lower, verdict.agreement.upper))
            yield f"{verdict.variant.name}: {verdict.agreed * 100:.4g}% of its answers agree ({between})"
        yield f"{verdict.variant.name} {verdict.variant.version}: {in_words(verdict)}"
    if not deployment.over and report.champion not in deployment.versions:
        yield f"version {report.champion} has become the champion meanwhile; it answers nobody until this is over"
    better = [one.variant.name for one in report.verdicts if one.finding == "better"]
    if deployment.kind == "ab" and better and not deployment.over:
        yield f"to end it: noria deployment finish {deployment.model} --winner {better[0]}"
    if report.waits:
        yield f"reward: {report.waits}"
    if report.note:
        yield f"the rewards can't be looked up: {report.note}"
    for name, problem in report.evidence.failed.items():
        yield f"{name} can't be loaded everywhere: {problem}"
    for name in report.unmet():
        yield f"{name}: no entity has met it yet; where the key has few values, have clients name others: X-Entity-Id"
    yield report.followed


_RIGHT = ("version", "share", "requests", "errors", "latency", "reward")


def _rows(report: Report) -> Iterator[tuple[Any, ...]]:
    """What each variant did since the deployment began; rewards are of the present step."""
    deployment = report.deployment
    for variant in (*deployment.tried, deployment.control):
        tally = report.evidence.totals.get(variant.name)
        reward = report.rewards.get(variant.name)
        good = tally.requests - tally.errors if tally and variant in deployment.variants else 0  # a shadow waits
        yield (
            variant.name,
            variant.version,
            "asked too" if variant not in deployment.variants else f"{variant.share * 100:.4g}%",
            tally.requests if tally else 0,
            shown("errors", tally.errors / tally.requests) if tally and tally.requests else None,
            shown("latency", math.exp(tally.log_seconds / good)) if tally and good else None,
            f"{shown('reward', reward.mean)} of {reward.n:,}" if reward else None,
        )


def _compared(verdict: Verdict) -> Iterator[tuple[Any, ...]]:
    for one in verdict.comparisons:
        both = [None if value is None else shown(one.question, value) for value in (one.tried, one.control)]
        yield verdict.variant.name, one.question, *both, between(one), tolerated(one), one.finding
