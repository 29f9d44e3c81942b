"""`FeatureStore`: point-in-time training sets, materialization, and online reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias, overload

import polars as pl

from noria.core import ConfigError, Progress, Settings
from noria.features.asked import Instants, Labels
from noria.features.backfill import Backfilled, backfill
from noria.features.catalog import Catalog
from noria.features.feed import Feed, feeds
from noria.features.given import check_events, check_frame, check_group, check_groups, instant
from noria.features.group import FeatureGroup
from noria.features.joins import Joins
from noria.features.labels import check_labels as _check_labels
from noria.features.labels import instants as _instants
from noria.features.materializer import Materialized, Materializer
from noria.features.on_demand import OnDemand, apart, bound
from noria.features.online import OnlineFeatures, OnlineReader, OnlineSpec
from noria.features.online_groups import OnlineGroups, check_different, ids_of_spec, read_groups
from noria.pipelines import Stream, StreamProcessor
from noria.storage import Workspace

AnyGroup: TypeAlias = FeatureGroup | OnlineSpec | str
Ids: TypeAlias = Sequence[Any] | Mapping[str, Sequence[Any]]


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
        check_frame(labels, "labels")
        check_groups(groups)
        groups, on_demand = apart(groups)
        check_events(events, groups)
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
        check_group(group)
        if labels is not None and not isinstance(labels, str):
            check_frame(labels, "labels")
        if (labels is None) == (instants is None) or (labels is None) != (time is None):
            raise ConfigError(
                "a backfill needs labels and their time, or instants",
                hint='labels="orders", time="at", or instants=[…] (microseconds)',
            )
        asked = (
            Labels(labels, str(time))
            if labels is not None
            else Instants(tuple(instant(at, "instants") for at in instants or ()))
        )
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
        check_group(group)
        return self.catalog.register(group).spec

    def materialize(
        self,
        group: FeatureGroup,
        *,
        as_of: int | None = None,
        events: pl.DataFrame | None = None,
        run_id: str | None = None,
        full: bool = False,
    ) -> Materialized:
        """Compute every entity's features and put them into the online store; doing it again changes nothing.

        Where only rows were added to the source's table since the last time, entities without new rows are left as they
        are: what is read is the same. The definition is registered; statistics are kept each time that all entities
        are computed, which is once a day at least. Groups of a stream are kept up by that (`catch_up`): statistics of
        them are kept, and no value is written.

        Args:
            group: what to compute.
            as_of: the instant, microseconds; by default just after the newest event, so that a replay of old data sees
                its own time and not today's: the wheel turns on the data's clock.
            events: a frame to use instead of the source's table.
            run_id: kept with the note of what was done.
            full: compute all entities in any case; those of a stream anew from its table.

        Raises:
            ConfigError: a column of the events is missing or of another type; events or an instant are given for a
                group that a stream keeps up.
            ConflictError: another process has registered another definition at this very moment.
            DataError: an event has no time.
        """
        self.register(group)
        if as_of is not None:
            as_of = instant(as_of, "as_of")
        check_events(None if events is None else {group.source.name: events}, [group])
        return self._materializer.materialize(group, as_of=as_of, events=events, run_id=run_id, full=full)

    def catch_up(
        self,
        group: FeatureGroup,
        *,
        run_id: str | None = None,
        progress: Progress | None = None,
        full: bool = False,
    ) -> Materialized:
        """Apply what is in the log of a group's stream now, to it and all other groups that read it.

        Where another process is at it (`noria stream`), there is nothing to do; else that goes on from here.

        Args:
            group: whose stream.
            run_id: kept with the note of what was done.
            progress: who shows how far it is.
            full: build the group's values anew from the stream's table; until that is done they are missing.

        Raises:
            ConfigError: the group's source is no stream.
        """
        check_group(group)
        stream = group.source
        if not isinstance(stream, Stream):
            raise ConfigError(
                f"feature group {group.name!r} reads {stream.name!r}, which is no stream",
                hint="materialize(group) computes the values of a source's groups",
                field="group",
            )
        if full:
            Feed(group, stream, self._workspace).end()
        made = feeds(stream, self._workspace, [group])
        with StreamProcessor(stream, self._workspace, keeps=made) as processor:
            processor.run_to_end(progress)
        return self._materializer.described(group, run_id=run_id)

    def keep_up(self, group: FeatureGroup, *, run_id: str | None = None) -> list[str]:
        """Compute the older versions of a group that models still read, too, and forget the values of all others.

        Returns:
            the versions that are kept up, as `name@version`.
        """
        return self._materializer.keep_up(group, run_id=run_id)

    def is_materialized(self, group: FeatureGroup) -> bool:
        """Whether the online store has the group's values: one entity that was written last bears witness."""
        return self._materializer.is_materialized(group)

    @property
    def _materializer(self) -> Materializer:
        return Materializer(self._workspace)

    @overload
    def get_online(  # type: ignore[overload-overlap]
        self, group: AnyGroup, entity_ids: Ids, *, as_of: int | None = None
    ) -> OnlineFeatures: ...

    @overload
    def get_online(self, group: Sequence[AnyGroup], entity_ids: Ids, *, as_of: int | None = None) -> OnlineGroups: ...

    def get_online(
        self, group: AnyGroup | Sequence[AnyGroup], entity_ids: Ids, *, as_of: int | None = None
    ) -> OnlineFeatures | OnlineGroups:
        """The newest values of a group, or of several, for some entities: as of the newest event of the group's source.

        Args:
            group: a group, its spec, or the name (`name@version`) of a registered one; or several of them.
            entity_ids: in any order, as often as you like; or columns of them by the names of the keys, of one length,
                as groups with different keys need them: `{"user": [7, 8], "item": [3, 3]}`.
            as_of: a later instant, microseconds, such as now: windows move on to it. There is none before the newest
                event: what was known earlier is what training sets tell.

        Raises:
            NotFoundError: no group of that name is registered.
            ConfigError: an id of the wrong type, or ids that aren't those of every group.
        """
        if as_of is not None:
            as_of = instant(as_of, "as_of")
        if isinstance(group, (FeatureGroup, OnlineSpec, str)):
            spec = self._spec(group)
            return self._reader([spec]).read(spec.group, ids_of_spec(spec, entity_ids), as_of=as_of)
        if not isinstance(group, Sequence):
            check_group(group)
        specs = [self._spec(one) for one in group]
        check_different(specs)
        return read_groups(self._reader(specs), entity_ids, as_of=as_of)

    def _spec(self, group: AnyGroup) -> OnlineSpec:
        if isinstance(group, FeatureGroup):
            return group.online_spec()
        if not isinstance(group, (str, OnlineSpec)):
            check_group(group)
        return self.catalog.get(group).spec if isinstance(group, str) else group

    def _reader(self, specs: Sequence[OnlineSpec]) -> OnlineReader:
        return OnlineReader(self._workspace.online, specs, self._workspace.clock)

    def close(self) -> None:
        """Close the stores."""
        self._workspace.close()
