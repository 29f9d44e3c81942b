from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import noria as nr
from noria.core import SchemaError
from noria.pipelines.contract import POSITION, REASONS, TEXT, Judged, judge
from noria.pipelines.dtypes import polars_schema
from noria.pipelines.extract import from_frame
from noria.pipelines.rows import Rows

U = "6f1c0a50-0000-4000-8000-00000000000a"
DAY = date(2020, 1, 1)
NOON = datetime(2020, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    return tmp_path


def judged(values: list[Any] | pl.Series, dtype: Any, path: Path | None = None) -> Judged:
    """A column `v` of text, or of any type through a Parquet file, judged as `dtype`."""
    column = pl.Series("v", values, None if isinstance(values, pl.Series) else pl.String)
    schema = nr.Schema.of({"v": dtype})
    rows = Rows(pl.DataFrame({"v": column}))
    if path is not None:
        rows.frame.write_parquet(path / "rows.parquet")
        rows = from_frame(pl.read_parquet(path / "rows.parquet"))
    made = judge(rows, schema, ())
    assert len(made.good) + len(made.bad) == len(column)
    assert dict(made.good.schema) == polars_schema(schema)
    made.good.rows()  # no value that Python can't hold
    made.bad.rows()
    return made


def split(values: Any, dtype: Any, path: Path | None = None) -> tuple[list[Any], list[int]]:
    made = judged(values, dtype, path)
    return made.good["v"].to_list(), (made.bad[POSITION] - 1).to_list()


@pytest.mark.parametrize(
    ("dtype", "good", "bad"),
    [
        (
            "int8",
            {"127": 127, "-128": -128, " 7 ": 7, "+7": 7, "7.0": 7},
            ["128", "2.5", "1e3", "1_0", "0x1", "１", "."],
        ),
        ("int64?", {str(2**63 - 1): 2**63 - 1, " ": None, " NA ": None, "null": None}, [str(2**63), "9" * 400, "true"]),
        ("float64?", {"1e3": 1e3, "-.5": -0.5, "1.": 1.0, "NaN": None, "1e-999": 0.0}, ["inf", "-nan", "1e999", "1,5"]),
        ("float32", {"1e38": 1.0 * float(pl.Series([1e38], dtype=pl.Float32)[0])}, ["1e39", "nan", ""]),
        ("bool?", {"true": True, "FALSE": False, "1": True, "0": False, "": None}, ["yes", "2", "1.0"]),
        (
            "date",
            {"2020-02-29": date(2020, 2, 29), "9999-12-31": date.max},
            ["2021-02-29", "0000-01-01", "12345-01-01"],
        ),
        ("date", {"0001-01-01": date.min}, ["-001-01-01", "+2020-01-01", "2020", "01.01.2020", "2020-01-01T00:00:00"]),
        ("str?", {" a ": " a ", "NA": "NA", "": None, "\x00": "\x00"}, []),
        ("str", {"NaN": "NaN"}, [""]),
        (
            "uuid",
            {
                U: U,
                U.upper(): U,
                f" {{{U}}} ": U,
                U.replace("-", ""): U,
                "0" * 32: f"{'0' * 8}-0000-0000-0000-{'0' * 12}",
            },
            ["", f"{{{U}", U[:-1], U + "0", "g" + U[1:], "urn:uuid:" + U, "１" + U[1:], "7"],
        ),
        ("uuid?", {"NA": None, "": None}, ["x"]),
    ],
)
def test_text(dtype: str, good: dict[str, Any], bad: list[str]) -> None:
    assert split([*good, *bad], dtype) == (list(good.values()), list(range(len(good), len(good) + len(bad))))


SECOND = datetime.max.replace(microsecond=0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("unit", "good", "bad"),
    [
        ("s", {"0": datetime(1970, 1, 1, tzinfo=UTC), "253402300799": SECOND}, ["253402300800", "-62135596801", "1.5"]),
        (
            "s",
            {"-62135596800": datetime.min.replace(tzinfo=UTC), "1.0": datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)},
            ["1e9"],
        ),
        ("ms", {" 1 ": datetime(1970, 1, 1, 0, 0, 0, 1000, UTC)}, ["253402300800000", "-62135596800001", str(2**63)]),
        ("us", {"253402300799999999": datetime.max.replace(tzinfo=UTC)}, ["253402300800000000", "-62135596800000001"]),
        ("ns", {"1999": datetime(1970, 1, 1, 0, 0, 0, 1, UTC)}, [str(2**63), "x"]),
        (
            "iso",
            {
                "2020-01-01T12:00:00Z": NOON,
                "2020-01-01 12:00:00": NOON,
                "2020-01-01T12:00": NOON,
                "2020-01-01 12:00+00:00": NOON,
                "2020-01-01T14:00:00+02:00": NOON,
                "2020-01-01T06:30:00-0530": NOON,
                "2020-01-01T12:00:00.000001999Z": NOON + timedelta(microseconds=1),
                "2020-01-01": datetime(2020, 1, 1, tzinfo=UTC),
            },
            [
                *(
                    "9999-12-31T23:59:59-12:00",
                    "0001-01-01T00:00:00+12:00",
                    "0000-01-01",
                    "12345-01-01",
                    "+12345-01-01",
                ),
                *("262142-01-01T00:00:00Z", "2020-13-01", "2020-01-01T25:00:00", "2020", "1577836800", "now", "-"),
            ],
        ),
    ],
)
def test_instants_as_text(unit: str, good: dict[str, Any], bad: list[str]) -> None:
    texts = [*good, *bad]
    assert split(texts, nr.Timestamp(unit)) == (list(good.values()), list(range(len(good), len(texts))))


