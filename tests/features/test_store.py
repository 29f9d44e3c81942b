from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import noria as nr
from noria.core import ConfigError, DataError, IntegrityError, NotFoundError, Settings
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


def test_values_of_the_past_have_the_freshness_of_the_past(store: nr.FeatureStore) -> None:
    store.materialize(group(ttl="36h"), as_of=2 * DAY, events=EVENTS)
    found = store.get_online(group(ttl="36h"), ["ann", "bob"])
    assert (found.found, found.expired, found.event_times) == ([True, False], [True, False], [DAY, None])


@pytest.mark.parametrize("later", [0, DAY])
def test_an_entity_without_events_any_more_is_forgotten(store: nr.FeatureStore, later: int) -> None:
    store.materialize(group(), events=EVENTS)
    store.materialize(group(), as_of=3 * DAY + 1 + later, events=EVENTS.filter(pl.col("user") == "ann"))
    assert store.get_online(group(), ["ann", "bob"]).found == [True, False]


def test_doing_it_again_changes_nothing(store: nr.FeatureStore) -> None:
    first = store.materialize(group(), events=EVENTS, run_id="r")
    before = store.get_online(group(), ["ann", "bob"])
    assert store.materialize(group(), events=EVENTS, run_id="r") == first
    assert store.get_online(group(), ["ann", "bob"]) == before


def test_a_registered_group_is_read_by_its_name(store: nr.FeatureStore) -> None:
    assert store.register(group()) == store.register(group()) == group().online_spec()
    store.materialize(group(), events=EVENTS)
    expected = store.get_online(group(), ["ann", "eve"])
    assert store.get_online("habits", ["ann", "eve"]) == expected
    assert store.get_online(group().online_spec(), ["ann", "eve"]) == expected
    with pytest.raises(NotFoundError, match="did you mean 'habits'"):
        store.get_online("habit", ["ann"])
    changed = group(ttl="1d")
    store.register(changed)
    assert store.get_online("habits", ["ann"]).found == [False]


def test_events_before_1970_are_events(store: nr.FeatureStore) -> None:
    old = EVENTS.with_columns(pl.col("at") - pl.duration(days=100))
    assert store.materialize(group(), events=old).as_of == -97 * DAY + 1
    assert store.get_online(group(), ["ann"]).columns["habits.spent"] == [5.0]


def test_no_events_are_no_entities(store: nr.FeatureStore) -> None:
    done = store.materialize(group(), events=EVENTS.clear())
    assert (done.events, done.entities, done.as_of) == (0, 0, 0)
    made = store.training_set(EVENTS, [group()], time="at", events={"buys": EVENTS.clear()})
    assert made["habits.spent"].to_list() == [None] * 3
    assert store.training_set(EVENTS.clear(), [group()], time="at", events={"buys": EVENTS}).is_empty()


def test_lists_online_are_nobody_elses(store: nr.FeatureStore) -> None:
    prices = group(features={"prices": nr.last("price", n=2)})
    store.materialize(prices, events=EVENTS)
    first, second = store.get_online(prices, ["eve", "nobody"]).columns["habits.prices"]
    first.append("mine")
    assert second == store.get_online(prices, ["eve"]).columns["habits.prices"][0] == []


def test_a_damaged_value_is_named(store: nr.FeatureStore, tmp_path: Path) -> None:
    spec = group().online_spec()
    with Workspace.open(Settings(tmp_path)) as workspace:
        workspace.online.write(spec.place, [spec.key("ann")], [1], [b"\xc1"])
        with pytest.raises(IntegrityError, match="'habits' in the online store is damaged"):
            store.get_online(group(), ["ann"])


def test_a_source_without_time_has_latest_values(store: nr.FeatureStore) -> None:
    source = nr.Source("users", "users.csv", key="user", schema={"user": "str", "town": "str?"})
    profile = nr.FeatureGroup("profile", entity="user", source=source, features={"town": nr.latest("town")})
    users = pl.DataFrame({"user": ["ann", "bob"], "town": ["Oslo", None]})
    store.materialize(profile, events=users)
    assert store.get_online(profile, ["ann", "bob", "eve"]).columns == {"profile.town": ["Oslo", None, None]}
    assert store.get_online(profile, ["ann", "eve"]).event_times == [None, None]
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
    for n in (True, 2.5, None):
        with pytest.raises(ConfigError, match="n must be at least 1"):
            nr.last("price", n=n)  # type: ignore[arg-type]


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


def test_wrong_events_are_explained(store: nr.FeatureStore) -> None:
    def ask(events: pl.DataFrame) -> None:
        store.training_set(EVENTS, [group()], time="at", events={"buys": events})

    with pytest.raises(ConfigError, match="the events' 'at' is Int64"):
        ask(EVENTS.with_columns(pl.col("at").dt.timestamp("us")))
    with pytest.raises(ConfigError, match="the events' 'user' is Int64"):
        ask(EVENTS.with_columns(user=pl.lit(1, pl.Int64)))
    with pytest.raises(ConfigError, match="the events' 'price' is String"):
        ask(EVENTS.with_columns(pl.col("price").cast(pl.String)))
    with pytest.raises(DataError, match="1 events of 'buys' have no 'at'"):
        ask(EVENTS.with_columns(pl.when(pl.col("user") == "ann").then("at")).tail(2))
    narrow = nr.Source("n", "n.csv", schema={"user": "str", "price": "int8", "at": nr.Timestamp("us")})
    wide = EVENTS.with_columns(price=pl.lit(1000, pl.Int64))
    with pytest.raises(DataError, match="don't fit into the types of source 'n'"):
        store.training_set(EVENTS, [group(source=narrow)], time="at", events={"n": wide})


