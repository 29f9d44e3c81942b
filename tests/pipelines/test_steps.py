from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from importlib.metadata import EntryPoint, EntryPoints
from types import SimpleNamespace

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import noria as nr
from noria.core import ConfigError, DataError
from noria.pipelines import apply_steps, fit_steps, steps_from_dict
from noria.testing import StepConformance


class TestDropMissing(StepConformance):
    drops_rows = True

    def step(self):
        return nr.DropMissing(["number"])


class TestImpute(StepConformance):
    def step(self):
        return nr.Impute()


class TestImputeMean(StepConformance):
    def step(self):
        return nr.Impute(strategy="mean")


class TestImputeMostFrequent(StepConformance):
    def step(self):
        return nr.Impute(["text", "whole"], strategy="most_frequent")


class TestImputeConstant(StepConformance):
    def step(self):
        return nr.Impute(["number"], strategy="constant", value=-1.5)


class TestEncodeOrdinal(StepConformance):
    def step(self):
        return nr.Encode()


class TestEncodeOneHot(StepConformance):
    def step(self):
        return nr.Encode(method="onehot", max_categories=2)


class TestNormalizeStandard(StepConformance):
    def step(self):
        return nr.Normalize()


class TestNormalizeMinMax(StepConformance):
    def step(self):
        return nr.Normalize(["number", "constant"], method="minmax")


FRAME = pl.DataFrame({"x": [1.0, None, 3.0], "n": [1, None, 2], "c": ["b", None, "a"]})


def test_what_missing_values_become() -> None:
    _, made = fit_steps([nr.Impute()], FRAME)
    assert made.to_dict(as_series=False) == {"x": [1.0, 2.0, 3.0], "n": [1, 2, 2], "c": ["b", "a", "a"]}
    _, made = fit_steps([nr.Impute(["c"], strategy="constant", value="?")], FRAME)
    assert made["c"].to_list() == ["b", "?", "a"]
    empty = pl.DataFrame({"x": [None, None], "c": [None, None]}, schema={"x": pl.Float64, "c": pl.String})
    assert fit_steps([nr.Impute()], empty)[1].to_dict(as_series=False) == {"x": [0.0, 0.0], "c": ["", ""]}


def test_what_categories_become() -> None:
    fitted, made = fit_steps([nr.Encode()], FRAME)
    assert made["c"].to_list() == [1.0, -2.0, 0.0]
    assert apply_steps(fitted, FRAME.with_columns(c=pl.lit("new")))["c"].to_list() == [-1.0] * 3
    fitted, made = fit_steps([nr.Encode(method="onehot")], FRAME)
    assert made.columns == ["x", "n", "c=a", "c=b"]
    assert made["c=a"].to_list() == [0.0, 0.0, 1.0]


def test_every_category_may_be_missing() -> None:
    frame = pl.DataFrame({"c": [None, None]}, schema={"c": pl.String})
    assert fit_steps([nr.Encode()], frame)[1]["c"].to_list() == [-2.0, -2.0]
    fitted, _ = fit_steps([nr.Encode(method="onehot")], frame.with_columns(x=1))
    assert apply_steps(fitted, frame.with_columns(x=1)).columns == ["x"]


@pytest.mark.parametrize("frame", [{"c": ["a"], "c=a": [1]}, {"a": ["b=c"], "a=b": ["c"]}])
def test_two_columns_of_one_name_are_refused(frame: dict[str, list[object]]) -> None:
    with pytest.raises(ConfigError, match="two columns"):
        fit_steps([nr.Encode(method="onehot")], pl.DataFrame(frame))


@given(st.floats(-1e15, 1e15), st.integers(1, 9), st.sampled_from(["standard", "minmax"]))
def test_any_constant_is_normalised_to_zero(value: float, rows: int, method: str) -> None:
    _, made = fit_steps([nr.Normalize(method=method)], pl.DataFrame({"x": [value] * rows}))
    assert made["x"].to_list() == [0.0] * rows


