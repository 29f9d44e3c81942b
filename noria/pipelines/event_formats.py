"""Formats of events: from the bytes of many events to rows as columns."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria.core import ConfigError, MissingExtraError, Schema
from noria.pipelines.convert import can_convert
from noria.pipelines.extract import from_frame
from noria.pipelines.json_events import read_json_events
from noria.pipelines.rows import BrokenRow, Rows

_ARROW_END = b"\xff\xff\xff\xff\0\0\0\0"
"""With it each writer ends a stream; Polars takes one without it for one with fewer rows, perhaps none."""


@dataclass(frozen=True)
class Decoded:
    """Rows, and for each row's position (from 1) the number of the event (from 0) that it comes from.

    Rows whose columns have other types are by themselves, so that what becomes of a row never depends on others.
    """

    rows: Sequence[Rows]
    events: NDArray[np.int64]

    @property
    def count(self) -> int:
        """All rows, the broken ones included."""
        return sum(rows.count for rows in self.rows)


class EventFormat(Protocol):
    """How events are written."""

    def decode(self, values: Sequence[bytes], schema: Schema) -> Decoded:
        """Read events; what can't be read is broken, and costs no neighbour."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """The format as plain JSON data."""
        ...


@dataclass(frozen=True)
class Json:
    """One JSON object an event. Of two members with one name, either may be taken."""

    def decode(self, values: Sequence[bytes], schema: Schema) -> Decoded:
        return Decoded((read_json_events(values, schema),), np.arange(len(values)))

    def to_dict(self) -> dict[str, Any]:
        return {"format": "json"}


@dataclass(frozen=True)
class Avro:
    """One Avro record an event, without a container.

    Attributes:
        schema: the writer's schema.
        header: bytes before each record that are skipped; 5 for those that a schema registry puts there.
    """

    schema: dict[str, Any] = field(hash=False)
    header: int = 0

    def __post_init__(self) -> None:
        try:
            import fastavro
        except ImportError:  # said when events are read
            return
        try:
            kind = fastavro.parse_schema(self.schema)
        except Exception as error:  # the library raises whatever it meets in what is no schema
            raise ConfigError(
                f"Avro: not a schema of Avro: {error or type(error).__name__}",
                hint='{"type": "record", "name": "event", "fields": [{"name": "user", "type": "long"}, …]}',
            ) from error
        if not isinstance(kind, dict) or kind.get("type") not in ("record", "error"):
            raise ConfigError(
                "Avro: an event is a record, and the schema is of another type",
                hint='{"type": "record", "name": "event", "fields": [{"name": "user", "type": "long"}, …]}',
            )

    def decode(self, values: Sequence[bytes], schema: Schema) -> Decoded:
        try:
            import fastavro
        except ImportError as error:
            raise MissingExtraError("fastavro", "avro", "reading Avro events") from error
        parsed = fastavro.parse_schema(self.schema)
        records, broken = [], []
        for position, value in enumerate(values, 1):
            stream = io.BytesIO(value)
            stream.seek(self.header)
            try:
                record = fastavro.schemaless_reader(stream, parsed, None)
                if not isinstance(record, dict) or stream.read(1):
                    raise ValueError("more bytes than a record")
            except Exception as error:  # the library raises whatever its decoders meet in wrong bytes
                broken.append(BrokenRow(position, f"not an Avro record: {error}", value.decode("utf-8", "replace")))
                continue
            records.append((position, record))
        rows = [_avro_rows(same, schema) for same in _alike(records, schema)]
        return Decoded((*rows, Rows(_no_rows(schema), [], tuple(broken))), np.arange(len(values)))

    def to_dict(self) -> dict[str, Any]:
        return {"format": "avro", "schema": self.schema, "header": self.header}