def times(*numbers: int, unit: Any = "us") -> pl.Series:
    return pl.Series(numbers, dtype=pl.Int64).cast(pl.Datetime(unit))


FAR = 2**62


@pytest.mark.parametrize(
    ("column", "dtype", "good", "bad"),
    [
        (pl.Series([1.0, 2.5, None, float("nan"), 1e300, 2.0**63]), "int64?", [1, None, None], [1, 4, 5]),
        (pl.Series([2**64 - 1, 5], dtype=pl.UInt64), "int64", [5], [0]),
        (pl.Series([300, 5]), "int8", [5], [0]),
        (pl.Series([Decimal("2.5"), Decimal("3.0")]), "int64", [3], [0]),
        (pl.Series([Decimal("2.5"), None]), "float32?", [2.5, None], []),
        (pl.Series([1.5, float("nan"), float("inf"), 1e300]), "float32?", [1.5, None], [2, 3]),
        (pl.Series([True, None]), "int8?", [1, None], []),
        (pl.Series([0, 1, 2, None]), "bool?", [False, True, None], [2]),
        (pl.Series([0.0, 1.0, 0.5]), "bool", [False, True], [2]),
        (pl.Series([1, None]), "str?", ["1", None], []),
        (pl.Series(["", "NA", None]), "str?", [None, "NA", None], []),
        (pl.Series([DAY, None]), "str?", ["2020-01-01", None], []),
        (pl.Series(["7", "x", None], dtype=pl.Categorical), "int64?", [7, None], [1]),
        (pl.Series(["7", "x"], dtype=pl.Enum(["x", "7"])), "float64", [7.0], [1]),
        (pl.Series(["a", None], dtype=pl.Categorical), "str?", ["a", None], []),
        (pl.Series([b"7", None]), "int64?", [7, None], []),
        (pl.Series([[1, 2], [], None]), "str?", ["[1,2]", "[]", None], []),
        (pl.Series([[1, 2], None]), "int64?", [None], [0]),
        (pl.Series([{"q": 1}]), "str", ['{"q":1}'], []),
        (pl.Series([None, None]), "int64?", [None, None], []),
        (pl.Series([None]), nr.Timestamp("iso"), [], [0]),
        (times(1_577_880_000_000, unit="ms"), nr.Timestamp("s"), [NOON], []),
        (times(1_577_880_000_000_000_999, unit="ns"), nr.Timestamp("s"), [NOON], []),
        (times(1_577_880_000_000_000).dt.replace_time_zone("UTC"), nr.Timestamp("iso"), [NOON], []),
        (times(1_577_883_600_000_000).dt.replace_time_zone("Europe/Berlin"), nr.Timestamp("s"), [NOON], []),
        (times(FAR, -FAR, 0), nr.Timestamp("s"), [datetime(1970, 1, 1, tzinfo=UTC)], [0, 1]),
        (times(FAR, -FAR, 0, unit="ms"), nr.Timestamp("s"), [datetime(1970, 1, 1, tzinfo=UTC)], [0, 1]),
        (times(FAR, unit="ns"), nr.Timestamp("s"), [datetime(2116, 2, 20, 23, 53, 38, 427387, UTC)], []),
        (pl.Series([DAY, None]), nr.Timestamp("s", nullable=True), [datetime(2020, 1, 1, tzinfo=UTC), None], []),
        (pl.Series([1.0, 1.5, 1e300]), nr.Timestamp("s"), [datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)], [1, 2]),
        (times(0, 1), "date", [date(1970, 1, 1)], [1]),
        (pl.Series([2**30, -(2**30), 0], dtype=pl.Int32).cast(pl.Date), "date", [date(1970, 1, 1)], [0, 1]),
        (
            pl.Series([2**30, 0], dtype=pl.Int32).cast(pl.Date),
            nr.Timestamp("s"),
            [datetime(1970, 1, 1, tzinfo=UTC)],
            [0],
        ),
    ],
    ids=lambda value: str(value.dtype if isinstance(value, pl.Series) else value)[:40],
)
def test_parquet_of_other_types(folder: Path, column: pl.Series, dtype: Any, good: list[Any], bad: list[int]) -> None:
    assert split(column, dtype, folder) == (good, bad)


