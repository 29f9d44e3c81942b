"""CSV (RFC 4180, with a header) as columns, piece by piece.

Polars reads a well-formed piece. One with malformed records is taken apart record by record, and Polars reads those
that are left. Which way a piece takes changes nothing for a good record: a bad one never decides over its neighbours.
"""

from __future__ import annotations

import codecs
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, BinaryIO, cast

import numpy as np
import polars as pl

from noria.core import Schema, SchemaError, allowed
from noria.pipelines.dtypes import polars_type
from noria.pipelines.rows import BrokenRow, Rows

UNCLOSED = "a quote that is never closed, or text after a closing quote"

_FIELD = re.compile(
    rb'(?:("[^"]*+(?:""[^"]*+)*+")|((?!")[^,\n]*+))'  # quoted, or not; possessive, so that no input takes long
    rb"(?:(,)|\r?(?:\n|\Z))"
)

_OPEN = re.compile(rb'"[^"]*+(?:""[^"]*+)*+\Z')

_MAX_HEADER = 1 << 20
_MAX_RECORD = 1 << 20
"""A quoted field with more bytes than this may be taken for a quote that is never closed."""

_QUOTE, _RETURN, _NEWLINE, _COMMA = b'"\r\n,'
_DELIMITERS = np.frombuffer(b',\n"', np.uint8)


@dataclass(frozen=True)
class Header:
    """A file's columns, in order; a name that stands there twice is made distinct."""

    names: tuple[str, ...]

    def extra(self, schema: Schema) -> tuple[str, ...]:
        """Those that the schema doesn't name."""
        return tuple(name for name in self.names if name not in schema)


def read_header(stream: BinaryIO, schema: Schema) -> tuple[Header, BinaryIO]:
    """Read the first record of a file, which names its columns; returns also the stream of what comes after it.

    Raises:
        SchemaError: there is none, it lacks a column of the schema or has one twice.
    """
    line = first = _first_line(stream)
    while line.count(b'"') % 2 and len(line) < _MAX_HEADER and (more := stream.readline(_MAX_HEADER)):
        line += more
    if line.count(b'"') % 2:  # not a name with a line break in it, but a stray quote
        line, more = first, line[len(first) :]
        stream = cast(BinaryIO, io.BufferedReader(_After(more, stream)))  # a compressed stream can't go back
    line = line.strip(b"\r\n")
    if not line.strip():
        raise SchemaError("is empty: it has no header", hint=f"expected columns: {', '.join(schema.names)}")
    fields = _record(line, 0)[0] or line.split(b",")
    names = [_unquoted(field).decode("utf-8", "replace") for field in fields]
    twice = [name for name, times in Counter(names).items() if times > 1]
    for name in schema.names:
        if name not in names:
            raise SchemaError(f"has no column {name!r}", hint=_lost(names, name), field=name)
        if name in twice:
            raise SchemaError(f"has the column {name!r} twice", hint="rename one of them", field=name)
    return Header(_distinct(names)), stream


def _first_line(stream: BinaryIO) -> bytes:
    line = b"\n"
    while line and not line.strip(b"\r\n"):
        line = stream.readline(_MAX_HEADER).removeprefix(codecs.BOM_UTF8)
    return line


def header_may_change(stream: BinaryIO) -> bool:
    """Whether the header has a quote that is closed only below its line: rows that are added might close it."""
    return _first_line(stream).count(b'"') % 2 == 1


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Names that stand there twice, each with its place; with more signs if that is a column's name already."""
    times, taken = Counter(names), set(names)
    made = []
    for place, name in enumerate(names):
        if times[name] > 1:
            name = f"{name}#{place}"
            while name in taken:
                name += "#"
            taken.add(name)
        made.append(name)
    return tuple(made)


class _After(io.RawIOBase):
    """Bytes that have been read too far, and then the stream that they came from."""

    def __init__(self, first: bytes, rest: BinaryIO) -> None:
        self._first = first
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._first[: len(buffer)] or self._rest.read(len(buffer))
        self._first = self._first[len(buffer) :]
        buffer[: len(data)] = data
        return len(data)


def _lost(names: Sequence[str], name: str) -> str:
    if len(names) == 1:
        for sign in (";", "\t", "|"):
            if name in names[0].split(sign):
                return f"fields seem to be separated by {sign!r}: a CSV file has commas"
    return allowed(names, name)


