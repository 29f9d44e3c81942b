"""Where a stream's rows go: a table, or the online store; each keeps a mark of how far it has come with its rows."""

from __future__ import annotations

import secrets
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria.core import ConflictError, SchemaError
from noria.storage.online import Mark, OnlineStore
from noria.storage.tables import Table, TableMark

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from noria.pipelines.stream import Stream

COMPACT_EVERY = 50
"""Commits to the table after which its small files are joined."""


@dataclass(frozen=True)
class StreamRows:
    """Rows of one partition with their offsets, and how far they reach."""

    partition: int
    frame: pl.DataFrame
    offsets: NDArray[np.int64]
    next_offset: int

    def since(self, offset: int) -> StreamRows:
        """Without the rows before an offset."""
        if not len(self.offsets) or self.offsets[0] >= offset:
            return self
        start = int(np.searchsorted(self.offsets, offset))
        return replace(self, frame=self.frame[start:], offsets=self.offsets[start:])


class Sink(Protocol):
    """A place that rows go to."""

    def begin(self, partition: int, committed: int) -> int:
        """Up to which offset the partition is durably there, given what the group has committed."""
        ...

    def write(self, good: StreamRows, bad: StreamRows) -> int:
        """Take the rows that aren't there yet; returns how many were late."""
        ...

    def waiting(self) -> int:
        """Rows that `flush` would make durable."""
        ...

    def flush(self) -> None:
        """Make all that was taken durable.

        Raises:
            ConflictError: another process has moved a mark.
        """
        ...

    def forget(self) -> None:
        """Drop what isn't durable, and what is known of the marks."""
        ...


class TableSink:
    """Rows for a table; they wait for a flush."""

    def __init__(self, table: Table, prefix: str, *, bad: bool) -> None:
        self._table = table
        self._prefix = prefix
        self._bad = bad
        self._token = secrets.token_hex(4)
        self._commits = 0
        self._new: tuple[pl.Schema, Callable[[], Mapping[int, int]]] | None = None
        self.forget()

    def forget(self) -> None:
        self._marks: dict[int, int] = {}
        self._begun: dict[int, int] = {}
        self._taken: dict[int, int] = {}
        self._frames: list[pl.DataFrame] = []

    def make(self, schema: pl.Schema, ends: Callable[[], Mapping[int, int]]) -> None:
        """Make the table with these columns if it isn't there, and whenever it is lost.

        What was committed before it was lost is of no use then: marks keep up to where. So it gets what the log has.

        Args:
            schema: of the table.
            ends: gives where the log's partitions end, if anything was processed before.
        """
        self._new = (schema, ends)
        self._ensure()

    def _ensure(self) -> None:
        if self._new is not None and self._table.version() is None:
            schema, ends = self._new
            marks = [TableMark(f"{self._name(partition)}/lost", -1, end) for partition, end in ends().items()]
            with suppress(ConflictError):  # another process made it
                self._table.commit([], schema, mode="append", marks=marks)

    def begin(self, partition: int, committed: int) -> int:
        self._ensure()
        mark = self._marks[partition] = self._table.mark(self._name(partition))
        if committed <= self._table.mark(f"{self._name(partition)}/lost"):
            committed = 0
        # What was committed is here, too, if there was no row and so no reason to move the mark: read again under other
        # checks, events that were bad would come here, and from the quarantine once more.
        self._begun[partition] = max(mark, committed)
        return self._begun[partition]

    def write(self, good: StreamRows, bad: StreamRows) -> int:
        begun = self._begun[good.partition]
        rows = (bad if self._bad else good).since(begun)
        if len(rows.frame):
            self._frames.append(rows.frame)
        self._taken[good.partition] = max(good.next_offset, begun)
        return 0

    def waiting(self) -> int:
        return sum(map(len, self._frames))

    def flush(self) -> None:
        if not self._frames:
            return
        frame = pl.concat(self._frames)
        moved = {p: offset for p, offset in self._taken.items() if offset > self._marks[p]}
        marks = [TableMark(self._name(p), self._marks[p], offset) for p, offset in moved.items()]
        version = self._table.version()
        number = 0 if version is None else version + 1
        part = self._table.stage(frame, f"{number:012d}-{self._token}-{self._commits:08d}")
        try:
            self._table.commit([part], frame.schema, mode="append", marks=marks)
        except SchemaError as error:
            # Not what a source's table is told: a stream's is never built anew under its name.
            error.hint = (
                "keep the type, or give the stream another name, and topic= its topic: "
                "a stream of a new name begins with the oldest event that the log has"
            )
            raise
        self._marks |= moved
        self._frames, self._taken = [], {}
        self._commits += 1
        if self._commits % COMPACT_EVERY == 0:
            self._table.compact()

    def _name(self, partition: int) -> str:
        return f"{self._prefix}/{partition}"


class Kept(Protocol):
    """What is kept in the online store of a stream's rows: `LatestRow`, `Totals`, a feature group's values."""

    def place(self, stream: Stream) -> str:
        """The group in the online store."""
        ...

    def verify_columns(self, stream: Stream, made: Mapping[str, pl.DataType]) -> None:
        """Raise a `ConfigError` if the stream's steps don't leave the columns that are needed."""
        ...

    def since(self, stream: Stream, partition: int) -> int:
        """The offset from which on rows are wanted, if none was ever written."""
        ...

    def write(self, store: OnlineStore, stream: Stream, rows: StreamRows, mark: Mark) -> int:
        """Take rows and move the mark, in one step; returns how many were late."""
        ...


class OnlineSink:
    """Rows for the online store; they are durable when they are written.

    Its mark is moved before an offset is committed, even if there was no row: so a partition without a mark is one
    that the sink has never seen, since it was added later, and begins where it says, or with what is oldest in the log.
    """

    def __init__(self, sink: Kept, stream: Stream, store: OnlineStore) -> None:
        self._sink = sink
        self._stream = stream
        self._store = store
        self._prefix = f"stream/{sink.place(stream)}"
        self.forget()

    def forget(self) -> None:
        self._marks: dict[int, int] = {}
        self._since: dict[int, int] = {}
        self._seen: dict[int, int] = {}

    def begin(self, partition: int, committed: int) -> int:
        name, since = self._name(partition), self._sink.since(self._stream, partition)  # it may move the mark
        self._marks[partition] = self._store.marks(name).get(name, -1)
        self._seen.pop(partition, None)
        if self._marks[partition] >= 0:
            return self._marks[partition]
        self._since[partition] = since
        return since

    def write(self, good: StreamRows, bad: StreamRows) -> int:
        before = max(self._marks[good.partition], self._since.get(good.partition, 0))
        rows = good.since(before)
        if good.next_offset <= before:
            return 0
        if not len(rows.frame):
            self._seen[good.partition] = good.next_offset
            return 0
        late = self._sink.write(self._store, self._stream, rows, self._mark(good.partition, good.next_offset))
        self._moved(good.partition, good.next_offset)
        return late

    def waiting(self) -> int:
        return 0

    def flush(self) -> None:
        for partition, offset in list(self._seen.items()):
            self._store.write(self._sink.place(self._stream), [], [], [], mark=self._mark(partition, offset))
            self._moved(partition, offset)

    def _mark(self, partition: int, offset: int) -> Mark:
        return Mark(self._name(partition), self._marks[partition], offset)

    def _moved(self, partition: int, offset: int) -> None:
        self._marks[partition] = offset
        self._seen.pop(partition, None)

    def _name(self, partition: int) -> str:
        return f"{self._prefix}/{partition}"
