"""`FeatureStore`: point-in-time training sets, materialization, and online reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria.core import ConfigError, DataError, Field, Settings, allowed, duration
from noria.features.group import FeatureGroup
from noria.features.online import OnlineFeatures, OnlineReader, pack
from noria.features.windows import Timeline, compute, ranges
from noria.pipelines.dtypes import polars_type
from noria.storage import Put, Workspace

_BATCH = 10_000
"""Entities written to the online store in one transaction."""


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
        groups: Sequence[FeatureGroup],
        *,
        time: str,
        events: Mapping[str, pl.DataFrame] | None = None,
    ) -> pl.DataFrame:
        """The labels with each group's features as of each label's time: only events strictly before it count.

        Args:
            labels: one row per label, with every group's entity column. All rows are kept, in their order.
            groups: whose features to add, as columns named `group.feature`.
            time: the column with the labels' instants (Datetime).
            events: frames to use instead of the tables of the groups' sources, by source name.

        Raises:
            ConfigError: the labels lack a column.
            DataError: a label has no time.
        """
        for column in (time, *(group.entity for group in groups)):
            if column not in labels.columns:
                raise ConfigError(
                    f"the labels have no column {column!r}", hint=allowed(labels.columns, column), field=column
                )
        if not isinstance(labels.schema[time], pl.Datetime):
            raise ConfigError(
                f"the labels' time {time!r} is {labels.schema[time]}", hint="cast it to pl.Datetime", field=time
            )
        if labels[time].null_count():
            raise DataError(f"{labels[time].null_count()} labels have no {time!r}", hint="filter them out", field=time)
        at = labels[time].dt.timestamp("us").to_numpy().astype(np.int64)
        lines: dict[tuple[str, str], Timeline] = {}
        for group in groups:
            key = (group.source.name, group.entity)
            if key not in lines:
                lines[key] = self._timeline(group, events)
            labels = labels.with_columns(_features(group, lines[key], labels[group.entity], at))
        return labels

    def materialize(
        self, group: FeatureGroup, *, as_of: int | None = None, events: pl.DataFrame | None = None
    ) -> Materialized:
        """Compute every entity's features and put them into the online store.

        Args:
            group: what to compute.
            as_of: the instant, microseconds; by default just after the newest event, so that a replay of old data sees
                its own time and not today's: the wheel turns on the data's clock.
            events: a frame to use instead of the source's table.
        """
        line = self._timeline(group, None if events is None else {group.source.name: events})
        newest = int(line.times.max(initial=-1)) if group.source.time is not None else self._workspace.clock.now()
        as_of = newest + 1 if as_of is None else as_of
        spec = group.online_spec()
        before = self._workspace.records.get("materialized", spec.place)
        if before is not None and before.data["as_of"] > as_of:
            # The history was rewritten: the newer values are of events that are no more.
            self._workspace.online.drop(spec.place)
        ids = line.entities["id"]
        columns = _features(group, line, ids, np.full(len(ids), as_of, dtype=np.int64), enforce_ttl=False)
        times = line.times[np.maximum(line.starts[1:] - 1, 0)].tolist()
        rows = zip(*(column.to_list() for column in columns), strict=True)
        packed = [pack(time, row) for time, row in zip(times, rows, strict=True)]
        keys = [spec.key(entity) for entity in ids.to_list()]
        for start in range(0, len(keys), _BATCH):
            part = slice(start, start + _BATCH)
            self._workspace.online.write(spec.place, keys[part], [as_of] * len(keys[part]), packed[part])
        witness = keys[-1].hex() if keys else ""
        self._workspace.records.commit(Put("materialized", spec.place, {"as_of": as_of, "witness": witness}))
        return Materialized(len(line.frame), len(keys), as_of)

    def is_materialized(self, group: FeatureGroup) -> bool:
        """Whether the online store has the group's values: one entity that was written last bears witness."""
        place = group.online_spec().place
        record = self._workspace.records.get("materialized", place)
        if record is None:
            return False
        witness = bytes.fromhex(record.data["witness"])
        return not witness or self._workspace.online.read(place, [witness]) != [None]

    def get_online(self, group: FeatureGroup, entity_ids: Sequence[Any]) -> OnlineFeatures:
        """The newest materialized values of a group for some entities."""
        reader = OnlineReader(self._workspace.online, [group.online_spec()], self._workspace.clock)
        return reader.read(group.name, entity_ids)

    def close(self) -> None:
        """Close the stores."""
        self._workspace.close()

    def _timeline(self, group: FeatureGroup, events: Mapping[str, pl.DataFrame] | None) -> Timeline:
        source = group.source
        columns = [group.entity, *((source.time,) if source.time else ())]
        columns += [feature.column for feature in group.features.values() if feature.column]
        given = None if events is None else events.get(source.name)
        frame = self._workspace.table(source.name).read() if given is None else given
        missing = [column for column in columns if column not in frame.columns]
        if missing:
            raise ConfigError(
                f"feature group {group.name!r}: the events have no column {missing[0]!r}",
                hint=allowed(frame.columns, missing[0]),
                field=missing[0],
            )
        return Timeline.of(frame, group.entity, source.time)


def _features(
    group: FeatureGroup, line: Timeline, ids: pl.Series, at: NDArray[np.int64], *, enforce_ttl: bool = True
) -> list[pl.Series]:
    """The group's features of entities as of instants, as columns named `group.feature`."""
    numbers = line.numbers(ids)
    windows: dict[int | None, tuple[NDArray[np.int64], NDArray[np.int64]]] = {}
    columns = []
    timeless = group.source.time is None
    when = np.full(len(at), np.iinfo(np.int64).max) if timeless else at
    for name, feature in group.features.items():
        window = feature.window_micros
        if window not in windows:
            windows[window] = ranges(line, numbers, when, window)
        column = group.source.schema[feature.column] if feature.column else None
        dtype = polars_type(Field(name, feature.dtype(column)))
        columns.append(compute(line, feature, numbers, *windows[window], dtype).alias(f"{group.name}.{name}"))
    if group.ttl is None or not enforce_ttl:
        return columns
    start, end = ranges(line, numbers, when, None)
    newest = line.times[np.maximum(end - 1, 0)] if len(line.times) else np.zeros(len(at), np.int64)
    expired = pl.Series((end > start) & (newest < at - duration(group.ttl)))
    return [pl.select(pl.when(~expired).then(column)).to_series().alias(column.name) for column in columns]
