from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from late_model import SCHEMA, servable, version
from sklearn.linear_model import LinearRegression

import noria as nr
from noria.core import RequestError, Schema
from noria.pipelines.dtypes import polars_schema
from noria.serving.tabular import check_tabular
from noria.testing import ServableConformance
from noria.training.inputs import FEW, ModelInputs
from noria.training.servable import TabularServable
from noria.training.tables import Numbers, Table, checked_frame, convert_rows, plain_rows

MANY = FEW + 20


EXAMPLE = {"instances": [{"f": 1.5, "short": 2.5, "n": 3, "on": True, "s": "a"}, {"short": 0.5}]}
MODEL = servable(SCHEMA, nr.Impute(), nr.Encode(), example=EXAMPLE)


class TestTabularServable(ServableConformance):
    def servable(self) -> TabularServable:
        return MODEL


def ask(columns: Any) -> Any:
    return MODEL.answer("predict", [MODEL.table(columns)])[0]


ROW = st.tuples(
    st.none() | st.floats(-1e6, 1e6),
    st.floats(-1e6, 1e6),
    st.none() | st.integers(-128, 127),
    st.none() | st.booleans(),
    st.none() | st.sampled_from(["a", "b", "c", ""]),
)


def kept_as(how: str, name: str, values: list[Any]) -> Any:
    """The same column as a list, a series, or an array (with NaN for what is missing)."""
    if how == "series":
        return pl.Series(values, dtype=polars_schema(SCHEMA)[name] if name == "s" else None)
    if how == "array" and name != "s":
        missing = None in values
        return np.array([np.nan if v is None else v for v in values], dtype=float if missing else None)
    return values


@settings(max_examples=60, deadline=None)
@given(
    st.lists(ROW, min_size=1, max_size=8),
    st.lists(st.sampled_from(["list", "series", "array"]), min_size=5, max_size=5),
    st.booleans(),
)
def test_columns_mean_what_the_rows_would_have_meant_as_json(rows: Any, how: list[str], many: bool) -> None:
    rows = rows * (MANY // len(rows) + 1) if many else rows
    body = {"instances": [dict(zip(SCHEMA.names, row, strict=True)) for row in rows]}
    expected = MODEL.decode("predict", msgspec.json.encode(body))
    columns = {
        name: kept_as(kind, name, list(values))
        for name, values, kind in zip(SCHEMA.names, zip(*rows, strict=True), how, strict=True)
    }
    request = MODEL.table(columns)
    one, other = MODEL._matrix([expected], [None])[0], MODEL._matrix([request], [None])[0]
    assert one.tobytes() == other.tobytes()
    assert MODEL.answer("predict", [request]) == MODEL.answer("predict", [expected])
    if not many:
        assert request == expected


ANY_COLUMN = st.one_of(
    st.lists(st.integers(-300, 300), min_size=4, max_size=4).map(np.array),
    st.lists(st.integers(0, 2**64 - 1), min_size=4, max_size=4).map(lambda v: np.array(v, dtype="u8")),
    st.lists(st.floats(), min_size=4, max_size=4).map(np.array),
    st.lists(st.floats(width=16), min_size=4, max_size=4).map(lambda v: np.array(v, dtype="f2")),
    st.lists(st.sampled_from([0.0, 1.0, 2.5, float("nan")]), min_size=4, max_size=4).map(np.array),
    st.lists(st.booleans(), min_size=4, max_size=4).map(np.array),
    st.lists(st.none() | st.text(max_size=3), min_size=4, max_size=4).map(lambda v: pl.Series(v, dtype=pl.String)),
    st.lists(st.none() | st.integers(-300, 300), min_size=4, max_size=4).map(lambda v: pl.Series(v, dtype=pl.Int64)),
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(SCHEMA.names), ANY_COLUMN)
def test_few_rows_and_many_are_refused_alike(name: str, column: Any) -> None:
    schema = Schema((SCHEMA[name],))
    model = ONE[name]

    def few() -> Any:
        rows = plain_rows({name: column}, {name: schema[name]})
        return model._inputs.frame(
            [*map(msgspec.structs.astuple, convert_rows(rows, model._request, "instances").instances)]
        )

    outcomes = []
    for way in (few, lambda: checked_frame({name: column}, schema, 4)):
        try:
            outcomes.append(way())
        except RequestError as error:
            outcomes.append(str(error.field).partition("[")[0])
    few_rows, many_rows = outcomes
    if isinstance(few_rows, pl.DataFrame):
        assert isinstance(many_rows, pl.DataFrame)
        assert few_rows.equals(many_rows)
    else:
        assert few_rows == many_rows == name


ONE = {name: servable(Schema((SCHEMA[name],)), nr.Encode()) for name in SCHEMA.names}


@pytest.mark.parametrize("rows", [3, MANY])
@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"n": 128.0}, "n[2]"),
        ({"n": 1.5}, "n[2]"),
        ({"short": np.nan}, "short[2]"),
        ({"f": np.inf}, "f[2]"),
        ({"on": 2.0}, "on[2]"),
    ],
)
def test_a_wrong_value_is_named_by_column_and_row(rows: int, change: dict[str, float], field: str) -> None:
    columns: dict[str, Any] = {name: np.zeros(rows) for name in ("f", "short", "n", "on")}
    for name, value in change.items():
        columns[name][2] = value
    with pytest.raises(RequestError) as caught:
        ask(columns)
    assert (caught.value.field, caught.value.status) == (field, 422)


