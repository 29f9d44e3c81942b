"""Expressions and steps over one row give the bits of the batch, for all types and at their limits."""

from __future__ import annotations

import base64
import random
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import noria as nr
from noria.core import ConfigError, DataError
from noria.pipelines import fit_steps, row_function, steps_from_dict, steps_to_dict
from noria.pipelines.steps.expression_functions import compile_tree
from noria.pipelines.steps.expression_tree import tree
from noria.testing.step import assert_rows_equal_the_batch

FLOATS = [0.0, -0.0, 1.0, -1.0, 0.1, 3.0, 1e-320, 5e-324, 1.7976931348623157e308, -1e308, 1e16, 2.5, -2.5, 1e-9]
SINGLES = [0.0, -0.0, 1.0, 0.10000000149011612, 3.0, 3.4028234663852886e38, 1.401298464324817e-45, -2.5, 16777216.0]


def integers(bits: int) -> st.SearchStrategy[int]:
    least, greatest = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    return st.sampled_from([0, 1, -1, 2, 3, 7, -7, least, greatest, least + 1]) | st.integers(least, greatest)


VALUES: dict[str, tuple[pl.DataType, st.SearchStrategy[Any]]] = {
    "i8": (pl.Int8(), integers(8)),
    "i16": (pl.Int16(), integers(16)),
    "i32": (pl.Int32(), integers(32)),
    "i64": (pl.Int64(), integers(64)),
    "f32": (pl.Float32(), st.sampled_from(SINGLES) | st.floats(width=32, allow_nan=False, allow_infinity=False)),
    "f64": (pl.Float64(), st.sampled_from(FLOATS) | st.floats(allow_nan=False, allow_infinity=False)),
    "g": (pl.Float64(), st.floats(-100, 100)),
    "s": (pl.String(), st.sampled_from(["a", "b", "", "Straße", "İ", "ΑΣ", "12", " 3", "1e3"]) | st.text(max_size=4)),
    "b": (pl.Boolean(), st.booleans()),
    "d": (pl.Date(), st.dates(date(1, 1, 1), date(9999, 12, 31))),
    "t": (
        pl.Datetime("us", "UTC"),
        st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)).map(lambda t: t.replace(tzinfo=UTC)),  # noqa: DTZ001
    ),
}
SCHEMA = pl.Schema({name: dtype for name, (dtype, _) in VALUES.items()})


@st.composite
def frames(draw: st.DrawFn, rows: int = 6) -> pl.DataFrame:
    size = draw(st.integers(1, rows))
    return pl.DataFrame(
        {
            name: draw(st.lists(st.none() | values, min_size=size, max_size=size))
            for name, (_, values) in VALUES.items()
        },
        schema=SCHEMA,
    )


c = nr.col
NUMERIC = ["i8", "i16", "i32", "i64", "f32", "f64", "g"]
TYPES = [pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.Float32, pl.Float64]
WRITTEN = [0, 1, 2, 3, -1, 7, 100, 300, 2.5, 0.1, -0.5, 0.0, 1e10]
COMPARE = ["__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__"]
TEXTS = [c("s"), pl.lit("a"), c("s").str.to_lowercase(), c("s").str.to_uppercase(), c("s").fill_null("b")]
SIMPLE = [
    c("b"), c("s").is_in(["a", "Straße"]), c("s").is_in(["a", None]), c("g").is_in([0.0, 1.0]), c("i8").is_in([1, 300]),
    c("i64").is_in([1, 3, 7]), c("s").str.starts_with("a"), c("s").str.ends_with("a"), c("s").str.contains("[0-9]"),
    c("d") > date(2020, 1, 1), c("t") <= c("t"), c("b").eq(True), c("t").is_null(), c("s").is_not_null(),
]  # fmt: skip
NUMBERS = [
    c("s").str.len_chars(), c("s").str.len_bytes(), c("b").cast(pl.Int64), c("b").cast(pl.Float32), c("t").dt.hour(),
]  # fmt: skip


