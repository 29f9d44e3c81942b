"""Materializing: every entity's values as of an instant, into the online store.

In full, or of those entities only that have new rows; what changes for the others as time goes on stands with their
values already (see `noria.features.moving`). Both are computed by the code of training sets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from noria.core import ConfigError, ConflictError, DataError
from noria.features import partitions, statistics
from noria.features.catalog import Catalog
from noria.features.derivation import schema_of
from noria.features.events import Events, events_of, readable
from noria.features.feed import FEEDS, Feed, end
from noria.features.group import FeatureGroup
from noria.features.history import Note, noted
from noria.features.online import CLOCK
from noria.features.partitions import fits, partitioned, partitions_for, size
from noria.features.timeline import Timeline
from noria.features.values import features, packed, when
from noria.features.windows import Calculator, Questions
from noria.pipelines import Stream
from noria.storage import ABSENT, Put, Workspace
from noria.storage.records import Record

_BATCH = 10_000
"""Entities written to the online store in one transaction."""
_NEVER = -1
"""As of just after this when there are no events at all: 1970."""
_DAY = 86_400_000_000
_FEW = 0.3
"""Share of the entities up to which only those with new rows are computed: their rows have to be looked for."""
_DONE = "materialized"
_TRIES = 5

Reader = Callable[[], Iterator[pl.DataFrame]]


@dataclass(frozen=True)
class Materialized:
    """What `materialize` did.

    Attributes:
        events: that were read.
        entities: that were written.
        as_of: the instant of the values, microseconds.
        full: whether all entities were computed, or only those with new rows.
    """

    events: int
    entities: int
    as_of: int
    full: bool = True


class Materializer:
    """Puts values of feature groups into a project's online store."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def materialize(
        self,
        group: FeatureGroup,
        *,
        as_of: int | None = None,
        events: pl.DataFrame | None = None,
        run_id: str | None = None,
        full: bool = False,
    ) -> Materialized:
        """See `FeatureStore.materialize`."""
        name, source = group.source.name, group.source
        if isinstance(source, Stream) and (feed := Feed(group, source, self._workspace)).has_begun():
            if events is not None or as_of is not None:
                raise ConfigError(
                    f"feature group {group.name!r} is kept up by stream {name!r}: its values can't be made "
                    + ("as of another instant" if events is None else "from a frame"),
                    hint="training_set takes any frame and any instant; for other values online give the group "
                    "another name",
                    field="as_of" if events is None else "events",
                )
            if full:
                feed.end()
                feed.prepare(source)
            return self.described(group, run_id=run_id)
        for _ in range(_TRIES):
            try:
                return self._materialize(group, as_of, events, run_id, full=full)
            except _OvertakenError:
                full = True  # of what two processes wrote at once anything may be left
        raise ConflictError(
            f"feature group {group.name!r} is being materialized by several processes, one after the other",
            hint="let one of them do it",
        )

    def _materialize(
        self, group: FeatureGroup, as_of: int | None, events: pl.DataFrame | None, run_id: str | None, *, full: bool
    ) -> Materialized:
        name, began = group.source.name, self._record(group)
        version = None if events is not None else self._workspace.table(name).version()
        given = None if events is None else {name: events}
        versions = None if version is None else {name: version}
        (rows,) = events_of([group], self._workspace, given, versions)
        if version is not None and as_of is None and not full:
            changed = self._changed(group, rows, version)
            if changed is not None:
                return self._update(group, rows, *changed, version, run_id, began)
        return self._replace(group, rows, as_of, version, run_id, began)

    # --- in full

    def _replace(
        self,
        group: FeatureGroup,
        source: Events,
        as_of: int | None,
        version: int | None,
        run_id: str | None,
        began: Record | None,
    ) -> Materialized:
        """Write all values, and forget those of entities that have no events any more."""
        spec, online, before = group.online_spec(), self._workspace.online, self._done(group)
        is_newest = as_of is None  # only then can the next time go on from it
        with self._parts(group, source) as (parts, newest):
            if as_of is None:
                as_of = self._workspace.clock.now() if group.source.time is None else newest() + 1
            if before is not None and before["as_of"] > as_of:
                online.drop(spec.place)  # the history was rewritten: newer values are of events that are no more
            made = self._write_all(group, parts, as_of)
            online.drop(spec.place, older_than=as_of)
            if made.newer or online.count(spec.place) > made.keys:
                # Some were written as of the very same instant and are no more, or as of a later one by a process that
                # was killed before it noted it.
                online.drop(spec.place)
                made = self._write_all(group, parts, as_of)
        statistics.keep(self._workspace.records, spec.place, as_of, made.columns)
        now = self._workspace.clock.now()
        done = {"as_of": as_of, "witness": made.witness.hex(), "run_id": run_id}
        done |= {"version": version if is_newest else None, "entities": made.entities, "full_at": now}
        self._note_after(began, group, done, version)
        return Materialized(made.events, made.entities, as_of)

    @contextmanager
    def _parts(self, group: FeatureGroup, source: Events) -> Iterator[tuple[Reader, Callable[[], int]]]:
        """The rows, all at once or by partitions of entities, to be read as often as needed; and their newest time."""
        needed = size(source, [group])
        if fits(needed):
            frame = source.read()
            yield lambda: iter([frame]), lambda: _newest_of(replace(source, rows=frame.lazy()))
            return
        folder = self._workspace.settings.state_dir / "scratch" / "materialize"
        count = partitions_for(needed)
        with partitioned(source.batches(partitions.BATCH), source.types, count, folder, schema=source.schema) as found:
            yield lambda: map(found.read, range(count)), lambda: _newest_of(source)

    def _write_all(self, group: FeatureGroup, parts: Reader, as_of: int) -> _Written:
        made = _Written([pl.Series(name, [], dtype) for name, dtype in schema_of(group.types()).items()])
        for frame in parts():
            line = Timeline.of(frame, group.keys, group.source.time)
            self._write(group, line, np.arange(line.entities.size), as_of, made)
            made.events += len(line.order)
        if group.source.time is not None:
            made.newer += 1 - self._workspace.online.write(group.online_spec().place, [CLOCK], [as_of], [b""])
            made.witness, made.keys = CLOCK, made.keys + 1
        return made

    def _write(self, group: FeatureGroup, line: Timeline, numbers: Any, as_of: int, made: _Written) -> None:
        """Values of those entities that have events before the instant."""
        spec, online, calculator = group.online_spec(), self._workspace.online, Calculator(line)
        questions = calculator.ask(numbers, when(group, np.full(len(numbers), as_of, dtype=np.int64)))
        times, exists = calculator.newest(questions)
        mine = numbers[exists]
        questions = Questions(mine, questions.at[exists], questions.ends[exists])
        ids = line.entities.ids(mine, line.frame.select(group.keys).schema)
        keys = spec.encode(ids.to_series().to_list() if ids.width == 1 else ids.rows())
        newest, columns = times[exists], features(group, calculator, questions)
        order = np.array(sorted(range(len(keys)), key=keys.__getitem__), dtype=np.int64)
        for start in range(0, len(order), _BATCH):  # packed values of all would take as much memory as the rows
            part = order[start : start + _BATCH]
            some = Questions(mine[part], questions.at[part], questions.ends[part])
            when_newest = [None] * len(part) if group.source.time is None else newest[part].tolist()
            values = packed(group, calculator, line, some, when_newest, [column[part] for column in columns])
            names = [keys[place] for place in part]
            made.newer += len(names) - online.write(spec.place, names, [as_of] * len(names), values)
            if spec.keep_seconds is not None:
                online.expire(spec.place, names, spec.keep_seconds)
        made.columns = [known.append(new) for known, new in zip(made.columns, columns, strict=True)]
        made.entities, made.keys = made.entities + len(keys), made.keys + len(keys)
        made.witness = keys[-1] if keys else made.witness

    # --- only what has changed

    def _changed(
        self, group: FeatureGroup, source: Events, version: int
    ) -> tuple[Mapping[str, Any], pl.DataFrame, pl.DataFrame] | None:
        """What was done before, the rows that came since, and all rows of their entities; None if all are to be
        computed: there is nothing to go on from, rows went, too many changed, or the last time was a day ago."""
        before = self._done(group)
        if before is None or before.get("version") is None or group.source.time is None:
            return None
        if self._workspace.clock.now() - before["full_at"] > _DAY or not self.is_materialized(group):
            return None
        added = self._workspace.table(group.source.name).added(before["version"], version)
        if added is None:
            return None
        keys = list(group.keys)
        with readable(group.source.name):
            new = added.select([*keys, group.source.time]).collect()
            if new[group.source.time].null_count():
                raise DataError(
                    f"events of {group.source.name!r} have no {group.source.time!r}", hint="filter them out"
                )
            ids = new.select(keys).unique().drop_nulls()
            if len(ids) > _FEW * before["entities"]:
                return None
            rows = source.rows.join(ids.lazy(), on=keys, how="semi", maintain_order="left").collect()
        return before, new, source.fitted(rows)

    def _update(
        self,
        group: FeatureGroup,
        source: Events,
        before: Mapping[str, Any],
        new: pl.DataFrame,
        rows: pl.DataFrame,
        version: int,
        run_id: str | None,
        began: Record | None,
    ) -> Materialized:
        line = source.timeline(rows)
        times = new.drop_nulls(group.keys)[str(group.source.time)]
        as_of = max(before["as_of"], _micros(times.max()) + 1) if len(times) else before["as_of"]
        made = _Written([pl.Series(name, [], dtype) for name, dtype in schema_of(group.types()).items()])
        self._write(group, line, np.arange(line.entities.size), as_of, made)
        self._workspace.online.write(group.online_spec().place, [CLOCK], [as_of], [b""])
        done = {**before, "as_of": as_of, "run_id": run_id, "version": version}
        done["entities"] = max(before["entities"], made.entities)
        self._note_after(began, group, done, version)
        return Materialized(len(rows), made.entities, as_of, full=False)

    # --- what is known of it

    def described(self, group: FeatureGroup, *, run_id: str | None = None) -> Materialized:
        """Statistics of a group that a stream keeps up: of what its table has."""
        name = group.source.name
        version = self._workspace.table(name).version()
        (source,) = events_of([group], self._workspace, None, None if version is None else {name: version})
        made = _Written([pl.Series(name, [], dtype) for name, dtype in schema_of(group.types()).items()])
        with self._parts(group, source) as (parts, newest):
            as_of = min(newest() + 1, self._workspace.clock.now())
            for frame in parts():
                line = source.timeline(frame)
                calculator, numbers = Calculator(line), np.flatnonzero(np.diff(line.starts))
                columns = features(group, calculator, calculator.ask(numbers, np.full(len(numbers), as_of)))
                made.columns = [known.append(new) for known, new in zip(made.columns, columns, strict=True)]
                made.events, made.entities = made.events + len(line.order), made.entities + len(numbers)
        statistics.keep(self._workspace.records, group.online_spec().place, as_of, made.columns)
        self._note(group, {"as_of": as_of, "witness": CLOCK.hex(), "run_id": run_id}, version)
        return Materialized(made.events, made.entities, as_of)

    def is_materialized(self, group: FeatureGroup) -> bool:
        """Whether the online store has the group's values: what was written last bears witness."""
        done = self._done(group)
        if done is None:
            return False
        witness = bytes.fromhex(done["witness"])
        return not witness or self._workspace.online.read(group.online_spec().place, [witness]) != [None]

    def keep_up(self, group: FeatureGroup, *, run_id: str | None = None) -> list[str]:
        """See `FeatureStore.keep_up`."""
        catalog, kept = Catalog(self._workspace.records, self._workspace.clock), []
        held = catalog.held()
        for version in catalog.versions(group.name):
            if version.spec.place == group.online_spec().place:
                continue
            if version.spec.place in held:
                self.materialize(version.group(), run_id=run_id)
                kept.append(version.label)
            else:
                self._forget(version.spec.place)
        return kept

    def _forget(self, place: str) -> None:
        record = self._workspace.records.get(_DONE, place)
        if record is not None and not record.data.get("forgotten"):
            if self._workspace.records.get(FEEDS, place) is not None:  # of a group that a stream kept up
                end(self._workspace.online, place)
            self._workspace.online.drop(place)
            self._workspace.records.commit(Put(_DONE, place, {**record.data, "forgotten": True}))

    def _done(self, group: FeatureGroup) -> Mapping[str, Any] | None:
        record = self._record(group)
        return None if record is None or record.data.get("forgotten") else record.data

    def _record(self, group: FeatureGroup) -> Record | None:
        return self._workspace.records.get(_DONE, group.online_spec().place)

    def _note_after(
        self, began: Record | None, group: FeatureGroup, done: Mapping[str, Any], version: int | None
    ) -> None:
        """Note what was done if no other process has noted anything since it began: who notes last has written last."""
        try:
            self._note(group, done, version, ABSENT if began is None else began.revision)
        except ConflictError as error:
            raise _OvertakenError(error.message) from error

    def _note(
        self, group: FeatureGroup, done: Mapping[str, Any], version: int | None, expected: int | None = None
    ) -> None:
        place = group.online_spec().place
        note = Note(self._workspace.clock.now(), done["as_of"], None if version is None else (version, version))
        change = Put(_DONE, place, dict(done), expected)
        self._workspace.records.commit(change, noted(self._workspace.records, place, note))


class _OvertakenError(ConflictError):
    """Another process has materialized the group meanwhile."""


@dataclass
class _Written:
    """What was written: features of all entities, for statistics; how many keys, and one of them; and how many weren't,
    since values of a later instant are there."""

    columns: list[pl.Series]
    events: int = 0
    entities: int = 0
    keys: int = 0
    newer: int = 0
    witness: bytes = b""


def _newest_of(source: Events) -> int:
    with readable(source.source.name):
        found = source.rows.drop_nulls(source.keys).select(pl.col(str(source.source.time)).max()).collect().item()
    return _NEVER if found is None else _micros(found)


def _micros(instant: Any) -> int:
    return int(pl.Series([instant], dtype=pl.Datetime("us", "UTC")).to_physical()[0])
