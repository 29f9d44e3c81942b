"""JSON events as columns: one object each, decoded and checked by a compiled decoder for the schema's types.

A piece in which some event isn't exactly what the schema says is read again as text, so that what doesn't fit is known
by event and column. Which way a piece takes changes nothing for a good event.
"""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from operator import attrgetter
from typing import Any

import msgspec
import polars as pl

from noria.core import Field, Schema
from noria.pipelines.dtypes import polars_type
from noria.pipelines.json_lines import read_json_lines
from noria.pipelines.rows import BrokenRow, Rows

_PIECE = 5_000
"""Events decoded at a time: as objects they take several times their bytes, and so few stay in the cache."""


def read_json_events(values: Sequence[bytes], schema: Schema) -> Rows:
    """Read events; a member that an object lacks is null. Positions count from 1."""
    typed = _typed(schema)
    try:
        frames = [typed(values[start : start + _PIECE]) for start in range(0, len(values) or 1, _PIECE)]
        return Rows(pl.concat(frames, rechunk=True), text=partial(_text_frame, values, schema))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, TypeError, OverflowError):
        pass
    except pl.exceptions.PolarsError:  # a number that is too large for its column
        pass
    return _as_text(values, schema)


def _as_text(values: Sequence[bytes], schema: Schema) -> Rows:
    """By way of lines; an event that is blank, or has line breaks in it, becomes a line.

    Each may begin with a byte order mark, as a file may; behind an empty line that of the first is not a file's.
    """
    lines = [value.removeprefix(BOM_UTF8).replace(b"\n", b" ").replace(b"\r", b" ") for value in values]
    text = b"\n".join([b"", *(line if line.strip(b" \t") else b"-" for line in lines)])
    rows = read_json_lines(text, schema, first=False)
    broken = tuple(
        BrokenRow(row.position, row.reason, values[row.position - 1].decode("utf-8", "replace")) for row in rows.broken
    )
    return Rows(rows.frame, rows.positions, broken, rows.extra)


def _text_frame(values: Sequence[bytes], schema: Schema) -> pl.DataFrame:
    return _as_text(values, schema).frame


@lru_cache(maxsize=64)
def _typed(schema: Schema) -> Callable[[Sequence[bytes]], pl.DataFrame]:
    """From events that are what the schema says to columns."""
    members = [(f"c{place}", _member(field) | None, None) for place, field in enumerate(schema)]
    names = {f"c{place}": field.name for place, field in enumerate(schema)}
    made = msgspec.defstruct("Event", members, rename=names, gc=False)
    # Each event alone: joined with its neighbours, half an event might find its other half in the next.
    decode = msgspec.json.Decoder(made, strict=True).decode
    columns = [(field.name, _column(field), attrgetter(f"c{place}")) for place, field in enumerate(schema)]

    def typed(values: Sequence[bytes]) -> pl.DataFrame:
        events = list(map(decode, values))
        return pl.DataFrame([pl.Series(name, list(map(member, events)), dtype) for name, dtype, member in columns])

    return typed


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
