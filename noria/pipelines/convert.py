"""Convert: a column as it stands in a file becomes the schema's type; null where a value doesn't fit, never another."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from noria.core import Field, SchemaError
from noria.core.schema import INTEGERS
from noria.pipelines.dtypes import polars_type
from noria.pipelines.extract import MISSING_TEXT

_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_EARLIEST, _LATEST = -62_135_596_800, 253_402_300_800
"""Seconds of the years 1 to 9999, the end excluded: what tables and Python can hold."""
_DAY = 86_400


def converted(file: Path, field: Field, raw: str, frame: pl.DataFrame) -> pl.Expr:
    """The column `raw` in the field's type.

    Raises:
        SchemaError: no value of the column's type can become the field's.
    """
    column, dtype = pl.col(raw), frame.schema[raw]
    whole = field.dtype in INTEGERS or field.unit in _PER_SECOND
    if whole and dtype == pl.String and frame[raw].cast(pl.Int64, strict=False).null_count() == frame[raw].null_count():
        column, dtype = column.cast(pl.Int64), pl.Int64()  # plain integers in every row: the usual, and faster
    made = _converted(field, column, dtype)
    if made is None:
        raise SchemaError(
            f"{file}: column {field.name!r} is {dtype}, which can't become {field.spec()}",
            hint="change its type in the schema or in the file",
            field=field.name,
        )
    if field.dtype in ("float32", "float64"):
        made = pl.when(made.is_finite()).then(made)  # NaN and infinity are no values that a model can learn from
    return made.alias(field.name)


def _converted(field: Field, column: pl.Expr, dtype: pl.DataType) -> pl.Expr | None:
    if dtype == pl.Null:
        return column.cast(polars_type(field))
    if dtype == pl.String:
        return _from_text(field, column)
    if field.dtype == "str":
        return _text(column, dtype)
    if field.dtype == "timestamp":
        return _instant(field, column, dtype)
    if field.dtype == "date":
        return _date(column, dtype)
    if not (dtype.is_numeric() or dtype == pl.Boolean):
        return None
    if field.dtype == "bool":
        return pl.when(column == 1).then(True).when(column == 0).then(False) if dtype != pl.Boolean else column
    made = column.cast(polars_type(field), strict=False)
    return _unchanged(made, column, dtype) if field.dtype.startswith("int") else made


def _unchanged(made: pl.Expr, column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Integers that were made from whole numbers: 2.5 is none, and cutting it would hide that."""
    if dtype.is_float():
        return pl.when(column == column.floor()).then(made)
    return pl.when(made.cast(dtype, strict=False) == column).then(made) if dtype.is_decimal() else made


