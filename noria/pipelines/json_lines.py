"""JSON lines as columns of text: a value that is not text is kept as its JSON.

Polars reads the lines. When it refuses them, the lines that are no objects are set aside, and it reads the others.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import BinaryIO

import msgspec
import polars as pl

from noria.core import Schema, SchemaError, allowed
from noria.pipelines.rows import BrokenRow, Rows

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_SAMPLE = 1_000

_decode = msgspec.json.Decoder().decode
Line = tuple[int, bytes]
"""A line's position among those that aren't blank, and its text."""


def pieces(stream: BinaryIO, size: int) -> Iterator[bytes]:
    """A file cut at line breaks into pieces of about `size` bytes."""
    while data := stream.read(size):
        yield data + stream.readline()


def read_json_lines(data: bytes, schema: Schema, first: bool = True) -> Rows:
    """Read a piece of a file; a member that an object lacks is null, and of two with one name the first counts.

    Only the members of the first thousand rows are looked at to find those that the schema doesn't name.

    Raises:
        SchemaError: it is the file's first piece, and no row has a column that may not be missing.
    """
    data = data.removeprefix(codecs.BOM_UTF8)
    lines = [(place, line) for place, line in enumerate(filter(None, map(_stripped, data.split(b"\n"))), 1)]
    rows = _whole(data, lines, schema) or _salvaged(lines, schema)
    names = _names(lines)
    lost = [f.name for f in schema if not f.nullable and f.name not in names and not rows.frame[f.name].count()]
    if first and lost and len(rows.frame):
        raise SchemaError(f"has no row with {lost[0]!r}", hint=allowed(names, lost[0]), field=lost[0])
    return replace(rows, extra=tuple(name for name in names if name not in schema))


def _whole(data: bytes, lines: Sequence[Line], schema: Schema) -> Rows | None:
    if _SURROGATE.search(data):  # half a surrogate pair is no text, but Polars makes a NUL of it
        return None
    try:
        frame = _read(data, schema)
    except pl.exceptions.PolarsError:
        return None
    return Rows(_with_json(frame, lines, schema)) if len(frame) == len(lines) else None


def _salvaged(lines: Sequence[Line], schema: Schema) -> Rows:
    objects, broken = [], []
    for position, line in lines:
        reason = _reason(line)
        if reason:
            broken.append(_broken(position, line, reason))
        else:
            objects.append((position, line))
    frames, positions = [pl.DataFrame(schema=dict.fromkeys(schema.names, pl.String))], []
    for part, outcome in _parts(objects, schema):
        if isinstance(outcome, str):
            broken.append(_broken(*part[0], outcome))
        else:
            frames.append(outcome)
            positions += [position for position, _ in part]
    return Rows(pl.concat(frames), positions, tuple(sorted(broken, key=lambda row: row.position)))


def _parts(lines: Sequence[Line], schema: Schema) -> Iterator[tuple[Sequence[Line], pl.DataFrame | str]]:
    """The lines in parts that are read as a whole, and single lines with the reason why they can't be read."""
    if not lines:
        return
    try:
        yield lines, _with_json(_read(b"\n".join(line for _, line in lines), schema), lines, schema)
    except pl.exceptions.PolarsError as error:
        if len(lines) == 1:
            yield lines, str(error).partition("\n")[0]
        else:
            middle = len(lines) // 2
            yield from _parts(lines[:middle], schema)
            yield from _parts(lines[middle:], schema)


def _read(data: bytes, schema: Schema) -> pl.DataFrame:
    return pl.read_ndjson(data, schema=dict.fromkeys(schema.names, pl.String))


def _with_json(frame: pl.DataFrame, lines: Sequence[Line], schema: Schema) -> pl.DataFrame:
    """The frame with objects and arrays in columns of text as proper JSON: Polars escapes nothing in them."""
    for field in schema:
        if field.dtype == "str":
            column = frame[field.name]
            places = column.str.contains(r"^[\[{]").arg_true().to_list()
            values = {place: _decode(lines[place][1]).get(field.name) for place in places}
            nested = {place: value for place, value in values.items() if isinstance(value, (dict, list))}
            if nested:
                texts = [msgspec.json.encode(value).decode() for value in nested.values()]
                frame = frame.with_columns(column.scatter(list(nested), texts))
    return frame


def _reason(line: bytes) -> str:
    try:
        row = _decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return str(error)
    return "" if isinstance(row, dict) else f"a {type(row).__name__}, not an object"


def _broken(position: int, line: bytes, reason: str) -> BrokenRow:
    return BrokenRow(position, f"not a JSON object: {reason}", line.decode("utf-8", "replace"))


def _names(lines: Sequence[Line]) -> list[str]:
    names: dict[str, None] = {}
    for _, line in islice((line for line in lines if not _reason(line[1])), _SAMPLE):
        names |= dict.fromkeys(_decode(line))
    return list(names)


def _stripped(line: bytes) -> bytes:
    return line.strip(b" \t\r")
