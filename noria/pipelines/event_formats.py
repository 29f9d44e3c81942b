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

from noria.core import MissingExtraError, Schema
from noria.pipelines.extract import from_frame
from noria.pipelines.json_events import read_json_events
from noria.pipelines.rows import BrokenRow, Rows


@dataclass(frozen=True)
class Decoded:
    """Rows, and for each row's position (from 1) the number of the event (from 0) that it comes from."""

    rows: Rows
    events: NDArray[np.int64]


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
        return Decoded(read_json_events(values, schema), np.arange(len(values)))

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

    def decode(self, values: Sequence[bytes], schema: Schema) -> Decoded:
        try:
            import fastavro
        except ImportError as error:
            raise MissingExtraError("fastavro", "avro", "reading Avro events") from error
        parsed = fastavro.parse_schema(self.schema)
        records, positions, broken = [], [], []
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
            records.append(record)
            positions.append(position)
        columns = [column(name, [record.get(name) for record in records]) for name in schema.names]
        found = from_frame(pl.DataFrame(columns))
        places = positions if found.positions is None else [positions[at - 1] for at in found.positions]
        # What from_frame calls broken (bytes that are no text) counts from the records.
        more = tuple(BrokenRow(positions[row.position - 1], row.reason, row.text) for row in found.broken)
        return Decoded(Rows(found.frame, places, (*broken, *more)), np.arange(len(values)))

    def to_dict(self) -> dict[str, Any]:
        return {"format": "avro", "schema": self.schema, "header": self.header}


@dataclass(frozen=True)
class Arrow:
    """An Arrow IPC stream an event, with any number of rows."""

    def decode(self, values: Sequence[bytes], schema: Schema) -> Decoded:
        frames: list[pl.DataFrame] = []
        events: list[NDArray[np.int64]] = []
        positions: list[int] = []
        broken: list[BrokenRow] = []
        at = 0
        for number, value in enumerate(values):
            try:
                frame = pl.read_ipc_stream(io.BytesIO(value))
                found = from_frame(frame.select(schema.names))
                text = found.frame.select(pl.all().cast(pl.String))
            except Exception as error:  # Polars panics, too, on bytes that are no Arrow
                at += 1
                events.append(np.full(1, number))
                reason = f"not an Arrow stream with the columns of the schema: {type(error).__name__}"
                broken.append(BrokenRow(at, reason, f"{len(value)} bytes"))
                continue
            places = found.positions or range(1, len(found.frame) + 1)
            positions += [at + place for place in places]
            broken += [BrokenRow(at + row.position, row.reason, row.text) for row in found.broken]
            frames.append(found.frame if not frames or frames[0].schema == found.frame.schema else text)
            events.append(np.full(found.count, number))
            at += found.count
        if len({frame.schema for frame in map(_types, frames)}) > 1:
            frames = [frame.select(pl.all().cast(pl.String)) for frame in frames]
        empty = pl.DataFrame(schema=dict.fromkeys(schema.names, pl.String))
        rows = Rows(pl.concat(frames) if frames else empty, positions, tuple(broken))
        return Decoded(rows, np.concatenate(events) if events else np.empty(0, np.int64))

    def to_dict(self) -> dict[str, Any]:
        return {"format": "arrow"}


@dataclass(frozen=True)
class _Types:
    schema: tuple[tuple[str, str], ...]


def _types(frame: pl.DataFrame) -> _Types:
    return _Types(tuple((name, str(dtype)) for name, dtype in frame.schema.items()))


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
