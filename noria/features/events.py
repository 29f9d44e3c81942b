"""The rows that groups read: a source's table, or a frame that is given instead of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import polars as pl

from noria.core import ConfigError, DataError, NotFoundError, StorageError, allowed
from noria.features.given import check_versions
from noria.features.group import FeatureGroup
from noria.features.ids import check_uuids
from noria.features.timeline import Timeline
from noria.pipelines import Source, Stream
from noria.pipelines.dtypes import fits, polars_type
from noria.storage import Workspace


@dataclass(frozen=True)
class Events:
    """What groups of one source and entity read, before it is read.

    Attributes:
        rows: the columns that are needed, of one version of the table, in the order of arrival.
    """

    source: Source | Stream
    keys: tuple[str, ...]
    rows: pl.LazyFrame

    def read(self) -> pl.DataFrame:
        """All rows, in memory."""
        with readable(self.source.name):
            frame = self.rows.collect()
        return self.fitted(frame)

    def count(self) -> int:
        """How many rows there are."""
        with readable(self.source.name):
            return int(self.rows.select(pl.len()).collect().item())

    def first(self, rows: int) -> pl.DataFrame:
        """The first few."""
        with readable(self.source.name):
            return self.rows.head(rows).collect()

    @property
    def schema(self) -> pl.Schema:
        """The columns, in the types of the source."""
        return pl.Schema({name: polars_type(self.source.schema[name]) for name in self.rows.collect_schema().names()})

    @property
    def types(self) -> pl.Schema:
        """The columns that are the entity's id, with their types."""
        return pl.Schema({name: self.schema[name] for name in self.keys})

    def batches(self, rows: int) -> Iterator[pl.DataFrame]:
        """All rows, in their order, some at a time."""
        with readable(self.source.name):
            for frame in self.rows.collect_batches(chunk_size=rows, maintain_order=True):
                yield self.fitted(frame)

    def fitted(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Rows in the types of the source.

        Raises:
            DataError: an event has no time, or a value doesn't fit.
        """
        frame, time = _cast(frame, self.source), self.source.time
        if time is not None and frame[time].null_count():
            raise DataError(
                f"{frame[time].null_count()} events of {self.source.name!r} have no {time!r}",
                hint="filter them out",
                field=time,
            )
        return frame

    def timeline(self, frame: pl.DataFrame) -> Timeline:
        """The timeline of such rows."""
        return Timeline.of(frame, self.keys, self.source.time)


def events_of(
    groups: Sequence[FeatureGroup],
    workspace: Workspace,
    given: Mapping[str, pl.DataFrame] | None = None,
    versions: Mapping[str, int] | None = None,
) -> list[Events]:
    """Each group's events; groups of one source and entity share theirs. All that is read of a table is of one version.

    Args:
        given: frames to read instead of tables, by source.
        versions: of the tables, by source; the newest where none is given.

    Raises:
        ConfigError: a column is missing, or its type isn't the source's; a version is of no group's source.
        NotFoundError: a table isn't there, or not in that version.
    """
    versions = versions or {}
    names = [group.source.name for group in groups]
    check_versions(versions, names)
    scans = {
        name: _scan(workspace, name, versions.get(name))
        for name in dict.fromkeys(names)
        if given is None or name not in given
    }
    made: dict[tuple[str, tuple[str, ...]], Events] = {}
    for key in dict.fromkeys(_key(group) for group in groups):
        sharing, name = [group for group in groups if _key(group) == key], key[0]
        if name in scans:
            rows = scans[name].select(_columns(sharing, scans[name].collect_schema()))
        else:
            frame = (given or {})[name]
            rows = check_uuids(frame.select(_columns(sharing, frame.schema)), sharing[0].source.schema).lazy()
        made[key] = Events(sharing[0].source, key[1], rows)
    return [made[_key(group)] for group in groups]


def _scan(workspace: Workspace, name: str, version: int | None) -> pl.LazyFrame:
    try:
        return workspace.table(name).scan(version)
    except NotFoundError as error:
        if version is None:
            error.hint += f"; training sets and `materialize` take a frame, too: events={{{name!r}: …}}"
        raise


def timelines(
    groups: Sequence[FeatureGroup], workspace: Workspace, given: Mapping[str, pl.DataFrame] | None
) -> list[Timeline]:
    """Each group's events; groups of one source and entity share theirs, sorted once.

    Raises:
        ConfigError: a column is missing, or its type isn't the source's.
        DataError: an event has no time.
    """
    events = events_of(groups, workspace, given)
    made = {id(one): one.timeline(one.read()) for one in {id(one): one for one in events}.values()}
    return [made[id(one)] for one in events]


@contextmanager
def readable(name: str) -> Iterator[None]:
    """Say of a table's rows that can't be read whose they are."""
    try:
        yield
    except (OSError, pl.exceptions.ComputeError) as error:
        raise StorageError(
            f"table {name!r} can't be read: {error}",
            hint=f"if a file is lost or damaged, build the table again: noria run {name} --full",
        ) from error


def check_ids(labels: pl.DataFrame, group: FeatureGroup) -> None:
    """Raise a `ConfigError` if labels' ids aren't of the entity's type: `"7"` isn't the user 7."""
    for key in group.keys:
        _check_type(f"the labels' {key!r}", group, key, labels.schema[key])


def columns_of(group: FeatureGroup) -> list[str]:
    """The columns of its source that a group reads."""
    return list(dict.fromkeys([*group.keys, *columns_computed(group)]))


def columns_computed(group: FeatureGroup) -> list[str]:
    """The event time, and what features are computed from, which may be a column of the entity, too."""
    wanted = [group.source.time] if group.source.time else []
    for feature in group.features.values():
        wanted += [feature.column] if feature.column else []
        wanted += feature.where.meta.root_names() if feature.where is not None else []
    return list(dict.fromkeys(wanted))


def check_columns(group: FeatureGroup, schema: Mapping[str, pl.DataType]) -> None:
    """Raise a `ConfigError` if events with these columns lack one that a group reads, or have it as another type."""
    for column in columns_of(group):
        _check_column(group, column, schema)


def _key(group: FeatureGroup) -> tuple[str, tuple[str, ...]]:
    return group.source.name, group.keys


def _columns(groups: Sequence[FeatureGroup], schema: Mapping[str, pl.DataType]) -> list[str]:
    for group in groups:
        check_columns(group, schema)
    return list(dict.fromkeys(column for group in groups for column in columns_of(group)))


def _cast(frame: pl.DataFrame, source: Source | Stream) -> pl.DataFrame:
    try:
        return frame.cast({name: polars_type(source.schema[name]) for name in frame.columns})
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"the events don't fit into the types of source {source.name!r}: {error}",
            hint="give its schema wider types, or filter those rows out",
        ) from error


def _check_column(group: FeatureGroup, column: str, schema: Mapping[str, pl.DataType]) -> None:
    if column not in schema:
        raise ConfigError(
            f"feature group {group.name!r}: the events have no column {column!r}",
            hint=allowed(schema, column),
            field=column,
        )
    _check_type(f"the events' {column!r}", group, column, schema[column])


def _check_type(what: str, group: FeatureGroup, column: str, got: pl.DataType) -> None:
    wanted = polars_type(group.source.schema[column])
    is_uuids = got == pl.Object and group.source.schema[column].dtype == "uuid"
    if not (is_uuids or fits(got, wanted)):
        raise ConfigError(
            f"feature group {group.name!r}: {what} is {got}, and in source {group.source.name!r} it is "
            f"{group.source.schema[column].spec()}",
            hint=f"cast it to pl.{wanted!r}",
            field=column,
        )
