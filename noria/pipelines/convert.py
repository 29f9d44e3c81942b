"""Convert: a file's column into its schema's type. A value that doesn't fit becomes null, and never another value."""

from __future__ import annotations

from typing import Any

import polars as pl

from noria.core import Field
from noria.core.uuids import UUID_PARTS
from noria.pipelines.dtypes import polars_type

MISSING_TEXT = ("", "NA", "NaN", "nan", "null", "NULL")
"""How a missing value is written in text, unless the column is text; there only the empty text is missing."""

_PER_UNIT = {"s": 1_000_000, "ms": 1_000, "us": 1}
_EARLIEST, _LATEST = -62_135_596_800_000_000, 253_402_300_799_999_999
"""Years 1 to 9999, which tables and Python can hold, in microseconds."""
_DAY = 86_400_000_000
_CANONICAL_UUID = UUID_PARTS.replace("-?", "-")

_ISO = (
    r"^(?P<date>\d{4}-\d\d-\d\d)"
    r"(?:[Tt ](?P<minutes>\d\d:\d\d)(?P<seconds>:\d\d(?:\.\d+)?)? ?(?P<zone>[Zz]|[+-]\d\d(?::?\d\d)?)?)?$"
)


def can_convert(field: Field, dtype: pl.DataType) -> bool:
    """Whether values of a file's type can be meant for the field at all."""
    if _is_text(dtype):
        return True
    instant = isinstance(dtype, (pl.Date, pl.Datetime))
    match field.dtype:
        case "timestamp":
            return instant or (dtype.is_numeric() and field.unit != "iso")
        case "date":
            return instant
        case "bool":
            return isinstance(dtype, pl.Boolean) or dtype.is_numeric()
        case "str":
            return instant or isinstance(dtype, pl.Boolean) or dtype.is_numeric()
        case "uuid":
            return False
    return isinstance(dtype, pl.Boolean) or dtype.is_numeric()


def convert(field: Field, column: pl.Series) -> pl.Series:
    """The column in the field's type."""
    if _is_text(column.dtype):
        made = _from_text(field, column.cast(pl.String))
    else:
        made = column.to_frame().select(_from_typed(field, pl.col(column.name), column.dtype)).to_series()
    if field.dtype in ("float32", "float64") and not made.is_finite().all():
        made = made.set(~made.is_finite(), None)  # infinity is no value that a model can learn from
    return made if made.name == field.name else made.alias(field.name)


def is_missing(field: Field, column: pl.Series) -> pl.Series:
    """Whether there is no value: null, NaN, empty text, and what stands for it in the text of another type."""
    if isinstance(column.dtype, (pl.Float32, pl.Float64)):
        return column.is_null() | column.is_nan().fill_null(value=False)
    if not _is_text(column.dtype):
        return column.is_null()
    text = column.cast(pl.String).fill_null("")
    return text == "" if field.dtype == "str" else text.str.strip_chars().is_in(MISSING_TEXT)


