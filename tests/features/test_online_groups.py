"""Several groups read at once are what each of them gives alone."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import noria as nr
from noria.core import ConfigError, NotFoundError, Settings
from noria.storage import Workspace

SOURCE = nr.Source(
    "ratings", "r.csv", schema={"user": "int64", "item": "str", "stars": "float64", "at": nr.Timestamp("us")}
)
FEATURES = {"n": nr.count(), "mean": nr.mean("stars")}
TASTE = nr.FeatureGroup("taste", "user", SOURCE, FEATURES)
RECENT = nr.FeatureGroup("recent", nr.Entity("user", keys="user"), SOURCE, FEATURES, ttl="1h")
POPULARITY = nr.FeatureGroup("popularity", "item", SOURCE, FEATURES)
PAIR = nr.FeatureGroup("pair", ("user", "item"), SOURCE, FEATURES)
AT = datetime(2026, 1, 5, tzinfo=UTC)
EVENTS = pl.DataFrame({"user": [1, 1, 2], "item": ["a", "b", "a"], "stars": [4.0, 5.0, 3.0], "at": [AT] * 3})


@pytest.fixture
def store(tmp_path: Path) -> Iterator[nr.FeatureStore]:
    with Workspace.open(Settings(tmp_path)) as opened:
        made = nr.FeatureStore(opened)
        for group in (TASTE, RECENT, POPULARITY, PAIR):
            made.materialize(group, events=EVENTS)
        yield made


def test_groups_of_one_key_take_one_list(store: nr.FeatureStore) -> None:
    read = store.get_online([TASTE, "recent"], [2, 9, 1])
    assert read.columns == {
        "taste.n": [1, 0, 2],
        "taste.mean": [3.0, None, 4.5],
        "recent.n": [None, 0, None],
        "recent.mean": [None, None, None],
    }
    assert read.found == {"taste": [True, False, True], "recent": [True, False, True]}
    assert read.expired == {"taste": [False] * 3, "recent": [True, False, True]}
    micros = int(AT.timestamp()) * 1_000_000
    assert read.event_times == {name: [micros, None, micros] for name in ("taste", "recent")}
    assert read.as_of == dict.fromkeys(("taste", "recent"), micros + 1)


def test_groups_of_different_keys_take_columns(store: nr.FeatureStore) -> None:
    ids: dict[str, list[Any]] = {"user": [1, 2], "item": ["b", "b"]}
    read = store.get_online((TASTE, POPULARITY.online_spec(), "pair@1"), ids)
    alone = [
        store.get_online(TASTE, [1, 2]),
        store.get_online(POPULARITY, ["b", "b"]),
        store.get_online(PAIR, [(1, "b"), (2, "b")]),
    ]
    assert read.columns == {name: column for one in alone for name, column in one.columns.items()}
    assert list(read.found.values()) == [one.found for one in alone]
    assert list(read.as_of.values()) == [one.as_of for one in alone]
    assert store.get_online(PAIR, ids) == alone[2]
    assert store.get_online([PAIR], [(1, "b"), (2, "b")]).columns == alone[2].columns


def test_nobody_is_asked_for(store: nr.FeatureStore) -> None:
    read = store.get_online([TASTE, POPULARITY], {"user": [], "item": []})
    assert set(read.columns) == {"taste.n", "taste.mean", "popularity.n", "popularity.mean"}
    assert not any(read.columns.values())
    assert read.as_of == {"taste": None, "popularity": None}


@pytest.mark.parametrize(
    ("groups", "ids", "message"),
    [
        ([TASTE, POPULARITY], [1], r"'taste', which is read by user, and for 'popularity', which is read by item"),
        ([TASTE, PAIR], {"user": [1]}, r"'pair' is read by user, item, and there is no 'item'"),
        ([TASTE, PAIR], {"user": [1], "item": []}, r"different lengths: user has 1, item has 0"),
        ([TASTE, TASTE], [1], r"group 'taste' is given twice"),
        ([], [1], r"which groups\? none is given"),
        ([TASTE, POPULARITY], {"user": ["1"], "item": ["a"]}, r"taste: '1' can't be a user"),
    ],
)
def test_ids_that_do_not_fit_are_told(store: nr.FeatureStore, groups: Any, ids: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        store.get_online(groups, ids)


def test_an_unknown_name_is_told(store: nr.FeatureStore) -> None:
    with pytest.raises(NotFoundError, match="no feature group 'tast' is registered"):
        store.get_online([POPULARITY, "tast"], {"user": [1], "item": ["a"]})
