"""`StreamProcessor`: from the log to the table and the online store, in micro-batches, each event exactly once.

Every place that events go to keeps a mark with its rows: up to which offset of each partition they are in. Rows and
mark become durable together, so whatever is killed when, a restart reads the marks, goes back to the least of them,
and each place skips what it has. The group's offset in the log is committed last, and is only where to look first.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria.core import ConfigError, ConflictError, NoProgress, Progress, SchemaError, StorageError, to_iso
from noria.pipelines.batch import QUARANTINE
from noria.pipelines.contract import POSITION, REASONS, TEXT, Judged, judge
from noria.pipelines.dtypes import polars_schema
from noria.pipelines.event_formats import Decoded, Json
from noria.pipelines.loads import Loads
from noria.pipelines.online_sinks import LatestRow, Totals
from noria.pipelines.plan import fitted_state
from noria.pipelines.steps import FittedStep, apply_steps, steps_from_dict
from noria.pipelines.stream import Stream
from noria.storage import ABSENT, Put, Workspace
from noria.storage.event_log import EventLog, Events
from noria.storage.online import Mark, OnlineStore
from noria.storage.tables import Table, TableMark
from noria.telemetry import MetricsCollector

BATCH_EVENTS = 100_000
"""Events at a time, when as many are waiting: the more, the fewer writes of the same keys."""
FLUSH_SECONDS = 2.0
"""How long rows wait for the table: a commit costs some 20 ms and a file. The online store doesn't wait."""
FLUSH_ROWS = 500_000
IDLE_SECONDS = 30.0
"""A partition without events for so long doesn't hold the watermark back."""
JOIN_SECONDS = 60.0
"""How long dividing a group may take; Kafka waits 3 seconds for a new group's members, and longer for one that died."""
COMPACT_EVERY = 50
"""Commits to the table after which its small files are joined."""
_TOPICS = "stream_topics"
"""Where is written down which topic a stream's marks are of."""
_ROW = "__row__"
"""The number of a row in its batch, while a step decides which rows stay."""


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


@dataclass
class StreamResult:
    """What became of the events: `rows_in = rows_out + quarantined + filtered`; steps that drop rows filter, too."""

    rows_in: int = 0
    rows_out: int = 0
    quarantined: int = 0
    filtered: int = 0
    late: int = 0
    by_rule: Counter[str] = field(default_factory=Counter)

    @property
    def rows(self) -> dict[str, int]:
        """The counts by the names that reports use."""
        return {"in": self.rows_in, "out": self.rows_out, "quarantined": self.quarantined, "filtered": self.filtered}


class _Sink(Protocol):
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


