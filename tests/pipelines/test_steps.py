from __future__ import annotations

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
    sums = True

    def step(self):
        return nr.Impute(strategy="mean")


class TestImputeMostFrequent(StepConformance):
    def step(self):
        return nr.Impute(["text", "whole"], strategy="most_frequent")


class TestImputeConstant(StepConformance):
    def step(self):
        return nr.Impute(["number"], strategy="constant", value=-1.5)


class TestImputeIndicator(StepConformance):
    def step(self):
        return nr.Impute(indicator=True)


class TestEncodeCategory(StepConformance):
    def step(self):
        return nr.Encode(method="category", max_categories=2)


class TestEncodeOrdinal(StepConformance):
    def step(self):
        return nr.Encode()


class TestEncodeOneHot(StepConformance):
    def step(self):
        return nr.Encode(method="onehot", max_categories=2)


class TestNormalizeStandard(StepConformance):
    sums = True

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
    with pytest.raises(DataError, match="'Klip' is unknown"):
        steps_from_dict([{"step": "Klip"}])