def pieces(stream: BinaryIO, size: int) -> Iterator[tuple[bytes, bool]]:
    """A file's body, cut at the ends of records into pieces of about `size` bytes, whatever is quoted in them.

    With each piece comes whether a quote is open in it up to the file's end: it counts as one that is never closed, but
    what is added to the file might close it.
    """
    ahead = b""
    while data := ahead + stream.read(size - len(ahead)):
        data += stream.readline(_MAX_RECORD)
        ahead, is_open = b"", False
        if not _is_well_quoted(data):
            # The piece may end within quotes: a field with line breaks in it, or a stray quote somewhere.
            after = stream.read(_MAX_RECORD)
            at_end = len(after) < _MAX_RECORD
            after += stream.readline(_MAX_RECORD)
            whole, size_of = data + after, len(data)
            is_open = at_end and _is_open(whole)
            cut = _boundary(whole, size_of)
            data, ahead = whole[:cut], whole[cut:]
        yield data, is_open
        while len(ahead) > size:  # only if a piece is smaller than a record may be
            cut = _boundary(ahead, size)
            yield ahead[:cut], False
            ahead = ahead[cut:]


def _is_open(data: bytes) -> bool:
    """Whether a quote that opens a field isn't closed up to the end."""
    at = 0
    while at < len(data):
        end = data.find(b"\n", at)
        end = len(data) if end < 0 else end + 1
        if data.find(b'"', at, end) >= 0:
            start = at
            while match := _FIELD.match(data, start):
                start = match.end()
                if match[3] is None:
                    end = start
                    break
            else:
                if _OPEN.match(data, start):
                    return True
        at = end
    return False


def _boundary(data: bytes, least: int) -> int:
    """Where the first record ends that doesn't end before `least`."""
    at = 0
    while at < least:
        at = _next(data, at)
    return at


def _next(data: bytes, at: int) -> int:
    end = data.find(b"\n", at)
    end = len(data) if end < 0 else end + 1
    return end if data.find(b'"', at, end) < 0 else _record(data, at)[1]


def read_body(body: bytes, header: Header, schema: Schema) -> Rows:
    """Read a piece of a file's body. Empty fields are null; an empty line is no row.

    Numbers that Polars reads as such without any doubt come as numbers; all else comes as text.
    """
    names, extra = list(header.names), header.extra(schema)
    body = _trimmed(body)
    if not body:
        return Rows(pl.DataFrame(schema=dict.fromkeys(schema.names, pl.String)), extra=extra)
    # Readers disagree about a carriage return alone; the careful way takes it for a part of the field.
    if _is_well_quoted(body) and (b"\r" not in body or body.count(b"\r") == body.count(b"\r\n")):
        try:
            frame = _read_numbers(body, names, schema)
            if not _is_ragged(frame, body):
                text = partial(_read_text, body, names, schema)
                return Rows(frame.select(schema.names), extra=extra, text=text)
        except pl.exceptions.PolarsError:
            pass
        try:
            frame = _read(body, names)
            if not _is_ragged(frame, body):
                return Rows(frame.select(schema.names), extra=extra)
        except pl.exceptions.PolarsError:
            pass
    rows = _salvaged(body, names)
    return replace(rows, frame=rows.frame.select(schema.names), extra=extra)


def _trimmed(body: bytes) -> bytes:
    """Without empty lines at its ends, and with one line break: without it Polars overlooks a comma too many there.

    A lone carriage return is no line break, but part of a field.
    """
    start, stop = 0, len(body)
    while body.startswith((b"\n", b"\r\n"), start):
        start = body.index(b"\n", start) + 1
    while body.endswith((b"\n\n", b"\n\r\n"), start, stop):
        stop -= 2 if body.endswith(b"\r\n", start, stop) else 1
    made = body[start:stop]  # the very same bytes, not a copy, if there is nothing to take away
    return made if not made or made.endswith(b"\n") else made + b"\n"


def _read_text(body: bytes, names: list[str], schema: Schema) -> pl.DataFrame:
    return _read(body, names).select(schema.names)


def _read_numbers(body: bytes, names: list[str], schema: Schema) -> pl.DataFrame:
    """Raises if a number isn't one that every reader takes for the same number."""
    types = {name: _number_type(schema, name) for name in names}
    frame = pl.read_csv(body, has_header=False, schema=types)
    floats = [frame[name] for name, dtype in types.items() if dtype.is_float()]
    if any(column.is_nan().any() for column in floats):
        raise pl.exceptions.ComputeError("not a number, perhaps for a missing one")
    return frame