@pytest.mark.parametrize("method", ["standard", "minmax"])
def test_extreme_numbers_stay_finite(method: str) -> None:
    for values in ([0.0, 5e-324], [1.0, 1.0000000000000002], [1.0, None, float("nan")]):
        fitted, _ = fit_steps([nr.Normalize(method=method)], pl.DataFrame({"x": values}))
        assert apply_steps(fitted, pl.DataFrame({"x": [0.0, 1.0]}))["x"].is_finite().all()


def test_a_constant_column_is_normalised_to_zero() -> None:
    _, made = fit_steps([nr.Normalize()], pl.DataFrame({"x": [5.0, 5.0], "y": [1.0, 3.0]}))
    assert made.to_dict(as_series=False) == {"x": [0.0, 0.0], "y": [-1.0, 1.0]}


NUMBERS = st.lists(st.none() | st.floats(-1e6, 1e6), min_size=1, max_size=20)
TEXTS = st.lists(st.none() | st.text(max_size=3), min_size=1, max_size=20)


@given(NUMBERS, TEXTS, NUMBERS, TEXTS)
def test_one_row_equals_the_batch_to_the_bit(
    x: list[float | None], c: list[str | None], later_x: list[float | None], later_c: list[str | None]
) -> None:
    def frame(x: list[float | None], c: list[str | None]) -> pl.DataFrame:
        rows = min(len(x), len(c))
        return pl.DataFrame({"x": x[:rows], "c": c[:rows]}, schema={"x": pl.Float64, "c": pl.String})

    steps = [nr.Impute(["x"], strategy="mean"), nr.Encode(), nr.Normalize()]
    fitted, _ = fit_steps(steps, frame(x, c))
    batch = frame(later_x, later_c)
    alone = pl.concat([apply_steps(fitted, batch.slice(i, 1)) for i in range(len(batch))])
    assert alone.equals(apply_steps(fitted, batch), null_equal=True)


def test_wrong_definitions_say_what_is_allowed() -> None:
    with pytest.raises(ConfigError, match="unknown strategy"):
        nr.Impute(strategy="mode")
    with pytest.raises(ConfigError, match="a value goes with"):
        nr.Impute(value=3)
    with pytest.raises(ConfigError, match="unknown method"):
        nr.Encode(method="one-hot")
    with pytest.raises(ConfigError, match="no column 'y'"):
        fit_steps([nr.Normalize(["y"])], FRAME)
    with pytest.raises(ConfigError, match="column 'c' is String"):
        fit_steps([nr.Normalize(["c"])], FRAME)
    with pytest.raises(ConfigError, match="can't fill 'x'"):
        fit_steps([nr.Impute(["x"], strategy="constant", value="?")], FRAME)
    for value in (2.5, 300, True, [1]):
        with pytest.raises(ConfigError, match="can't fill 'n'"):
            fit_steps([nr.Impute(["n"], strategy="constant", value=value)], FRAME.cast({"n": pl.Int8}))
    with pytest.raises(ConfigError, match="can't fill 'x'"):
        fit_steps([nr.Impute(["x"], strategy="constant", value=float("inf"))], FRAME)
    with pytest.raises(ConfigError, match="is one text, not a list"):
        fit_steps([nr.Normalize("x")], FRAME)
    with pytest.raises(DataError, match="'Clip' is unknown"):
        steps_from_dict([{"step": "Clip"}])


class TestShout(StepConformance):
    """A step from another package: its entry point loads the saved state."""

    @pytest.fixture(autouse=True)
    def installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        point = EntryPoint("Shout", f"{__name__}:Shouted.from_dict", "noria.steps")
        monkeypatch.setitem(sys.modules, __name__, SimpleNamespace(Shouted=Shouted))
        monkeypatch.setattr(
            "noria.pipelines.steps.entry_points", lambda group: EntryPoints([point]).select(group=group)
        )

    def step(self):
        return Shout("!")


@dataclass(frozen=True)
class Shout:
    sign: str

    def fit(self, frame: pl.DataFrame) -> Shouted:
        return Shouted(self.sign)

    def to_dict(self) -> dict[str, str]:
        return {"step": "Shout", "sign": self.sign}


