"""From a schema's types to those of Polars."""

from __future__ import annotations

import polars as pl

from noria.core import Field, Schema

_TYPES: dict[str, pl.DataType] = {
    "int8": pl.Int8(),
    "int16": pl.Int16(),
    "int32": pl.Int32(),
    "int64": pl.Int64(),
    "float32": pl.Float32(),
    "float64": pl.Float64(),
    "bool": pl.Boolean(),
    "str": pl.String(),  # before "uuid": text is "str", unless a schema says more
    "uuid": pl.String(),
    "date": pl.Date(),
    "timestamp": pl.Datetime("us", "UTC"),
}


def polars_type(field: Field) -> pl.DataType:
    """The type under which a field is kept in tables; instants are UTC microseconds."""
    return _TYPES[field.dtype]


def polars_schema(schema: Schema) -> dict[str, pl.DataType]:
    """The columns of a table with this schema."""
    return {field.name: polars_type(field) for field in schema}


def type_name(dtype: pl.DataType) -> str | None:
    """The reverse of `polars_type`: the schema's word for a type; None if it has none."""
    return next((name for name, known in _TYPES.items() if known == dtype), None)


def fits(got: pl.DataType, wanted: pl.DataType) -> bool:
    """Whether values keep their meaning under the wanted type."""
    if wanted.is_integer():
        fits = got.is_integer()
    elif wanted.is_float():
        fits = got.is_numeric()
    elif wanted == pl.String:
        fits = got in (pl.String, pl.Categorical, pl.Enum)
    else:
        fits = got.base_type() == wanted.base_type()
    return fits or got == pl.Null
