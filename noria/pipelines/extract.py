"""Extract: inputs (files, objects, query results, tables) as pieces that can be read one by one, by whoever is free."""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, BinaryIO
from uuid import UUID

import msgspec
import polars as pl

from noria.core import DataError, MissingExtraError, Schema, SchemaError, allowed
from noria.pipelines import csv_records, json_lines
from noria.pipelines.rows import BrokenRow, Rows

PIECE_BYTES = 16 << 20
"""Text is read in pieces of this size: large enough for Polars to be at its best, small enough for any machine."""
PIECE_ROWS = 200_000
"""Columns are read in pieces of this many rows."""
_BUFFER = 1 << 20


@dataclass(frozen=True)
class Input:
    """Something that rows come from.

    Attributes:
        name: as it stands in reports and in quarantine: a file's path, an object's URL, a database's (masked) URL.
        kind: `csv`, `jsonl`, `parquet`, or `frames`.
        location: where it is opened.
        size: in bytes, where known; of a file of text no more than these are read, whatever has been added since.
        identity: changes when, and only when, its content does.
        start: where a grown file is to be read from: what is before has been loaded.
    """

    name: str
    kind: str
    location: str
    size: int
    identity: str
    start: int = 0
    frames: Callable[[], Generator[pl.DataFrame]] | None = None


@dataclass(frozen=True)
class Piece:
    """Part of an input: a function that reads it, which may be called on another machine.

    Attributes:
        is_open: whether its rows could be others if something were added to the input.
    """

    read: Callable[[], Rows]
    size: int
    is_open: bool = False


@contextmanager
def readable(name: str) -> Iterator[None]:
    """Turn what goes wrong in reading an input into an error that names it."""
    try:
        yield
    except SchemaError as error:
        if not error.message.startswith(name):
            error.message = f"{name} {error.message}"
        raise
    except (OSError, EOFError, zlib.error, pl.exceptions.PolarsError) as error:
        raise DataError(
            f"{name} can't be read: {error}", hint="is it complete, and what its name says it is?"
        ) from error


def pieces(source: Input, schema: Schema, size: int = PIECE_BYTES) -> Generator[Piece]:
    """The input's pieces, in order.

    Raises:
        DataError: it can't be read (truncated, not text, not Parquet).
        SchemaError: it lacks a column of the schema.
    """
    with readable(source.name):
        match source.kind:
            case "csv":
                yield from _csv(source, schema, size)
            case "jsonl":
                yield from _json_lines(source, schema, size)
            case "parquet":
                yield from _parquet(source, schema)
            case _:
                yield from _frames(source, schema)


def _csv(source: Input, schema: Schema, size: int) -> Iterator[Piece]:
    with open_binary(source) as stream:
        header, rest = csv_records.read_header(stream, schema)
        if source.start:
            stream.seek(source.start)
            rest = stream
        for body, is_open in csv_records.pieces(rest, size):
            yield Piece(partial(csv_records.read_body, body, header, schema), len(body), is_open)


def _json_lines(source: Input, schema: Schema, size: int) -> Iterator[Piece]:
    with open_binary(source) as stream:
        if source.start:
            stream.seek(source.start)
        for number, data in enumerate(json_lines.pieces(stream, size)):
            first = number == 0 and source.start == 0
            yield Piece(partial(json_lines.read_json_lines, data, schema, first), len(data))


@contextmanager
def open_binary(source: Input) -> Iterator[BinaryIO]:
    """The input's bytes, decompressed as its name says.

    Raises:
        DataError: it is UTF-16.
        MissingExtraError: it is compressed by zstd, and its library isn't installed.
    """
    with _open(source) as raw:
        name = source.location.lower()
        stream: Any = raw
        if name.endswith(".gz"):
            if not raw.read(1):
                raise EOFError("it has no bytes, and even an empty compressed file has some")
            raw.seek(0)
            stream = gzip.GzipFile(fileobj=raw, mode="rb")
        elif name.endswith(".zst"):
            stream = _unzstd(raw)
        buffered = io.BufferedReader(stream, _BUFFER) if not isinstance(stream, io.BufferedReader) else stream
        start = buffered.peek(65_536)
        if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise DataError(f"{source.name} is UTF-16", hint="save it as UTF-8")
        if b"\n" not in start and b"\r" in start:  # lines as they were ended before 2001
            yield io.BytesIO(buffered.read().replace(b"\r\n", b"\n").replace(b"\r", b"\n"))
        else:
            yield buffered


def _open(source: Input) -> Any:
    if source.location.startswith("s3://"):
        from noria.storage.s3 import open_object

        return open_object(source.location, source.size)
    return io.BufferedReader(_UpTo(source.location, source.size), _BUFFER)


