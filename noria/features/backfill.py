"""Backfills: a group's features over the whole history, as a table, partition by partition.

Each partition's rows are computed by themselves and staged beside the table; a note says which are done. When all are,
they become the table's next version at once. A run that was killed goes on after the last partition that was done, on
the versions of the tables that it began with, so that the result is the one that it would have been.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

import numpy as np
import polars as pl

from noria.core import ConfigError, NoProgress, Progress, check_name, exclusive, fingerprint, task
from noria.features import partitions
from noria.features.asked import Instants, Labels, Work
from noria.features.catalog import Catalog
from noria.features.events import Events, events_of
from noria.features.given import check_versions
from noria.features.group import FeatureGroup
from noria.features.ids import ids_of
from noria.features.partitions import hash_ids, partitioned, partitions_for, size
from noria.pipelines.compute import open_compute
from noria.storage import Put, Workspace
from noria.storage.tables import Part, TableMark

MARK = "noria/backfill"
_COLLECTION, _PARTS = "backfills", "backfill_parts"


@dataclass(frozen=True)
class Backfilled:
    """What a backfill did.

    Attributes:
        table: that has the values.
        version: of it.
        rows: in it.
        partitions: that the rows were divided into.
        computed: how many of them this call did; the others had been done before.
        versions: of the tables that were read.
    """

    table: str
    version: int
    rows: int
    partitions: int
    computed: int
    versions: dict[str, int]


@dataclass(frozen=True)
class _Note:
    """How far a backfill is.

    Attributes:
        number: of the backfill into this table; its parts' names begin with it.
        asked: the fingerprint of what is asked: the group's definition, and for which rows.
        versions: of the tables that it reads.
        count: partitions.
        witness: where a few ids fall; another version of Polars may divide otherwise.
        before: the table's mark before it.
        version: of the table with the result; missing until it is there.
    """

    number: int
    asked: str
    versions: dict[str, int]
    count: int
    witness: str
    before: int
    version: int | None = None


def backfill(
    workspace: Workspace,
    group: FeatureGroup,
    out: str,
    asked: Labels | Instants,
    *,
    versions: Mapping[str, int] | None = None,
    progress: Progress | None = None,
) -> Backfilled:
    """Compute a group's features for all rows that are asked for, and make them the table `out`.

    Called again, a backfill that was cut off goes on, and one that is done does nothing, unless the group's definition,
    what is asked, or a table that is read has changed since: then all is done anew, and replaces the table.

    Raises:
        BusyError: another process fills this table.
        ConfigError: the table is something else, or the rows don't fit the group.
        NotFoundError: a table isn't there, or not in that version.
    """
    check_name(out, "table")  # it becomes a folder's
    asked.check(group, workspace)
    Catalog(workspace.records, workspace.clock).register(group)
    lock = workspace.settings.state_dir / f"backfill-{out}.lock"
    with exclusive(lock, f"the backfill of {out!r}"):
        return _Run(workspace, group, out, asked, versions or {}, progress or NoProgress()).run()


class _Run:
    def __init__(
        self,
        workspace: Workspace,
        group: FeatureGroup,
        out: str,
        asked: Labels | Instants,
        versions: Mapping[str, int],
        progress: Progress,
    ) -> None:
        self._workspace, self._group, self._out, self._asked = workspace, group, out, asked
        self._progress = progress
        self._table = workspace.table(out)
        self._versions = versions
        self._scratch = workspace.settings.state_dir / "scratch" / f"backfill-{out}"

    def run(self) -> Backfilled:
        note = self._begin()
        if note.version is not None:
            return self._told(note, 0)
        done = self._done(note)
        left = [number for number in range(note.count) if number not in done]
        if left:
            self._compute(note, left)
        return self._told(self._commit(note), len(left))

    def _done(self, note: _Note) -> dict[int, Part | None]:
        """The staged part of each partition that is done; none of one without rows."""
        found = self._workspace.records.list(_PARTS, f"{self._out}/{note.number:012d}/")
        return {one.data["partition"]: Part(**one.data["part"]) if one.data["part"] else None for one in found}

    def _begin(self) -> _Note:
        """The note to go on from: that of a run that was cut off or is done, if the same is asked; else a new one."""
        self._refuse_others()
        asked = fingerprint([self._group.definition_hash(), self._asked.to_dict()])
        record = self._workspace.records.get(_COLLECTION, self._out)
        last = None if record is None else _Note(**record.data)
        if last is not None and last.asked == asked and last.witness == _witness() and self._may_go_on(last):
            return last
        versions = self._now()
        count = partitions_for(self._size(versions))
        mark = self._table.mark(MARK)
        number = max(mark, -1 if last is None else last.number) + 1
        if last is not None and last.version is None:
            self._table.discard(f"{last.number:012d}-")
        note = _Note(number, asked, versions, count, _witness(), mark)
        self._keep(note)
        return note

    def _may_go_on(self, last: _Note) -> bool:
        if any(last.versions.get(name) != version for name, version in self._versions.items()):
            return False
        if last.version is None:
            return True
        is_there = self._table.version() is not None and self._table.mark(MARK) == last.number
        return is_there and last.versions == self._now()

    def _refuse_others(self) -> None:
        if self._table.version() is not None and self._table.mark(MARK) == -1:
            raise ConfigError(
                f"table {self._out!r} is there, and no backfill made it",
                hint="give another name: a backfill replaces what is in its table",
                field="out",
            )

    def _now(self) -> dict[str, int]:
        """The versions to read: those that are given, else the newest."""
        from_tables = dict.fromkeys((self._group.source.name, *self._asked.tables))
        check_versions(self._versions, list(from_tables))
        newest = {name: self._workspace.table(name).version() for name in from_tables}
        return {name: version for name, version in {**newest, **self._versions}.items() if version is not None}

    def _events(self, versions: Mapping[str, int]) -> Events:
        name = self._group.source.name
        pinned = {name: versions[name]} if name in versions else {}
        return events_of([self._group], self._workspace, None, pinned)[0]

    def _size(self, versions: Mapping[str, int]) -> int:
        events = self._events(versions)
        asked = self._asked.size(events, self._group, self._workspace, versions)
        return size(events, [self._group]) + asked

    # --- the work

    def _compute(self, note: _Note, left: Sequence[int]) -> None:
        events, name = self._events(note.versions), f"backfill {self._out}"
        only = np.zeros(note.count, np.bool_)
        only[list(left)] = True
        split = partial(
            partitioned, types=events.types, count=note.count, folder=self._scratch / "put-aside", only=only
        )
        labels = self._asked.batches(self._workspace, note.versions)
        work = Work(self._group, events.keys, self._asked.question(), self._table, f"{note.number:012d}")
        with task(self._progress, name, note.count):
            self._progress.advance(name, note.count - len(left))
            with (
                open_compute(self._workspace.settings, self._scratch / "rows", self._table) as compute,
                split(events.batches(partitions.BATCH), schema=events.schema) as rows,
                split(labels.frames, schema=labels.schema, ids=lambda frame: ids_of(frame, self._group)) as asked,
            ):
                items = ((number, rows.read(number), asked.read(number)) for number in left)
                for number, part in compute.each(work, items):
                    done = {"partition": number, "part": None if part is None else part.to_dict()}
                    key = f"{self._out}/{note.number:012d}/{number:06d}"
                    self._workspace.records.commit(Put(_PARTS, key, done))
                    self._progress.advance(name)

    def _commit(self, note: _Note) -> _Note:
        if self._table.mark(MARK) != note.number:
            parts = [part for _, part in sorted(self._done(note).items()) if part is not None]
            schema = self._table.staged_schema(parts[0]) if parts else self._empty(note)
            mark = TableMark(MARK, note.before, note.number)
            self._table.commit(parts, schema, mode="overwrite", marks=[mark])
        done = replace(note, version=self._table.version())
        self._keep(done)
        return done

    def _empty(self, note: _Note) -> pl.Schema:
        events, labels = self._events(note.versions), self._asked.batches(self._workspace, note.versions)
        work = Work(self._group, events.keys, self._asked.question(), self._table, "")
        return work.values(pl.DataFrame(schema=events.schema), pl.DataFrame(schema=labels.schema)).schema

    def _keep(self, note: _Note) -> None:
        self._workspace.records.commit(Put(_COLLECTION, self._out, asdict(note)))

    def _told(self, note: _Note, computed: int) -> Backfilled:
        rows = sum(part.rows for part in self._done(note).values() if part is not None)
        return Backfilled(self._out, note.version or 0, rows, note.count, computed, note.versions)


def _witness() -> str:
    ids = pl.DataFrame({"n": np.arange(1000), "s": [str(n) for n in range(1000)]})
    return fingerprint([int(hash_ids(ids.select(name), ids.select(name).schema)[-1]) for name in ids.columns])
