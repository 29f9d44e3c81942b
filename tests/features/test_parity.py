"""Batch, online and a naive oracle give the same number for every kind of feature."""

from __future__ import annotations

import math
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

import noria as nr
from noria.core import Settings
from noria.features import Feature, OnlineReader
from noria.storage import Workspace
from noria.testing import ManualClock

START = datetime(2024, 1, 1, tzinfo=UTC)
HOUR = 3_600_000_000
START_MICROS = int(START.timestamp()) * 1_000_000
FEATURES: dict[str, Feature] = {
    "n": nr.count(),
    "n_3h": nr.count(window="3h"),
    "total": nr.sum("x"),
    "total_5h": nr.sum("x", window="5h"),
    "whole": nr.sum("i", window="5h"),
    "mean": nr.mean("x"),
    "mean_3h": nr.mean("i", window="3h"),
    "low": nr.min("x"),
    "low_3h": nr.min("i", window="3h"),
    "high": nr.max("x", window="24h"),
    "high_i": nr.max("i"),
    "newest": nr.latest("x"),
    "word": nr.latest("s"),
    "last": nr.last("s", n=2),
    "last_3h": nr.last("i", n=3, window="3h"),
    "big_3h": nr.sum("big", window="3h"),
    "big_mean_3h": nr.mean("big", window="3h"),
    "day": nr.latest("day"),
    "days": nr.last("day", n=2),
    "std": nr.std("x"),
    "std_3h": nr.std("i", window="3h"),
    "std_big": nr.std("big", window="5h"),
    "first": nr.first("s"),
    "first_3h": nr.first("x", window="3h"),
    "kinds": nr.distinct("s"),
    "kinds_5h": nr.distinct("i", window="5h"),
    "top": nr.top_k("s", k=2),
    "top_5h": nr.top_k("i", k=3, window="5h"),
    "fading": nr.decayed_sum("x", half_life="2h"),
    "positive": nr.count(window="5h", where=nr.col("x") > 0),
    "sum_a": nr.sum("i", where=nr.col("s") == "a"),
    "latest_b": nr.latest("x", where=nr.col("s") == "b"),
    "last_a": nr.last("i", n=2, window="5h", where=nr.col("s") == "a"),
    "top_positive": nr.top_k("s", k=1, where=nr.col("x") > 0),
    "fading_a": nr.decayed_sum("x", half_life="2h", where=nr.col("s") == "a"),
    "ratio": nr.derived(nr.col("total") / nr.col("n")),
    "is_many": nr.derived(nr.col("n_3h") > 1),
    "share": nr.derived(nr.col("whole") / nr.col("n_3h")),
}
WHERE: dict[str, Callable[[Event], bool]] = {
    "positive": lambda e: number(e.x) is not None and e.x > 0,  # type: ignore[operator]
    "top_positive": lambda e: number(e.x) is not None and e.x > 0,  # type: ignore[operator]
    "sum_a": lambda e: e.s == "a",
    "last_a": lambda e: e.s == "a",
    "fading_a": lambda e: e.s == "a",
    "latest_b": lambda e: e.s == "b",
}
SCHEMA: dict[str, Any] = {
    "who": "int64?",
    "x": "float64?",
    "i": "int32?",
    "s": "str?",
    "big": "float64?",
    "day": "date?",
}
SCHEMA["at"] = nr.Timestamp("us")
TYPES: dict[str, Any] = {"who": pl.Int64, "x": pl.Float64, "i": pl.Int32, "s": pl.String}
TYPES |= {"big": pl.Float64, "day": pl.Date, "at": pl.Datetime("us", "UTC")}


@dataclass(frozen=True)
class Event:
    who: int | None
    x: float | None
    i: int | None
    s: str | None
    big: float | None  # of very different sizes, and what isn't a number
    day: date | None
    hour: int  # whole hours, so that events tie with each other, with windows' edges and with labels


