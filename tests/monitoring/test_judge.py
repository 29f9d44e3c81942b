from __future__ import annotations

import math
from pathlib import Path

import msgspec
import numpy as np
import pytest

from noria.monitoring.confidence import Moments
from noria.monitoring.evidence import Evidence, begin_step, gather
from noria.monitoring.judge import judge, part_of_alpha
from noria.registry import Deployment, Judging, Reward, Variant
from noria.serving.exposures import TALLIES, Tally, tally_key
from noria.storage import Put, open_records

CANARY = Deployment("late", 1, "canary", (Variant("canary", 4, 0.1), Variant("champion", 3, 0.9)), 0)
BOUGHT = Reward("purchases")


def tally(requests: int, errors: int = 0, seconds: float = 0.04, spread: float = 0.5, seed: int = 0) -> Tally:
    """What a server counts of so many requests."""
    made = Tally()
    times = np.exp(np.random.default_rng(seed).normal(math.log(seconds), spread, requests))
    for at, time in enumerate(times):
        made.add(float(time), failed=at < errors)
    return made


def evidence(**totals: Tally) -> Evidence:
    return Evidence(totals, totals, 0)


def findings(deployment: Deployment, seen: Evidence, rewards: dict[str, Moments] | None = None) -> dict[str, str]:
    (verdict,) = judge(deployment, seen, rewards)
    return {comparison.question: comparison.finding for comparison in verdict.comparisons}


def test_equal_variants_are_open() -> None:
    seen = evidence(canary=tally(1_000, 2, seed=1), champion=tally(9_000, 20, seed=2))
    assert findings(CANARY, seen) == {"errors": "open", "latency": "open"}


def test_errors_are_told_in_figures() -> None:
    seen = evidence(canary=tally(1_000, 31, seed=1), champion=tally(9_000, 18, seed=2))
    (verdict,) = judge(CANARY, seen)
    assert verdict.finding == "worse"
    (errors, _) = verdict.comparisons
    assert (errors.tried, errors.control) == (0.031, 0.002)
    assert errors.in_words().startswith("errors 3.1% instead of 0.2% (at least ")
    assert errors.in_words().endswith(" points more)")
    assert 0.001 < errors.difference.lower < 0.029 < errors.difference.upper


def test_what_is_tolerated_is_not_worse() -> None:
    seen = evidence(canary=tally(20_000, 400, 0.06, seed=1), champion=tally(20_000, 20, 0.04, seed=2))
    assert findings(CANARY, seen) == {"errors": "worse", "latency": "open"}
    lenient = Judging(errors=0.05, latency=2.0)
    tolerant = Deployment(CANARY.model, 1, "canary", CANARY.variants, 0, judging=lenient)
    assert findings(tolerant, seen) == {"errors": "open", "latency": "open"}
    strict = Deployment(CANARY.model, 1, "canary", CANARY.variants, 0, judging=Judging(latency=1.2))
    (_, latency) = judge(strict, seen)[0].comparisons
    assert latency.finding == "worse"
    assert latency.in_words().startswith("latency 59.7 ms instead of 40.1 ms (at least 1.4")
    assert latency.in_words().endswith(" times)")


def test_better_ones_are_known_too() -> None:
    seen = evidence(canary=tally(5_000, 0, 0.03, seed=1), champion=tally(5_000, 150, 0.04, seed=2))
    (verdict,) = judge(CANARY, seen)
    assert verdict.finding == "better"
    assert [comparison.finding for comparison in verdict.comparisons] == ["better", "better"]


def test_rewards() -> None:
    rewarding = Deployment("late", 1, "canary", CANARY.variants, 0, judging=Judging(reward=BOUGHT))
    seen = evidence(canary=tally(500), champion=tally(500))
    enough = {"canary": Moments(5_000, 0.8, 1.0), "champion": Moments(5_000, 1.0, 1.0)}
    assert findings(rewarding, seen, enough)["reward"] == "worse"
    assert findings(rewarding, seen, {"canary": enough["champion"], "champion": enough["canary"]})["reward"] == "better"
    assert findings(rewarding, seen, {})["reward"] == "open"
    tolerant = Judging(reward=BOUGHT, reward_loss=0.5)
    assert findings(Deployment("late", 1, "canary", CANARY.variants, 0, judging=tolerant), seen, enough)["reward"] == (
        "open"
    )


def test_alpha_is_shared_out() -> None:
    variants = (Variant("a", 4, 0.2), Variant("b", 5, 0.2), Variant("control", 3, 0.6))
    assert part_of_alpha(CANARY) == pytest.approx(0.05 / 2)
    made = Deployment("late", 1, "ab", variants, 0, shadow=6, judging=Judging(reward=BOUGHT))
    assert part_of_alpha(made) == pytest.approx(0.05 / 7)  # two variants in three ways, the shadow in one
    assert part_of_alpha(Deployment("late", 1, "canary", CANARY.variants, 0, steps=(0.1, 1.0))) == pytest.approx(0.0125)