@pytest.mark.parametrize(
    ("column", "dtype"),
    [
        (times(0), "int64"),
        (pl.Series([DAY]), "float64"),
        (pl.Series([time(1)]), "int64"),
        (pl.Series([timedelta(1)]), "int64"),
        (pl.Series([18262]), "date"),
        (pl.Series([1]), nr.Timestamp("iso")),
        (pl.Series([True]), nr.Timestamp("s")),
    ],
    ids=lambda value: str(value.dtype if isinstance(value, pl.Series) else value)[:40],
)
def test_a_type_that_can_not_become_the_other_is_a_schema_error(folder: Path, column: pl.Series, dtype: Any) -> None:
    with pytest.raises(SchemaError, match=r"has 'v' as .*, which can't become"):
        judged(column, dtype, folder)


def test_what_a_bad_row_says() -> None:
    made = judged(["x" * 200, "1"], "int8")
    assert made.bad[REASONS].to_list() == [[f"v: '{'x' * 50}' is not int8"]]
    assert [json.loads(row) for row in made.bad[TEXT]] == [{"v": "x" * 200}]
    assert made.bad.columns == [POSITION, REASONS, TEXT]


def test_a_bad_row_of_parquet_shows_plain_values(folder: Path) -> None:
    made = judged(times(FAR), nr.Timestamp("s"), folder)
    assert made.bad[REASONS].to_list() == [[f"v: '{FAR}' is not timestamp[s]"]]
    assert json.loads(made.bad[TEXT][0]) == {"v": str(FAR)}
    made = judged(pl.Series([Decimal("2.50")]), "int8", folder)
    assert json.loads(made.bad[TEXT][0]) == {"v": "2.50"}


def test_a_row_says_every_reason_once_and_checks_do_not_judge_what_is_missing() -> None:
    checks = [nr.between("v", 0, 1), nr.one_of("v", [1]), nr.between("v", 0, 1)]
    frame = pl.DataFrame({"v": ["5", None, "x"], "w": ["", "", "y"]}, schema_overrides={"v": pl.String})
    made = judge(Rows(frame), nr.Schema.of({"v": "int8?", "w": "int8"}), tuple(checks))
    assert made.by_rule == {
        "w: missing": 2,
        "v: not int8": 1,
        "w: not int8": 1,
        "v between 0 and 1": 1,
        "v one of 1": 1,
    }
    assert made.bad[REASONS].to_list()[1:] == [["w: missing"], ["v: 'x' is not int8", "w: 'y' is not int8"]]
    assert set(made.bad[REASONS].to_list()[0]) == {"w: missing", "v between 0 and 1", "v one of 1"}


TEXTS = st.text(max_size=12) | st.from_regex(r"[+-]?[0-9]{1,25}(\.[0-9]{0,3})?(e[+-]?[0-9]{1,4})?", fullmatch=True)
MOMENTS = st.from_regex(
    r"[+-]?[0-9]{4,6}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2})?(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:?[0-9]{2})?)?",
    fullmatch=True,
)
TYPES = [
    "int8",
    "int64?",
    "float32?",
    "float64",
    "bool",
    "date?",
    "str",
    *map(nr.Timestamp, ("s", "ms", "us", "ns", "iso")),
]


@settings(max_examples=150, deadline=None)
@given(st.lists(TEXTS | MOMENTS, min_size=1, max_size=8), st.sampled_from(TYPES))
def test_whatever_the_text_a_value_is_good_or_explained(texts: list[str], dtype: Any) -> None:
    made = judged(texts, dtype)
    assert all(reasons for reasons in made.bad[REASONS].to_list())
    assert [json.loads(row)["v"] for row in made.bad[TEXT]] == [texts[at - 1] for at in made.bad[POSITION]]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1), st.sampled_from(["s", "ms", "us", "ns"]))
def test_each_number_is_an_instant_that_python_can_hold_or_is_refused(numbers: list[int], unit: str) -> None:
    good, bad = split([str(number) for number in numbers], nr.Timestamp(unit))
    rate = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    fits = [-62_135_596_800 * rate <= number < 253_402_300_800 * rate for number in numbers]
    assert bad == [at for at, fit in enumerate(fits) if not fit]
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    expected = [n * 10**6 // rate for n, fit in zip(numbers, fits, strict=True) if fit]
    assert [(moment - epoch) // timedelta(microseconds=1) for moment in good] == expected
