"""`Feed`: a group's online values, kept up with each batch of a stream's events, to the same numbers as a batch's.

A batch of events is put behind the histories of its entities, and what comes out is computed as everything is. Values,
histories and the mark of how far the stream has been applied change in one step, so each event counts once.

A feed begins with what the stream's table has: its rows up to some version, and the offsets up to which that version
has the events. Until that is done nobody applies events, since no partition has its mark; and should a second process
take it over from one that seemed dead, the first one's claim is no longer what it was, and it writes nothing.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria.core import ConflictError, IntegrityError, NoriaError
from noria.features import statistics
from noria.features.catalog import Catalog
from noria.features.claims import Claim
from noria.features.continued import Continued, Total, column_types, keep_from, totalled
from noria.features.derivation import schema_of
from noria.features.events import check_columns, columns_computed, columns_of, timelines
from noria.features.group import FeatureGroup
from noria.features.histories import Histories, pack, unpack
from noria.features.online import CLOCK
from noria.features.timeline import Numbering, Timeline
from noria.features.values import features, packed, type_of
from noria.features.windows import Questions
from noria.pipelines import Stream
from noria.pipelines.dtypes import polars_type
from noria.pipelines.stream_sinks import StreamRows
from noria.storage import ABSENT, Put, Workspace
from noria.storage.online import Mark, OnlineStore, OnlineValue

FEEDS = "feature_feeds"
"""Records: by place up to which offsets the table had been read when a feed began."""
_HISTORY = b"\xfe"
"""What the key of an entity's history begins with; no entity's key does."""
_AT_ONCE = 10_000
_NUMBER = "__entity__"
_PATIENCE = 10.0
"""Seconds without a sign after which one that began a feed is taken for dead."""


class Feed:
    """What a `StreamProcessor` writes for a feature group; given to it as one of its `sinks`."""

    def __init__(self, group: FeatureGroup, stream: Stream, workspace: Workspace) -> None:
        self._group = group
        self._lateness = stream.allowed_lateness
        self._workspace = workspace
        self._spec = group.online_spec()
        source = group.source
        self._columns = columns_computed(group)
        self._schema = {name: polars_type(source.schema[name]) for name in self._columns}
        self._totals = [name for name, feature in group.features.items() if totalled(feature)]
        self._longest = max((w for windows, _ in group.segments() for w in windows), default=0)

    def place(self, stream: Stream) -> str:
        """The group's place in the online store."""
        return self._spec.place

    def verify_columns(self, stream: Stream, made: Mapping[str, pl.DataType]) -> None:
        """Raise a `ConfigError` if the stream's steps don't leave the columns that the group reads."""
        check_columns(self._group, made)

    # --- the beginning

    def since(self, stream: Stream, partition: int) -> int:
        """The offset from which on events are to be applied, if none has been."""
        self.prepare(stream)
        record = self._workspace.records.get(FEEDS, self._spec.place)
        return 0 if record is None else int(record.data["offsets"].get(str(partition), 0))

    def prepare(self, stream: Stream) -> None:
        """Bring in what the stream's table has, unless that was done."""
        if self.has_begun() and self._is_behind(stream):
            self.end()
        seen, since = -1, time.monotonic()
        while not self.has_begun():
            now = self._claim()
            if now != seen:
                since = time.monotonic()
            if now == -1 or time.monotonic() - since > _PATIENCE:
                with contextlib.suppress(ConflictError):
                    self._begin(
                        stream, Claim(self._workspace.online, self._spec.place, _claim_name(self._spec.place), now)
                    )
                    return
            seen = now
            time.sleep(0.1)

    def has_begun(self) -> bool:
        """Whether a record says so, of the store that there is: in one that was lost, a feed begins anew."""
        record = self._workspace.records.get(FEEDS, self._spec.place)
        return record is not None and record.data["claim"] == self._claim()

    def _is_behind(self, stream: Stream) -> bool:
        """Whether the log no longer has all events that weren't applied; the table has them."""
        record = self._workspace.records.get(FEEDS, self._spec.place)
        log, prefix = self._workspace.log, _marks(self._spec.place)
        if record is None or stream.topic_name not in log.topics():
            return False
        applied = {name: int(offset) for name, offset in record.data["offsets"].items()}
        for name, mark in self._workspace.online.marks(prefix).items():
            applied[name.removeprefix(prefix)] = max(mark, applied.get(name.removeprefix(prefix), 0))
        bounds = log.bounds(stream.topic_name)
        return any(applied.get(str(partition), 0) < first for partition, (first, _) in bounds.items())

    def _claim(self) -> int:
        return _claimed(self._workspace.online, self._spec.place)

    def _begin(self, stream: Stream, claim: Claim) -> None:
        try:
            self._bring_in(stream, claim)
        except BaseException:
            with contextlib.suppress(NoriaError):
                claim.release()
            raise

    def _bring_in(self, stream: Stream, claim: Claim) -> None:
        group, spec, online = self._group, self._spec, self._workspace.online
        record = self._workspace.records.get(FEEDS, spec.place)
        _unmark(online, spec.place)  # who is still applying events to what was there before is to find out
        offsets, line = claim.during(partial(self._table, stream))
        as_of = self._clock((int(line.times.max()) if len(line.times) else -1) + 1)
        clock = online.read(spec.place, [CLOCK])[0]
        if clock is not None and clock.time >= as_of:
            claim.during(partial(online.drop, spec.place))  # of events that are no more, or come again
        columns = [pl.Series(name, [], dtype) for name, dtype in schema_of(group.types()).items()]
        claim.write([CLOCK], [as_of], [b""])
        for part, ids in _parts(line, group.keys):
            names = spec.encode(ids.to_series().to_list() if ids.width == 1 else ids.rows())
            none: list[list[Any] | None] = [None] * len(names)
            times = np.maximum(as_of, part.times[part.starts[1:] - 1] + 1)
            made, values, histories = claim.during(partial(self._computed, part, times, none))
            columns = [known.append(new) for known, new in zip(columns, made, strict=True)]
            keys = [*names, *(_HISTORY + name for name in names)]
            claim.write(keys, times.tolist() * 2, [*values, *histories])
            self._allow_expiry(names)
        claim.during(partial(online.drop, spec.place, older_than=as_of))
        statistics.keep(self._workspace.records, spec.place, as_of, columns)
        for partition, offset in offsets.items():
            online.write(spec.place, [], [], [], mark=Mark(f"{_marks(spec.place)}{partition}", -1, offset))
        claim.write()
        begun = {"offsets": {str(p): offset for p, offset in offsets.items()}, "claim": claim.number}
        done = {"as_of": as_of, "witness": CLOCK.hex(), "run_id": None}
        expected = ABSENT if record is None else record.revision
        self._workspace.records.commit(Put(FEEDS, spec.place, begun, expected), Put("materialized", spec.place, done))

    def _table(self, stream: Stream) -> tuple[dict[int, int], Timeline]:
        """The offsets up to which the table has the events, and its rows: of one version.

        What the log doesn't have any more counts as there: the last events of a partition may have left no row.
        """
        table, log = self._workspace.table(stream.name), self._workspace.log
        known = stream.topic_name in log.topics()
        bounds = log.bounds(stream.topic_name) if known else dict.fromkeys(range(stream.partitions), (0, 0))
        while True:
            version = table.version()
            offsets = {p: max(table.mark(f"stream/{stream.name}/{p}"), first) for p, (first, _) in bounds.items()}
            if table.version() == version:
                break
        if version is None:
            rows = pl.DataFrame(schema={name: polars_type(stream.schema[name]) for name in columns_of(self._group)})
        else:
            rows = table.read(version, columns=columns_of(self._group))
        (line,) = timelines([self._group], self._workspace, {stream.name: rows})
        return offsets, line

    def end(self) -> None:
        """Forget the values, and how far the stream was applied: a feed of the group begins anew."""
        end(self._workspace.online, self._spec.place)

    # --- batches of events

    def write(self, store: OnlineStore, stream: Stream, rows: StreamRows, mark: Mark) -> int:
        """Apply a batch's rows to their entities; returns how many were late: none, since all count."""
        keys = list(self._group.keys)
        frame = rows.frame.select(columns_of(self._group)).drop_nulls([*keys, str(self._group.source.time)])
        ids = frame.select(keys).unique(maintain_order=True)
        if not len(ids):
            store.write(self._spec.place, [], [], [], mark=mark)
            return 0
        names = self._spec.encode(ids.to_series().to_list() if ids.width == 1 else ids.rows())
        numbers = frame.select(keys).join(ids.with_row_index(_NUMBER), on=keys, how="left", maintain_order="left")[
            _NUMBER
        ]
        new = frame.select(pl.col(name).cast(dtype) for name, dtype in self._schema.items())
        newest = np.full(len(ids), -(2**63))
        np.maximum.at(newest, numbers.to_numpy(), new[str(self._group.source.time)].dt.timestamp("us").to_numpy())

        def merge(old: list[OnlineValue | None]) -> tuple[Sequence[int], Sequence[bytes]]:
            kept = self._kept(old[: len(names)])
            owners = pl.Series(_NUMBER, np.repeat(np.arange(len(names)), kept.lengths)).append(numbers.cast(pl.Int64))
            # What is kept came before: so those of one time stay in the order of their arrival.
            line = Timeline.of(kept.rows.vstack(new).with_columns(owners), [_NUMBER], self._group.source.time)
            as_of = np.maximum(kept.as_of, newest + 1)
            _, values, histories = self._computed(line, as_of, kept.totals)
            clock, latest = old[-1], self._clock(int(as_of.max()))
            latest = latest if clock is None else max(latest, clock.time)
            return [*as_of.tolist(), *as_of.tolist(), latest], [*histories, *values, b""]

        store.update(self._spec.place, [*(_HISTORY + name for name in names), *names, CLOCK], merge, mark=mark)
        self._allow_expiry(names)
        return 0

    def _clock(self, newest: int) -> int:
        """The time of the stream for entities without new events: one event from the future moves it up to now only, or
        all windows would be empty until then."""
        return min(newest, self._workspace.clock.now())

    def _kept(self, values: Sequence[OnlineValue | None]) -> Histories:
        try:
            return unpack([None if value is None else value.value for value in values], self._schema)
        except (msgspec.DecodeError, ValueError) as error:
            raise IntegrityError(
                f"what the online store keeps of events of feature group {self._group.name!r} is damaged: {error}",
                hint=f"build it from the stream's table: noria run {self._group.name} --full",
            ) from error

    def _allow_expiry(self, names: Sequence[bytes]) -> None:
        """Of values only: a history may be needed whenever its entity comes back."""
        if self._spec.keep_seconds is not None:
            self._workspace.online.expire(self._spec.place, names, self._spec.keep_seconds)

    def _computed(
        self, line: Timeline, as_of: NDArray[np.int64], folded: list[list[Any] | None]
    ) -> tuple[list[pl.Series], list[bytes], list[bytes]]:
        """For each of the line's entities its features, packed values, and history from now on."""
        group = self._group
        before = self._unpacked(folded)
        calculator = Continued(line, group, before)
        questions = Questions(np.arange(line.entities.size), as_of, line.starts[1:])
        columns = features(group, calculator, questions)
        times, _ = calculator.newest(questions)
        values = packed(group, calculator, line, questions, times.tolist(), columns)
        oldest = as_of - self._longest - self._lateness
        cut = keep_from(group, calculator, line, oldest)
        folding = Questions(questions.numbers, as_of, cut)
        totals = {name: calculator.total(group.features[name], folding, type_of(group, name)) for name in self._totals}
        lengths = line.starts[1:] - cut
        places = np.arange(int(lengths.sum())) + np.repeat(cut - np.cumsum(lengths) + lengths, lengths)
        rows = line.frame.select(self._columns)[line.order[places]]
        histories = pack(Histories(as_of, _packed(totals, len(cut)), rows, lengths))
        return columns, values, histories

    def _unpacked(self, folded: list[list[Any] | None]) -> dict[str, Total]:
        """The totals of the features that have some, as columns; zeros where nothing was folded."""
        made: dict[str, Total] = {}
        place = 0
        for name in self._totals:
            total = []
            for dtype in column_types(self._group, name):
                column = pl.Series([None if each is None else each[place] for each in folded], dtype=dtype)
                total.append(column)
                place += 1
            if self._group.features[name].kind in ("count", "sum", "mean", "std"):
                total = [column.fill_null(0) for column in total]
            made[name] = total
        return made


