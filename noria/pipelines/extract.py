"""Extract: a file's rows as columns, with the position of each row, and the lines that are no rows at all.

Text formats are read as text: what doesn't fit its type is then known by row and column. Polars reads; only a file
that it refuses is read again line by line, to find the broken lines and keep the others.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from noria.core import DataError, Schema, SchemaError, allowed

POSITION = "__position__"
"""The column with a row's number in its file, from 1, the header not counted."""

MISSING_TEXT = ("", "NA", "NaN", "nan", "null", "NULL")
"""How a missing value is written in CSV, unless the column is text; there only the empty field is missing."""


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
        SchemaError: it lacks a column of the schema.
    """
    name = file.name.lower()
    try:
        if name.endswith(".parquet"):
            frame, broken = pl.read_parquet(file), list[BrokenLine]()
        else:
            text = _bytes(file)
            reader = _csv if ".csv" in name else _json_lines
            frame, broken = reader(text, schema) if text.strip() else (pl.DataFrame(), [])
            if not text.strip() and ".csv" in name:
                raise SchemaError(
                    f"{file} is empty: it has no header", hint=f"expected columns: {', '.join(schema.names)}"
                )
    except (OSError, EOFError, zlib.error, pl.exceptions.PolarsError) as error:
        raise DataError(
            f"{file} can't be read: {error}", hint="is it complete, and what its name says it is?"
        ) from error
    return _checked(file, frame, broken, schema)


def _checked(file: Path, frame: pl.DataFrame, broken: list[BrokenLine], schema: Schema) -> Extracted:
    if frame.width == 0:  # JSON lines without any row: there is no header that could be wrong
        frame = pl.DataFrame(schema=dict.fromkeys(schema.names, pl.String))
    lost = [name for name in schema.names if name not in frame.columns]
    if lost:
        raise SchemaError(
            f"{file} has no column {', '.join(map(repr, lost))}",
            hint=allowed([name for name in frame.columns if name != POSITION], lost[0]),
            field=lost[0],
        )
    if POSITION not in frame.columns:
        frame = frame.with_row_index(POSITION, offset=1)
    extra = tuple(name for name in frame.columns if name not in schema and name != POSITION)
    return Extracted(file, frame.select(pl.col(POSITION).cast(pl.Int64), *schema.names), broken, extra)


def _bytes(file: Path) -> bytes:
    data = file.read_bytes()
    data = gzip.decompress(data) if file.name.lower().endswith(".gz") else data
    return data.removeprefix(b"\xef\xbb\xbf")


Read = tuple[pl.DataFrame, list[BrokenLine]]


def _csv(data: bytes, schema: Schema) -> Read:
    try:
        return pl.read_csv(data, infer_schema=False), []
    except pl.exceptions.PolarsError:
        return _csv_by_line(data)


def _csv_by_line(data: bytes) -> Read:
    lines = csv.reader(io.StringIO(data.decode("utf-8", errors="surrogateescape"), newline=""))
    header = next(lines)
    rows: list[list[Any]] = []
    broken = []
    position = 0
    for position, row in enumerate(_rows(lines), 1):
        reason = _broken(row, header)
        if reason:
            broken.append(BrokenLine(position, reason, ",".join(row).encode("utf-8", "replace").decode()))
        else:
            rows.append([position, *(value or None for value in row)])
    names = [POSITION, *header]
    types = {POSITION: pl.Int64, **dict.fromkeys(header, pl.String)}
    return pl.DataFrame(rows, schema={name: types[name] for name in names}, orient="row"), broken


def _rows(lines: Iterator[list[str]]) -> Iterator[list[str]]:
    while True:
        try:
            row = next(lines)
        except StopIteration:
            return
        except csv.Error as error:
            row = [f"\udcff{error}"]  # a lone surrogate: reported as broken
        if row:
            yield row


def _broken(row: list[str], header: list[str]) -> str:
    try:
        "".join(row).encode()
    except UnicodeEncodeError:
        return "not UTF-8 text"
    return "" if len(row) == len(header) else f"{len(row)} fields, and the header has {len(header)}"


def _json_lines(data: bytes, schema: Schema) -> Read:
    """JSON lines are decoded line by line by a compiled decoder: Polars' own drops what it can't read."""
    decode: Callable[[bytes], Any] = msgspec.json.Decoder().decode
    columns: dict[str, list[Any]] = {}
    positions, broken, rows = [], [], []
    for position, line in enumerate((line for line in data.split(b"\n") if line.strip()), 1):
        try:
            row = decode(line)
            if not isinstance(row, dict):
                raise msgspec.DecodeError(f"a {type(row).__name__}, not an object")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            broken.append(BrokenLine(position, f"not a JSON object: {error}", line.decode(errors="replace")))
            continue
        rows.append(row)
        positions.append(position)
    names = dict.fromkeys(name for row in rows for name in row) if rows else {}
    if rows:
        for name in {**dict.fromkeys(schema.names), **names}:
            columns[name] = [_text(row.get(name)) for row in rows]
    frame = pl.DataFrame({POSITION: positions, **columns}, schema_overrides=dict.fromkeys(columns, pl.String))
    return (frame if rows else pl.DataFrame()), broken


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, (int, float)) else msgspec.json.encode(value).decode()
