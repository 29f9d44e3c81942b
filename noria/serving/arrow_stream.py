"""Arrow IPC streams of unknown origin: numbers, Booleans and text as columns, checked before anything is allocated.

Libraries for Arrow can't be given a body from the network as it is: one length that lies ends the process.
Source: arrow.apache.org/docs/format/Columnar.html, "IPC Streaming Format"; Message.fbs, Schema.fbs.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria.core import RequestError, allowed
from noria.serving.flatbuffers import Table, broken
from noria.serving.tabular import Column

_SCHEMA, _BATCH = 1, 3
_TYPES = {
    1: "null", 2: "int", 3: "float", 4: "binary", 5: "utf8", 6: "bool", 7: "decimal", 8: "date", 9: "time",
    10: "timestamp", 12: "list", 13: "struct", 19: "large binary", 20: "large utf8", 23: "binary view", 24: "utf8 view",
}  # fmt: skip
_FLOATS = {0: "<f2", 1: "<f4", 2: "<f8"}
_READ = ("null", "int", "float", "bool", "utf8", "large utf8", "utf8 view")
_VIEW = struct.Struct("<i4xii")


@dataclass(frozen=True)
class _Field:
    name: str
    kind: str
    dtype: str = ""


@dataclass
class _Batch:
    """A record batch: its rows, its buffers in the order in which columns take them, and the body they lie in."""

    rows: int
    buffers: Iterator[tuple[int, ...]]
    variadic: Iterator[tuple[int, ...]]
    body: memoryview
    budget: int
    """Bytes that text may still become: views may refer to one text again and again."""

    def take(self) -> memoryview:
        offset, size = next(self.buffers, (-1, 0))
        if offset < 0 or size < 0 or offset + size > len(self.body):
            raise broken("a buffer ends beyond its message")
        return self.body[offset : offset + size]

    def array(self, dtype: str, count: int) -> NDArray[Any]:
        data = self.take()
        size = count * np.dtype(dtype).itemsize
        if size > len(data):
            raise broken("a buffer is shorter than its column")
        return np.frombuffer(data[:size], dtype)

    def bits(self) -> NDArray[np.bool_]:
        return np.unpackbits(self.array("u1", (self.rows + 7) // 8), count=self.rows, bitorder="little").view(bool)


def read_stream(body: bytes, known: Collection[str]) -> dict[str, Column]:
    """The columns of a stream.

    Args:
        body: the stream.
        known: the columns that it may have.

    Raises:
        RequestError: it is broken, compressed, or has another column or type.
    """
    fields: list[_Field] | None = None
    parts: dict[str, list[Any]] = {}
    rows = 0
    for head, rest in _messages(body):
        kind = head.number(1, "B")
        inner = head.table(2)
        if inner is None or kind not in (_SCHEMA, _BATCH) or (kind == _SCHEMA) != (fields is None):
            raise broken("a message is not expected here (dictionaries are not read: send text as it is)")
        if fields is None:
            fields = _fields(inner, known)
            parts = {field.name: [] for field in fields}
            continue
        batch = _batch(inner, rest)
        rows += batch.rows
        if rows > 8 * len(body):  # columns of nulls have no bytes
            raise broken(f"it has {rows} rows in {len(body)} bytes")
        for field in fields:
            parts[field.name].append(_column(field, batch))
    return {name: _joined(columns) for name, columns in parts.items()}


def _messages(body: bytes) -> Iterator[tuple[Table, memoryview]]:
    """Each message's metadata and body."""
    view, at = memoryview(body), 0
    while at + 8 <= len(body):
        mark, size = struct.unpack_from("<Ii", body, at)
        if mark == 0xFFFFFFFF and size == 0:
            return
        if mark != 0xFFFFFFFF or size < 8 or at + 8 + size > len(body):
            raise broken("a message has no proper beginning")
        head = Table.root(body[at + 8 : at + 8 + size])
        length = head.number(3, "q")
        at += 8 + size
        if not 0 <= length <= len(body) - at:
            raise broken("a message ends beyond the body")
        yield head, view[at : at + length]
        at += length
    if at < len(body):
        raise broken("it ends within a message")


def _fields(schema: Table, known: Collection[str]) -> list[_Field]:
    tables = schema.tables(1)
    if len(tables) > 2 * len(known) + 100:
        raise RequestError(f"there are {len(tables)} columns", status=422, hint=allowed(known))
    fields = [_field(field) for field in tables]
    names = [field.name for field in fields]
    for name in names:
        if name not in known:
            raise RequestError(
                f"the model has no input {name[:100]!r}", status=422, field=name[:100], hint=allowed(known, name[:100])
            )
    if len(set(names)) < len(names):
        raise RequestError("two columns have one name", status=422)
    if schema.number(0, "h"):
        raise broken("it is big-endian")
    return fields


