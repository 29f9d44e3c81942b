"""The rows that groups read: a source's table, or a frame that is given instead of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from noria.core import ConfigError, DataError, allowed
from noria.features.group import FeatureGroup
from noria.features.ids import check_uuids
from noria.features.timeline import Timeline
from noria.pipelines import Source, Stream
from noria.pipelines.dtypes import fits, polars_type
from noria.storage import Workspace


def timelines(
    groups: Sequence[FeatureGroup], workspace: Workspace, given: Mapping[str, pl.DataFrame] | None
) -> list[Timeline]:
    """Each group's events; groups of one source and entity share theirs, sorted once.

    Raises:
        ConfigError: a column is missing, or its type isn't the source's.
        DataError: an event has no time.
    """
    made: dict[tuple[str, tuple[str, ...]], Timeline] = {}
    for key in dict.fromkeys(_key(group) for group in groups):
        sharing = [group for group in groups if _key(group) == key]
        frame = _frame(sharing, workspace, None if given is None else given.get(key[0]))
        made[key] = Timeline.of(frame, key[1], sharing[0].source.time)
    return [made[_key(group)] for group in groups]


def check_ids(labels: pl.DataFrame, group: FeatureGroup) -> None:
    """Raise a `ConfigError` if labels' ids aren't of the entity's type: `"7"` isn't the user 7."""
    for key in group.keys:
        _check_type(f"the labels' {key!r}", group, key, labels.schema[key])


def columns_of(group: FeatureGroup) -> list[str]:
    """The columns of its source that a group reads."""
    wanted = [*group.keys, *((group.source.time,) if group.source.time else ())]
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


def _frame(groups: Sequence[FeatureGroup], workspace: Workspace, given: pl.DataFrame | None) -> pl.DataFrame:
    source = groups[0].source
    table = workspace.table(source.name)
    schema = table.scan().collect_schema() if given is None else given.schema
    for group in groups:
        check_columns(group, schema)
    columns = list(dict.fromkeys(column for group in groups for column in columns_of(group)))
    read = table.read(columns=columns) if given is None else check_uuids(given.select(columns), source.schema)
    frame = _cast(read, source)
    if source.time is not None and frame[source.time].null_count():
        raise DataError(
            f"{frame[source.time].null_count()} events of {source.name!r} have no {source.time!r}",
            hint="filter them out",
            field=source.time,
        )
    return frame


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
