"""Entities' ids in frames: one UUID is one text, however it is written."""

from __future__ import annotations

import polars as pl

from noria.core import DataError, Field, Schema
from noria.features.group import FeatureGroup
from noria.pipelines.convert import convert
from noria.pipelines.dtypes import fits


def ids_of(labels: pl.DataFrame, group: FeatureGroup) -> pl.DataFrame:
    """The ids of a group's entity that the labels have; text that is no UUID is nobody's."""
    return _with_uuids(labels.select(group.keys), group.source.schema)


def check_uuids(events: pl.DataFrame, schema: Schema) -> pl.DataFrame:
    """A frame of events with its UUIDs as a source's table has them.

    Raises:
        DataError: a value is no UUID.
    """
    made = _with_uuids(events, schema)
    for name in events.columns:
        unfit = made[name].is_null() & events[name].is_not_null() if schema[name].dtype == "uuid" else None
        if unfit is not None and unfit.any():
            value = str(events[name].filter(unfit)[0])[:50]
            raise DataError(f"the events' {name!r}: {value!r} is no UUID", hint="filter those rows out", field=name)
    return made


def _with_uuids(frame: pl.DataFrame, schema: Schema) -> pl.DataFrame:
    uuids = [schema[name] for name in frame.columns if schema[name].dtype == "uuid"]
    return frame.with_columns(uuids_as_text(frame[field.name], field) for field in uuids) if uuids else frame


def uuids_as_text(column: pl.Series, field: Field) -> pl.Series:
    """UUIDs in any form as tables have them, also Python's, which are objects to Polars."""
    if column.dtype == pl.Object:
        texts = [None if value is None else str(value) for value in column.to_list()]
        column = pl.Series(column.name, texts, pl.String)
    return convert(field, column) if fits(column.dtype, pl.String()) else column