@dataclass(frozen=True)
class Shouted:
    sign: str

    def apply(self, frame: pl.DataFrame) -> pl.DataFrame:
        return frame.with_columns(pl.col("text") + self.sign)

    def to_dict(self) -> dict[str, str]:
        return {"step": "Shout", "sign": self.sign}

    @staticmethod
    def from_dict(state: dict[str, str]) -> Shouted:
        return Shouted(state["sign"])


@pytest.mark.parametrize("method", ["standard", "minmax"])
@pytest.mark.parametrize(
    "values", [[0.1] * 7, [0.1, None, 0.1, 0.1], [1e300] * 3, [-1e-320] * 3, [float("nan"), 5.0, 5.0]]
)
def test_a_constant_column_is_zero_whatever_the_rounding(method: str, values: list[float | None]) -> None:
    _, made = fit_steps([nr.Normalize(method=method)], pl.DataFrame({"x": values}))
    assert {value for value in made["x"].fill_nan(None).to_list() if value is not None} == {0.0}


def test_nan_and_infinity_have_no_part_in_what_is_learnt() -> None:
    frame = pl.DataFrame({"x": [1.0, 3.0, float("nan"), float("inf"), None]})
    for step in (nr.Impute(strategy="mean"), nr.Impute(), nr.Normalize(), nr.Normalize(method="minmax")):
        (fitted,), _ = fit_steps([step], frame)
        (expected,), _ = fit_steps([step], frame.head(2))
        assert fitted.to_dict() == expected.to_dict()
        json.dumps(fitted.to_dict(), allow_nan=False)


def test_numbers_at_the_ends_of_their_types() -> None:
    top = 2**63 - 1
    for strategy in ("mean", "median", "most_frequent"):
        _, made = fit_steps([nr.Impute(strategy=strategy)], pl.DataFrame({"x": [top, top, None]}))
        assert made["x"].to_list() == [top] * 3
        _, made = fit_steps([nr.Impute(strategy=strategy)], pl.DataFrame({"x": [1.7e308, 1.7e308, None]}))
        assert made["x"].to_list() == [1.7e308] * 3
    for method in ("standard", "minmax"):
        with pytest.raises(DataError, match="too far to be scaled"):
            fit_steps([nr.Normalize(method=method)], pl.DataFrame({"x": [1.7e308, -1.7e308]}))
        _, made = fit_steps([nr.Normalize(method=method)], pl.DataFrame({"x": [1e-320, 2e-320]}))
        assert made["x"].is_finite().all()


@pytest.mark.parametrize("value", [1.5, 1000, True, float("nan"), 2**70])
def test_a_constant_that_an_integer_column_can_not_hold_is_refused(value: float) -> None:
    with pytest.raises(ConfigError, match="can't fill 'n'"):
        fit_steps([nr.Impute(["n"], strategy="constant", value=value)], FRAME.cast({"n": pl.Int8}))


def test_one_column_for_each_category_and_no_name_twice() -> None:
    with pytest.raises(ConfigError, match="two columns 'c=a'"):
        fit_steps([nr.Encode(["c"], method="onehot")], FRAME.with_columns(pl.lit(1).alias("c=a")))
    none = pl.DataFrame({"c": [None], "x": [1]}, schema={"c": pl.String, "x": pl.Int64})
    assert fit_steps([nr.Encode(method="onehot")], none)[1].columns == ["x"]
    assert fit_steps([nr.Encode(method="onehot")], none.select("c"))[1].columns == []
    assert fit_steps([nr.Encode()], pl.DataFrame({"count": ["b", "a", "b"]}))[1]["count"].to_list() == [1, 0, 1]


def test_only_the_most_frequent_categories_are_kept() -> None:
    frame = pl.DataFrame({"c": ["b", "a", "c", "a", "b", None]})
    _, made = fit_steps([nr.Encode(max_categories=1)], frame)
    assert made["c"].to_list() == [-1, 0, -1, 0, -1, -2]
