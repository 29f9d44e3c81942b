"""Versions of definitions: none is lost, none is mixed up with another, and old ones are kept up while they are read."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import noria as nr
from noria.core import ConflictError, NotFoundError, Settings
from noria.features.catalog import difference
from noria.storage import ABSENT, Put, Workspace
from noria.testing import ManualClock

DAY = 86_400_000_000
SCHEMA = {"user": "str", "price": "float64?", "at": nr.Timestamp("us")}
SOURCE = nr.Source("buys", "buys.csv", schema=SCHEMA)
FEATURES = {
    "n": nr.count(window="7d", where=nr.col("price") > 1),
    "spent": nr.sum("price"),
    "fading": nr.decayed_sum("price", half_life="2d"),
    "each": nr.derived(nr.col("spent") / nr.col("n")),
    "prices": nr.top_k("price", k=3),
}


def events(*prices: float, start: int = 0) -> pl.DataFrame:
    at = pl.Series([start + (n + 1) * DAY for n in range(len(prices))]).cast(pl.Datetime("us", "UTC"))
    return pl.DataFrame({"user": ["ann", "bob"] * (len(prices) // 2), "price": prices, "at": at})


def habits(**options: Any) -> nr.FeatureGroup:
    return nr.FeatureGroup("habits", **{"entity": "user", "source": SOURCE, "features": FEATURES, **options})


@pytest.fixture
def store(tmp_path: Path) -> Iterator[nr.FeatureStore]:
    with Workspace.open(Settings(tmp_path), ManualClock(4 * DAY)) as workspace:
        yield nr.FeatureStore(workspace)


def test_a_changed_definition_is_the_next_version_and_the_old_one_can_be_made_again(store: nr.FeatureStore) -> None:
    first, second = habits(), habits(features={**FEATURES, "n": nr.count()}, ttl="9d")
    assert [store.catalog.register(group).version for group in (first, first, second)] == [1, 1, 2]
    assert [version.label for version in store.catalog.versions("habits")] == ["habits@1", "habits@2"]
    assert store.catalog.get("habits@1").group().to_dict() == first.to_dict()
    assert store.catalog.get("habits").group().online_spec() == second.online_spec()
    made_again = store.catalog.get("habits@1").group()
    labels = events(1.0, 2.0, 3.0, 4.0)
    expected = store.training_set(labels, [first], time="at", events={"buys": labels})
    assert store.training_set(labels, [made_again], time="at", events={"buys": labels}).equals(expected)


def test_a_source_whose_time_may_be_missing_can_be_made_again(store: nr.FeatureStore) -> None:
    schema = {**SCHEMA, "at": nr.Timestamp("us", nullable=True)}
    source = nr.Source("buys", "buys.csv", schema=schema, where=nr.col("at").is_not_null())
    version = store.catalog.register(habits(source=source))
    assert version.group().online_spec() == habits(source=source).online_spec()


def test_going_back_to_an_old_definition_is_the_old_version(store: nr.FeatureStore) -> None:
    for group in (habits(), habits(ttl="1d"), habits()):
        store.catalog.register(group)
    assert len(store.catalog.versions("habits")) == 2
    assert store.catalog.latest("habits").version == 1


def test_a_new_owner_is_no_new_version(store: nr.FeatureStore) -> None:
    store.catalog.register(habits())
    store.catalog.register(habits(owner="ann", tags=["money"], description="What people spend."))
    (version,) = store.catalog.versions("habits")
    assert (version.group().owner, version.group().tags) == ("ann", ("money",))


def test_difference_says_what_changed() -> None:
    said = difference(habits().to_dict(), habits(features={"n": nr.count(window="1d")}, ttl="9d").to_dict())
    assert said[0] == "ttl: none -> 9d"
    assert said[1].startswith('n: count, window 7d, where [(col("price")) > (')
    assert said[1].endswith("-> count, window 1d")
    assert said[2:4] == ["spent: gone (sum of price)", "fading: gone (decayed_sum of price, half_life 2d)"]


def test_unknown_groups_and_versions_are_named(store: nr.FeatureStore) -> None:
    store.catalog.register(habits())
    for label, said in (("habit", "did you mean 'habits'"), ("habits@7", "has no version 7"), ("nix@1", "registered")):
        with pytest.raises(NotFoundError, match=said):
            store.catalog.get(label)


def test_a_definition_that_came_between_is_named(store: nr.FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.catalog.register(habits())
    catalog, other = store.catalog, habits(ttl="1d")
    versions = catalog.versions

    def late(name: str) -> Any:
        found = versions(name)
        store.catalog.register(other)  # another process, after this one has looked
        return found

    monkeypatch.setattr(catalog, "versions", late)
    with pytest.raises(ConflictError, match=r"another process.*ttl: 1d -> 2d"):
        catalog.register(habits(ttl="2d"))
    assert store.catalog.latest("habits").spec == other.online_spec()


PROGRAM = """
import sys
import noria as nr
store = nr.FeatureStore(sys.argv[1])
source = nr.Source("buys", "buys.csv", schema={"user": "str", "price": "float64", "at": nr.Timestamp("us")})
for n in range(5):
    store.register(nr.FeatureGroup(f"g{sys.argv[2]}_{n}", entity="user", source=source, features={"n": nr.count()}))
    store.register(nr.FeatureGroup("shared", entity="user", source=source, features={"n": nr.count()}))