def end(online: OnlineStore, place: str) -> None:
    """Forget what a stream has kept up, and how far it was applied.

    A processor that is at work finds its marks moved, and begins anew: when all is forgotten, for until then the place
    is claimed.
    """
    while True:
        with contextlib.suppress(ConflictError):  # another began meanwhile: it may have lost what it wrote
            claim = Claim(online, place, _claim_name(place), _claimed(online, place))
            _unmark(online, place)
            claim.during(partial(online.drop, place))
            claim.release()
            return


def _unmark(online: OnlineStore, place: str) -> None:
    for name in online.marks(_marks(place)):
        while (now := online.marks(name).get(name, -1)) != -1:
            with contextlib.suppress(ConflictError):  # it moves on
                online.write(place, [], [], [], mark=Mark(name, now, -1))


def _claimed(online: OnlineStore, place: str) -> int:
    name = _claim_name(place)
    return online.marks(name).get(name, -1)


def _claim_name(place: str) -> str:
    return f"feed/{place}"


def _marks(place: str) -> str:
    """What the names of the partitions' marks begin with."""
    return f"stream/{place}/"


def feeds(stream: Stream, workspace: Workspace, groups: Sequence[FeatureGroup] = ()) -> list[Feed]:
    """What a `StreamProcessor` of the stream has to keep up: each group that reads it, and its older versions that
    models read; brought up to what the stream's table has.

    Args:
        stream: whose events they read.
        workspace: the stores.
        groups: definitions to register first.
    """
    catalog = Catalog(workspace.records, workspace.clock)
    for group in groups:
        catalog.register(group)
    held, found = catalog.held(), []
    for name in catalog.names():
        newest = catalog.latest(name)
        for version in catalog.versions(name):
            if version.state["source"]["name"] == stream.name:
                feed = Feed(version.group(), stream, workspace)
                if version.version == newest.version or version.spec.place in held:
                    feed.prepare(stream)
                    found.append(feed)
                elif feed.has_begun():
                    feed.end()
    return found


def _packed(totals: dict[str, Total], entities: int) -> list[list[Any] | None]:
    columns = [part.to_list() for total in totals.values() for part in total]
    return list(map(list, zip(*columns, strict=True))) if columns else [None] * entities


def _parts(line: Timeline, keys: Sequence[str]) -> Iterator[tuple[Timeline, pl.DataFrame]]:
    """The timeline of some entities at a time, and their ids."""
    there = np.flatnonzero(np.diff(line.starts))
    schema = line.frame.select(keys).schema
    for start in range(0, len(there), _AT_ONCE):
        some = there[start : start + _AT_ONCE]
        first, end = line.starts[some[0]], line.starts[some[-1] + 1]
        order = line.order[first:end]
        starts = np.append(line.starts[some], end) - first
        part = Timeline(
            line.frame[order], np.arange(len(order)), Numbering(len(some), 0, None), starts, line.times[first:end]
        )
        yield part, line.entities.ids(some, schema)
