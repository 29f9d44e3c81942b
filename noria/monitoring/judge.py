"""Judging a deployment: whether what is tried is worse than the control, better, or not known to be either.

Each tried variant is compared in its share of errors, its typical latency, and its reward if there is one. A finding is
a whole confidence sequence beyond what is tolerated, so that looking every second is no reason to be wrong more often:
over all questions, variants and steps together the chance to find any of them worse (or better) that isn't is
`Judging.alpha` at most (each has an equal part of it: Bonferroni).

Requests count for as many as are independent (see `noria.monitoring.clusters`): an entity that fails again and again
is one that fails. What still may look worse than it is: a variant that happened to be asked more while everything
failed for a few seconds; `Judging.errors`, what is tolerated, is for that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from noria.monitoring.clusters import effective_errors, effective_logarithms
from noria.monitoring.confidence import NOTHING, Interval, Moments, mean_difference, rate, rate_difference
from noria.monitoring.evidence import Evidence
from noria.registry import Deployment, Judging, Variant
from noria.serving.exposures import Tally, twin

Finding = Literal["worse", "better", "open"]
Question = Literal["errors", "latency", "reward"]


@dataclass(frozen=True)
class Comparison:
    """A tried variant beside the control, in one respect.

    Attributes:
        question: in which.
        tried, control: share of errors, geometric mean of the latencies in seconds, or mean reward; None while there
            is none.
        difference: the tried one's less the control's, which for latencies is their ratio.
        tolerated: how large the difference may be; of a reward, how small.
    """

    question: Question
    tried: float | None
    control: float | None
    difference: Interval
    tolerated: float

    @property
    def finding(self) -> Finding:
        """What is known."""
        low, high = self.difference.lower, self.difference.upper
        if self.question == "reward":
            return "worse" if high < self.tolerated else "better" if low > 0.0 else "open"
        same = 1.0 if self.question == "latency" else 0.0
        return "worse" if low > self.tolerated else "better" if high < same else "open"

    def in_words(self) -> str:
        """`errors 3.1% instead of 0.2% (at least 1.9 points more)`."""
        if self.tried is None or self.control is None:
            return f"{self.question}: not known yet"
        tried, control = (shown(self.question, value) for value in (self.tried, self.control))
        return f"{self.question} {tried} instead of {control}{self._bound()}"

    def _bound(self) -> str:
        low, high = self.difference.lower, self.difference.upper
        up = low if self.question != "latency" else low - 1.0
        down = high if self.question != "latency" else high - 1.0
        if up <= 0.0 <= down:
            return ""
        if self.question == "latency":
            return f" (at least {low:.3g} times)" if up > 0.0 else f" (at most {high:.3g} times)"
        least = f"{abs(low if up > 0.0 else high) * (100 if self.question == 'errors' else 1):.3g}"
        unit = " points" if self.question == "errors" else ""
        return f" (at least {least}{unit} {'more' if up > 0.0 else 'less'})"


@dataclass(frozen=True)
class Verdict:
    """What is known of a tried variant.

    Attributes:
        variant: which.
        requests: that it answered in the present step.
        comparisons: with the control.
        agreed: of a shadow, the share of its answers that were the same as those given; None without any.
        agreement: the confidence sequence of that share.
    """

    variant: Variant
    requests: int
    comparisons: tuple[Comparison, ...]
    agreed: float | None = None
    agreement: Interval | None = None

    @property
    def finding(self) -> Finding:
        """Worse if it is in any respect; better if it is in one and worse in none."""
        found = {comparison.finding for comparison in self.comparisons}
        return "worse" if "worse" in found else "better" if "better" in found else "open"


def judge(deployment: Deployment, evidence: Evidence, rewards: Mapping[str, Moments] | None = None) -> list[Verdict]:
    """Compare each tried variant with the control.

    Args:
        deployment: what is tried.
        evidence: what servers counted.
        rewards: the mean reward by variant (see `noria.monitoring.rewards`).
    """
    control = evidence.of(deployment.control.name)
    if deployment.control.share == 0.0:
        # The last step of a canary: the control answers nobody. What it did before is what there is to compare with.
        control = evidence.totals.get(deployment.control.name, Tally())
    alpha = part_of_alpha(deployment)
    verdicts = []
    for variant in deployment.tried:
        tally = evidence.of(variant.name)
        # As many requests, answered in as small batches: the control's others are answered many together.
        like = evidence.of(twin(variant.name))
        found = [errors(tally, control, deployment.judging, alpha)]
        if variant in deployment.variants:  # a shadow answers when nobody waits: how long it takes says nothing
            found.append(latency(tally, like if like.requests else control, deployment.judging, alpha))
        if _has_reward(deployment, variant):
            seen = rewards or {}
            both = seen.get(variant.name), seen.get(deployment.control.name)
            found.append(reward(*both, deployment.judging, alpha))
        agreed = tally.agreed / tally.compared if tally.compared else None
        agreement = rate(tally.agreed, tally.compared, deployment.judging.alpha) if tally.compared else None
        verdicts.append(Verdict(variant, tally.requests, tuple(found), agreed, agreement))
    return verdicts


def part_of_alpha(deployment: Deployment) -> float:
    """Alpha for one question about one variant in one step."""
    asked = [1 + (variant in deployment.variants) + _has_reward(deployment, variant) for variant in deployment.tried]
    questions = sum(asked)
    return deployment.judging.alpha / (questions * max(len(deployment.steps), 1))


def _has_reward(deployment: Deployment, variant: Variant) -> bool:
    """A shadow has none: its answers go to nobody."""
    return deployment.judging.reward is not None and variant in deployment.variants


def errors(tried: Tally, control: Tally, judging: Judging, alpha: float) -> Comparison:
    """The shares of requests that failed."""
    difference = rate_difference(*effective_errors(tried), *effective_errors(control), alpha)
    return Comparison("errors", _share(tried), _share(control), difference, judging.errors)


def latency(tried: Tally, control: Tally, judging: Judging, alpha: float) -> Comparison:
    """The geometric means of the latencies of what didn't fail: the mean logarithms are compared."""
    one, other = effective_logarithms(tried), effective_logarithms(control)
    apart = mean_difference(one, other, alpha)
    ratio = Interval(_exp(apart.lower), _exp(apart.upper))
    return Comparison("latency", _typical(one), _typical(other), ratio, judging.latency)


def reward(tried: Moments | None, control: Moments | None, judging: Judging, alpha: float) -> Comparison:
    """The mean rewards."""
    one, other = tried or NOTHING, control or NOTHING
    means = _mean(one), _mean(other)
    return Comparison("reward", *means, mean_difference(one, other, alpha), -judging.reward_loss)


def _share(tally: Tally) -> float | None:
    return tally.errors / tally.requests if tally.requests else None


def _mean(sample: Moments) -> float | None:
    return sample.mean if sample.n else None


def _typical(logarithms: Moments) -> float | None:
    return math.exp(logarithms.mean) if logarithms.n else None


def shown(question: Question, value: float) -> str:
    """A value as people read it: `3.1%`, `42 ms`, `0.731`."""
    if question == "errors":
        return f"{value * 100:.3g}%"
    if question == "latency":
        return f"{value * 1000:.3g} ms" if value < 1.0 else f"{value:.3g} s"
    return f"{value:.4g}"


def _exp(value: float) -> float:
    return math.exp(value) if value < 700.0 else math.inf
