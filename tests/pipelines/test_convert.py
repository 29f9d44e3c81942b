# ruff: noqa: DTZ001 - naive instants are what is tested

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.core import Field, Schema, Timestamp
from noria.pipelines.convert import as_text, can_convert, convert, is_missing

FAR = pl.Series([2**63 - 1, -(2**63)])


def field(dtype: Any) -> Field:
    return Schema.of({"v": dtype})["v"]


@pytest.mark.parametrize(
    ("dtype", "column", "expected"),
    [
        ("int64", pl.Series([1.0, 2.5, float("nan"), 2.0**63]), [1, None, None, None]),
        ("int64", pl.Series([2**63, 5], dtype=pl.UInt64), [None, 5]),
        ("int8", pl.Series([127, 128]), [127, None]),
        ("int32", pl.Series([Decimal("2.00"), Decimal("2.50")]), [2, None]),
        ("int32", pl.Series([True, False]), [1, 0]),
        ("float32", pl.Series([0.5, 1e39, float("inf"), float("nan")]), [0.5, None, None, None]),
        ("float64", pl.Series([1, None]), [1.0, None]),
        ("bool", pl.Series([0, 1, 2]), [False, True, None]),
        ("str", pl.Series([1, 2]), ["1", "2"]),
        ("str", pl.Series(["a", ""], dtype=pl.Categorical), ["a", None]),
        ("str", pl.Series([date(2020, 1, 1)]), ["2020-01-01"]),
        ("date", pl.Series([datetime(2020, 1, 1), datetime(2020, 1, 1, 5)]), [date(2020, 1, 1), None]),
        ("date", FAR.cast(pl.Int32, strict=False).fill_null(2**31 - 1).cast(pl.Date), [None, None]),
        (Timestamp("s"), pl.Series([date(2020, 1, 1)]), [datetime(2020, 1, 1, tzinfo=UTC)]),
        (Timestamp("s"), pl.Series([1.0, 1.5]), [datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC), None]),
        (Timestamp("s"), pl.Series([253_402_300_800, -62_135_596_801]), [None, None]),
        (Timestamp("ns"), pl.Series([1_999]), [datetime(1970, 1, 1, 0, 0, 0, 1, tzinfo=UTC)]),
        (Timestamp("us"), FAR.cast(pl.Datetime("us")), [None, None]),
        (Timestamp("us"), FAR.cast(pl.Datetime("ms")), [None, None]),
        (
            Timestamp("iso"),
            pl.Series([datetime(2020, 1, 1)]).dt.replace_time_zone("Asia/Tokyo"),
            [datetime(2019, 12, 31, 15, tzinfo=UTC)],
        ),
        ("int64", pl.Series([None, None]), [None, None]),
    ],
)
def test_typed_columns(dtype: Any, column: pl.Series, expected: list[Any]) -> None:
    column = column.alias("v")
    assert can_convert(field(dtype), column.dtype)
    made = convert(field(dtype), column)
    assert made.to_list() == expected
    column.to_frame().select(as_text(pl.col("v"), column.dtype))  # also what can't be converted can be shown


@pytest.mark.parametrize(
    ("dtype", "column"),
    [
        ("int64", pl.Series([[1]])),
        ("str", pl.Series([{"a": 1}])),
        ("str", pl.Series([b"a"])),
        ("float64", pl.Series([time(1)])),
        ("int64", pl.Series([date(2020, 1, 1)])),
        ("date", pl.Series([18_000])),
        (Timestamp("iso"), pl.Series([1])),
        (Timestamp("s"), pl.Series([True])),
    ],
)
def test_types_that_mean_something_else_are_refused(dtype: Any, column: pl.Series) -> None:
    assert not can_convert(field(dtype), column.dtype)


def test_what_is_missing() -> None:
    texts = pl.Series(["", " ", "NA", "null", "0", None])
    assert is_missing(field("int64"), texts).to_list() == [True, True, True, True, False, True]
    assert is_missing(field("str"), texts).to_list() == [True, False, False, False, False, True]
    assert is_missing(field("float64"), pl.Series([1.0, float("nan"), None])).to_list() == [False, True, True]
    assert is_missing(field("int8"), pl.Series([0, None])).to_list() == [False, True]


INSTANTS = st.datetimes(
    datetime(2, 1, 1),
    datetime(9998, 12, 31),
    timezones=st.none() | st.just(UTC) | st.integers(-839, 839).map(lambda m: timezone(timedelta(minutes=m))),
)


@given(
    st.lists(
        st.tuples(INSTANTS, st.sampled_from(["T", " "]), st.sampled_from(["auto", "seconds", "minutes"])), min_size=1
    )
)
def test_iso_texts_mean_what_python_says(instants: list[tuple[datetime, str, str]]) -> None:
    texts = [instant.isoformat(sign, spec) for instant, sign, spec in instants]
    known = [datetime.fromisoformat(text) for text in texts]
    expected = [k.replace(tzinfo=UTC) if k.tzinfo is None else k.astimezone(UTC) for k in known]
    assert convert(field(Timestamp("iso")), pl.Series("v", texts)).to_list() == expected


@pytest.mark.parametrize(
    "text",
    ["0000-01-01", "10000-01-01", "-0001-01-01", "2020-02-30", "2020-01-01T24:00:00Z", "2020-01-01T00:60:00", "2020",
     "0001-01-01T00:00:00+14:00", "9999-12-31T23:00:00-02:00", "2020-01-01T", "2020-01-01 UTC", "20200101T000000Z",
     "2020-01-01T00:00:00ZZ", "2020-01-01TT00:00:00", "1577836800", "x"],
)  # fmt: skip
def test_texts_that_are_no_instant(text: str) -> None:
    assert convert(field(Timestamp("iso")), pl.Series("v", [text, "2020-01-01"])).to_list() == [
        None,
        datetime(2020, 1, 1, tzinfo=UTC),
    ]


@given(st.lists(st.integers(-(2**70), 2**70).map(str) | st.floats().map(str) | st.text(max_size=5)))
def test_integers_from_any_text(texts: list[str]) -> None:
    made = convert(field("int32"), pl.Series("v", texts, dtype=pl.String))
    for text, value in zip(texts, made, strict=True):
        if value is not None:
            assert float(text) == value
        elif text.lstrip("-").isascii() and text.lstrip("-").isdigit():
            assert not -(2**31) <= int(text) < 2**31