class StreamProcessor:
    """Processes a stream's events; any number of processes share its partitions. Used in a `with` block, by one thread.

    Args:
        stream: what to process.
        workspace: the stores.
        metrics: where lag, throughput and delay are recorded.
        batch: events at a time.
        flush_seconds: how long rows may wait for the table.
    """

    def __init__(
        self,
        stream: Stream,
        workspace: Workspace,
        *,
        metrics: MetricsCollector | None = None,
        batch: int = BATCH_EVENTS,
        flush_seconds: float = FLUSH_SECONDS,
    ) -> None:
        self._stream = stream
        self._workspace = workspace
        self._batch = batch
        self._flush_seconds = flush_seconds
        self._format = stream.format or Json()
        self._steps = _fitted_steps(stream, workspace)
        self._log: EventLog = workspace.log
        self._log.create(stream.topic_name, _partitions(self._log, stream))
        prefix = f"stream/{stream.name}"
        online = workspace.online
        self._sinks: list[_Sink] = [
            # Quarantine first: no bad event is without its record when the table says that it has been seen.
            _TableSink(workspace.table(f"{stream.name}__quarantine"), prefix, bad=True),
            _TableSink(workspace.table(stream.name), prefix, bad=False),
            *(_OnlineSink(sink, stream, online) for sink in stream.online),
        ]
        made = apply_steps(self._steps, pl.DataFrame(schema=polars_schema(stream.schema)))
        for each in stream.online:
            each.verify_columns(stream, made.schema)
        self._verify_log()
        self._ensure_table(made)
        self._reader = self._log.reader(stream.topic_name, f"noria-{stream.name}")
        self._reader.on_change(self._given, self._taken)
        self._next: dict[int, int] = {}
        self._flushed = time.monotonic()
        self._watermarks: dict[int, int] = {}
        self._seen: dict[int, float] = {}
        self.result = StreamResult()
        self._metrics = _Metrics(metrics or MetricsCollector(), stream.name)

    def run(self, stop: threading.Event, on_step: Callable[[StreamResult], None] | None = None) -> StreamResult:
        """Process events until `stop` is set."""
        while not stop.is_set():
            self.step(0.5)
            if on_step is not None:
                on_step(self.result)
        self.flush()
        return self.result

    def run_to_end(self, progress: Progress | None = None, patience: float = 2.0) -> StreamResult:
        """Process what is in the log now; partitions that another process has are left to it."""
        progress = progress or NoProgress()
        ends = {p: end for p, (start, end) in self._log.bounds(self._stream.topic_name).items() if end > start}
        waited = time.monotonic()
        begun = joined = False
        while ends:
            before = self.result.rows_in
            self.step(0.05)
            mine = {p: end for p, end in ends.items() if p in self._next}
            if mine and not begun:
                progress.begin(self._stream.name, sum(end - self._next[p] for p, end in mine.items()) or None)
                begun = True
            progress.advance(self._stream.name, self.result.rows_in - before)
            if self.result.rows_in > before or self._reader.joined is not joined:
                waited, joined = time.monotonic(), self._reader.joined
            if not joined and waited < time.monotonic() - JOIN_SECONDS:
                raise StorageError(
                    f"the group of stream {self._stream.name!r} hasn't been divided within {JOIN_SECONDS:.0f} s",
                    hint="is another process of the stream stuck? otherwise look into the brokers' logs",
                )
            behind = [p for p, end in mine.items() if self._next[p] < end]
            if not behind and (len(mine) == len(ends) or (joined and time.monotonic() - waited > patience)):
                break
        self.flush()
        return self.result

    def step(self, timeout: float) -> int:
        """One micro-batch: at most `batch` events, waiting `timeout` seconds for the first; returns how many."""
        try:
            found = self._reader.poll(self._batch, timeout)
            began = time.perf_counter()
            for events in found:
                self._process(events)
            count = sum(map(len, found))
            if count:
                self._metrics.batch(count, time.perf_counter() - began, self._lag(), self._delay())
            waiting = sum(sink.waiting() for sink in self._sinks)
            if waiting >= FLUSH_ROWS or time.monotonic() - self._flushed >= self._flush_seconds:
                self.flush()
            return count
        except ConflictError:
            # Another process has this partition now, or had it and was believed dead: what it has made durable holds.
            self._restart()
            return 0

    def flush(self) -> None:
        """Make everything durable, then tell the log."""
        self._flushed = time.monotonic()
        for sink in self._sinks:
            sink.flush()
        mine = {p: self._next[p] for p in self._reader.assigned if self._next.get(p, 0) > 0}
        if mine:
            self._reader.commit(mine)

    def close(self) -> None:
        """Flush, and leave the group."""
        try:
            self.flush()
        except ConflictError:
            pass  # what was not flushed is another's to do
        finally:
            self._reader.close()

    def __enter__(self) -> StreamProcessor:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self._reader.close()  # after an error nothing is taken for done

    # --- one batch

    def _process(self, events: Events) -> None:
        stream = self._stream
        decoded = self._format.decode(events.values, stream.schema)
        judged = _judged(decoded, stream)
        good = judged.good
        kept = good if stream.where is None else good.filter(stream.where)
        places = judged.positions.to_numpy()
        if stream.where is not None and len(kept) < len(good):
            places = judged.positions.filter(good.select(stream.where).to_series().fill_null(value=False)).to_numpy()
        made, stayed = _apply(self._steps, kept)
        places = places[stayed]
        bad = judged.bad.sort(POSITION) if len(judged.bad) else judged.bad
        bad_events = decoded.events[bad[POSITION].to_numpy() - 1]
        rows = StreamRows(
            events.partition,
            made,
            events.offsets[decoded.events[places - 1]],
            events.next_offset,
        )
        bad_rows = StreamRows(
            events.partition, self._bad_frame(events, bad, bad_events), events.offsets[bad_events], events.next_offset
        )
        late = 0
        for sink in self._sinks:
            late = max(late, sink.write(rows, bad_rows))
        self._next[events.partition] = events.next_offset
        dropped = Counter({"dropped by steps": len(kept) - len(made)} if len(made) < len(kept) else {})
        self._account(events.partition, decoded.count, good, len(made), len(bad), late, judged.by_rule + dropped)

    def _bad_frame(self, events: Events, bad: pl.DataFrame, numbers: NDArray[np.int64]) -> pl.DataFrame:
        """Bad events as rows of the quarantine, with the event's own text where it is text."""
        texts = [
            events.values[number].decode("utf-8", "replace") if isinstance(self._format, Json) else text
            for number, text in zip(numbers.tolist(), bad[TEXT].to_list(), strict=True)
        ]
        return pl.DataFrame(
            {
                "run_id": [f"stream/{self._stream.name}"] * len(bad),
                "source": [self._stream.name] * len(bad),
                "file": [f"{self._stream.topic_name}/{events.partition}"] * len(bad),
                "position": events.offsets[numbers],
                "reasons": bad[REASONS],
                "row": texts,
                "at": [to_iso(self._workspace.clock.now())] * len(bad),
            },
            schema=QUARANTINE,
        )

    def _account(
        self, partition: int, count: int, good: pl.DataFrame, kept: int, bad: int, late: int, by_rule: Counter[str]
    ) -> None:
        result = self.result
        result.rows_in += count
        result.rows_out += kept
        result.quarantined += bad
        result.filtered += len(good) - kept
        result.late += late
        result.by_rule += by_rule
        self._metrics.rows(kept, bad, len(good) - kept, late)
        if self._stream.time is not None and len(good):
            newest = int(good[self._stream.time].to_physical().to_numpy().max())
            self._seen[partition] = time.monotonic()
            self._watermarks[partition] = max(newest, self._watermarks.get(partition, newest))

    # --- partitions come and go

    def _given(self, partitions: Sequence[int]) -> None:
        """Go to the first event that some sink doesn't have.

        Raises:
            StorageError: there is a sink that has more than the log, so new events would be taken for done.
        """
        committed = self._reader.committed()
        begins = {p: [sink.begin(p, committed.get(p, 0)) for sink in self._sinks] for p in partitions}
        bounds = self._log.bounds(self._stream.topic_name)  # after the marks, which another process may still move
        for partition in partitions:
            first, end = bounds.get(partition, (0, 0))
            self._verify_end(partition, max(begins[partition]), end)
            position = max(first, min(begins[partition]))
            self._next[partition] = position
            self._reader.seek(partition, position)

    def _verify_log(self) -> None:
        """The topic must be the one that the sinks' marks are of: what is new in another would be taken for done."""
        topic, records, name = self._stream.topic_name, self._workspace.records, self._stream.name
        now = {"topic": topic, "identity": self._log.identity(topic)}
        record = records.get(_TOPICS, name)
        if record is not None and record.data == now:
            return
        if record is not None:
            for partition in range(_partitions(self._log, self._stream)):
                mark = max(sink.begin(partition, 0) for sink in self._sinks)
                if mark > 0:
                    end = self._log.bounds(topic)[partition][1]
                    raise self._other_log(partition, mark, record.data["topic"], end)
        try:
            records.commit(Put(_TOPICS, name, now, expect=ABSENT if record is None else record.revision))
        except ConflictError:  # another process has just begun
            self._verify_log()

    def _verify_end(self, partition: int, mark: int, end: int) -> None:
        if mark > end:
            raise self._other_log(partition, mark, self._stream.topic_name, end)

    def _other_log(self, partition: int, mark: int, before: str, end: int) -> StorageError:
        stream = self._stream
        return StorageError(
            f"stream {stream.name!r}: events of topic {before!r}, partition {partition}, were processed up to offset "
            f"{mark}; now topic {stream.topic_name!r} is another one, or was cut, and ends at {end}",
            hint="put the log back as it was; if it is gone for good, give the stream another name, which begins "
            f"anew with its own table (topic={stream.topic_name!r} keeps the topic)",
        )

    def _taken(self, partitions: Sequence[int]) -> None:
        """Finish what was begun before another process goes on."""
        try:
            self.flush()
        except ConflictError:
            self._drop()
        for partition in partitions:
            self._next.pop(partition, None)
            self._watermarks.pop(partition, None)

    def _restart(self) -> None:
        self._drop()
        self._given(self._reader.assigned)

    def _drop(self) -> None:
        for sink in self._sinks:
            sink.forget()

    # --- how far behind

    def _lag(self) -> int:
        bounds = self._log.bounds(self._stream.topic_name)
        return sum(max(0, bounds[p][1] - offset) for p, offset in self._next.items() if p in bounds)

    def _delay(self) -> float:
        """Seconds from the watermark to now.

        The watermark is the least of the partitions' newest event times; idle partitions don't hold it back.
        """
        if not self._watermarks:
            return 0.0
        now = time.monotonic()
        active = [p for p, at in self._seen.items() if now - at < IDLE_SECONDS and p in self._watermarks]
        newest = [self._watermarks[p] for p in active] or [max(self._watermarks.values())]
        watermark = min(newest) - self._stream.allowed_lateness
        return (self._workspace.clock.now() - watermark) / 1_000_000

    def _ensure_table(self, made: pl.DataFrame) -> None:
        """An empty table to begin with, so that those who read it find its columns."""
        for table, empty in (
            (self._workspace.table(self._stream.name), made),
            (self._workspace.table(f"{self._stream.name}__quarantine"), pl.DataFrame(schema=QUARANTINE)),
        ):
            if table.version() is None:
                table.write(empty, run_id=f"stream/{self._stream.name}/made")