def number(draw: st.DrawFn, depth: int) -> pl.Expr:
    if depth == 0 or draw(st.integers(0, 3)) == 0:
        kind = draw(st.integers(0, 5))
        if kind == 0:
            return NUMBERS[draw(st.integers(0, len(NUMBERS) - 1))]
        return pl.lit(draw(st.sampled_from(WRITTEN))) if kind < 3 else c(draw(st.sampled_from(NUMERIC)))
    left, right = two(draw, depth - 1)
    match draw(st.integers(0, 13)):
        case 0 | 1:
            return left + right
        case 2:
            return left - right
        case 3:
            return left * right
        case 4:
            return left / right
        case 5:
            return left // right
        case 6:
            return left % right
        case 7:
            return left.fill_null(right)
        case 8:
            return pl.coalesce(left, right)
        case 9:
            return nr.when(condition(draw, depth - 1)).then(left).otherwise(None if draw(st.booleans()) else right)
        case 10:
            return left.cast(draw(st.sampled_from(TYPES)), strict=False)
        case 11:
            return left.abs().log1p() if draw(st.booleans()) else left.sqrt()
        case 12:
            return left.abs()
        case _:
            return -left


def two(draw: st.DrawFn, depth: int) -> tuple[pl.Expr, pl.Expr]:
    left, right = number(draw, depth), number(draw, depth)
    # Polars fails where a sum of two written numbers meets a when() whose rows agree.
    return left, right if left.meta.root_names() or right.meta.root_names() else c(draw(st.sampled_from(NUMERIC)))


def condition(draw: st.DrawFn, depth: int) -> pl.Expr:
    kind = draw(st.integers(0, 7 if depth else 4))
    if kind == 0:
        return SIMPLE[draw(st.integers(0, len(SIMPLE) - 1))]
    if kind == 1:
        left, right = (TEXTS[draw(st.integers(0, len(TEXTS) - 1))] for _ in range(2))
        return getattr(left, draw(st.sampled_from(COMPARE)))(right)
    if kind in (2, 3):
        left, right = two(draw, depth and depth - 1)
        return getattr(left, draw(st.sampled_from(COMPARE)))(right)
    if kind == 4:
        value, low, high = (number(draw, depth and depth - 1) for _ in range(3))
        return value.is_between(low, high, closed=draw(st.sampled_from(["both", "left", "right", "none"])))
    left, right = condition(draw, depth - 1), condition(draw, depth - 1)
    return (left & right, left | right, ~left)[kind - 5]


@st.composite
def expressions(draw: st.DrawFn) -> pl.Expr:
    return number(draw, 3) if draw(st.booleans()) else condition(draw, 3)


@st.composite
def conditions(draw: st.DrawFn) -> pl.Expr:
    return condition(draw, 2)


@settings(max_examples=600, deadline=None)
@given(expressions(), frames())
def test_a_random_expression_gives_the_bits_of_the_batch(expression: pl.Expr, frame: pl.DataFrame) -> None:
    try:
        fitted, _ = fit_steps([nr.Derive({"made": expression})], frame)
    except (ConfigError, DataError):  # types that don't go together, or a strict literal
        assume(False)
    assert_rows_equal_the_batch(fitted, frame)
    again = steps_from_dict(msgspec.json.decode(msgspec.json.encode(steps_to_dict(fitted))))
    assert again[0].apply(frame).equals(fitted[0].apply(frame))
    for cut in range(len(frame)):
        alone = fitted[0].apply(frame[cut : cut + 1])
        assert alone.equals(fitted[0].apply(frame)[cut : cut + 1])


def test_a_condition_that_holds_for_no_row_gives_a_value_for_each() -> None:
    rows = pl.DataFrame({"s": [None, None, None], "b": [True, None, False]}, schema={"s": pl.String, "b": pl.Boolean})
    made = pl.lit(0) == pl.when(nr.col("s") == nr.col("s")).then(nr.col("b").cast(pl.Float32)).otherwise(None)
    for frame in (rows, rows[:1], rows[:0]):
        fitted, given_back = fit_steps([nr.Derive({"made": made})], frame)
        assert given_back["made"].to_list() == [None] * len(frame)
        assert_rows_equal_the_batch(fitted, frame)


