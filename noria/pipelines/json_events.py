"""JSON events as columns: one object each, decoded and checked by a compiled decoder for the schema's types.

A piece in which some event isn't exactly what the schema says is read again as text, so that what doesn't fit is known
by event and column. Which way a piece takes changes nothing for a good event.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any

import msgspec
import polars as pl

from noria.core import Field, Schema
from noria.pipelines.dtypes import polars_type
from noria.pipelines.json_lines import read_json_lines
from noria.pipelines.rows import BrokenRow, Rows

_INT64 = (-(2**63), 2**63 - 1)


def read_json_events(values: Sequence[bytes], schema: Schema) -> Rows:
    """Read events; a member that an object lacks is null. Positions count from 1."""
    decoder, types = _decoder(schema)
    text = partial(_text_frame, values, schema)
    try:
        events = decoder.decode(b"[" + b",".join(values) + b"]")
        if len(events) == len(values):  # else one holds several, as in `{},{}`
            columns = [pl.Series(name, [getattr(e, at) for e in events], t) for at, (name, t) in types.items()]
            return Rows(pl.DataFrame(columns), text=text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, TypeError, OverflowError):
        pass
    except pl.exceptions.PolarsError:  # a number that is too large for its column
        pass
    return _as_text(values, schema)


def _as_text(values: Sequence[bytes], schema: Schema) -> Rows:
    """By way of lines; an event that is blank, or has line breaks in it, becomes a line."""
    lines = [value.replace(b"\n", b" ").replace(b"\r", b" ") for value in values]
    rows = read_json_lines(b"\n".join(line if line.strip(b" \t") else b"-" for line in lines), schema, first=False)
    broken = tuple(
        BrokenRow(row.position, row.reason, values[row.position - 1].decode("utf-8", "replace")) for row in rows.broken
    )
    return Rows(rows.frame, rows.positions, broken, rows.extra)


def _text_frame(values: Sequence[bytes], schema: Schema) -> pl.DataFrame:
    return _as_text(values, schema).frame


@lru_cache(maxsize=64)
def _decoder(schema: Schema) -> tuple[msgspec.json.Decoder[Any], dict[str, tuple[str, pl.DataType]]]:
    """A decoder of lists of events, and for each of its attributes the column's name and type."""
    members = [(f"c{place}", _member(field) | None, None) for place, field in enumerate(schema)]
    names = {f"c{place}": field.name for place, field in enumerate(schema)}
    made = msgspec.defstruct("Event", members, rename=names, gc=False)
    types = {f"c{place}": (field.name, _column(field)) for place, field in enumerate(schema)}
    return msgspec.json.Decoder(list[made], strict=True), types  # type: ignore[valid-type]


def _member(field: Field) -> Any:
    if field.is_number and field.dtype.startswith("float"):
        return float
    if field.is_number or (field.dtype == "timestamp" and field.unit != "iso"):
        return int
    return bool if field.dtype == "bool" else str


def _column(field: Field) -> pl.DataType:
    if field.is_number or field.dtype == "bool":
        return polars_type(field)
    return pl.Int64() if field.dtype == "timestamp" and field.unit != "iso" else pl.String()