def test_groups_of_one_source_each_need_their_columns(store: nr.FeatureStore) -> None:
    counts = nr.FeatureGroup("counts", entity="user", source=SOURCE, features={"n": nr.count()})
    events = {"buys": EVENTS.drop("price")}
    assert store.training_set(EVENTS, [counts], time="at", events=events)["counts.n"].to_list() == [0, 0, 1]
    with pytest.raises(ConfigError, match="'habits': the events have no column 'price'"):
        store.training_set(EVENTS, [counts, group()], time="at", events=events)


def test_a_feature_takes_no_other_columns_name(store: nr.FeatureStore) -> None:
    for labels, groups in (
        (EVENTS, [group(), group(ttl="1d")]),
        (EVENTS.with_columns(pl.lit(1).alias("habits.recent")), [group()]),
    ):
        with pytest.raises(ConfigError, match="there is already a column 'habits"):
            store.training_set(labels, groups, time="at", events={"buys": EVENTS})


def test_an_id_of_another_type_is_not_the_same_entity(store: nr.FeatureStore) -> None:
    source = nr.Source("clicks", "c.csv", schema={"id": "int64", "at": nr.Timestamp("us")})
    clicks = nr.FeatureGroup("clicks", entity="id", source=source, features={"n": nr.count()})
    events = {"clicks": EVENTS.select(pl.Series("id", [7, 2**40, 7]), "at")}

    def ask(ids: pl.Series) -> list[int]:
        labels = pl.DataFrame({"id": ids, "when": [EVENTS["at"][2]] * len(ids)})
        made: list[int] = store.training_set(labels, [clicks], time="when", events=events)["clicks.n"].to_list()
        return made

    assert ask(pl.Series([7, None], dtype=pl.Int32)) == [1, 0]
    assert ask(pl.Series([7, 2**63], dtype=pl.UInt64)) == [1, 0]
    for ids in (pl.Series(["7"]), pl.Series([7.0])):
        with pytest.raises(ConfigError, match="the labels' 'id' is"):
            ask(ids)


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


FLIGHTS = nr.Source(
    "flights", "f.csv", schema={"origin": "str", "dest": "str", "delay": "float64?", "at": nr.Timestamp("us")}
)
ROUTE = nr.FeatureGroup("route", entity=("origin", "dest"), source=FLIGHTS, features={"delay": nr.mean("delay")})


def test_an_entity_may_be_several_columns(store: nr.FeatureStore) -> None:
    flown = pl.DataFrame(
        {"origin": ["OSL", "OSL", "TRD", None], "dest": ["TRD", "BGO", "OSL", "OSL"], "delay": [1.0, 2.0, 4.0, 8.0]}
    ).with_columns(at=pl.Series([1, 2, 3, 4]).cast(pl.Datetime("us", "UTC")))
    store.materialize(ROUTE, events=flown)
    found = store.get_online(ROUTE, [("OSL", "BGO"), ("TRD", "OSL"), ("BGO", "OSL")])
    assert found.columns == {"route.delay": [2.0, 4.0, None]}
    labels = flown.with_columns(at=pl.lit(5).cast(pl.Datetime("us", "UTC"))).drop("delay")
    made = store.training_set(labels, [ROUTE], time="at", events={"flights": flown})
    assert made["route.delay"].to_list() == [1.0, 2.0, 4.0, None]
    for wrong in ("OSL", ("OSL",), ("OSL", 7)):
        with pytest.raises(ConfigError, match="can't be"):
            store.get_online(ROUTE, [wrong])


@pytest.mark.parametrize(
    ("features", "said"),
    [
        ({"n": nr.count(where=nr.col("prize") > 1)}, "did you mean 'price'"),
        ({"n": nr.count(where=nr.col("price") + 1)}, "neither true nor false"),
        ({"n": nr.count(where=nr.col("price").sum() > 1)}, "several rows"),
        ({"n": nr.count(), "twice": nr.derived(nr.col("m") * 2)}, "no feature 'm'"),
        ({"l": nr.last("price", n=2), "twice": nr.derived(nr.col("l") * 2)}, "habits.twice"),
        ({"n": nr.count(), "day": nr.derived(nr.col("n").cast(pl.UInt8))}, "which no feature can be"),
        ({"s": nr.std("user")}, "needs a column of numbers"),
    ],
)  # fmt: skip
def test_a_definition_that_cannot_be_computed_is_refused(features: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        group(features=features)


def test_derived_features_of_nobody_are_those_of_no_events(store: nr.FeatureStore) -> None:
    many = group(features={"n": nr.count(), "is_new": nr.derived(nr.col("n") == 0), "kinds": nr.top_k("price", k=2)})
    store.materialize(many, events=EVENTS)
    found = store.get_online(many, ["ann", "eve"])
    assert found.columns == {"habits.n": [2, 0], "habits.is_new": [False, True], "habits.kinds": [[4.0, 1.0], []]}
    assert many.output_schema() == {"habits.n": "int64?", "habits.is_new": "bool?"}
