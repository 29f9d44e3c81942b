"""What a backfill is asked for: features of the rows of a table of labels, or of all entities as of instants."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from noria.core import ConfigError
from noria.features import partitions
from noria.features.events import Events, readable
from noria.features.group import FeatureGroup
from noria.features.ids import ids_of
from noria.features.labels import check_labels, instants
from noria.features.values import as_of
from noria.storage import Workspace
from noria.storage.digest import digest
from noria.storage.tables import Part, Table

AS_OF = "as_of"
"""The column with the instant of a row's values, where all entities are asked for."""
_ROW, _FEATURE = 24, 16
"""About how many bytes a row takes, and each feature of it."""


@dataclass(frozen=True)
class Batches:
    """Labels, some at a time, and their columns."""

    schema: pl.Schema
    frames: Iterable[pl.DataFrame]


@dataclass(frozen=True)
class Labels:
    """Each row of a table, or of a frame, as of its time.

    Attributes:
        rows: the name of the table, or the frame.
        time: the column with the instants.
    """

    rows: str | pl.DataFrame
    time: str

    @property
    def tables(self) -> tuple[str, ...]:
        """The tables that it reads."""
        return (self.rows,) if isinstance(self.rows, str) else ()

    def question(self) -> str | tuple[int, ...]:
        """What has to be known of it to answer for a partition."""
        return self.time

    def to_dict(self) -> dict[str, Any]:
        """What tells it from others, as plain JSON data."""
        return {"labels": self.rows if isinstance(self.rows, str) else digest(self.rows), "time": self.time}

    def check(self, group: FeatureGroup, workspace: Workspace) -> None:
        """Raise a `ConfigError` if the group's features can't be computed for such rows."""
        empty = pl.DataFrame(schema=self._scan(workspace, {}).collect_schema())
        instants(empty, self.time)
        check_labels(empty, group)

    def size(self, events: Events, group: FeatureGroup, workspace: Workspace, versions: Mapping[str, int]) -> int:
        """About how many bytes the rows take."""
        rows = self._scan(workspace, versions)
        with readable(str(self.tables)):
            count, first = int(rows.select(pl.len()).collect().item()), rows.head(1000).collect()
        return int(count * (first.estimated_size() / max(len(first), 1) + _ROW + _FEATURE * len(group.features)))

    def batches(self, workspace: Workspace, versions: Mapping[str, int]) -> Batches:
        """The rows, read when they are wanted.

        Raises:
            DataError: a label has no time.
        """
        rows = self._scan(workspace, versions)
        return Batches(rows.collect_schema(), self._frames(rows))

    def _frames(self, rows: pl.LazyFrame) -> Iterator[pl.DataFrame]:
        with readable(self.rows if isinstance(self.rows, str) else "labels"):
            for frame in rows.collect_batches(chunk_size=partitions.BATCH, maintain_order=True):
                instants(frame, self.time)
                yield frame

    def _scan(self, workspace: Workspace, versions: Mapping[str, int]) -> pl.LazyFrame:
        if isinstance(self.rows, pl.DataFrame):
            return self.rows.lazy()
        return workspace.table(self.rows).scan(versions.get(self.rows))


@dataclass(frozen=True)
class Instants:
    """All entities as of each instant (microseconds), from the first event on that is before it."""

    at: tuple[int, ...]

    @property
    def tables(self) -> tuple[str, ...]:
        """The tables that it reads beside the events."""
        return ()

    def question(self) -> str | tuple[int, ...]:
        """What has to be known of it to answer for a partition."""
        return self.at

    def to_dict(self) -> dict[str, Any]:
        """What tells it from others, as plain JSON data."""
        return {"instants": list(self.at)}

    def check(self, group: FeatureGroup, workspace: Workspace) -> None:
        """Raise a `ConfigError` if the group's features can't be computed as of instants."""
        if not self.at or len(set(self.at)) < len(self.at):
            raise ConfigError(f"{len(self.at)} instants", hint="give at least one, and each once", field="instants")
        if group.source.time is None:
            raise ConfigError(
                f"feature group {group.name!r}: source {group.source.name!r} has no event time",
                hint="without one, there is only one snapshot: what is now; see `materialize`",
            )
        if AS_OF in group.keys:
            raise ConfigError(f"feature group {group.name!r}: {AS_OF!r} is its entity", hint="give labels instead")

    def size(self, events: Events, group: FeatureGroup, workspace: Workspace, versions: Mapping[str, int]) -> int:
        """About how many bytes the rows take."""
        with readable(events.source.name):
            entities = events.rows.select(pl.struct(events.keys).hash(0).approx_n_unique()).collect().item()
        return int(entities * len(self.at) * (_ROW + _FEATURE * len(group.features)))

    def batches(self, workspace: Workspace, versions: Mapping[str, int]) -> Batches:
        """Nothing: the events say which entities there are."""
        return Batches(pl.Schema(), ())


@dataclass(frozen=True)
class Work:
    """Answers for a partition, by whoever has it, and stages the rows.

    Attributes:
        question: the labels' column with their times, or the instants.
        prefix: of the parts' names.
    """

    group: FeatureGroup
    keys: Sequence[str]
    question: str | tuple[int, ...]
    table: Table
    prefix: str

    def __call__(self, item: tuple[int, pl.DataFrame, pl.DataFrame]) -> tuple[tuple[int, Part | None], None]:
        number, events, labels = item
        made = self.values(events, labels)
        part = self.table.stage(made, f"{self.prefix}-{number:06d}") if len(made) else None
        return (number, part), None

    def values(self, events: pl.DataFrame, labels: pl.DataFrame) -> pl.DataFrame:
        """The rows: the labels with the features, or entities, instants and features."""
        source = self.group.source
        line = Events(source, tuple(self.keys), events.lazy()).timeline(events)
        if isinstance(self.question, str):
            at = instants(labels, self.question)
        else:
            every = np.arange(line.entities.size)
            numbers, at = np.repeat(every, len(self.question)), np.tile(np.array(self.question, np.int64), len(every))
            there = line.before(numbers, at) > line.begin(numbers)
            numbers, at = numbers[there], at[there]
            ids = line.entities.ids(numbers, events.select(self.keys).schema)
            labels = ids.with_columns(pl.Series(AS_OF, at).cast(pl.Datetime("us", "UTC")))
        (columns,) = as_of([self.group], line, ids_of(labels, self.group), at)
        return labels.with_columns(columns)
