"""Extract: a file's rows as columns, with the position of each row, and the lines that are no rows at all.

Text formats are read as text: what doesn't fit its type is then known by row and column. Polars reads; only a file
that it refuses is read again line by line, to find the broken lines and keep the others.
"""

from __future__ import annotations

import codecs
import gzip
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from noria.core import DataError, Schema, SchemaError, allowed
from noria.pipelines.csv_records import csv_records

POSITION = "__position__"
"""The column with a row's number in its file, from 1, the header not counted."""

MISSING_TEXT = ("", "NA", "NaN", "nan", "null", "NULL")
"""How a missing value is written in CSV, unless the column is text; there only the empty field is missing."""


_QUOTED = re.compile(rb'(?:(?<=[,\n])|\A)"(?:[^"]|"")*+"(?=[,\r\n]|\Z)')


@dataclass(frozen=True)
class BrokenLine:
    """A line that can't be read as a row."""

    position: int
    reason: str
    text: str


@dataclass(frozen=True)
class Extracted:
    """A file's rows: the schema's columns as they stand in the file, and `POSITION`."""

    file: Path
    frame: pl.DataFrame
    broken: list[BrokenLine]
    extra_columns: tuple[str, ...]

    @property
    def rows(self) -> int:
        """All rows, the broken ones included."""
        return len(self.frame) + len(self.broken)


def extract(file: Path, schema: Schema) -> Extracted:
    """Read a file.

    Raises:
        DataError: it can't be read at all (truncated, not text, not Parquet).
        SchemaError: it lacks a column of the schema, or has it twice.
    """
    name = file.name.lower().removesuffix(".gz")
    try:
        if name.endswith(".parquet"):
            columns, frame, broken = _parquet(file, schema)
        else:
            columns, frame, broken = (_csv if name.endswith(".csv") else _json_lines)(_bytes(file), schema)
    except SchemaError as error:
        error.message = f"{file} {error.message}"
        raise
    except (OSError, EOFError, zlib.error, pl.exceptions.PolarsError) as error:
        raise DataError(
            f"{file} can't be read: {error}", hint="is it complete, and what its name says it is?"
        ) from error
    return Extracted(file, frame, broken, tuple(dict.fromkeys(name for name in columns if name not in schema)))


Read = tuple[Sequence[str], pl.DataFrame, list[BrokenLine]]
"""The file's columns, the rows (`POSITION` and the schema's columns), and what is no row."""


def _require(columns: Sequence[str], schema: Schema) -> None:
    for name in schema.names:
        if name not in columns:
            raise SchemaError(f"has no column {name!r}", hint=allowed(columns, name), field=name)
        if columns.count(name) > 1:
            raise SchemaError(f"has the column {name!r} twice", hint="rename one of them", field=name)


def _parquet(file: Path, schema: Schema) -> Read:
    columns = list(pl.read_parquet_schema(file))
    _require(columns, schema)
    frame = pl.read_parquet(file, columns=list(schema.names)).select(schema.names)
    plain = _numbered(frame.with_columns(_plain(frame[name]) for name in schema.names))
    lost = [
        frame[name].is_not_null() & plain[name].is_null() for name in schema.names if frame[name].dtype == pl.Binary
    ]
    if not lost:
        return columns, plain, []
    bad = pl.select(pl.any_horizontal(lost)).to_series()
    broken = [BrokenLine(at, "not UTF-8 text", str(row)) for at, *row in _numbered(frame).filter(bad).iter_rows()]
    return columns, plain.filter(~bad), broken


def _plain(column: pl.Series) -> pl.Series:
    """Categories as text, and what is nested as JSON, as in the other formats."""
    if isinstance(column.dtype, (pl.Categorical, pl.Enum)):
        return column.cast(pl.String)
    if column.dtype == pl.Binary:
        return pl.Series(column.name, [_utf8(value) for value in column.to_list()], pl.String)
    if column.dtype.is_nested():
        return pl.Series(column.name, [json_text(value) for value in column.to_list()], pl.String)
    return column