def test_a_shadow_is_told_by_how_often_it_agrees() -> None:
    deployment = Deployment("late", 1, "shadow", (Variant("champion", 3, 1.0),), 0, shadow=4)
    shadow = tally(1_000)
    for at in range(1_000):
        shadow.compare(agreed=at % 10 > 0)
    (verdict,) = judge(deployment, evidence(shadow=shadow, champion=tally(1_000)))
    assert verdict.agreed == 0.9
    assert verdict.agreement is not None
    assert 0.85 < verdict.agreement.lower < 0.9 < verdict.agreement.upper < 0.94
    assert [comparison.question for comparison in verdict.comparisons] == ["errors"]  # it answers aside


def test_nothing_is_known_of_variants_without_answers() -> None:
    (verdict,) = judge(CANARY, evidence())
    assert (verdict.finding, verdict.requests, verdict.agreed) == ("open", 0, None)
    assert [one.in_words() for one in verdict.comparisons] == ["errors: not known yet", "latency: not known yet"]
    all_failed = evidence(canary=tally(50, 50), champion=tally(500))
    assert findings(CANARY, all_failed) == {"errors": "worse", "latency": "open"}


def test_ever_judging_equal_canaries_worse_has_the_chance_alpha_at_most() -> None:
    """The whole judge, in three steps, looked at ten times in each: errors of 1%, latencies, rewards."""
    rng = np.random.default_rng(7)
    steps, experiments, worse = (0.05, 0.25, 0.5), 120, 0
    judging = Judging(errors=0.0, latency=1.0, reward=BOUGHT)
    for _ in range(experiments):
        found = False
        for share in steps:
            variants = (Variant("canary", 4, share), Variant("champion", 3, 1 - share))
            deployment = Deployment("late", 1, "canary", variants, 0, steps=steps, every=1, judging=judging)
            asked = {"canary": int(1_000 * share), "champion": int(1_000 * (1 - share))}
            totals = {name: Tally() for name in asked}
            brought = {name: np.zeros(3) for name in asked}
            for _look in range(10):
                for name, n in asked.items():
                    failed = int(rng.binomial(n, 0.01))
                    logs, rewards = rng.normal(-3, 0.5, n - failed), rng.poisson(0.3, n)
                    totals[name] += Tally(n, failed, float(logs.sum()), float((logs**2).sum()))
                    brought[name] += [n, rewards.sum(), (rewards**2).sum()]
                known = {name: Moments.of(int(sums[0]), sums[1], sums[2]) for name, sums in brought.items()}
                found = found or judge(deployment, evidence(**totals), known)[0].finding == "worse"
        worse += found
    assert worse / experiments <= 0.05


def test_totals_are_those_of_all_servers_and_of_the_step(tmp_path: Path) -> None:
    records = open_records(f"sqlite:///{tmp_path}/records.db")

    def write(server: str, **variants: Tally) -> None:
        data = {"variants": msgspec.to_builtins(variants)}
        records.commit(Put(TALLIES, tally_key("late", 1, server), data))

    write("server-1", canary=Tally(10, 1), champion=Tally(90, 2))
    write("server-2", canary=Tally(20, 0), champion=Tally(80, 1))
    records.commit(Put(TALLIES, tally_key("late", 11, "x"), {"variants": {"canary": {"requests": 7}}}))
    seen = gather(records, CANARY)
    assert seen.servers == {"server-1": 0, "server-2": 0}
    assert (seen.totals["canary"].requests, seen.of("canary").errors, seen.of("champion").requests) == (30, 1, 170)

    second = Deployment("late", 1, "canary", CANARY.variants, 0, steps=(0.1, 0.5), every=10, step=1, stepped=50)
    assert gather(records, second).begun is False
    assert gather(records, second).of("canary") == Tally()
    begin_step(records, second, seen.totals, 55)
    write("server-1", canary=Tally(15, 1), champion=Tally(90, 2))
    later = gather(records, second)
    assert (later.since, later.of("canary"), later.of("champion").requests) == (55, Tally(5, 0), 0)
    assert later.totals["canary"].requests == 35
    records.close()


def test_one_bad_hour_is_not_the_canarys() -> None:
    """Errors of everybody rise while the canary's share is large: over all steps it looks worse, within one it isn't."""
    variants = (Variant("canary", 4, 0.5), Variant("champion", 3, 0.5))
    deployment = Deployment("late", 1, "canary", variants, 0, steps=(0.01, 0.5), every=1, step=1)
    totals = {"canary": Tally(10_100, 1_010), "champion": Tally(19_900, 1_010)}
    step = {"canary": Tally(10_000, 1_000), "champion": Tally(10_000, 1_000)}
    assert findings(deployment, Evidence(totals, totals, 0))["errors"] == "worse"
    assert findings(deployment, Evidence(totals, step, 0))["errors"] == "open"


def test_the_last_step_is_compared_with_what_the_control_did_before() -> None:
    variants = (Variant("canary", 4, 1.0), Variant("champion", 3, 0.0))
    deployment = Deployment("late", 1, "canary", variants, 0, steps=(0.5, 1.0), every=1, step=1)
    totals = {"canary": Tally(2_000, 100), "champion": Tally(10_000, 10)}
    assert findings(deployment, Evidence(totals, {"canary": Tally(1_000, 99)}, 0))["errors"] == "worse"
