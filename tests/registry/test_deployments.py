from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.core import ConfigError, ConflictError, IntegrityError, NotFoundError
from noria.registry import Deployment, Deployments, ModelRegistry, Variant
from noria.registry.deployment import LATEST
from noria.storage import Put, Records, open_records
from noria.testing import ManualClock

MINUTE = 60_000_000


@pytest.fixture
def records(tmp_path: Path) -> Records:
    return open_records(f"sqlite:///{tmp_path}/records.db")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1_000)


@pytest.fixture
def registry(records: Records, tmp_path: Path, clock: ManualClock) -> ModelRegistry:
    registry = ModelRegistry(records, tmp_path / "blobs", clock=clock)
    for run in "abcd":
        registry.register("late", {"model": run.encode()}, servable="doubler", run_id=run)
    registry.promote("late", 1)
    registry.promote("late", 3)
    return registry


@pytest.fixture
def deployments(records: Records, registry: ModelRegistry, clock: ManualClock) -> Deployments:
    return Deployments(records, registry, clock)


def canary(version: int = 4, share: float = 0.1) -> list[Variant]:
    return [Variant("canary", version, share)]


def test_a_canary_begins_and_becomes_the_champion(
    deployments: Deployments, registry: ModelRegistry, clock: ManualClock
) -> None:
    made = deployments.start("late", canary(), why="try it")
    assert made.label == "late/1"
    assert made.variants == (Variant("canary", 4, 0.1), Variant("champion", 3, 0.9))
    assert deployments.running("late") == made
    clock.advance(1)
    assert deployments.finish("late", why="looks well").over
    assert registry.get("late").version == 4
    trail = {(entry.action, entry.version, entry.why) for entry in registry.audit("late")}
    assert {
        ("deploy canary", 4, "try it"),
        ("finish canary", 4, "looks well"),
        ("promote champion", 4, "looks well (late/1)"),
    } <= trail
    with pytest.raises(NotFoundError, match="nothing of model 'late' is tried"):
        deployments.running("late")
    assert [one.number for one in deployments.history("late")] == [1]


def test_only_one_of_a_model_runs_at_a_time(deployments: Deployments) -> None:
    deployments.start("late", canary())
    with pytest.raises(ConflictError, match="late/1"):
        deployments.start("late", canary(2))
    deployments.abort("late", why="no")
    assert deployments.start("late", canary(2)).label == "late/2"


def test_rollback_takes_back_the_canary_first_and_then_the_champion(deployments: Deployments) -> None:
    deployments.start("late", canary())
    assert deployments.rollback("late").version == 3
    last = deployments.get("late")
    assert last is not None
    assert last.state == "aborted"
    assert deployments.rollback("late").version == 1
    with pytest.raises(NotFoundError, match="no earlier version"):
        deployments.rollback("late")


def test_steps(deployments: Deployments, clock: ManualClock) -> None:
    made = deployments.start("late", canary(), steps=[0.01, 0.5, 1.0], every=MINUTE)
    assert made.variants[0].share == 0.01
    assert made.advanced(clock.now() + MINUTE - 1) is None
    second = made.advanced(clock.now() + MINUTE)
    assert second is not None
    assert (second.step, second.variants[0].share, second.variants[1].share) == (1, 0.5, 0.5)
    third = second.advanced(clock.now() + 2 * MINUTE)
    assert third is not None
    assert third.variants[0].share == 1.0
    last = third.advanced(clock.now() + 3 * MINUTE)
    assert last is not None
    assert last.state == "finished"
    deployments.pause("late")
    paused = deployments.running("late")
    assert paused.advanced(clock.now() + 99 * MINUTE) is None
    clock.advance(5 * MINUTE)
    resumed = deployments.resume("late")
    assert resumed.stepped == clock.now()


def test_whoever_changes_what_has_changed_is_told(deployments: Deployments) -> None:
    before = deployments.start("late", canary())
    deployments.pause("late")
    with pytest.raises(ConflictError, match="another process"):
        deployments.change(before, replace(before, state="aborted"), "abort", "worse")
    assert deployments.running("late").state == "paused"


def test_a_canary_does_not_replace_a_champion_that_it_was_not_compared_with(
    deployments: Deployments, registry: ModelRegistry
) -> None:
    deployments.start("late", canary())
    registry.promote("late", 2)
    with pytest.raises(ConflictError, match="became the champion"):
        deployments.finish("late")
    deployments.finish("late", force=True)
    assert registry.get("late").version == 4