def _utf8(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None


def _numbered(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.select(pl.int_range(1, pl.len() + 1, dtype=pl.Int64).alias(POSITION), pl.all())


def _bytes(file: Path) -> bytes:
    data = file.read_bytes()
    if file.name.lower().endswith(".gz"):
        if not data:
            raise EOFError("it has no bytes, and even an empty compressed file has some")
        data = gzip.decompress(data)
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError(f"{file} is UTF-16", hint="save it as UTF-8")
    return data.removeprefix(codecs.BOM_UTF8)


def _csv(data: bytes, schema: Schema) -> Read:
    if not data.strip():
        raise SchemaError("is empty: it has no header", hint=f"expected columns: {', '.join(schema.names)}")
    if b"\n" not in data:
        data = data.replace(b"\r", b"\n")  # lines as they were ended before 2001
    data = data.lstrip(b"\r\n")
    records = csv_records(data)
    header = [name.encode("utf-8", "replace").decode() for name in next(records)[0]]
    _require(header, schema)
    frame = _csv_at_once(data, len(header))
    if frame is None:
        return header, *_csv_by_record(records, header, schema)
    return header, _numbered(frame.select(schema.names)), []


def _csv_at_once(data: bytes, width: int) -> pl.DataFrame | None:
    """The whole file by Polars, or None if a line may be something else than a row of this width."""
    # What is outside of well-formed quoted fields; a quote that is left there is one that readers disagree about.
    outside = _QUOTED.sub(b"", data) if b'"' in data else data
    if b'"' in outside or outside.count(b"\r") != outside.count(b"\r\n"):
        return None
    try:
        frame = pl.read_csv(data, infer_schema=False)
    except pl.exceptions.PolarsError:
        return None
    if frame.width != width:
        return None
    # Polars fills short lines, and empty ones, with missing values: their last field is missing, and commas are fewer.
    short = width == 1 or outside.count(b",") != (len(frame) + 1) * (width - 1)
    return None if short and frame[:, -1].null_count() else frame


def _csv_by_record(
    records: Iterator[tuple[list[str], str]], header: Sequence[str], schema: Schema
) -> tuple[pl.DataFrame, list[BrokenLine]]:
    positions: list[int] = []
    broken: list[BrokenLine] = []
    values: list[list[str | None]] = [[] for _ in schema]
    wanted = [(header.index(name), column) for name, column in zip(schema.names, values, strict=True)]
    for position, (row, reason) in enumerate(records, 1):
        reason = reason or _broken(row, header)
        if reason:
            broken.append(BrokenLine(position, reason, ",".join(row).encode("utf-8", "replace").decode()))
            continue
        positions.append(position)
        for place, column in wanted:
            column.append(row[place] or None)
    return _text_frame(positions, dict(zip(schema.names, values, strict=True))), broken


def _text_frame(positions: list[int], columns: dict[str, list[str | None]]) -> pl.DataFrame:
    types = {POSITION: pl.Int64, **dict.fromkeys(columns, pl.String)}
    return pl.DataFrame({POSITION: positions, **columns}, schema=types)


def _broken(row: list[str], header: Sequence[str]) -> str:
    try:
        "".join(row).encode()
    except UnicodeEncodeError:
        return "not UTF-8 text"
    return "" if len(row) == len(header) else f"{len(row)} fields, and the header has {len(header)}"


def _json_lines(data: bytes, schema: Schema) -> Read:
    """JSON lines are decoded line by line by a compiled decoder: Polars' own drops what it can't read."""
    decode: Callable[[bytes], Any] = msgspec.json.Decoder().decode
    positions: list[int] = []
    broken: list[BrokenLine] = []
    values: dict[str, list[str | None]] = {name: [] for name in schema.names}
    seen: dict[str, None] = {}
    for position, line in enumerate((line for line in data.split(b"\n") if line.strip()), 1):
        try:
            row = decode(line)
            if not isinstance(row, dict):
                raise msgspec.DecodeError(f"a {type(row).__name__}, not an object")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            broken.append(BrokenLine(position, f"not a JSON object: {error}", line.decode(errors="replace")))
            continue
        positions.append(position)
        seen.update(dict.fromkeys(row))
        for name, column in values.items():
            column.append(json_text(row.get(name)))
    return list(seen), _text_frame(positions, values), broken


def json_text(value: Any) -> str | None:
    """A JSON value as it would stand in CSV; what is nested stays JSON."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, (int, float)) else msgspec.json.encode(value).decode()