class _UpTo(io.FileIO):
    """A file up to the size at which its digest was taken.

    What a writer has added since isn't part of that digest: the next run reads on from that size, so reading more here
    would load those rows twice.
    """

    def __init__(self, path: str, size: int) -> None:
        super().__init__(path, "rb")
        self._size = size

    def readinto(self, buffer: Any) -> int:
        left = max(0, self._size - self.tell())
        return super().readinto(memoryview(buffer)[:left]) or 0

    def readall(self) -> bytes:
        parts = iter(lambda: super(_UpTo, self).read(max(0, min(_BUFFER, self._size - self.tell()))), b"")
        return b"".join(part or b"" for part in parts)


def _unzstd(raw: BinaryIO) -> BinaryIO:
    try:
        import zstandard
    except ImportError as error:
        raise MissingExtraError("zstandard", "zstd", "reading .zst files") from error
    if not raw.read(1):
        raise EOFError("it has no bytes, and even an empty compressed file has some")
    raw.seek(0)
    return _Whole(zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True))  # type: ignore[return-value]


class _Whole(io.RawIOBase):
    """A zstd stream that says so when its end is missing: the library takes a cut file for a short one."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data: bytes = self._reader.read(len(buffer))
        except Exception as error:  # zstandard.ZstdError: what it can't decompress
            raise EOFError(str(error)) from error
        buffer[: len(data)] = data
        return len(data)


def _parquet(source: Input, schema: Schema) -> Iterator[Piece]:
    options = _options(source)
    found = pl.read_parquet_schema(source.location) if options is None else None
    scan = pl.scan_parquet(source.location, storage_options=options, glob=False)
    columns = list(found or scan.collect_schema())
    _require(columns, schema)
    rows = int(scan.select(pl.len()).collect().item())
    extra = tuple(name for name in columns if name not in schema)
    for start in range(0, rows, PIECE_ROWS):
        read = partial(_read_parquet, source.location, options, start, schema, extra)
        yield Piece(read, source.size * min(PIECE_ROWS, rows - start) // rows)


def _read_parquet(location: str, options: dict[str, str] | None, start: int, schema: Schema, extra: Any) -> Rows:
    scan = pl.scan_parquet(location, storage_options=options, glob=False)
    return _from_frame(scan.select(schema.names).slice(start, PIECE_ROWS).collect(), schema, extra)


def _options(source: Input) -> dict[str, str] | None:
    if not source.location.startswith("s3://"):
        return None
    import os

    from noria.storage.s3 import options

    return options(os.environ)


def _frames(source: Input, schema: Schema) -> Iterator[Piece]:
    if source.frames is None:
        return
    # Closed, since an error's traceback would keep a database's connection open, and its locks.
    with closing(source.frames()) as frames:
        for frame in frames:
            _require(frame.columns, schema)
            extra = tuple(name for name in frame.columns if name not in schema)
            yield Piece(partial(_from_frame, frame.select(schema.names), schema, extra), len(frame))


def _from_frame(frame: pl.DataFrame, schema: Schema, extra: tuple[str, ...]) -> Rows:
    return replace(from_frame(frame, schema), extra=extra)


def _require(columns: list[str], schema: Schema) -> None:
    for name in schema.names:
        if name not in columns:
            raise SchemaError(f"has no column {name!r}", hint=allowed(columns, name), field=name)


def from_frame(frame: pl.DataFrame, schema: Schema | None = None) -> Rows:
    """Columns of any type as rows: categories as text, what is nested as JSON; bytes that are no text are broken, but
    for the 16 bytes of a UUID."""
    uuids = {field.name for field in schema or () if field.dtype == "uuid"}
    plain = frame.with_columns(_plain(column, column.name in uuids) for column in frame.iter_columns())
    lost = [frame[name].is_not_null() & plain[name].is_null() for name, t in frame.schema.items() if t == pl.Binary]
    if not lost:
        return Rows(plain)
    bad = pl.select(pl.any_horizontal(lost)).to_series()
    if not bad.any():
        return Rows(plain)
    numbered = frame.with_row_index("", offset=1).filter(bad)
    broken = tuple(BrokenRow(at, "not UTF-8 text", str(row)) for at, *row in numbered.iter_rows())
    return Rows(plain.filter(~bad), ((~bad).arg_true() + 1).to_list(), broken)


def _plain(column: pl.Series, is_uuid: bool) -> pl.Series:
    if isinstance(column.dtype, (pl.Categorical, pl.Enum)):
        return column.cast(pl.String)
    if column.dtype == pl.Binary:
        return pl.Series(column.name, [_utf8(value, is_uuid) for value in column.to_list()], pl.String)
    if is_uuid and column.dtype == pl.Object:  # as Avro's decoder gives them
        return pl.Series(column.name, [None if value is None else str(value) for value in column.to_list()], pl.String)
    if column.dtype.is_nested() or column.dtype == pl.Object:
        texts = [None if v is None else msgspec.json.encode(v, enc_hook=str).decode() for v in column.to_list()]
        return pl.Series(column.name, texts, pl.String)
    return column


def _utf8(value: bytes | None, is_uuid: bool) -> str | None:
    if is_uuid and value is not None and len(value) == 16:
        return str(UUID(bytes=value))
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None