class _TableSink:
    """Rows for a table; they wait for a flush."""

    def __init__(self, table: Table, prefix: str, *, bad: bool) -> None:
        self._table = table
        self._prefix = prefix
        self._bad = bad
        self._token = secrets.token_hex(4)
        self._commits = 0
        self.forget()

    def forget(self) -> None:
        self._marks: dict[int, int] = {}
        self._begun: dict[int, int] = {}
        self._taken: dict[int, int] = {}
        self._frames: list[pl.DataFrame] = []

    def begin(self, partition: int, committed: int) -> int:
        self._marks[partition] = self._table.mark(self._name(partition))
        # What was committed is here, too, if there was no row and so no reason to move the mark.
        self._begun[partition] = max(self._marks[partition], committed)
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


class _OnlineSink:
    """Rows for the online store; they are durable when they are written.

    Its mark is moved before an offset is committed, even if there was no row: so a partition without a mark is one
    that the sink has never seen, since it was added later, and begins with what is oldest in the log.
    """

    def __init__(self, sink: LatestRow | Totals, stream: Stream, store: OnlineStore) -> None:
        self._sink = sink
        self._stream = stream
        self._store = store
        self._prefix = f"stream/{sink.place(stream)}"
        self.forget()

    def forget(self) -> None:
        self._marks: dict[int, int] = {}
        self._seen: dict[int, int] = {}

    def begin(self, partition: int, committed: int) -> int:
        name = self._name(partition)
        self._marks[partition] = self._store.marks(name).get(name, -1)
        self._seen.pop(partition, None)
        return max(self._marks[partition], 0)

    def write(self, good: StreamRows, bad: StreamRows) -> int:
        before = self._marks[good.partition]
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


