"""`StreamProcessor`: from the log to the table and the online store, in micro-batches, each event exactly once.

Every place that events go to keeps a mark with its rows: up to which offset of each partition they are in. Rows and
mark become durable together, so whatever is killed when, a restart reads the marks, goes back to the least of them,
and each place skips what it has. The group's offset in the log is committed last, and is only where to look first.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria.core import ConflictError, NoProgress, Progress, StorageError, to_iso
from noria.pipelines.batch import QUARANTINE
from noria.pipelines.contract import POSITION, REASONS, TEXT
from noria.pipelines.dtypes import polars_schema
from noria.pipelines.event_formats import Json
from noria.pipelines.steps import apply_steps
from noria.pipelines.stream import Stream
from noria.pipelines.stream_metrics import StreamMetrics
from noria.pipelines.stream_rows import apply_counted, fitted_steps, judged_events
from noria.pipelines.stream_sinks import Kept, OnlineSink, Sink, StreamRows, TableSink
from noria.storage import ABSENT, Put, Workspace
from noria.storage.event_log import EventLog, Events
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
_TOPICS = "stream_topics"
"""Where is written down which topic a stream's marks are of."""


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


class StreamProcessor:
    """Processes a stream's events; any number of processes share its partitions. Used in a `with` block, by one thread.

    Args:
        stream: what to process.
        workspace: the stores.
        metrics: where lag, throughput and delay are recorded.
        batch: events at a time.
        flush_seconds: how long rows may wait for the table.
        keeps: what is kept in the online store beside what the stream's `online` says: feature groups.
    """

    def __init__(
        self,
        stream: Stream,
        workspace: Workspace,
        *,
        metrics: MetricsCollector | None = None,
        batch: int = BATCH_EVENTS,
        flush_seconds: float = FLUSH_SECONDS,
        keeps: Sequence[Kept] = (),
    ) -> None:
        self._stream = stream
        self._workspace = workspace
        self._batch = batch
        self._flush_seconds = flush_seconds
        self._format = stream.format or Json()
        self._steps = fitted_steps(stream, workspace)
        self._log: EventLog = workspace.log
        self._log.create(stream.topic_name, _partitions(self._log, stream))
        prefix = f"stream/{stream.name}"
        online = workspace.online
        self._sinks: list[Sink] = [
            # Quarantine first: no bad event is without its record when the table says that it has been seen.
            TableSink(workspace.table(f"{stream.name}__quarantine"), prefix, bad=True),
            TableSink(workspace.table(stream.name), prefix, bad=False),
            *(OnlineSink(sink, stream, online) for sink in (*stream.online, *keeps)),
        ]
        made = apply_steps(self._steps, pl.DataFrame(schema=polars_schema(stream.schema)))
        for each in (*stream.online, *keeps):
            each.verify_columns(stream, made.schema)
        self._ensure_tables(made)
        self._verify_log()
        self._reader = self._log.reader(stream.topic_name, f"noria-{stream.name}")
        self._reader.on_change(self._given, self._taken)
        self._next: dict[int, int] = {}
        self._flushed = time.monotonic()
        self._watermarks: dict[int, int] = {}
        self._seen: dict[int, float] = {}
        self.result = StreamResult()
        self._metrics = StreamMetrics(metrics or MetricsCollector(), stream.name)

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
        judged = judged_events(decoded, stream)
        good = judged.good
        kept = good if stream.where is None else good.filter(stream.where)
        places = judged.positions.to_numpy()
        if stream.where is not None and len(kept) < len(good):
            places = judged.positions.filter(good.select(stream.where).to_series().fill_null(value=False)).to_numpy()
        made, stayed = apply_counted(self._steps, kept)
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

    def _ensure_tables(self, made: pl.DataFrame) -> None:
        """Empty tables to begin with, so that those who read them find their columns.

        A lost quarantine stays empty: what was in it may have been sent again since, and would be once more.
        """
        bad, good = self._sinks[:2]
        assert isinstance(bad, TableSink)
        assert isinstance(good, TableSink)
        bad.make(pl.Schema(QUARANTINE), dict)
        good.make(made.schema, self._ends)

    def _ends(self) -> dict[int, int]:
        """Where the partitions end, if any of their events may have been processed."""
        if self._workspace.records.get(_TOPICS, self._stream.name) is None:
            return {}
        return {partition: end for partition, (_, end) in self._log.bounds(self._stream.topic_name).items()}


def _partitions(log: EventLog, stream: Stream) -> int:
    """Those that the topic has; the stream's, if it has to be made."""
    return log.topics().get(stream.topic_name, stream.partitions)