@dataclass(frozen=True)
class Arrow:
    """An Arrow IPC stream an event, with any number of rows, and with its end marker: without one it may be cut."""

    def decode(self, values: Sequence[bytes], schema: Schema) -> Decoded:
        groups: dict[tuple[str, ...], list[tuple[int, Rows]]] = {}
        events: list[NDArray[np.int64]] = []
        broken: list[BrokenRow] = []
        at = 0
        for number, value in enumerate(values):
            try:
                found = _arrow_rows(value, schema)
            except (Exception, pl.exceptions.PanicException) as error:  # Polars panics on some wrong bytes
                at += 1
                events.append(np.full(1, number))
                said = str(error) if isinstance(error, _UnfitError) else type(error).__name__
                reason = f"not an Arrow stream with the columns of the schema: {said}"
                broken.append(BrokenRow(at, reason, f"{len(value)} bytes"))
                continue
            groups.setdefault(tuple(map(str, found.frame.dtypes)), []).append((at, found))
            events.append(np.full(found.count, number))
            at += found.count
        rows = [_joined(group) for group in groups.values()]
        return Decoded(
            (*rows, Rows(_no_rows(schema), [], tuple(broken))),
            np.concatenate(events) if events else np.empty(0, np.int64),
        )

    def to_dict(self) -> dict[str, Any]:
        return {"format": "arrow"}


class _UnfitError(Exception):
    """Why bytes that are Arrow aren't an event."""


def _arrow_rows(value: bytes, schema: Schema) -> Rows:
    if not value.endswith(_ARROW_END):
        raise _UnfitError("it has no end marker, so it was cut")
    found = from_frame(pl.read_ipc_stream(io.BytesIO(value)).select(schema.names), schema)
    for wanted in schema:
        if not can_convert(wanted, found.frame.schema[wanted.name]):
            raise _UnfitError(
                f"{wanted.name!r} is {found.frame.schema[wanted.name]}, which can't become {wanted.spec()}"
            )
    return found


def _joined(group: Sequence[tuple[int, Rows]]) -> Rows:
    """Rows of several events, each with how many rows came before it."""
    positions = [at + place for at, rows in group for place in rows.positions or range(1, len(rows.frame) + 1)]
    broken = tuple(BrokenRow(at + row.position, row.reason, row.text) for at, rows in group for row in rows.broken)
    return Rows(pl.concat([rows.frame for _, rows in group]), positions, broken)


def _no_rows(schema: Schema) -> pl.DataFrame:
    return pl.DataFrame(schema=dict.fromkeys(schema.names, pl.String))


_Record = tuple[int, dict[str, Any]]


def _alike(records: Sequence[_Record], schema: Schema) -> list[list[_Record]]:
    """The records by the types of the columns that have several, as a union of Avro may; else together."""
    mixed = [name for name in schema.names if len({type(r.get(name)) for _, r in records} - {type(None)}) > 1]
    groups: dict[tuple[type, ...], list[_Record]] = {}
    for position, record in records:
        groups.setdefault(tuple(type(record.get(name)) for name in mixed), []).append((position, record))
    return list(groups.values())


def _avro_rows(records: Sequence[_Record], schema: Schema) -> Rows:
    """Records as columns; values of types that can't become the schema's make their records broken."""
    columns = {name: column(name, [record.get(name) for _, record in records]) for name in schema.names}
    reasons: dict[int, str] = {}
    for wanted in schema:
        dtype = from_frame(columns[wanted.name].clear().to_frame(), schema).frame.dtypes[0]
        if not can_convert(wanted, dtype):
            reason = f"{wanted.name}: {dtype} can't become {wanted.spec()}"
            reasons |= dict.fromkeys(columns[wanted.name].is_not_null().arg_true().to_list(), reason)
            columns[wanted.name] = pl.Series(wanted.name, [None] * len(records), pl.String)
    fit = [at for at in range(len(records)) if at not in reasons]
    frame = pl.DataFrame(list(columns.values()))
    found = from_frame(frame[fit] if reasons else frame, schema)
    positions = [records[at][0] for at in fit]
    places = positions if found.positions is None else [positions[at - 1] for at in found.positions]
    # What from_frame calls broken (bytes that are no text) counts from the records.
    broken = [BrokenRow(positions[row.position - 1], row.reason, row.text) for row in found.broken]
    broken += [BrokenRow(records[at][0], reason, str(records[at][1])) for at, reason in reasons.items()]
    return Rows(found.frame, places, tuple(broken))


def column(name: str, values: list[Any]) -> pl.Series:
    """A column of one type if the values have one, else of text."""
    try:
        return pl.Series(name, values, strict=True)
    except (TypeError, pl.exceptions.PolarsError, OverflowError):
        texts = [None if value is None else _text(value) for value in values]
        return pl.Series(name, texts, pl.String)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else msgspec.json.encode(value, enc_hook=str).decode().strip('"')