def _text(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if dtype.is_temporal():
        column = _representable(column, dtype)
    text = column.cast(pl.String, strict=False)
    return pl.when(text != "").then(text)


def _from_text(field: Field, column: pl.Expr) -> pl.Expr:
    if field.dtype == "str":
        return pl.when(column != "").then(column)
    text = column.str.strip_chars()
    if field.dtype == "bool":
        lower = text.str.to_lowercase()
        return pl.when(lower.is_in(["true", "1"])).then(True).when(lower.is_in(["false", "0"])).then(False)
    if field.dtype == "date":
        day = pl.when(text.str.contains(r"^\d{4}-")).then(text).str.to_date("%Y-%m-%d", strict=False)
        return _representable(day, pl.Date())
    if field.dtype == "timestamp":
        return _iso(text) if field.unit == "iso" else _number_of(str(field.unit), _whole(text))
    if field.dtype.startswith("int"):
        return _whole(text).cast(polars_type(field), strict=False)
    return text.cast(polars_type(field), strict=False)


def _whole(text: pl.Expr) -> pl.Expr:
    whole = pl.when(text.str.contains(r"^[+-]?[0-9]+(\.0+)?$")).then(text.str.replace(r"\.0+$", ""))
    return whole.cast(pl.Int64, strict=False)


def _instant(field: Field, column: pl.Expr, dtype: pl.DataType) -> pl.Expr | None:
    if isinstance(dtype, pl.Datetime):  # kept in UTC if it has a zone; without one it is UTC
        return _number_of(dtype.time_unit, column.to_physical())
    if dtype == pl.Date:
        return _representable(column, dtype).cast(pl.Datetime("us", "UTC"))
    if field.unit == "iso" or not dtype.is_numeric():
        return None
    return _number_of(str(field.unit), _unchanged(column.cast(pl.Int64, strict=False), column, dtype))


def _number_of(unit: str, number: pl.Expr) -> pl.Expr:
    """Instants from whole seconds, milliseconds … since 1970."""
    rate = _PER_SECOND[unit]
    # The bounds of nanoseconds are beyond 64 bits: each number of them is inside.
    inside = number.is_not_null() if unit == "ns" else (number >= _EARLIEST * rate) & (number < _LATEST * rate)
    known = pl.when(inside).then(number)
    micros = known // 1_000 if unit == "ns" else known * (1_000_000 // rate)
    return micros.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")


def _iso(text: pl.Expr) -> pl.Expr:
    """Text with an offset or Z; without one it is UTC. A space may stand for the T, and the time may be left out."""
    text = text.str.replace(r"^(\d{4}-\d\d-\d\d) ", "${1}T").str.replace(r"^(\d{4}-\d\d-\d\d)$", "${1}T00:00:00")
    text = text.str.replace(r"T(\d\d:\d\d)(Z|[+-]\d\d:?\d\d)?$", "T${1}:00${2}")
    zoned = pl.when(text.str.contains(r"(Z|[+-]\d\d:?\d\d)$")).then(text).otherwise(text + "Z")
    return _number_of("us", zoned.str.to_datetime("%+", strict=False, time_unit="us").to_physical())


def _date(column: pl.Expr, dtype: pl.DataType) -> pl.Expr | None:
    if not isinstance(dtype, (pl.Date, pl.Datetime)):
        return None
    known = _representable(column, dtype)
    day = known.cast(pl.Date)
    # An instant within a day is not that day: cutting it would hide that.
    return day if dtype == pl.Date else pl.when(known.dt.time() == pl.time(0)).then(day)


def _representable(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """The days or instants within the years 1 to 9999; Polars panics when it shows others."""
    number = column.to_physical()
    if isinstance(dtype, pl.Datetime):
        if dtype.time_unit == "ns":
            return column
        rate = _PER_SECOND[dtype.time_unit]
        return pl.when((number >= _EARLIEST * rate) & (number < _LATEST * rate)).then(column)
    if dtype == pl.Date:
        return pl.when((number >= _EARLIEST // _DAY) & (number < _LATEST // _DAY)).then(column)
    return column


def is_unfit(field: Field, raw: str, dtype: pl.DataType) -> pl.Expr:
    """Whether a value doesn't fit its type, or is missing where it may not be."""
    lost = pl.col(field.name).is_null()
    return lost & ~_missing(field, pl.col(raw), dtype) if field.nullable else lost


def type_reason(field: Field, raw: str, dtype: pl.DataType) -> pl.Expr:
    """Why it is unfit."""
    shown = readable(raw, dtype).cast(pl.String, strict=False).str.slice(0, 50)
    text = pl.format("{}: '{}' is not {}", pl.lit(field.name), shown, pl.lit(field.spec().removesuffix("?")))
    missing = pl.when(_missing(field, pl.col(raw), dtype)).then(pl.lit(f"{field.name}: missing")).otherwise(text)
    return pl.when(is_unfit(field, raw, dtype)).then(missing).alias(f"type_{field.name}")


def _missing(field: Field, column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if dtype.is_float():
        return column.is_null() | column.is_nan()
    if dtype != pl.String:
        return column.is_null()
    if field.dtype == "str":
        return column.is_null() | (column == "")
    return column.is_null() | column.str.strip_chars().is_in(MISSING_TEXT)


def readable(name: str, dtype: pl.DataType) -> pl.Expr:
    """A column as it is shown in reports: plain numbers and text."""
    column = pl.col(name)
    if dtype.is_temporal():
        known = _representable(column, dtype).cast(pl.String)
        return pl.coalesce(known, column.to_physical().cast(pl.String)).alias(name)
    return column.cast(pl.String) if dtype.is_decimal() else column
