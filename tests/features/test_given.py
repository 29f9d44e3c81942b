"""What a caller can get wrong is told in words, with what is wanted, and nothing is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import noria as nr
from noria.core import ConfigError, NoriaError, Settings
from noria.storage import Workspace

SCHEMA = {"user": "int64", "item": "str", "price": "float64", "at": nr.Timestamp("iso")}
ORDERS = nr.Source("orders", "orders.csv", SCHEMA)
HABITS = nr.FeatureGroup("habits", "user", ORDERS, {"n": nr.count(window="7d"), "spent": nr.sum("price")})
ITEMS = nr.FeatureGroup("items", "item", ORDERS, {"n": nr.count()})
BASKET = nr.OnDemand("basket", {"amount": "float64"}, {"ratio": nr.col("amount") / nr.col("habits.spent")})
AT = datetime(2026, 1, 5, tzinfo=UTC)
MICROS = int(AT.timestamp()) * 1_000_000
EVENTS = pl.DataFrame(
    {"user": [1, 2], "item": ["a", "b"], "price": [4.0, 5.0], "at": [AT, AT]},
    schema_overrides={"at": pl.Datetime("us", "UTC")},
)
LABELS = EVENTS.select("user", "at")


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace.open(Settings(tmp_path)) as opened:
        yield opened


@pytest.fixture
def store(workspace: Workspace) -> nr.FeatureStore:
    store = nr.FeatureStore(workspace)
    store.materialize(HABITS, events=EVENTS)
    store.materialize(ITEMS, events=EVENTS)
    return store


def trained(store: nr.FeatureStore, labels: Any = LABELS, groups: Any = (HABITS,), **given: Any) -> Any:
    return store.training_set(labels, groups, time="at", **{"events": {"orders": EVENTS}, **given})


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda s: trained(s, groups=HABITS), "give a list of feature groups, as in [habits]"),
        (lambda s: trained(s, groups=["habits"]), "store.catalog.get('habits').group()"),
        (lambda s: trained(s, groups=[ORDERS]), "the Source 'orders' is no feature group"),
        (lambda s: trained(s, labels={"user": [1]}), "labels: builtins.dict is no Polars DataFrame"),
        (lambda s: trained(s, labels=LABELS.lazy()), ".collect() it"),
        (lambda s: trained(s, events=EVENTS), "give frames by source: events={'orders': …}"),
        (lambda s: trained(s, events={"order": EVENTS}), "did you mean 'orders'?"),
        (lambda s: trained(s, events={"orders": EVENTS.lazy()}), "events['orders']: polars.LazyFrame"),
        (lambda s: trained(s, events=None), "a frame, too: events={'orders': …}"),
        (lambda s: trained(s, events=None, versions={"orders": -1}), "versions are whole numbers from 0"),
        (lambda s: trained(s, versions={"order": 0}), "it isn't read\n  hint: did you mean 'orders'?"),
        (
            lambda s: trained(s, LABELS.cast({"user": pl.String})),
            "'user' is String, and in source 'orders' it is int64",
        ),
        (lambda s: trained(s, LABELS.with_columns(user=pl.lit(float("nan")))), "'user' is Float64"),
        (lambda s: trained(s, LABELS.drop("at")), "the labels have no column 'at'"),
        (lambda s: s.materialize("habits"), "'habits' is a name, and a feature group is needed"),
        (lambda s: s.materialize(BASKET), "they are computed from each request"),
        (lambda s: s.materialize(HABITS, events=EVENTS, as_of=AT), "a whole number of microseconds since 1970"),
        (lambda s: s.materialize(HABITS, events=EVENTS.lazy()), ".collect() it"),
        (lambda s: s.backfill("habits", "past", instants=[MICROS]), "'habits' is a name"),
        (lambda s: s.backfill(HABITS, "past", instants=[AT]), "a whole number of microseconds since 1970"),
        (lambda s: s.backfill(HABITS, "../past", labels=EVENTS, time="at"), "'../past' can't be the name of a table"),
        (lambda s: s.get_online(HABITS, 1), "the entities' ids are 1\n  hint: give a list"),
        (lambda s: s.get_online(ITEMS, "ab"), "the entities' ids are 'ab'\n  hint: give a list"),
        (lambda s: s.get_online(HABITS, LABELS), "the entities' ids are DataFrame\n  hint: give a list"),
        (lambda s: s.get_online([HABITS, ITEMS], {"user": 1, "item": ["a"]}), "the ids of 'user' are 1"),
        (lambda s: s.get_online(ORDERS, [1]), "the Source 'orders' is no feature group"),
        (lambda s: s.get_online([HABITS, BASKET], {"user": [1]}), "they are computed from each request"),
        (lambda s: s.get_online(HABITS, [float("nan")]), "nan can't be a user\n  hint: its type is int64"),
        (lambda s: s.get_online(HABITS, [True]), "True can't be a user"),
        (lambda s: s.get_online(HABITS, [1], as_of=AT), "a whole number of microseconds since 1970"),
        (lambda s: s.get_online("habit", [1]), "did you mean 'habits'? allowed: habits, items"),
        (lambda s: s.get_online("habits@7", [1]), "has no version 7\n  hint: allowed: 1"),
    ],
)
def test_a_wrong_call_is_told(store: nr.FeatureStore, call: Callable[[nr.FeatureStore], object], said: str) -> None:
    with pytest.raises(NoriaError) as caught:
        call(store)
    assert said in str(caught.value)
    assert store.get_online(HABITS, [1]).columns == {"habits.n": [1], "habits.spent": [4.0]}


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"source": "orders"}, "source= is 'orders'\n  hint: give the nr.Source"),
        ({"source": EVENTS}, "source= is of type DataFrame"),
        ({"entity": None}, "entity= is None"),
        ({"features": [nr.count()]}, "features= is of type list"),
        ({"features": {"n": nr.col("price").sum()}}, "nr.derived(…) computes from other features"),
        ({"features": {"n": "count"}}, "nr.count, nr.sum"),
        ({"tags": "pii"}, "tags=['pii']"),
    ],
)
def test_a_wrong_part_of_a_definition_is_told(parts: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        nr.FeatureGroup(**{"name": "g", "entity": "user", "source": ORDERS, "features": {"n": nr.count()}, **parts})
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: nr.count(where="price > 1"), "count(where='price > 1'): that is no expression"),
        (lambda: nr.count(where=True), "that is no expression"),
        (lambda: nr.derived("n / 2"), "derived('n / 2'): that is no expression"),
        (lambda: nr.derived(None), "derived(None) computes nothing"),
        (lambda: nr.sum(nr.col("price")), "name it: a text, not an expression"),
        (lambda: nr.OnDemand("b", {"x": "float64"}, {"y": nr.col("z") * 2}), "has no input 'z'\n  hint: allowed: x"),
    ],
)
def test_a_wrong_feature_is_told(make: Callable[[], object], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert said in str(caught.value)


def test_ids_may_be_numpys(store: nr.FeatureStore) -> None:
    assert store.get_online(HABITS, np.array([2, 1])).columns["habits.spent"] == [5.0, 4.0]
    assert store.get_online(ITEMS, EVENTS["item"]).found == [True, True]


def test_windows_move_on_to_a_later_instant(store: nr.FeatureStore) -> None:
    week = 7 * 86_400 * 1_000_000
    for at, count in ((None, 1), (MICROS + week, 1), (MICROS + week + 1, 0)):
        found = store.get_online(HABITS, [1], as_of=at)
        assert (found.columns["habits.n"], found.as_of) == ([count], at or MICROS + 1)
        several = store.get_online([HABITS, ITEMS], {"user": [1], "item": ["a"]}, as_of=at)
        assert (several.columns["habits.n"], several.columns["items.n"]) == ([count], [1])