def _field(field: Table) -> _Field:
    name, kind, details = field.text(0), _TYPES.get(field.number(2, "B"), "nested"), field.table(3)
    if kind not in _READ or field.table(4) is not None:
        told = "dictionary" if kind in _READ else kind
        raise RequestError(
            f"column {name[:100]!r} has the type {told}", status=422, field=name[:100], hint=allowed(_READ)
        )
    dtype = ""
    if kind == "int":
        bits = 0 if details is None else details.number(0, "i")
        signed = details is not None and details.number(1, "?")
        if bits not in (8, 16, 32, 64):
            raise broken(f"integers have {bits} bits")
        dtype = f"<{'i' if signed else 'u'}{bits // 8}"
    elif kind == "float":
        dtype = _FLOATS.get(0 if details is None else details.number(0, "h"), "<f8")
    return _Field(name, kind, dtype)


def _batch(inner: Table, body: memoryview) -> _Batch:
    if inner.table(3) is not None:
        raise RequestError("the Arrow stream is compressed", hint="write it without compression")
    rows = inner.number(0, "q")
    nodes, buffers = inner.structs(1, "qq"), inner.structs(2, "qq")
    if rows < 0 or any(length != rows for length, _ in nodes):
        raise broken("columns differ in length")
    if sum(size for _, size in buffers) > len(body):  # so that no byte becomes a value of two columns
        raise broken("buffers overlap")
    return _Batch(rows, iter(buffers), iter(inner.structs(4, "q")), body, 4 * len(body) + 1024)


def _column(field: _Field, batch: _Batch) -> Any:
    """One column of a batch: an array, or a list of text, or a series where values are missing."""
    if field.kind == "null":
        return pl.Series([None]).new_from_index(0, batch.rows)
    given = batch.take()
    valid = None
    if len(given):
        if 8 * len(given) < batch.rows:
            raise broken("a buffer is shorter than its column")
        valid = np.unpackbits(np.frombuffer(given, "u1"), count=batch.rows, bitorder="little").view(bool)
    if field.kind in ("int", "float"):
        values: Any = batch.array(field.dtype, batch.rows)
    elif field.kind == "bool":
        values = batch.bits()
    elif field.kind == "utf8 view":
        values = _viewed(batch, valid)
    else:
        values = _texts(batch, "<i4" if field.kind == "utf8" else "<i8")
    if valid is None or valid.all():
        return values
    if isinstance(values, list):
        return [value if there else None for value, there in zip(values, valid.tolist(), strict=True)]
    series = pl.Series(values.astype("f4") if values.dtype == np.float16 else values)
    return series.set(pl.Series(~valid), None)


def _texts(batch: _Batch, dtype: str) -> list[str]:
    if batch.rows == 0:  # an empty column may lack its only offset
        batch.take(), batch.take()
        return []
    offsets, text = batch.array(dtype, batch.rows + 1), batch.take()
    if offsets[0] < 0 or offsets[-1] > len(text) or (np.diff(offsets) < 0).any():
        raise broken("offsets of text lead out of it")
    return list(_decoded(text, offsets.tolist()))


def _decoded(text: memoryview, offsets: list[int]) -> Iterator[str]:
    whole = bytes(text)
    try:
        if whole.isascii():
            plain = whole.decode()
            yield from map(plain.__getitem__, map(slice, offsets, offsets[1:]))
        else:
            yield from map(bytes.decode, map(whole.__getitem__, map(slice, offsets, offsets[1:])))
    except UnicodeDecodeError:
        raise broken("text is not UTF-8") from None


def _viewed(batch: _Batch, valid: NDArray[np.bool_] | None) -> list[str]:
    """Text of up to 12 bytes lies in its view, longer text in one of several buffers."""
    views = bytes(batch.take())
    count = next(batch.variadic, (0,))[0]
    if len(views) < 16 * batch.rows or not 0 <= count <= len(batch.body):
        raise broken("a buffer is shorter than its column")
    buffers = [bytes(batch.take()) for _ in range(count)]
    texts = []
    for row in range(batch.rows):
        size, buffer, offset = _VIEW.unpack_from(views, 16 * row)
        if valid is not None and not valid[row]:
            texts.append("")
            continue
        if 0 <= size <= 12:
            raw = views[16 * row + 4 : 16 * row + 4 + size]
        elif size < 0 or not 0 <= buffer < count or offset < 0 or offset + size > len(buffers[buffer]):
            raise broken("a view of text leads out of it")
        else:
            batch.budget -= size
            raw = buffers[buffer][offset : offset + size]
        if batch.budget < 0:
            raise broken("text is referred to again and again")
        try:
            texts.append(raw.decode())
        except UnicodeDecodeError:
            raise broken("text is not UTF-8") from None
    return texts


def _joined(columns: list[Any]) -> Column:
    """The batches of one column as one."""
    if len(columns) == 1:
        only: Column = columns[0]
        return only
    if not columns or isinstance(columns[0], list):
        return list(chain.from_iterable(columns))
    if any(isinstance(column, pl.Series) for column in columns):
        return pl.concat([pl.Series(column) for column in columns])
    whole: NDArray[Any] = np.concatenate(columns)
    return whole