class _Metrics:
    """What a stream tells of itself."""

    def __init__(self, metrics: MetricsCollector, stream: str) -> None:
        name = "noria_stream_events"
        self._outcomes = {
            outcome: metrics.counter(name, "Events by what became of them.", stream=stream, outcome=outcome)
            for outcome in ("out", "quarantined", "filtered", "late")
        }
        self._lag = metrics.gauge("noria_stream_lag_events", "Events in the log that aren't processed.", stream=stream)
        self._delay = metrics.gauge("noria_stream_watermark_delay_seconds", "From the watermark to now.", stream=stream)
        self._seconds = metrics.histogram("noria_stream_batch_seconds", "To process a batch.", stream=stream)

    def rows(self, out: int, bad: int, filtered: int, late: int) -> None:
        for outcome, count in zip(("out", "quarantined", "filtered", "late"), (out, bad, filtered, late), strict=True):
            if count:
                self._outcomes[outcome].inc(count)

    def batch(self, events: int, seconds: float, lag: int, delay: float) -> None:
        self._seconds.observe(seconds)
        self._lag.set(lag)
        self._delay.set(delay)


def _fitted_steps(stream: Stream, workspace: Workspace) -> tuple[FittedStep, ...]:
    source = stream.steps_from
    if source is None:
        return ()
    current = Loads(workspace, source.name).current()
    if not current:
        raise ConfigError(
            f"stream {stream.name!r} takes its steps from {source.name!r}, which was never loaded",
            hint=f"noria run {source.name}",
        )
    state = fitted_state(source, workspace, current)
    if state is None:
        raise ConfigError(
            f"stream {stream.name!r}: a step of {source.name!r} looks at several rows, and can't be applied to events"
        )
    return steps_from_dict(state)


def _judged(decoded: Decoded, stream: Stream) -> Judged:
    """All rows judged, in the order of their events."""
    first, *more = (judge(rows, stream.schema, tuple(stream.checks)) for rows in decoded.rows)
    if not more:
        return first
    found = [first, *more]
    positions = pl.concat([judged.positions for judged in found])
    order = positions.arg_sort()
    return Judged(
        pl.concat([judged.good for judged in found])[order],
        positions[order],
        pl.concat([judged.bad for judged in found]),
        sum((judged.by_rule for judged in found), Counter[str]()),
    )


def _apply(steps: Sequence[FittedStep], frame: pl.DataFrame) -> tuple[pl.DataFrame, NDArray[np.int64]]:
    """The rows as the steps make them, and where each that is left stood before."""
    stayed = np.arange(len(frame))
    for step in steps:
        made = step.apply(frame)
        if len(made) < len(frame):
            # A step passes a column on that it doesn't know; one that is fitted has chosen its columns before.
            numbered = step.apply(frame.with_row_index(_ROW))
            if _ROW in numbered.columns:
                stayed = stayed[numbered[_ROW].to_numpy()]
            else:  # a step of someone's own that names all columns which it keeps
                keeps = step.row(frame.schema)
                stayed = stayed[[keeps(row) for row in frame.to_dicts()]]
        frame = made
    return frame, stayed


def _partitions(log: EventLog, stream: Stream) -> int:
    """Those that the topic has; the stream's, if it has to be made."""
    return log.topics().get(stream.topic_name, stream.partitions)