def test_an_experiment_needs_a_winner_and_a_shadow_has_none(deployments: Deployments, registry: ModelRegistry) -> None:
    deployments.start("late", [Variant("treatment", 4, 0.5)], kind="ab", control=Variant("control", 2, 0))
    with pytest.raises(ConfigError, match="compares treatment, control"):
        deployments.finish("late")
    with pytest.raises(ConfigError, match="no variant 'x'"):
        deployments.finish("late", winner="x")
    deployments.finish("late", winner="treatment", force=True)
    assert registry.get("late").version == 4
    deployments.start("late", [], kind="shadow", shadow=2)
    deployments.finish("late")
    assert registry.get("late").version == 4


@pytest.mark.parametrize(
    ("tried", "more", "said"),
    [
        (canary(3), {}, "is the champion already"),
        (canary(9), {}, "no version 9"),
        (canary(4, 1.5), {}, "share of 1.5"),
        ([Variant("a", 4, 0.6), Variant("b", 2, 0.6)], {"kind": "ab"}, "share of -0.2"),
        ([Variant("champion", 4, 0.6)], {}, "two variants have one name"),
        ([], {}, "needs a version to try"),
        (canary(), {"steps": [0.5, 0.1], "every": 1}, "steps of a canary must grow"),
        (canary(), {"steps": [0.1, 0.5]}, "steps of a canary must grow"),
    ],
)
def test_bad_deployments(deployments: Deployments, tried: list[Variant], more: dict[str, object], said: str) -> None:
    with pytest.raises((ConfigError, NotFoundError), match=said):
        deployments.start("late", tried, **more)  # type: ignore[arg-type]


@settings(max_examples=30)
@given(st.floats(0.001, 0.9), st.floats(0.0, 1.0), st.integers(1, 10_000))
def test_assignment_is_exact_sticky_and_monotone(share: float, growth: float, number: int) -> None:
    variants = (Variant("canary", 4, share), Variant("champion", 3, 1 - share))
    small = Deployment("late", number, "canary", variants, 0)
    large = small.with_share(share + growth * (1 - share))
    users = [str(user) for user in range(2_000)]
    chosen = {user for user in users if small.variant_of(user).name == "canary"}
    assert chosen <= {user for user in users if large.variant_of(user).name == "canary"}
    assert abs(len(chosen) / len(users) - share) < 5 * (share * (1 - share) / len(users)) ** 0.5 + 1e-9


def test_shares_of_a_hundred_thousand_entities_and_independent_experiments() -> None:
    variants = (Variant("a", 4, 0.1), Variant("b", 5, 0.3), Variant("control", 3, 0.6))
    first, second = (Deployment("late", number, "ab", variants, 0) for number in (1, 2))
    users = [str(user) for user in range(100_000)]
    counts = {"a": 0, "b": 0, "control": 0}
    both = 0
    for user in users:
        name = first.variant_of(user).name
        counts[name] += 1
        both += name == "a" and second.variant_of(user).name == "a"
    for variant in variants:
        error = (variant.share * (1 - variant.share) / len(users)) ** 0.5
        assert abs(counts[variant.name] / len(users) - variant.share) < 4 * error
    assert abs(both / len(users) - 0.01) < 4 * (0.01 * 0.99 / len(users)) ** 0.5


@pytest.mark.parametrize(
    "change",
    [
        {"state": "golden"},
        {"number": "1"},
        {"variants": []},
        {"model": "other"},
        {"variants": [["champion", 3, 1.0]]},
        {"started": {}},
    ],
)
def test_a_record_that_is_none_is_told(
    deployments: Deployments, registry: ModelRegistry, records: Records, change: dict[str, object]
) -> None:
    made = deployments.start("late", [Variant("canary", 4, 0.1)])
    records.commit(Put(LATEST, "late", {**made.to_dict(), **change}))
    acts = (
        deployments.all,
        lambda: deployments.get("late"),
        lambda: deployments.abort("late"),
        lambda: registry.states("late"),
        lambda: registry.retire("late", 2),
    )
    for act in acts:
        with pytest.raises(IntegrityError, match="the record of the deployment of late is damaged"):
            act()