EVENTS = st.lists(
    st.builds(
        Event,
        who=st.none() | st.integers(1, 3),
        x=st.none() | st.floats(-1e3, 1e3, width=32),
        i=st.none() | st.integers(-9, 9),
        s=st.none() | st.sampled_from("abc"),
        big=st.none() | st.sampled_from([1e17, -1e17, 1.0, 0.25, 3e8, math.nan, math.inf]),
        day=st.none() | st.sampled_from([date(1969, 12, 31), date(2024, 2, 29)]),
        hour=st.integers(0, 12),
    ),
    max_size=25,
)
LABELS = st.lists(st.tuples(st.none() | st.integers(1, 4), st.integers(0, 14)), min_size=1, max_size=10)


def oracle(events: list[Event], name: str, who: int | None, hour: float) -> Any:
    feature, holds = FEATURES[name], WHERE.get(name, lambda e: True)
    if name == "ratio":
        total, n = oracle(events, "total", who, hour), oracle(events, "n", who, hour)
        return None if total is None else total / n
    if name == "share":
        whole, n = oracle(events, "whole", who, hour), oracle(events, "n_3h", who, hour)
        return None if whole is None or n == 0 else whole / n
    if name == "is_many":
        return oracle(events, "n_3h", who, hour) > 1
    mine = [
        (e.hour, number, e)
        for number, e in enumerate(events)
        if e.who == who and who is not None and e.hour < hour and holds(e)
    ]
    if feature.window_micros is not None:
        mine = [entry for entry in mine if entry[0] >= hour - feature.window_micros / HOUR]
    ordered = [e for _, _, e in sorted(mine, key=lambda entry: entry[:2])]
    if feature.kind == "count":
        return len(ordered)
    values = [number(getattr(e, str(feature.column))) for e in ordered]
    if feature.kind == "latest":
        return values[-1] if values else None
    known = [v for v in values if v is not None]
    if feature.kind == "last":
        return known[::-1][: feature.n]
    if feature.kind == "distinct":
        return len(set(known))
    if feature.kind == "top_k":
        newest = {v: place for place, v in enumerate(known)}
        return sorted(newest, key=lambda v: (-known.count(v), -newest[v]))[: feature.n]
    if not known:
        return None
    if feature.kind == "decayed_sum":
        ages = [hour - e.hour for e in ordered if number(getattr(e, str(feature.column))) is not None]
        return math.fsum(
            v * 2.0 ** (-age / (feature.half_life_micros / HOUR)) for v, age in zip(known, ages, strict=True)
        )
    by_kind: dict[str, Callable[[list[Any]], Any]] = {
        "sum": math.fsum,
        "mean": lambda known: math.fsum(known) / len(known),
        "min": min,
        "max": max,
        "first": lambda known: known[0],
        "std": statistics.pstdev,
    }
    return by_kind[feature.kind](known)