@settings(max_examples=200, deadline=None)
@given(conditions(), frames())
def test_a_random_filter_keeps_the_rows_of_the_batch(expression: pl.Expr, frame: pl.DataFrame) -> None:
    try:
        fitted, _ = fit_steps([nr.Filter(expression)], frame)
    except (ConfigError, DataError):
        assume(False)
    assert_rows_equal_the_batch(fitted, frame)


CASTS = ["int8", "int16", "int32", "int64", "float32", "float64", "bool", "str", "timestamp", "date"]


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(list(VALUES)), st.sampled_from(CASTS), frames())
def test_a_cast_gives_the_bits_of_the_batch(name: str, dtype: str, frame: pl.DataFrame) -> None:
    try:
        fitted, made = fit_steps([nr.Cast({name: dtype})], frame)
    except ConfigError:
        assume(False)
    assert made[name].dtype == (pl.Datetime("us", "UTC") if dtype == "timestamp" else made[name].dtype)
    assert_rows_equal_the_batch(fitted, frame)


@settings(max_examples=200, deadline=None)
@given(frames(), frames(), st.integers(0, 2**32))
def test_steps_on_extremes_give_the_bits_of_the_batch(rows: pl.DataFrame, more: pl.DataFrame, seed: int) -> None:
    steps = [
        nr.Impute(NUMERIC, strategy=("mean", "median", "most_frequent")[seed % 3], indicator=seed % 2 == 0),
        nr.Clip(NUMERIC, quantiles=(0.1, 0.8)),
        nr.Clip(["i8", "i64", "f32"], low=-1e300, high=1e300),
        nr.Encode(method=("ordinal", "onehot", "frequency", "hash", "category")[seed % 5]),
        nr.Normalize(NUMERIC, method=("standard", "minmax", "robust", "log")[seed // 4 % 4]),
        nr.Bucket(NUMERIC, quantiles=4),
    ]
    chosen = random.Random(seed).sample(steps, 4)
    fitted, _ = fit_steps(chosen, rows)
    state = msgspec.json.encode(steps_to_dict(fitted))
    again = steps_from_dict(msgspec.json.decode(state))
    for frame in (rows, more):
        assert_rows_equal_the_batch(again, frame)


@pytest.mark.parametrize(
    "expression",
    [
        c("f64") / 3, c("i8") / c("g"), c("i32") // 7, c("i64") % 5, c("f32") * 0.1 + 1, c("i8") + 100,
        nr.when(c("b") & (c("g") > 1)).then(c("g")).otherwise(None), c("s").is_in(["a"]), c("i64").is_between(0, 9),
        c("g").fill_null(0.5).abs().log1p(), c("i16").cast(pl.Float64), c("f64").cast(pl.Int8, strict=False),
        c("s").str.to_lowercase() == "a", c("s").str.len_chars() + 1, c("d").is_null(), pl.coalesce("i8", "i64"),
    ],
)  # fmt: skip
def test_the_common_operations_need_no_frame(expression: pl.Expr) -> None:
    assert compile_tree(tree(expression), SCHEMA).dtype == pl.DataFrame(schema=SCHEMA).select(expression).dtypes[0]


@pytest.mark.parametrize(
    "expression",
    [
        c("g") - c("g").mean(), c("g").shift(1), c("g").cum_sum(), c("g").sum().over("s"), pl.len() + c("i8"),
        c("g").fill_null(strategy="forward"), c("g").rank(), c("g").sort(), c("g").fill_null(c("g").max()),
        c("g") + pl.Series([1.0, 2.0]), c("g").drop_nulls(), pl.all() + 1, c("s").str.to_datetime(), c("i8").is_in(c("i16")),
    ],
)  # fmt: skip
def test_an_expression_over_several_rows_is_refused(expression: pl.Expr) -> None:
    frame = pl.DataFrame(schema=SCHEMA)
    for step in (nr.Derive({"made": expression}), nr.Filter(expression)):
        with pytest.raises(ConfigError, match="looks at several rows"):
            fit_steps([step], frame)


def test_python_functions_are_neither_saved_nor_loaded(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return Path.mkdir, (tmp_path / "unpickled",)

    bomb = Bomb()
    expression = c("g").map_batches(lambda column: column + bomb)
    with pytest.raises(ConfigError, match="Python function"):
        fit_steps([nr.Derive({"made": expression})], pl.DataFrame(schema=SCHEMA))
    saved = {"text": "harmless", "polars": base64.b64encode(expression.meta.serialize()).decode()}
    with pytest.raises(ConfigError, match="Python function"):
        steps_from_dict([{"step": "Derive", "columns": {"made": saved}}])
    assert not (tmp_path / "unpickled").exists()


def test_what_can_not_be_computed_is_told() -> None:
    frame = pl.DataFrame({"s": ["1", "x"]})
    with pytest.raises(DataError, match="can't be computed"):
        fit_steps([nr.Derive({"n": c("s").cast(pl.Int64)})], frame)
    broken = {"text": "col('a')", "polars": base64.b64encode(b"\x81").decode()}
    with pytest.raises(DataError, match="can't be read"):
        steps_from_dict([{"step": "Filter", "expression": broken}])


def test_nan_and_infinity_from_an_expression_are_missing() -> None:
    frame = pl.DataFrame({"x": [1.0, 0.0, -1.0], "y": [0.0, 0.0, 2.0]})
    fitted, made = fit_steps([nr.Derive({"q": c("x") / c("y")})], frame)
    assert made["q"].to_list() == [None, None, -0.5]
    assert_rows_equal_the_batch(fitted, frame)


def test_a_repeated_value_is_divided_as_in_a_row() -> None:
    frame = pl.DataFrame({"x": [1.0, 2.0, 3.0]})
    fitted, _ = fit_steps([nr.Derive({"y": pl.lit(3.083399755935192e-88)}), nr.Derive({"z": c("y") / 3})], frame)
    assert_rows_equal_the_batch(fitted, frame)
    parts = pl.concat([frame[:1], frame[1:]], rechunk=False).with_columns(c("x") * 3.083399755935192e-88)
    fitted, _ = fit_steps([nr.Derive({"z": c("x") / 3})], parts)
    assert_rows_equal_the_batch(fitted, parts)


def test_what_a_row_gives_does_not_depend_on_the_rows_beside_it() -> None:
    either = nr.when(c("x") > 0).then(49.0).otherwise(7.0)
    frame = pl.DataFrame({"x": [1.0, -1.0, 5.0], "none": [None, None, 49.0]})
    made = {
        "a": either / 49,
        "b": c("x") / either,
        "c": c("none").fill_null(49.0) / 49,
        "d": 1 / pl.coalesce("none", 49),
    }
    made |= {"e": c("x") ** 2 / 3, "f": c("x") / (pl.lit(7) * 7), "g": (c("x") % 0.1) // 0.7, "h": c("x").round(1) / 49}
    fitted, _ = fit_steps([nr.Derive(made)], frame)
    whole = fitted[0].apply(frame)
    for rows in (frame[:1], frame[1:], frame[::2], frame[1:2]):
        keep = pl.col("x").is_in(rows["x"].implode())
        assert fitted[0].apply(rows).equals(whole.filter(keep))
    assert_rows_equal_the_batch(fitted, frame)
    assert whole["a"][0] == 1.0


def test_the_row_function_leaves_its_input_and_orders_its_output() -> None:
    frame = pl.DataFrame({"x": [1.0, None], "s": ["a", "b"], "y": [1, 2]})
    steps = [nr.Impute(["x"]), nr.Encode(method="onehot"), nr.Rename({"y": "z"}), nr.Derive({"w": c("x") + 1})]
    fitted, made = fit_steps(steps, frame)
    row = {"y": 5, "other": 1, "s": "b", "x": None}
    before = dict(row)
    found = row_function(fitted, frame.schema)(row)
    assert row == before
    assert found is not None
    assert list(found) == made.columns