"""


def test_processes_that_register_at_once_lose_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    processes = [subprocess.Popen([*command, str(n)], stderr=subprocess.PIPE) for n in range(4)]
    for process in processes:
        assert process.wait(60) == 0, process.stderr.read() if process.stderr else ""
        if process.stderr:
            process.stderr.close()
    store = nr.FeatureStore(tmp_path)
    assert store.catalog.names() == sorted([*(f"g{p}_{n}" for p in range(4) for n in range(5)), "shared"])
    assert len(store.catalog.versions("shared")) == 1
    store.close()


def test_old_values_are_kept_up_while_a_model_reads_them(store: nr.FeatureStore) -> None:
    old, new, newest = habits(), habits(ttl="30d"), habits(ttl="40d")
    store._workspace.table("buys").write(events(2.0, 3.0), run_id="1")
    store.materialize(old)
    store.catalog.hold("late", [old.online_spec()])
    store._workspace.table("buys").write(events(5.0, 7.0, start=3 * DAY), run_id="2")
    store.materialize(new)
    assert store.get_online(old, ["ann"]).columns["habits.spent"] == [2.0]
    assert store.keep_up(new) == ["habits@1"]
    assert store.get_online(old, ["ann"]).columns["habits.spent"] == [7.0]
    store.catalog.hold("late", [new.online_spec()])  # it could still go back by one
    assert store.keep_up(new) == ["habits@1"]
    store.materialize(newest)
    store.catalog.hold("late", [newest.online_spec()])
    assert store.keep_up(newest) == ["habits@2"]
    assert store.get_online(old, ["ann"]).found == [False]
    assert not store.is_materialized(old)
    store.materialize(old)
    assert store.is_materialized(old)


def test_statistics_are_kept_and_compared_with_a_week_before(store: nr.FeatureStore) -> None:
    from noria.features import statistics

    group = nr.FeatureGroup(
        "all", entity="user", source=SOURCE, features={"price": nr.latest("price"), "p": nr.last("price", n=2)}
    )
    users = [f"u{n}" for n in range(1000)]

    def rows(day: int, shift: float) -> pl.DataFrame:
        at = pl.Series([day * DAY]).cast(pl.Datetime("us", "UTC"))
        price = [None if n == 0 else n + shift for n in range(1000)]
        return pl.DataFrame({"user": users, "price": price}).with_columns(at=at.item())

    for day, shift in ((1, 0.0), (5, 0.0), (9, 0.0), (17, 800.0)):
        store.materialize(group, events=rows(day, shift).cast({"at": pl.Datetime("us", "UTC")}))
        found = statistics.newest(store._workspace.records, group.online_spec().place)
        assert found is not None
        price = found["features"]["price"]
        assert (price["count"], price["missing"], price["distinct"]) == (1000, 1, 999)
        assert price["quantiles"][6] == 500 + shift
        moved = {1: None, 5: None, 9: 0.0, 17: 1.0}[day]
        assert (moved is None) == ("psi" not in price)
        assert moved is None or (price["psi"] == pytest.approx(0, abs=1e-9)) == (moved == 0.0)
    assert price["psi"] > 1


def test_a_record_is_never_overwritten_unseen(store: nr.FeatureStore) -> None:
    store.catalog.register(habits())
    with pytest.raises(ConflictError):
        store._workspace.records.commit(Put("features", "habits", {"version": 9}, ABSENT))