def number(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def same(got: Any, expected: Any) -> bool:
    if isinstance(got, float) and isinstance(expected, (int, float)):
        return math.isclose(got, expected, rel_tol=1e-9, abs_tol=1e-6)
    return bool(got == expected)


def group(**options: Any) -> nr.FeatureGroup:
    source = nr.Source("events", "events.csv", schema=SCHEMA)
    return nr.FeatureGroup("g", **{"entity": "who", "source": source, "features": FEATURES, **options})


def frame(events: list[Event]) -> pl.DataFrame:
    rows = [(e.who, e.x, e.i, e.s, e.big, e.day, START + timedelta(hours=e.hour)) for e in events]
    return pl.DataFrame(rows, schema=TYPES, orient="row")


@settings(max_examples=150, deadline=None)
@given(EVENTS, LABELS)
def test_training_sets_agree_with_the_oracle(events: list[Event], labels: list[tuple[int | None, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder, Workspace.open(Settings(Path(folder))) as workspace:
        asked = pl.DataFrame(
            [(who, START + timedelta(hours=hour), n) for n, (who, hour) in enumerate(labels)],
            schema={"who": pl.Int64, "when": pl.Datetime("us", "UTC"), "n": pl.Int64},
            orient="row",
        )
        store = nr.FeatureStore(workspace)
        made = store.training_set(asked, [group()], time="when", events={"events": frame(events)})
        assert made["n"].to_list() == list(range(len(labels)))
        for name in FEATURES:
            for (who, hour), got in zip(labels, made[f"g.{name}"].to_list(), strict=True):
                assert same(got, oracle(events, name, who, hour)), (name, who, hour)


@settings(max_examples=60, deadline=None)
@given(EVENTS, st.integers(0, 14))
def test_online_equals_the_training_set_to_the_bit(events: list[Event], hour: int) -> None:
    with tempfile.TemporaryDirectory() as folder, Workspace.open(Settings(Path(folder))) as workspace:
        store, given_events = nr.FeatureStore(workspace), frame(events)
        as_of = START_MICROS + hour * HOUR
        store.materialize(group(), as_of=as_of, events=given_events)
        ids = [1, 2, 3, 4]
        online = store.get_online(group(), ids)
        labels = pl.DataFrame({"who": ids, "when": [START + timedelta(hours=hour)] * 4}).cast({"when": TYPES["at"]})
        offline = store.training_set(labels, [group()], time="when", events={"events": given_events})
        for name in FEATURES:
            assert online.columns[f"g.{name}"] == offline[f"g.{name}"].to_list(), name
        present = {e.who for e in events if e.hour < hour}
        assert online.found == [entity in present for entity in ids]
        newest = [max((e.hour for e in events if e.who == who and e.hour < hour), default=None) for who in ids]
        assert online.event_times == [None if h is None else START_MICROS + h * HOUR for h in newest]


@settings(max_examples=60, deadline=None)
@given(EVENTS, st.integers(0, 14), st.integers(0, 5 * 3600))
def test_windows_move_on_after_the_last_event(events: list[Event], hour: int, seconds: int) -> None:
    """What is read later is what a label at that time is given, though nothing was written in between."""
    with tempfile.TemporaryDirectory() as folder, Workspace.open(Settings(Path(folder))) as workspace:
        store = nr.FeatureStore(workspace)
        store.materialize(group(), as_of=START_MICROS + hour * HOUR, events=frame(events))
        later = START + timedelta(hours=hour, seconds=seconds)
        reader = OnlineReader(workspace.online, [group().online_spec()])
        online = reader.read("g", [1, 2, 3, 4], as_of=int(later.timestamp()) * 1_000_000)
        labels = pl.DataFrame({"who": [1, 2, 3, 4], "when": [later] * 4}).cast({"when": TYPES["at"]})
        known = frame([event for event in events if event.hour < hour])
        offline = store.training_set(labels, [group()], time="when", events={"events": known})
        for name in FEATURES:
            assert online.columns[f"g.{name}"] == offline[f"g.{name}"].to_list(), name


@settings(max_examples=60, deadline=None)
@given(EVENTS, st.integers(0, 14))
def test_a_ttl_means_the_same_offline_and_online(events: list[Event], hour: int) -> None:
    now = START_MICROS + hour * HOUR
    with (
        tempfile.TemporaryDirectory() as folder,
        Workspace.open(Settings(Path(folder)), ManualClock(now)) as workspace,
    ):
        store, mortal = nr.FeatureStore(workspace), group(ttl="3h")
        store.materialize(mortal, as_of=now, events=frame(events))
        online = store.get_online(mortal, [1, 2, 3])
        labels = pl.DataFrame({"who": [1, 2, 3], "when": [START + timedelta(hours=hour)] * 3}).cast(
            {"when": TYPES["at"]}
        )
        offline = store.training_set(labels, [mortal], time="when", events={"events": frame(events)})
        for name in FEATURES:
            assert online.columns[f"g.{name}"] == offline[f"g.{name}"].to_list(), name
