from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.tree import DecisionTreeClassifier

import noria as nr
from noria.cli.run import summary
from noria.core import DataError, Settings
from noria.registry import ModelRegistry
from noria.storage import Workspace
from noria.training.leakage import find_leakage, giveaways

ROWS = 2000
RANDOM = np.random.default_rng(0)
NOISE = pl.DataFrame({"a": RANDOM.normal(size=ROWS), "b": RANDOM.integers(0, 5, ROWS)})
TARGET = RANDOM.random(ROWS) < 0.3
TIMES = np.arange(ROWS, dtype=np.int64)


def found(split: Any, inputs: pl.DataFrame = NOISE, **options: Any) -> Any:
    more: dict[str, Any] = {"times": None, "entities": None, **options}
    train, test = split.masks(more["times"], len(inputs), 0, more["entities"], TARGET)
    return find_leakage(inputs, TARGET, train, test, split=split, **more)


def test_clean_rows_are_left_alone() -> None:
    assert found(nr.RandomSplit()).warnings == []
    clean = found(nr.TimeSplit(), times=TIMES, entities=np.arange(ROWS) % 9)
    assert clean.warnings == []
    assert clean.to_dict() == {"shared_entities": 1.0, "future": 0.0, "copies": 0.0, "features": {}, "warnings": []}


def test_entities_on_both_sides() -> None:
    people = np.arange(ROWS) // 4
    (text,) = found(nr.RandomSplit(), entities=people).warnings
    assert "of entities with training rows too" in text
    assert found(nr.RandomSplit(), entities=np.arange(ROWS) % 9).warnings == [], "shops come again"
    grouped = found(nr.GroupSplit(), entities=people)
    assert grouped.shared_entities == 0
    assert grouped.warnings == []


def test_a_future_that_teaches() -> None:
    leaking = found(nr.RandomSplit(), times=TIMES)
    assert leaking.future > 0.99
    assert "newer than" in leaking.warnings[0]
    assert found(nr.TimeSplit(), times=TIMES).future == 0


class Broken(nr.TimeSplit):  # type: ignore[misc]
    def masks(self, *given: Any) -> Any:
        train, test = super().masks(*given)
        train[-1], test[-1] = True, False
        return train, test


class GroupSplit(nr.GroupSplit):  # type: ignore[misc]
    def masks(self, times: Any, rows: int, *given: Any) -> Any:
        return nr.RandomSplit().masks(times, rows, *given)


def test_a_split_that_breaks_its_promise_is_an_error() -> None:
    with pytest.raises(DataError, match="trains on rows that are no older"):
        found(Broken(), times=TIMES)
    with pytest.raises(DataError, match="left an entity on both sides"):
        found(GroupSplit(), entities=np.arange(ROWS) // 4)


def test_copies_on_both_sides() -> None:
    twice = pl.concat([NOISE.head(ROWS // 2)] * 2)
    target = np.concatenate([TARGET[: ROWS // 2]] * 2)
    train, test = nr.RandomSplit().masks(None, ROWS, 0)
    leaking = find_leakage(twice, target, train, test, split=nr.RandomSplit())
    assert leaking.copies > 0.5
    assert "drop copies" in leaking.warnings[0]
    coarse = NOISE.select("b")
    assert found(nr.RandomSplit(), coarse).copies == 1.0
    assert found(nr.RandomSplit(), coarse).warnings == [], "five values come again by chance"


@settings(deadline=None)
@given(st.lists(st.tuples(*[st.sampled_from([0.0, 1.0, None])] * 6, st.integers(0, 2)), min_size=20, max_size=60))
def test_copies_are_the_rows_that_are_equal_in_all_columns(rows: list[tuple[float | None, ...]]) -> None:
    inputs = pl.DataFrame(rows, [*((f"x{at}", pl.Float64) for at in range(6)), ("n", pl.Int64)], orient="row")
    train, test = np.arange(len(rows)) % 2 == 0, np.arange(len(rows)) % 2 == 1
    known = set(rows[::2])
    same = np.mean([row in known for row in rows[1::2]])
    judged = find_leakage(inputs, np.zeros(len(rows), np.int64), train, test, split=nr.RandomSplit())
    assert judged.copies == same


@pytest.mark.parametrize(
    "column",
    [
        pl.Series("leak", TARGET),
        pl.Series("leak", np.where(TARGET, RANDOM.normal(9, 1, ROWS), RANDOM.normal(0, 1, ROWS))),
        pl.Series("leak", np.where(TARGET, 5.0, RANDOM.choice([1.0, 9.0], ROWS))),
        pl.Series("leak", [None if t else 1.0 for t in TARGET]),
        pl.Series("leak", ["paid" if t else "open" for t in TARGET]),
    ],
    ids=["itself", "a shift", "no order", "a gap", "a text"],
)
def test_a_feature_that_gives_the_target_away(column: pl.Series) -> None:
    (text,) = found(nr.RandomSplit(), NOISE.with_columns(column)).warnings
    assert "feature 'leak' alone predicts the target" in text
    assert "(AUC" in text


def test_numbers_and_many_classes_are_looked_at_too() -> None:
    everything = np.ones(ROWS, bool)
    values = RANDOM.gamma(1, 100, ROWS)
    frame = NOISE.with_columns(leak=pl.Series(values * 2 + 1), id=pl.Series(map(str, range(ROWS))))
    assert giveaways(frame, values, everything, 0).keys() == {"leak"}
    kinds = RANDOM.choice(["a", "b", "c"], ROWS)
    assert giveaways(NOISE.with_columns(leak=pl.Series(kinds)), kinds.astype(object), everything, 0).keys() == {"leak"}
    assert giveaways(frame.head(10), values[:10], everything[:10], 0) == {}


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    NOISE.with_columns(paid=pl.Series(TARGET), receipt=pl.Series(TARGET.astype(int))).write_csv(tmp_path / "sales.csv")
    with Workspace.open(Settings(tmp_path)) as opened:
        yield opened


def test_what_is_found_is_said_and_kept(workspace: Workspace) -> None:
    schema = {"a": "float64", "b": "int64", "paid": "bool", "receipt": "int64"}
    sales = nr.Source("sales", "sales.csv", schema=schema)
    part = nr.ModelTrainingPipeline(
        "paid",
        labels=sales,
        target="paid",
        features=["a", "receipt"],
        model=DecisionTreeClassifier(),
        split=nr.RandomSplit(),
    )
    report = nr.System("shop", [sales, part]).run(workspace)
    assert not report.failed
    assert "paid: warning: feature 'receipt' alone predicts the target almost perfectly (AUC 1.000)" in summary(report)
    kept = ModelRegistry.of(workspace).get("paid").parameters["leakage"]
    assert kept["features"] == {"receipt": 1.0}
    run = report.steps["paid"].run
    assert run is not None
    assert run.notes["leakage"] == kept
