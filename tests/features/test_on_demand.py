"""On-demand features: what a training set has is what a request gets, to the bit."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

import noria as nr
from noria.core import ConfigError, DataError, RequestError, Settings
from noria.features import BoundOnDemand, bound
from noria.registry import ModelRegistry
from noria.serving import load_servable
from noria.storage import Workspace

SCHEMA = {"user": "int64", "price": "float64", "item": "str?", "at": nr.Timestamp("us")}
BUYS = nr.Source("buys", "buys.csv", schema=SCHEMA)
HABITS = nr.FeatureGroup(
    "habits", "user", BUYS, {"mean": nr.mean("price"), "n": nr.count(), "items": nr.last("item", n=2)}
)
AMOUNT, MEAN = nr.col("amount"), nr.col("habits.mean")
BASKET = nr.OnDemand(
    "basket", inputs={"amount": "float64?"}, features={"ratio": AMOUNT / MEAN, "is_large": AMOUNT > 2 * MEAN}
)


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace.open(Settings(tmp_path)) as opened:
        yield opened


def instants(*micros: int) -> pl.Series:
    return pl.Series("at", micros).cast(pl.Datetime("us", "UTC"))


EVENTS = pl.DataFrame({"user": [1, 1, 2], "price": [2.0, 4.0, 0.0], "item": ["a", "b", "c"], "at": instants(1, 2, 3)})
LABELS = pl.DataFrame({"user": [1, 2, 3, 1], "amount": [6.0, 1.0, 1.0, math.nan], "at": instants(9, 9, 9, 9)})


def test_a_training_set_has_them_beside_the_groups(workspace: Workspace) -> None:
    made = nr.FeatureStore(workspace).training_set(LABELS, [BASKET, HABITS], time="at", events={"buys": EVENTS})
    assert made.columns == [
        *LABELS.columns,
        "habits.mean",
        "habits.n",
        "habits.items",
        "basket.ratio",
        "basket.is_large",
    ]
    assert made["basket.ratio"].to_list() == [2.0, None, None, None]  # 1 / 0 is no number
    assert made["basket.is_large"].to_list() == [False, True, None, None]
    assert made.select(LABELS.columns).equals(LABELS, null_equal=True)


def test_lists_texts_and_instants(workspace: Workspace) -> None:
    visit = nr.OnDemand(
        "visit",
        inputs={"item": "str?", "at": nr.Timestamp("iso"), "day": "date?", "who": "uuid?"},
        features={
            "hour": nr.col("at").dt.hour(),
            "again": nr.col("habits.items").list.contains(nr.col("item")),
            "known": nr.col("habits.items").list.len().cast(pl.Int64),
            "later": nr.col("at") + timedelta(hours=1),
            "since": (nr.col("at").dt.date() - nr.col("day")).dt.total_days(),
            "mine": nr.col("who") == str(UUID(int=7)),
            "always": nr.lit(1),
        },
    )  # fmt: skip
    at, day = datetime(2026, 1, 2, 13, 30, tzinfo=UTC), date(2026, 1, 1)
    labels = pl.DataFrame(
        {
            "user": [1, 3, 1],
            "item": ["b", "b", ""],
            "at": [at] * 3,
            "day": [day, None, day],
            "who": [UUID(int=7), None, None],
        }
    )
    made = nr.FeatureStore(workspace).training_set(labels, [HABITS, visit], time="at", events={"buys": EVENTS})
    expected = {
        "visit.hour": [13, 13, 13],
        "visit.again": [True, False, False],
        "visit.known": [2, 0, 2],
        "visit.later": [at + timedelta(hours=1)] * 3,
        "visit.since": [1, None, 1],
        "visit.mine": [True, None, None],
        "visit.always": [1, 1, 1],
    }
    assert {name: made[name].to_list() for name in expected} == expected
    (one,) = bound([visit], [HABITS])
    known = {name: made[name].to_list() for name in one.known}
    asked = {"item": ["b", "b", ""], "at": [at, at.replace(tzinfo=None), at], "day": [day, None, day]}
    assert one.compute({**known, **asked, "who": [UUID(int=7), None, None]}) == expected
    assert set(one.output_schema()) == set(expected) - {"visit.later"}


@pytest.mark.parametrize(
    ("unit", "number"), [("s", 1_767_360_600), ("ms", 1_767_360_600_000), ("us", 1_767_360_600_000_000), ("ns", 10**9)]
)
def test_an_instant_may_come_as_a_number(unit: str, number: int) -> None:
    part = nr.OnDemand("visit", {"at": nr.Timestamp(unit)}, {"minute": nr.col("at").dt.minute()})
    (one,) = bound([part], [])
    assert one.compute({"at": [number]}) == {"visit.minute": [0 if unit == "ns" else 30]}
    with pytest.raises(RequestError, match=r"at: .* is beyond the calendar"):
        one.compute({"at": [2**63 - 1 if unit != "ns" else -(10**20)]})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": {}}, "has no features"),
        ({"inputs": {}}, "at least one column"),
        ({"inputs": {"amount": "float"}}, "unknown type 'float'"),
        ({"inputs": {"a.b": "str"}}, "has a dot in its name"),
        ({"name": "Basket"}, "can't be the name"),
        ({"features": {"Ratio": AMOUNT}}, "can't be the name of a feature"),
        ({"features": {"ratio": 7}}, "feature basket.ratio is 7, and not an expression"),
        ({"features": {"ratio": nr.col("amont")}}, "did you mean 'amount'"),
        ({"features": {"ratio": nr.col("amont") / MEAN}}, "has no input 'amont'"),
        ({"features": {"ratio": AMOUNT.sum()}}, "looks at several rows"),
        ({"features": {"ratio": AMOUNT.shift(1) / MEAN}}, "looks at several rows"),
        ({"features": {"ratio": AMOUNT.map_elements(lambda x: x)}}, "Python function"),
        ({"features": {"ratio": AMOUNT.str.len_bytes()}}, "can't be computed"),
        ({"features": {"ratio": AMOUNT.cast(pl.UInt8)}}, "which no feature can be"),
    ],
)
def test_wrong_definitions_are_refused_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        nr.OnDemand(**{"name": "basket", "inputs": {"amount": "float64"}, "features": {"ratio": AMOUNT / 2}, **options})
    assert message in str(caught.value)


def test_what_the_groups_and_labels_lack_is_said(workspace: Workspace) -> None:
    store, events = nr.FeatureStore(workspace), {"buys": EVENTS}

    def training_set(labels: pl.DataFrame, *parts: Any) -> pl.DataFrame:
        return store.training_set(labels, parts, time="at", events=events)

    with pytest.raises(ConfigError, match=r"no feature 'habits.mean'\n.*give feature group 'habits' beside this"):
        training_set(LABELS, BASKET)
    wrong = nr.OnDemand("basket", {"amount": "float64"}, {"ratio": AMOUNT / nr.col("habits.meen")})
    with pytest.raises(ConfigError, match=r"no feature 'habits.meen'\n.*did you mean 'habits.mean'"):
        training_set(LABELS, HABITS, wrong)
    with pytest.raises(ConfigError, match=r"the labels have no column 'amount'"):
        training_set(LABELS.drop("amount"), HABITS, BASKET)
    with pytest.raises(ConfigError, match=r"the labels' 'amount' is String, and the input is float64\?"):
        training_set(LABELS.with_columns(pl.col("amount").cast(pl.String)), HABITS, BASKET)
    with pytest.raises(ConfigError, match=r"there is already a column 'basket.ratio'"):
        training_set(LABELS.with_columns(pl.lit(1).alias("basket.ratio")), HABITS, BASKET)
    with pytest.raises(ConfigError, match=r"two parts are called 'basket'"):
        training_set(LABELS, HABITS, BASKET, BASKET)
    other = nr.OnDemand("other", {"amount": "int64"}, {"twice": AMOUNT * 2})
    with pytest.raises(ConfigError, match=r"'amount' is float64\? in on-demand 'basket', and int64 in 'other'"):
        training_set(LABELS, HABITS, BASKET, other)
    small = nr.OnDemand("small", {"user": "int8"}, {"twice": nr.col("user") * 2})
    with pytest.raises(DataError, match=r"'user' doesn't fit into int8"):
        training_set(LABELS.with_columns(user=pl.lit(300)), small)


def test_they_come_back_from_their_saved_state() -> None:
    again = nr.OnDemand.from_state(msgspec.json.decode(msgspec.json.encode(BASKET.to_state())))
    assert again.to_dict() == BASKET.to_dict()
    assert again.definition_hash() == BASKET.definition_hash()
    changed = nr.OnDemand("basket", BASKET.inputs, {**BASKET.features, "ratio": AMOUNT / (MEAN + 1)})
    assert changed.definition_hash() != BASKET.definition_hash()


# --- offline and online

real, true, whole, text, short = (nr.col(name) for name in ("a", "b", "i", "t", "f"))
EVERY = nr.OnDemand(
    "every",
    {"a": "float64?", "f": "float32?", "i": "int32?", "t": "str?", "b": "bool?"},
    {
        "ratio": real / nr.col("g.x"),
        "small": short * 3 + nr.col("g.x"),
        "short": short / 3,
        "wrapped": whole * whole,
        "whole": whole // nr.col("g.n"),
        "rest": whole % 3,
        "log": (real.abs() + 1).log(),
        "kind": nr.when(text == "x").then(nr.lit("one")).otherwise(text),
        "is_same": text == nr.col("g.s"),
        "either": true | (real > 0),
        "filled": real.fill_null(nr.col("g.x")),
        "upper": text.str.to_uppercase(),
        "length": text.str.len_chars().cast(pl.Int64),
        "rounded": real.round(1),
    },
)
SOURCE = nr.Source("s", "s.csv", schema={"k": "int64", "x": "float64?", "s": "str?", "at": nr.Timestamp("us")})
GROUP = nr.FeatureGroup("g", "k", SOURCE, {"x": nr.latest("x"), "n": nr.count(), "s": nr.latest("s")})
FLOATS = st.none() | st.floats(width=32) | st.sampled_from([0.0, -0.0, 1e308, 5e-324, 0.1])
KNOWN = FLOATS.filter(lambda x: x is None or not abs(x) > 1e150)  # statistics of features square them
ROW = st.tuples(
    st.integers(1, 3),
    FLOATS,
    st.none() | st.floats(width=32),
    st.none() | st.integers(-(2**31), 2**31 - 1),
    st.none() | st.sampled_from(["", "x", "é", "NaN"]),
    st.none() | st.booleans(),
)
NAMES = ("k", "a", "f", "i", "t", "b")
TYPES = {"k": pl.Int64, "a": pl.Float64, "f": pl.Float32, "i": pl.Int32, "t": pl.String, "b": pl.Boolean}


def bits(value: Any) -> Any:
    return struct.pack("<d", value) if isinstance(value, float) else (type(value), value)


@settings(max_examples=60, deadline=None)
@given(st.lists(ROW, min_size=1, max_size=8), st.lists(st.tuples(st.integers(1, 2), KNOWN), max_size=4))
def test_a_request_gets_what_the_training_set_has(rows: list[Any], events: list[Any]) -> None:
    import tempfile

    late = instants(*[9] * len(rows))
    labels = pl.DataFrame(rows, schema={name: TYPES[name] for name in NAMES}, orient="row").with_columns(late)
    known = pl.DataFrame(events, schema={"k": pl.Int64, "x": pl.Float64}, orient="row").with_columns(
        instants(*range(len(events))), s=pl.lit("x")
    )
    with tempfile.TemporaryDirectory() as folder:
        store = nr.FeatureStore(folder)
        offline = store.training_set(labels, [GROUP, EVERY], time="at", events={"s": known})
        store.materialize(GROUP, events=known, as_of=9)
        looked_up = store.get_online(GROUP, labels["k"].to_list()).columns
        store.close()
    (one,) = bound([EVERY], [GROUP])
    expected = {name: [bits(v) for v in offline[name].to_list()] for name in one.types}
    asked = {name: [row[NAMES.index(name)] for row in rows] for name in NAMES if name != "k"}
    online = one.compute({**looked_up, **asked})
    assert {name: [bits(v) for v in values] for name, values in online.items()} == expected
    # The same by columns, as of many rows.
    many = {name: values * 101 for name, values in {**looked_up, **asked}.items()}
    by_columns = one.compute(many)
    assert {name: [bits(v) for v in values[: len(rows)]] for name, values in by_columns.items()} == expected


# --- a model

LABEL_SCHEMA = {
    "user": "int64",
    "amount": "float32?",
    "shop": "str?",
    "paid": "bool",
    "at": nr.Timestamp("us"),
}


def pipeline(labels: nr.Source, *parts: Any) -> nr.ModelTrainingPipeline:
    steps = [nr.Impute(), nr.Encode(method="onehot")]
    return nr.ModelTrainingPipeline("paid", labels, "paid", parts, LogisticRegression(max_iter=1000), steps)


ORDER = nr.OnDemand(
    "order",
    {"amount": "float32?", "shop": "str?", "at": nr.Timestamp("us")},
    {
        "ratio": AMOUNT / MEAN,
        "minute": nr.col("at").dt.minute(),
        "place": nr.col("shop") + "!",
    },
)


@pytest.fixture
def trained(workspace: Workspace) -> Workspace:
    rows = [(n % 5, float(n % 11), "a" if n % 3 else None, n % 11 > 2 * (n % 5), n * 60_000_000) for n in range(300)]
    frame = pl.DataFrame(rows, schema=["user", "amount", "shop", "paid", "at"], orient="row")
    frame.write_csv(workspace.settings.root / "labels.csv")
    frame.select("user", price=pl.col("user") + 1.0, item=pl.lit("x"), at=pl.col("at") - 1).write_csv(
        workspace.settings.root / "buys.csv"
    )
    return workspace


def run(workspace: Workspace, model: nr.ModelTrainingPipeline) -> Any:
    report = nr.System("shop", [BUYS, HABITS, model.labels, model]).run(workspace)
    for failed in report.failed:
        raise failed.error or AssertionError(failed.why)
    return report


def test_they_travel_with_the_model_and_the_request_brings_their_inputs(trained: Workspace) -> None:
    labels = nr.Source("labels", "labels.csv", schema=LABEL_SCHEMA)
    run(trained, pipeline(labels, "amount", HABITS, ORDER))
    version = ModelRegistry.of(trained).get("paid")
    assert version.lineage.features == {part.name: part.definition_hash() for part in (HABITS, ORDER)}
    assert list(version.signature.inputs) == [
        *("amount", "habits.mean", "habits.n", "order.ratio", "order.minute", "order.place")
    ]
    servable = load_servable(version, trained)
    servable.warm_up()

    def ask(body: object) -> Any:
        return servable.answer("predict", [servable.decode("predict", json.dumps(body).encode())])[0]

    entities = [
        {"user": 2, "amount": 7.1, "shop": "a", "at": 60_000_000},
        {"user": 99, "at": 0},
        {"user": 1, "amount": 1.1, "shop": "", "at": 120_000_000},
    ]
    frame = pl.DataFrame(
        {"user": [2, 99, 1], "amount": [7.1, None, 1.1], "shop": ["a", None, None], "at": [60_000_000, 0, 120_000_000]}
    ).with_columns(pl.col("amount").cast(pl.Float32), pl.col("at").cast(pl.Datetime("us", "UTC")))
    online = nr.FeatureStore(trained).get_online(HABITS, [2, 99, 1]).columns
    (one,) = bound([ORDER], [HABITS])
    computed = one.columns(frame.with_columns(pl.Series(name, values) for name, values in online.items()))
    inputs = frame.select("amount").with_columns(
        *(pl.Series(name, online[name]) for name in ("habits.mean", "habits.n")), *computed
    )
    assert ask({"entities": entities}).scores == ask({"instances": inputs.to_dicts()}).scores
    assert inputs["order.minute"].to_list() == [1, 0, 2]
    for body, field in (
        ({"entities": [{"user": 2}]}, "entities[0].at"),
        ({"entities": [{"user": 2, "at": "x"}]}, "entities[0].at"),
        ({"entities": [{"user": 2, "at": 1, "amount": "x"}]}, "entities[0].amount"),
        ({"entities": [{"user": 2, "at": 1, "amont": 1}]}, "entities[0].amont"),
    ):
        with pytest.raises(RequestError) as caught:
            ask(body)
        assert caught.value.field == field
    with pytest.raises(RequestError, match="beyond the calendar"):
        ask({"entities": [{"user": 2, "at": 2**63 - 1}]})
    assert servable.describe("predict")["request"]


def test_a_changed_expression_is_another_model_and_no_group_is_needed(trained: Workspace) -> None:
    labels = nr.Source("labels", "labels.csv", schema=LABEL_SCHEMA)
    for number, factor in enumerate((2, 3, 3)):
        part = nr.OnDemand("basket", {"amount": "float32?"}, {"much": AMOUNT * factor})
        report = run(trained, pipeline(labels, part))
        assert report.steps["paid"].status == ("succeeded" if number < 2 else "fresh")
    servable = load_servable(ModelRegistry.of(trained).get("paid"), trained)
    (given, looked_up) = (
        servable.answer("predict", [servable.decode("predict", json.dumps(body).encode())])[0]
        for body in ({"instances": [{"basket.much": 9.0}]}, {"entities": [{"amount": 3.0}]})
    )
    assert given.scores == looked_up.scores


def test_a_pipeline_says_what_does_not_fit() -> None:
    labels = nr.Source("labels", "labels.csv", schema=LABEL_SCHEMA)
    for part, message in (
        (BASKET, r"input 'amount' of 'basket' is float64, and in source 'labels' it is float32"),
        (nr.OnDemand("p", {"price": "float64"}, {"x": nr.col("price")}), r"source 'labels' has no column 'price'"),
        (nr.OnDemand("habits", {"amount": "float32"}, {"x": AMOUNT}), r"two parts are called 'habits'"),
        (nr.OnDemand("p", {"amount": "float32"}, {"x": nr.col("g.x")}), r"no feature 'g.x'"),
    ):
        with pytest.raises(ConfigError, match=message):
            pipeline(labels, HABITS, part)


def test_columns_of_python_values_may_be_empty() -> None:
    (one,) = bound([BASKET], [HABITS])
    assert isinstance(one, BoundOnDemand)
    empty = {name: [] for name in (*one.known, "amount")}
    assert one.compute(empty) == {"basket.ratio": [], "basket.is_large": []}
