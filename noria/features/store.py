"""`FeatureStore`: point-in-time training sets, materialization, and online reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias, overload

import numpy as np
import polars as pl

from noria.core import ConfigError, Progress, Settings
from noria.features import statistics
from noria.features.asked import Instants, Labels
from noria.features.backfill import Backfilled, backfill
from noria.features.catalog import Catalog
from noria.features.events import timelines
from noria.features.feed import Feed, feeds
from noria.features.group import FeatureGroup
from noria.features.history import Note, noted
from noria.features.joins import Joins
from noria.features.labels import check_labels as _check_labels
from noria.features.labels import instants as _instants
from noria.features.on_demand import OnDemand, apart, bound
from noria.features.online import CLOCK, OnlineFeatures, OnlineReader, OnlineSpec
from noria.features.online_groups import OnlineGroups, check_different, ids_of_spec, read_groups
from noria.features.timeline import Timeline
from noria.features.values import features, packed
from noria.features.values import when as _when
from noria.features.windows import Calculator, Questions
from noria.pipelines import Stream, StreamProcessor
from noria.storage import Put, Workspace

AnyGroup: TypeAlias = FeatureGroup | OnlineSpec | str
Ids: TypeAlias = Sequence[Any] | Mapping[str, Sequence[Any]]

_BATCH = 10_000
"""Entities written to the online store in one transaction."""
_NEVER = -1
"""As of just after this when there are no events at all: 1970."""


@dataclass(frozen=True)
class Materialized:
    """What `materialize` did: events read, entities written, and the instant of the values (microseconds)."""

    events: int
    entities: int
    as_of: int


class FeatureStore:
    """Features of a project; works alone with a folder: `FeatureStore("data/")`."""

    def __init__(self, where: Workspace | Path | str = ".") -> None:
        self._workspace = (
            where if isinstance(where, Workspace) else Workspace.open(replace(Settings(), root=Path(where).resolve()))
        )

    def training_set(
        self,
        labels: pl.DataFrame,
        groups: Sequence[FeatureGroup | OnDemand],
        *,
        time: str,
        events: Mapping[str, pl.DataFrame] | None = None,
        versions: Mapping[str, int] | None = None,
    ) -> pl.DataFrame:
        """The labels with each group's features as of each label's time: only events strictly before it count.

        Args:
            labels: one row per label, with every group's entity column. All rows are kept, in their order.
            groups: whose features to add, as columns named `group.feature`; those on demand come after all others, and
                the labels have their inputs.
            time: the column with the labels' instants (Datetime).
            events: frames to use instead of the tables of the groups' sources, by source name.
            versions: of the tables, by source name; by default the newest, each the same for all groups.

        Raises:
            ConfigError: a column of the labels or events is missing or of another type, or a feature's name is taken.
            DataError: a label or an event has no time.
            NotFoundError: a table has no such version.
        """
        groups, on_demand = apart(groups)
        computed = bound(on_demand, groups)
        joins = Joins(groups, labels, _instants(labels, time), self._workspace, events, versions)
        for number, group in enumerate(groups):
            _check_labels(labels, group)
            labels = labels.with_columns(joins.features(number))
        return labels.with_columns(column for part in computed for column in part.columns(labels))

    def backfill(
        self,
        group: FeatureGroup,
        out: str,
        *,
        labels: str | pl.DataFrame | None = None,
        time: str | None = None,
        instants: Sequence[int] | None = None,
        versions: Mapping[str, int] | None = None,
        progress: Progress | None = None,
    ) -> Backfilled:
        """Compute a group's features over the whole history into the table `out`, in flat memory, by partitions.

        What was done stays done: after a kill, the same call goes on. The values are those of `training_set`, to the
        bit, also where `compute` is Ray. Rows lie by partition, in it in the order of the labels.

        Args:
            group: what to compute.
            out: the table; it is replaced.
            labels: the name of a table, or a frame, whose rows get the features as of their times.
            time: the labels' column with the instants.
            instants: instead of labels: all entities as of each, microseconds; the column `as_of` says which.
            versions: of the tables, by name; by default the newest when the backfill began.
            progress: who shows how far it is.

        Raises:
            BusyError: another process fills this table.
            ConfigError: neither or both of labels and instants, `out` is something else, or the rows don't fit.
            NotFoundError: a table isn't there, or not in that version.
        """
        if (labels is None) == (instants is None) or (labels is None) != (time is None):
            raise ConfigError(
                "a backfill needs labels and their time, or instants",
                hint='labels="orders", time="at", or instants=[…] (microseconds)',
            )
        asked = Labels(labels, str(time)) if labels is not None else Instants(tuple(instants or ()))
        return backfill(self._workspace, group, out, asked, versions=versions, progress=progress)

    @property
    def catalog(self) -> Catalog:
        """Every version of every group's definition."""
        return Catalog(self._workspace.records, self._workspace.clock)

    def register(self, group: FeatureGroup) -> OnlineSpec:
        """Keep a group's definition in the project, so that it can be read by its name and without its source.

        Registering it again changes nothing; another definition is the next version, and takes the name over. A model
        that was trained with the old one goes on reading that.

        Raises:
            ConflictError: another process has registered another definition at this very moment.
        """
        return self.catalog.register(group).spec

    def materialize(
        self,
        group: FeatureGroup,
        *,
        as_of: int | None = None,
        events: pl.DataFrame | None = None,
        run_id: str | None = None,
    ) -> Materialized:
        """Compute every entity's features and put them into the online store; doing it again changes nothing.

        The definition is registered, and statistics of each feature are kept.

        Args:
            group: what to compute.
            as_of: the instant, microseconds; by default just after the newest event, so that a replay of old data sees
                its own time and not today's: the wheel turns on the data's clock.
            events: a frame to use instead of the source's table.
            run_id: kept with the note of what was done.

        Raises:
            ConfigError: a column of the events is missing or of another type.
            ConflictError: another process has registered another definition at this very moment.
            DataError: an event has no time.
        """
        self.register(group)
        return self._materialize(group, as_of, events, run_id)

    def catch_up(
        self, group: FeatureGroup, *, run_id: str | None = None, progress: Progress | None = None
    ) -> Materialized:
        """Apply what is in the log of a group's stream now, to it and all other groups that read it.

        Where another process is at it (`noria stream`), there is nothing to do; else that goes on from here.
        """
        stream = group.source
        assert isinstance(stream, Stream)
        made = feeds(stream, self._workspace, [group])
        with StreamProcessor(stream, self._workspace, keeps=made) as processor:
            processor.run_to_end(progress)
        return self._described(group, run_id)

    def keep_up(self, group: FeatureGroup, *, run_id: str | None = None) -> list[str]:
        """Compute the older versions of a group that models still read, too, and forget the values of all others.

        Returns:
            the versions that are kept up, as `name@version`.
        """
        held, kept = self.catalog.held(), []
        for version in self.catalog.versions(group.name):
            if version.spec.place == group.online_spec().place:
                continue
            if version.spec.place in held:
                self._materialize(version.group(), None, None, run_id)
                kept.append(version.label)
            else:
                self._forget(version.spec.place)
        return kept

    def _forget(self, place: str) -> None:
        record = self._workspace.records.get("materialized", place)
        if record is not None and not record.data.get("forgotten"):
            self._workspace.online.drop(place)
            self._workspace.records.commit(Put("materialized", place, {**record.data, "forgotten": True}))

    def _materialize(
        self, group: FeatureGroup, as_of: int | None, events: pl.DataFrame | None, run_id: str | None
    ) -> Materialized:
        if events is None and isinstance(group.source, Stream) and self._is_fed(group, group.source):
            return self._described(group, run_id)
        began = self._workspace.table(group.source.name).version()
        (line,) = timelines([group], self._workspace, None if events is None else {group.source.name: events})
        if as_of is None:
            as_of = (
                self._workspace.clock.now()
                if group.source.time is None
                else (int(line.times.max()) if len(line.times) else _NEVER) + 1
            )
        spec = group.online_spec()
        keys, columns, kept = _newest_values(group, spec, line, as_of)
        values = sorted(zip(keys, kept, strict=True))
        if group.source.time is not None:
            values.append((CLOCK, b""))
        self._replace(spec, as_of, values)
        statistics.keep(self._workspace.records, spec.place, as_of, columns)
        done = {"as_of": as_of, "witness": values[-1][0].hex() if values else "", "run_id": run_id}
        note = self._note(group, as_of, None if events is not None else began)
        self._workspace.records.commit(Put("materialized", spec.place, done), note)
        return Materialized(len(line.order), len(keys), as_of)

    def _is_fed(self, group: FeatureGroup, stream: Stream) -> bool:
        return Feed(group, stream, self._workspace).has_begun()

    def _described(self, group: FeatureGroup, run_id: str | None) -> Materialized:
        """Statistics of a group that a stream feeds: of what its table has."""
        began = self._workspace.table(group.source.name).version()
        (line,) = timelines([group], self._workspace, None)
        as_of = (int(line.times.max()) if len(line.times) else _NEVER) + 1
        calculator = Calculator(line)
        numbers = np.flatnonzero(np.diff(line.starts))
        columns = features(group, calculator, calculator.ask(numbers, np.full(len(numbers), as_of)))
        place = group.online_spec().place
        statistics.keep(self._workspace.records, place, as_of, columns)
        done = {"as_of": as_of, "witness": CLOCK.hex(), "run_id": run_id}
        self._workspace.records.commit(Put("materialized", place, done), self._note(group, as_of, began))
        return Materialized(len(line.order), len(numbers), as_of)

    def _note(self, group: FeatureGroup, as_of: int, began: int | None) -> Put:
        """For the history: from which versions of the source's table the values were made."""
        ended = self._workspace.table(group.source.name).version()
        versions = None if began is None or ended is None else (began, ended)
        return noted(
            self._workspace.records, group.online_spec().place, Note(self._workspace.clock.now(), as_of, versions)
        )

    def _replace(self, spec: OnlineSpec, as_of: int, values: list[tuple[bytes, bytes]]) -> None:
        """Write the values, and forget those of entities that have no events any more."""
        online, place = self._workspace.online, spec.place
        before = self._workspace.records.get("materialized", place)
        if before is not None and before.data["as_of"] > as_of:
            # The history was rewritten: the newer values are of events that are no more.
            online.drop(place)
        self._write(spec, as_of, values)
        online.drop(place, older_than=as_of)
        if before is not None and before.data["as_of"] == as_of and online.count(place) > len(values):
            online.drop(place)  # some were written as of the very same instant, and are no more
            self._write(spec, as_of, values)

    def _write(self, spec: OnlineSpec, as_of: int, values: list[tuple[bytes, bytes]]) -> None:
        place = spec.place
        for start in range(0, len(values), _BATCH):
            keys, packed = zip(*values[start : start + _BATCH], strict=True)
            self._workspace.online.write(place, keys, [as_of] * len(keys), packed)
            if spec.keep_seconds is not None:
                self._workspace.online.expire(place, [key for key in keys if key != CLOCK], spec.keep_seconds)

    def is_materialized(self, group: FeatureGroup) -> bool:
        """Whether the online store has the group's values: one entity that was written last bears witness."""
        place = group.online_spec().place
        record = self._workspace.records.get("materialized", place)
        if record is None or record.data.get("forgotten"):
            return False
        witness = bytes.fromhex(record.data["witness"])
        return not witness or self._workspace.online.read(place, [witness]) != [None]

    @overload
    def get_online(self, group: AnyGroup, entity_ids: Ids) -> OnlineFeatures: ...  # type: ignore[overload-overlap]

    @overload
    def get_online(self, group: Sequence[AnyGroup], entity_ids: Ids) -> OnlineGroups: ...

    def get_online(self, group: AnyGroup | Sequence[AnyGroup], entity_ids: Ids) -> OnlineFeatures | OnlineGroups:
        """The newest materialized values of a group, or of several, for some entities.

        Args:
            group: a group, its spec, or the name (`name@version`) of a registered one; or several of them.
            entity_ids: in any order, as often as you like; or columns of them by the names of the keys, of one length,
                as groups with different keys need them: `{"user": [7, 8], "item": [3, 3]}`.

        Raises:
            NotFoundError: no group of that name is registered.
            ConfigError: an id of the wrong type, or ids that aren't those of every group.
        """
        if isinstance(group, (FeatureGroup, OnlineSpec, str)):
            spec = self._spec(group)
            return self._reader([spec]).read(spec.group, ids_of_spec(spec, entity_ids))
        specs = [self._spec(one) for one in group]
        check_different(specs)
        return read_groups(self._reader(specs), entity_ids)

    def _spec(self, group: AnyGroup) -> OnlineSpec:
        if isinstance(group, FeatureGroup):
            return group.online_spec()
        return self.catalog.get(group).spec if isinstance(group, str) else group

    def _reader(self, specs: Sequence[OnlineSpec]) -> OnlineReader:
        return OnlineReader(self._workspace.online, specs, self._workspace.clock)

    def close(self) -> None:
        """Close the stores."""
        self._workspace.close()


def _newest_values(
    group: FeatureGroup, spec: OnlineSpec, line: Timeline, as_of: int
) -> tuple[list[bytes], list[pl.Series], list[bytes]]:
    """Of each entity with an event before the instant its key, its features, and its packed value."""
    calculator = Calculator(line)
    numbers = np.arange(line.entities.size)
    questions = calculator.ask(numbers, _when(group, np.full(len(numbers), as_of, dtype=np.int64)))
    times, exists = calculator.newest(questions)
    mine = numbers[exists]
    questions = Questions(mine, questions.at[exists], questions.ends[exists])
    ids = line.entities.ids(mine, line.frame.select(group.keys).schema)
    keys = ids.to_series().to_list() if ids.width == 1 else ids.rows()
    when = [None] * len(mine) if group.source.time is None else times[exists].tolist()
    columns = features(group, calculator, questions)
    return spec.encode(keys), columns, packed(group, calculator, line, questions, when, columns)