@pytest.mark.parametrize(
    ("columns", "field"),
    [
        ({}, "short"),
        ({"f": [1.0]}, "short"),
        ({"short": [1.0], "shrt": [1.0]}, "shrt"),
        ({"short": [1.0], "f": [1.0, 2.0]}, "short"),
        ({"short": []}, None),
        ({"short": np.zeros(100_001)}, None),
        ({"short": ["1"]}, "short[0]"),
        ({"short": [[1.0]]}, "short[0]"),
        ({"short": [1.0], "s": [1]}, "s[0]"),
        ({"short": np.zeros(MANY), "s": [1] * MANY}, "s[0]"),
        ({"short": np.zeros(MANY, dtype=bool)}, "short"),
        ({"short": pl.Series([b"x"] * MANY)}, "short"),
    ],
)
def test_wrong_columns_are_refused(columns: Any, field: str | None) -> None:
    with pytest.raises(RequestError) as caught:
        ask(columns)
    assert caught.value.field == field
    assert 400 <= caught.value.status < 500


def test_tables_and_rows_of_one_batch_keep_their_order() -> None:
    random = np.random.default_rng(1)
    tables = [{"short": random.normal(size=n)} for n in (MANY, 2, 1, MANY + 1, 3)]
    requests = [MODEL.table(columns) for columns in tables]
    assert [isinstance(request, Table) for request in requests] == [True, False, False, True, False]
    assert msgspec.json.encode(requests[0], enc_hook=repr) == b'"120 rows of f, short, n, on, s"'  # as in logs
    together = MODEL.answer("predict", requests)
    assert together == [MODEL.answer("predict", [request])[0] for request in requests]
    assert [len(answer.predictions) for answer in together] == [MANY, 2, 1, MANY + 1, 3]


def test_a_servable_says_what_it_reads_and_gives() -> None:
    assert check_tabular(MODEL) is MODEL
    assert MODEL.inputs is SCHEMA
    assert MODEL.outputs == {"predictions": "bool", "scores": "float64"}
    assert list(MODEL.columns(ask({"short": [1.0]}))) == ["predictions", "scores"]
    numbers = Schema.of({"short": "float32"})
    line = LinearRegression().fit([[0.0], [1.0]], [0.0, 2.0])
    regressor = TabularServable(version(numbers), line, ModelInputs(numbers, ()), None, {}, [])
    assert regressor.outputs == {"predictions": "float64"}
    answer = regressor.answer("predict", [regressor.table({"short": np.array([2.0])})])[0]
    assert regressor.columns(answer) == {"predictions": pytest.approx([4.0])}


def test_rows_read_as_numbers_are_logged_as_they_came() -> None:
    schema = Schema.of({"a": "float64?", "b": "int16"})
    request = Numbers(np.array([[1.5, 2.0], [np.nan, 3.0]]), schema)
    written = msgspec.json.decode(msgspec.json.encode(request.to_builtins()))
    assert written == {"instances": [{"a": 1.5, "b": 2}, {"a": None, "b": 3}]}
    assert repr(request) == "2 rows of a, b"