def as_text(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """The column as people read it. An instant beyond the calendar, which Polars can't print, is shown as a number."""
    if isinstance(dtype, (pl.Date, pl.Datetime)):
        return pl.coalesce(_on_calendar(column, dtype).cast(pl.String), column.to_physical().cast(pl.String))
    return column.cast(pl.String)


def python_values(column: pl.Series) -> list[Any]:
    """The column's values; an instant beyond the calendar, which Python doesn't have, comes as a number."""
    if not isinstance(column.dtype, (pl.Date, pl.Datetime)):
        return column.to_list()
    known = _kept_on_calendar(column)
    if known.null_count() == column.null_count():
        return column.to_list()
    pairs = zip(known.to_list(), column.to_physical().to_list(), strict=True)
    return [number if value is None else value for value, number in pairs]


def _is_text(dtype: pl.DataType) -> bool:
    return isinstance(dtype, (pl.String, pl.Categorical, pl.Enum, pl.Null))


def _from_text(field: Field, column: pl.Series) -> pl.Series:
    if field.dtype == "str":
        empty = column == ""
        return column.set(empty, None) if empty.any() else column
    text = column.str.strip_chars()
    if field.dtype == "bool":
        lower = text.str.to_lowercase()
        return lower.is_in(["true", "1"]).set(~lower.is_in(["true", "1", "false", "0"]), None)
    if field.dtype == "uuid":
        return _from_uuid(text)
    if field.dtype == "date":
        dated = text.set(~text.str.contains(r"^\d{4}-"), None)  # else 20-01-01 would be in the year 20
        return _kept_on_calendar(dated.str.to_date("%Y-%m-%d", strict=False))
    if field.dtype in ("float32", "float64"):
        return text.cast(polars_type(field), strict=False)
    if field.dtype != "timestamp":
        return _from_digits(text, polars_type(field))
    if field.unit == "iso":
        return _kept_on_calendar(_from_iso(text))
    whole = _from_digits(text, pl.Int64())
    return whole.to_frame().select(_instant(field, pl.col(whole.name), whole.dtype)).to_series()


def _from_uuid(text: pl.Series) -> pl.Series:
    """Lower case with hyphens; what comes in another case, in braces or without hyphens is the same UUID."""
    if text.str.contains(_CANONICAL_UUID).all():
        return text
    plain = text.str.to_lowercase().str.replace(r"^\{(.*)\}$", "$1")
    known = plain.set(~plain.str.contains(UUID_PARTS), None)
    return known.str.replace(UUID_PARTS, "$1-$2-$3-$4-$5")


def _kept_on_calendar(column: pl.Series) -> pl.Series:
    return column.to_frame().select(_on_calendar(pl.col(column.name), column.dtype)).to_series()


def _from_digits(text: pl.Series, dtype: pl.DataType) -> pl.Series:
    """Integers, also when they are written as `7.0`."""
    made = text.cast(dtype, strict=False)
    left = text.set(made.is_not_null(), None)  # what can't be read at once, which is mostly nothing, is looked at again
    if left.null_count() == len(left):
        return made
    whole = left.set(~left.str.contains(r"^[+-]?\d+\.0+$"), None)
    return made.zip_with(made.is_not_null(), whole.str.replace(r"\.0+$", "").cast(dtype, strict=False))


def _from_iso(text: pl.Series) -> pl.Series:
    """ISO 8601: without an offset the time is UTC, without a time it is midnight; a space may stand for the T."""
    plain = text.set(~text.str.contains(r"^\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d"), None)
    plain = plain.str.strip_suffix("Z").str.replace("T", " ", literal=True)
    made = plain.str.to_datetime("%Y-%m-%d %H:%M:%S%.f", strict=False, time_unit="us").dt.replace_time_zone("UTC")
    left = text.set(made.is_not_null(), None)
    if left.null_count() == len(left):
        return made
    return made.zip_with(made.is_not_null(), _from_parts(left.str.extract_groups(_ISO).struct.unnest()))


def _from_parts(parts: pl.DataFrame) -> pl.Series:
    zone = parts["zone"].fill_null("Z").str.to_uppercase()
    zone = zone.zip_with(zone.str.len_bytes() != 3, zone + ":00")
    time = parts["minutes"].fill_null("00:00") + parts["seconds"].fill_null(":00")
    whole = parts["date"] + "T" + time + zone
    return whole.str.to_datetime("%+", strict=False, time_unit="us").dt.convert_time_zone("UTC")


def _from_typed(field: Field, column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if dtype == polars_type(field) and field.is_number:
        return column
    if field.dtype == "timestamp":
        return _instant(field, column, dtype)
    if field.dtype == "date":
        return _date(column, dtype)
    if field.dtype == "str":
        return as_text(column, dtype)
    if field.dtype == "bool" and dtype.is_numeric():
        return pl.when(column == 1).then(True).when(column == 0).then(False)
    made = column.cast(polars_type(field), strict=False)
    is_whole = isinstance(dtype, pl.Boolean) or dtype.is_integer() or not field.dtype.startswith("int")
    return made if is_whole else pl.when(column == column.floor()).then(made)  # 2.5 is not an integer


def _date(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    known = _on_calendar(column, dtype)
    if isinstance(dtype, pl.Date):
        return known
    return pl.when(known.dt.time() == pl.time(0)).then(known.dt.date())  # a time of day would be lost


def _instant(field: Field, column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if isinstance(dtype, (pl.Date, pl.Datetime)):
        return _on_calendar(column, dtype).cast(pl.Datetime("us", "UTC"))
    number = column if dtype.is_integer() else pl.when(column == column.floor()).then(column)
    number = number.cast(pl.Int64, strict=False)
    if field.unit == "ns":
        micros = number // 1_000
    else:
        per_unit = _PER_UNIT[str(field.unit)]
        micros = pl.when(number.is_between(-(-_EARLIEST // per_unit), _LATEST // per_unit)).then(number) * per_unit
    return micros.cast(pl.Datetime("us", "UTC"))


def _on_calendar(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Dates and instants of the years 1 to 9999; null for others."""
    per_unit = _DAY
    if isinstance(dtype, pl.Datetime):
        if dtype.time_unit == "ns":
            return column
        per_unit = _PER_UNIT[dtype.time_unit]
    low, high = -(-_EARLIEST // per_unit), _LATEST // per_unit
    return pl.when(column.to_physical().is_between(low, high)).then(column)
