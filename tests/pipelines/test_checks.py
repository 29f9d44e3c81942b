from __future__ import annotations

import json
from datetime import date
from typing import Any

import polars as pl
import pytest

import noria as nr
from noria.core import ConfigError, Schema
from noria.pipelines import Check

SCHEMA = Schema.of({"i": "int8?", "f": "float32?", "d": "float64?", "s": "str?", "b": "bool?", "day": "date?"})
FRAME = pl.DataFrame(
    {
        "i": [1, 2, None, -3],
        "f": [0.1, 0.5, None, 0.7],
        "d": [0.1, 0.5, None, 1e300],
        "s": ["a", "ä", None, ""],
        "b": [True, False, None, True],
        "day": [date(2020, 1, 1), date(2020, 1, 1), None, None],
    },
    schema_overrides={"i": pl.Int8, "f": pl.Float32},
)


def broken(check: Check) -> list[int]:
    check.verify(SCHEMA)
    return FRAME.with_row_index().filter(check.bad())["index"].to_list()


@pytest.mark.parametrize(
    ("check", "bad"),
    [
        (nr.between("i", 1, 2), [3]),
        (nr.between("i", 0.5, 1.5), [1, 3]),
        (nr.between("i", -1000, 1000), []),
        (nr.between("i", -(10**30), 10**30), []),
        (nr.between("f", 0.1, 0.5), [3]),  # 0.1 as float32 is above 0.1 as float64
        (nr.between("f", 0.5, 0.7), [0]),
        (nr.between("d", 0, float("inf")), []),
        (nr.one_of("i", [1, 2]), [3]),
        (nr.one_of("i", [1.0, 2]), [3]),
        (nr.one_of("i", [1, 1000, 2**70]), [1, 3]),
        (nr.one_of("f", [0.1, 0.7]), [1]),
        (nr.one_of("d", [0.1, 1e300]), [1]),
        (nr.one_of("d", [1]), [0, 1, 3]),
        (nr.one_of("s", ["a", ""]), [1]),
        (nr.one_of("b", [True]), [1]),
        (nr.matches("s", r"^\p{L}+$"), [3]),
        (nr.matches("s", "a"), [1, 3]),
        (nr.unique("day"), [1]),
        (nr.unique("day", "i"), []),
        (nr.unique("b"), [3]),
    ],
    ids=lambda value: value.name if hasattr(value, "name") else "",
)
def test_which_rows_break_it(check: Check, bad: list[int]) -> None:
    assert broken(check) == bad


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (nr.between("none", 0, 1), "no column 'none'"),
        (nr.between("s", 0, 1), "not a number"),
        (nr.between("b", 0, 1), "not a number"),
        (nr.between("i", 2, 1), "above the upper"),
        (nr.between("i", float("nan"), 1), "above the upper"),
        (nr.between("i", "0", "1"), "must be numbers"),  # type: ignore[arg-type]
        (nr.between("i", None, 1), "must be numbers"),  # type: ignore[arg-type]
        (nr.one_of("s", []), "at least one"),
        (nr.one_of("s", [1]), "must be str"),
        (nr.one_of("i", [1.5]), "must be int8"),
        (nr.one_of("i", ["1"]), "must be int8"),
        (nr.one_of("i", [True]), "must be int8"),
        (nr.one_of("b", [1]), "must be bool"),
        (nr.one_of("day", [date(2020, 1, 1)]), "must be date"),
        (nr.one_of("i", [None]), "must be int8"),
        (nr.matches("s", "("), "not a regular expression"),
        (nr.matches("s", "(?=a)"), "not a regular expression"),
        (nr.matches("i", "1"), "is not text"),
        (nr.unique("none"), "no column 'none'"),
        (nr.unique(), "at least one column"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_definition(check: Check, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        nr.Source("rows", "rows.csv", schema=SCHEMA, checks=[check])
    assert message in str(caught.value)
    assert "source 'rows'" in str(caught.value)


@pytest.mark.parametrize("rows", [FRAME.clear(), FRAME.clear(4)])
def test_missing_values_and_no_rows_break_nothing(rows: pl.DataFrame) -> None:
    checks = [nr.between("i", 1, 2), nr.one_of("f", [0.1]), nr.matches("s", "a"), nr.unique("i", "s")]
    assert all(rows.filter(check.bad()).is_empty() for check in checks)


def test_the_definition_says_all_that_the_rule_depends_on() -> None:
    long = [f"v{n}" for n in range(1000)]
    variants: list[Any] = [
        *(nr.one_of("s", long), nr.one_of("s", [*long[:-1], "other"]), nr.one_of("d", [1.0]), nr.one_of("b", [True])),
        *(nr.between("d", 0, 0.1234567), nr.between("d", 0, 0.1234568), nr.between("i", 0, 10**12)),
        *(nr.between("i", 0, 10**12 + 1), nr.matches("s", "a"), nr.unique("s"), nr.unique("s", "i")),
    ]
    assert len({json.dumps(check.to_dict(), sort_keys=True) for check in variants}) == len(variants)
    assert nr.between("i", 0, 10**12).name == "i between 0 and 1000000000000"
    assert nr.between("d", 0.5, 5.0).name == "d between 0.5 and 5"