def _number_type(schema: Schema, name: str) -> pl.DataType:
    field = next((field for field in schema if field.name == name), None)
    if field is not None and field.is_number:
        return polars_type(field)
    if field is not None and field.dtype == "timestamp" and field.unit != "iso":
        return pl.Int64()
    return pl.String()


def _read(body: bytes, names: list[str]) -> pl.DataFrame:
    return pl.read_csv(body, has_header=False, schema=dict.fromkeys(names, pl.String))


def _is_well_quoted(body: bytes) -> bool:
    """Whether quotes stand in pairs, around fields, and doubled within: Polars also lets some others pass."""
    if b'"' not in body:
        return True
    text = np.frombuffer(b"\n" + body + b"\n\n", np.uint8)
    quotes = np.flatnonzero(text == _QUOTE)
    opening, closing = quotes[::2], quotes[1::2]
    if len(opening) != len(closing):
        return False
    after, second = text[closing + 1], text[closing + 2]
    ends = np.isin(after, _DELIMITERS) | ((after == _RETURN) & (second == _NEWLINE))
    return bool(ends.all() and np.isin(text[opening - 1], _DELIMITERS).all())


def _is_ragged(frame: pl.DataFrame, body: bytes) -> bool:
    """Whether some record has too few fields, or none: Polars fills it up with nulls."""
    if frame.width == 1:
        return re.search(rb"\n\r?\n", body) is not None
    if not frame[:, -1].null_count():
        return False
    # Each comma is either between two fields or within a quoted one. (Of records that are too long Polars complains.)
    commas, within = int(np.count_nonzero(np.frombuffer(body, np.uint8) == _COMMA)), 0
    if b'"' in body:
        texts = [name for name, dtype in frame.schema.items() if dtype == pl.String]
        within = sum(int(frame[name].str.count_matches(",", literal=True).sum()) for name in texts)
    return commas - within != frame.height * (frame.width - 1)


def _salvaged(body: bytes, names: list[str]) -> Rows:
    """The records with as many fields as the header has; the others, and what is no record, are broken."""
    good: list[bytes] = []
    positions: list[int] = []
    broken: list[BrokenRow] = []
    for position, (record, fields) in enumerate(_records(body), 1):
        reason = _reason(record, fields, len(names))
        if reason:
            broken.append(BrokenRow(position, reason, record.decode("utf-8", "replace")))
        else:
            good.append(record)
            positions.append(position)
    frame = _read(b"\n".join(good), names) if good else pl.DataFrame(schema=dict.fromkeys(names, pl.String))
    return Rows(frame, positions, tuple(broken))


def _reason(record: bytes, fields: int, wanted: int) -> str:
    if not fields:
        return UNCLOSED
    if fields != wanted:
        return f"{fields} fields, and the header has {wanted}"
    try:
        record.decode()
    except UnicodeDecodeError:
        return "not UTF-8 text"
    return ""


def _records(body: bytes) -> Iterator[tuple[bytes, int]]:
    """Each record with its number of fields, quoted as it should be; a malformed line as it is, with 0 fields."""
    at = 0
    while at < len(body):
        end = body.find(b"\n", at)
        end = len(body) if end < 0 else end
        line = body[at:end].removesuffix(b"\r")
        if b'"' not in line:
            at = end + 1
            if line.strip(b"\r"):
                yield line, line.count(b",") + 1
            continue
        fields, after = _record(body, at)
        at = after
        yield (line, 0) if fields is None else (b",".join(map(_quoted, fields)), len(fields))


def _record(data: bytes, start: int) -> tuple[list[bytes] | None, int]:
    """The fields of the record at `start`, or None if it is malformed, and where the next one (or line) starts."""
    fields, at = [], start
    while match := _FIELD.match(data, at):
        fields.append(match[1] or match[2])
        at = match.end()
        if match[3] is None:
            fields[-1] = fields[-1].removesuffix(b"\r")
            return fields, at
    line = data.find(b"\n", start)
    return None, len(data) if line < 0 else line + 1


def _quoted(field: bytes) -> bytes:
    plain = b'"' not in field or field.startswith(b'"')
    return field if plain else b'"' + field.replace(b'"', b'""') + b'"'


def _unquoted(field: bytes) -> bytes:
    return field[1:-1].replace(b'""', b'"') if field.startswith(b'"') else field
