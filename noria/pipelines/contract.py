"""Contract: which rows hold what their source promises, and every reason of those that don't. Columns, not rows."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from noria.core import Field
from noria.pipelines.dtypes import polars_type
from noria.pipelines.extract import MISSING_TEXT, POSITION, Extracted
from noria.pipelines.source import Source

REASONS = "__reasons__"
_RAW = "__raw__"

_UNITS = {"s": 1_000_000, "ms": 1_000, "us": 1}
_EARLIEST, _LATEST = -62_135_596_800_000_000, 253_402_300_799_999_999
"""Years 1 to 9999: what tables and Python can hold."""


@dataclass(frozen=True)
class Judged:
    """Rows that hold the contract, and those that don't with `REASONS` and their text as JSON in `row`."""

    good: pl.DataFrame
    bad: pl.DataFrame


def judge(extracted: Extracted, source: Source) -> Judged:
    """Convert every column to its type and try every rule.

    Both frames keep `POSITION`. A row's reasons are texts such as `rating: 'abc' is not float32` or a check's name.
    """
    frame = extracted.frame
    raw = {name: f"{_RAW}{name}" for name in source.schema.names}
    typed = frame.rename(raw).with_columns(
        _convert(field, pl.col(raw[field.name]), frame.schema[field.name]) for field in source.schema
    )
    reasons = [_type_reason(field, raw[field.name]) for field in source.schema]
    reasons += [
        pl.when(check.bad().fill_null(value=False)).then(pl.lit(check.name)).alias(f"check{number}")
        for number, check in enumerate(source.checks)
    ]
    listed = pl.concat_list(reasons).list.drop_nulls().alias(REASONS)
    judged = typed.with_columns(listed)
    is_bad = pl.col(REASONS).list.len() > 0
    text = pl.struct(pl.col(raw[name]).alias(name) for name in source.schema.names).struct.json_encode()
    return Judged(
        judged.filter(~is_bad).select(POSITION, *source.schema.names),
        judged.filter(is_bad).select(POSITION, REASONS, text.alias("row")),
    )


def _is_missing(field: Field, raw: str) -> pl.Expr:
    column = pl.col(raw)
    return column.is_null() | (column.cast(pl.String).is_in(MISSING_TEXT if field.dtype != "str" else ("",)))


def _type_reason(field: Field, raw: str) -> pl.Expr:
    """Why a value doesn't fit: missing where it may not be, or not convertible."""
    missing = _is_missing(field, raw)
    unfit = pl.col(field.name).is_null() & ~missing
    shown = pl.col(raw).cast(pl.String).str.slice(0, 50)
    text = pl.format("{}: '{}' is not {}", pl.lit(field.name), shown, pl.lit(field.spec().removesuffix("?")))
    lost = pl.lit(None, pl.String) if field.nullable else pl.lit(f"{field.name}: missing")
    return pl.when(unfit).then(text).when(missing).then(lost).alias(f"type_{field.name}")


def _convert(field: Field, column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """The column in its type; null where a value doesn't fit, and never another value instead."""
    if dtype == pl.String:
        made = _from_text(field, column)
    elif field.dtype == "timestamp":
        made = _instant(field, column, dtype)
    elif field.dtype in ("str", "date", "bool"):
        made = column.cast(polars_type(field), strict=False)
    else:
        made = _number(field, column, dtype)
    if field.dtype in ("float32", "float64"):
        made = pl.when(made.is_finite()).then(made)  # NaN and infinity are no values that a model can learn from
    return made.alias(field.name)


def _number(field: Field, column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    made = column.cast(polars_type(field), strict=False)
    if dtype.is_float() and field.dtype.startswith("int"):
        return pl.when(column == column.floor()).then(made)  # 2.5 is not an integer; cutting it would hide that
    return made


def _from_text(field: Field, column: pl.Expr) -> pl.Expr:
    if field.dtype == "str":
        return pl.when(column != "").then(column)
    text = column.str.strip_chars()
    if field.dtype == "bool":
        lower = text.str.to_lowercase()
        return pl.when(lower.is_in(["true", "1"])).then(True).when(lower.is_in(["false", "0"])).then(False)
    if field.dtype == "date":
        return text.str.to_date("%Y-%m-%d", strict=False)
    if field.dtype == "timestamp":
        return _instant(field, text, pl.String())
    whole = pl.when(text.str.contains(r"^[+-]?\d+(\.0+)?$")).then(text.str.replace(r"\.0+$", ""))
    return (whole if field.dtype.startswith("int") else text).cast(polars_type(field), strict=False)


def _instant(field: Field, column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if isinstance(dtype, pl.Datetime):
        zoned = column.dt.replace_time_zone("UTC") if dtype.time_zone is None else column.dt.convert_time_zone("UTC")
        return zoned.cast(pl.Datetime("us", "UTC"))
    if field.unit == "iso":
        # An offset or Z; without one the time is UTC; a space may stand for the T.
        text = (
            column.cast(pl.String)
            .str.replace(r"^(\d{4}-\d\d-\d\d) ", "${1}T")
            .str.replace(r"^(\d{4}-\d\d-\d\d)$", "${1}T00:00:00")
        )
        zoned = pl.when(text.str.contains(r"(Z|[+-]\d\d:?\d\d)$")).then(text).otherwise(text + "Z")
        return zoned.str.to_datetime("%+", strict=False, time_unit="us").dt.convert_time_zone("UTC")
    number = column.cast(pl.Int64, strict=False)
    micros = number // 1_000 if field.unit == "ns" else number * _UNITS[str(field.unit)]
    limit = 1_000 if field.unit == "ns" else 1 / _UNITS[str(field.unit)]
    inside = (
        number.is_between(int(_EARLIEST * limit), int(_LATEST * limit)) if field.unit != "ns" else number.is_not_null()
    )
    return pl.when(inside).then(micros).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
