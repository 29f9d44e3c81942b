"""Inputs of on-demand features, brought into one form from a frame of labels and from a request's values."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from noria.core import ConfigError, DataError, Field, RequestError, Schema, allowed, uuid_text

if TYPE_CHECKING:
    import polars as pl

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PER_UNIT = {"s": 1_000_000, "ms": 1_000, "us": 1}


def from_request(field: Field, value: Any) -> Any:
    """A value as a row of a table has it.

    Raises:
        RequestError: an instant beyond the calendar.
    """
    if value is None:
        return None
    if field.dtype.startswith("float"):
        value = float(value)
        if field.dtype == "float32":
            with np.errstate(over="ignore"):
                value = float(np.float32(value))
        return value if math.isfinite(value) else None
    if field.dtype == "str":
        return str(value) or None  # empty text is missing in a source, too
    if field.dtype == "uuid":
        return uuid_text(value)
    return _instant(field, value) if field.dtype == "timestamp" else value


def _instant(field: Field, value: Any) -> datetime:
    try:
        if isinstance(value, datetime):
            return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        micros = value // 1_000 if field.unit == "ns" else value * _PER_UNIT[str(field.unit)]
        return _EPOCH + timedelta(microseconds=micros)
    except OverflowError:
        raise RequestError(
            f"{field.name}: {value} is beyond the calendar", status=422, field=field.name, hint="years 1 to 9999"
        ) from None


def inputs_of(labels: pl.DataFrame, schema: Schema, what: str) -> pl.DataFrame:
    """The labels with these columns as a request would bring them.

    Raises:
        ConfigError: a column is missing, or is of another type.
        DataError: a value doesn't fit into its type.
    """
    return labels.with_columns(_column(labels, field, what) for field in schema)


def _column(labels: pl.DataFrame, field: Field, what: str) -> pl.Series:
    import polars as pl

    from noria.features.ids import uuids_as_text
    from noria.pipelines.dtypes import fits, polars_type

    if field.name not in labels.columns:
        raise ConfigError(
            f"{what}: the labels have no column {field.name!r}",
            hint=allowed(labels.columns, field.name),
            field=field.name,
        )
    column, wanted = labels[field.name], polars_type(field)
    if field.dtype == "uuid":
        column = uuids_as_text(column, field)
    if not fits(column.dtype, wanted):
        raise ConfigError(
            f"{what}: the labels' {field.name!r} is {column.dtype}, and the input is {field.spec()}",
            hint=f"cast it to pl.{wanted!r}, or declare another type",
            field=field.name,
        )
    try:
        made = column.cast(wanted)
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"{what}: the labels' {field.name!r} doesn't fit into {field.spec()}: {error}",
            hint="declare a wider type, or filter those rows out",
            field=field.name,
        ) from error
    if wanted.is_float() and not made.is_finite().all():
        return made.set(~made.is_finite(), None)
    return made.set(made == "", None) if wanted == pl.String else made
