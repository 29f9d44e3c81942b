from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import noria as nr
from noria.core import ConfigError, DataError, NotFoundError, Settings
from noria.features import OnlineReader, OnlineSpec
from noria.storage import Workspace
from noria.testing import ManualClock

DAY = 86_400_000_000
EVENTS = pl.DataFrame(
    {"user": ["ann", "bob", "ann"], "price": [1.0, 2.0, 4.0], "at": pl.Series([1, 2, 3]) * DAY}
).with_columns(pl.col("at").cast(pl.Datetime("us", "UTC")))
SOURCE = nr.Source("buys", "buys.csv", schema={"user": "str", "price": "float64", "at": nr.Timestamp("us")})


def group(**options: Any) -> nr.FeatureGroup:
    features = {"spent": nr.sum("price"), "recent": nr.count(window="1d")}
    return nr.FeatureGroup("habits", **{"entity": "user", "source": SOURCE, "features": features, **options})


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(4 * DAY)


@pytest.fixture
def store(tmp_path: Path, clock: ManualClock) -> Iterator[nr.FeatureStore]:
    with Workspace.open(Settings(tmp_path), clock) as workspace:
        yield nr.FeatureStore(workspace)


def test_a_store_works_alone_with_a_folder(tmp_path: Path) -> None:
    store = nr.FeatureStore(tmp_path / "data")
    done = store.materialize(group(), events=EVENTS)
    assert (done.events, done.entities, done.as_of) == (3, 2, 3 * DAY + 1)
    found = store.get_online(group(), ["bob", "ann", "eve"])
    assert found.columns == {"habits.spent": [2.0, 5.0, None], "habits.recent": [0, 1, 0]}
    assert found.found == [True, True, False]
    assert found.event_times == [2 * DAY, 3 * DAY, None]
    store.close()


def test_expired_and_missing_are_told_apart_at_the_read(store: nr.FeatureStore, clock: ManualClock) -> None:
    mortal = group(ttl="36h")
    store.materialize(mortal, events=EVENTS)
    found = store.get_online(mortal, ["ann", "bob", "eve"])
    assert (found.found, found.expired) == ([True, True, False], [False, True, False])
    assert found.columns["habits.spent"] == [5.0, None, None]
    clock.advance(DAY)
    assert store.get_online(mortal, ["ann"]).expired == [True]


def test_an_event_never_sees_itself(store: nr.FeatureStore) -> None:
    made = store.training_set(EVENTS, [group()], time="at", events={"buys": EVENTS})
    assert made["habits.spent"].to_list() == [None, None, 1.0]
    assert made.drop("habits.spent", "habits.recent").equals(EVENTS)


def test_a_changed_definition_is_another_place(store: nr.FeatureStore) -> None:
    store.materialize(group(), events=EVENTS)
    changed = group(features={"spent": nr.mean("price"), "recent": nr.count(window="1d")})
    assert store.get_online(changed, ["ann"]).found == [False]
    assert store.get_online(group(), ["ann"]).found == [True]


def test_a_rewritten_history_replaces_newer_values(store: nr.FeatureStore) -> None:
    store.materialize(group(), events=EVENTS)
    store.materialize(group(), events=EVENTS.head(1))
    found = store.get_online(group(), ["ann", "bob"])
    assert found.columns["habits.spent"] == [1.0, None]
    assert found.found == [True, False]


def test_a_source_without_time_has_latest_values(store: nr.FeatureStore) -> None:
    source = nr.Source("users", "users.csv", key="user", schema={"user": "str", "town": "str?"})
    profile = nr.FeatureGroup("profile", entity="user", source=source, features={"town": nr.latest("town")})
    users = pl.DataFrame({"user": ["ann", "bob"], "town": ["Oslo", None]})
    store.materialize(profile, events=users)
    assert store.get_online(profile, ["ann", "bob", "eve"]).columns == {"profile.town": ["Oslo", None, None]}
    made = store.training_set(EVENTS, [profile], time="at", events={"users": users})
    assert made["profile.town"].to_list() == ["Oslo", None, "Oslo"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"entity": "usr"}, "did you mean 'user'"),
        ({"entity": "price"}, "whole number or text"),
        ({"features": {}}, "has no features"),
        ({"features": {"x": nr.mean("prize")}}, "did you mean 'price'"),
        ({"features": {"x": nr.mean("user")}}, "needs a column of numbers"),
        ({"features": {"X Y": nr.count()}}, "can't be the name"),
        ({"ttl": "soon"}, "not a duration"),
        ({"source": nr.Source("t", "t.csv", schema={"user": "str", "price": "float64"})}, "no event time"),
    ],
)
def test_wrong_definitions_are_refused_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        group(**options)
    assert message in str(caught.value)


def test_wrong_windows_are_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="not a duration"):
        nr.count(window="30 days")
    with pytest.raises(ConfigError, match="n must be at least 1"):
        nr.last("price", n=0)


def test_wrong_labels_are_explained(store: nr.FeatureStore) -> None:
    def ask(labels: pl.DataFrame, time: str = "at") -> None:
        store.training_set(labels, [group()], time=time, events={"buys": EVENTS})

    with pytest.raises(ConfigError, match="no column 'when'"):
        ask(EVENTS, "when")
    with pytest.raises(ConfigError, match="no column 'user'"):
        ask(EVENTS.drop("user"))
    with pytest.raises(ConfigError, match="cast it to"):
        ask(EVENTS.with_columns(at=pl.lit(1)))
    with pytest.raises(DataError, match="have no 'at'"):
        ask(EVENTS.with_columns(at=pl.lit(None, pl.Datetime("us", "UTC"))))
    with pytest.raises(NotFoundError, match="never been written"):
        store.training_set(EVENTS, [group()], time="at")
    with pytest.raises(ConfigError, match="the events have no column 'price'"):
        store.training_set(EVENTS, [group()], time="at", events={"buys": EVENTS.drop("price")})


def test_labels_of_another_time_unit_or_zone_mean_the_same_instants(store: nr.FeatureStore) -> None:
    for dtype in (pl.Datetime("ns", "UTC"), pl.Datetime("ms", "UTC"), pl.Datetime("us", "Asia/Shanghai")):
        labels = EVENTS.with_columns(pl.col("at").cast(dtype))
        made = store.training_set(labels, [group()], time="at", events={"buys": EVENTS})
        assert made["habits.spent"].to_list() == [None, None, 1.0]


def test_the_reader_needs_neither_polars_nor_numpy(tmp_path: Path) -> None:
    code = "import sys; import noria.features.online; print(*{'polars', 'numpy', 'deltalake'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_a_spec_travels_as_plain_data_and_refuses_wrong_ids(store: nr.FeatureStore, tmp_path: Path) -> None:
    spec = group(ttl="1d").online_spec()
    assert OnlineSpec.from_dict(spec.to_dict()) == spec
    with Workspace.open(Settings(tmp_path)) as workspace:
        reader = OnlineReader(workspace.online, [spec])
        with pytest.raises(ConfigError, match="can't be a user"):
            reader.read("habits", [7])
        with pytest.raises(NotFoundError, match="did you mean 'habits'"):
            reader.read("habit", ["ann"])
