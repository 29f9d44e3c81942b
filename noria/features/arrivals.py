"""What a stream had applied when something was read.

Nobody writes that down: it changes with each batch of events, before those are in the table. But in the table, rows lie
in the order in which they came, so what had been applied to an entity was its first rows: those that the table had at
that moment, and a few more, which still waited for the table, or fewer where values were behind it. Where two processes
share a stream, and an entity has events in the partitions of both, the last rows of one may lie before the last of the
other: then some in between hadn't been applied.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria.features.events import columns_of
from noria.features.feed import FEEDS
from noria.features.group import FeatureGroup
from noria.storage import Workspace

_MOST = 100
"""Rows more than the table had at the moment that may have been applied."""
_FEW = 6
"""Rows around that moment some of which may have been applied, and some before those not."""
_SOON = 10_000_000
"""Microseconds after which events are in the table where all goes well: they wait for two seconds."""
_FLUSHED = 60_000_000
"""And after which they are there, if any are."""
_ROW, _NUMBER = "__row__", "__number__"


def is_fed(workspace: Workspace, place: str) -> bool:
    """Whether a stream has kept up the values of a place in the online store."""
    return workspace.records.get(FEEDS, place) is not None


class Arrivals:
    """The rows of some entities, as they came.

    Args:
        workspace: the stores.
        group: whose source's table has the rows.
        ids: [reads] the entities, in the columns of the group's keys.
        as_of: [reads] rows from these instants on change nothing.
        read_at: [reads] when they were read, microseconds.
    """

    def __init__(
        self,
        workspace: Workspace,
        group: FeatureGroup,
        ids: pl.DataFrame,
        as_of: Sequence[int],
        read_at: Sequence[int],
    ) -> None:
        self._table, keys, time = workspace.table(group.source.name), list(group.keys), str(group.source.time)
        self._newest = self._table.version()
        rows = self._table.scan(self._newest).select(columns_of(group)).with_row_index(_ROW)
        types = rows.collect_schema()
        ids = ids.select(pl.col(key).cast(types[key], strict=False) for key in keys)  # what doesn't fit is nobody
        entities = ids.unique(maintain_order=True).with_row_index(_NUMBER)
        found = rows.join(entities.lazy(), on=keys, how="inner", maintain_order="left").collect()
        numbers = ids.join(entities, on=keys, how="left", maintain_order="left")[_NUMBER].to_list()
        frames = found.partition_by(_NUMBER, as_dict=True, maintain_order=True)
        nothing = found.clear()
        self.numbers: list[int] = numbers
        self._frames = [
            (mine := frames.get((number,), nothing)).filter(mine[time].dt.timestamp("us") < at)
            for number, at in zip(numbers, as_of, strict=True)
        ]
        self._rows_at = lru_cache(None)(self._count)  # several entities are read at once
        self._read_at = read_at

    def tries(self, read: int) -> list[NDArray[np.int64]]:
        """Which of the entity's rows may have been applied, the likeliest first."""
        many, there = len(self._frames[read]), self._there(read, 0)
        first, last = max(there - _FEW, 0), min(there + _FEW, many)
        made = [
            np.arange(end) for end in (*range(there, min(there + _MOST, many) + 1), *range(there - 1, first - 1, -1))
        ]
        cuts = combinations(range(first, last + 1), 3)
        return made + [np.r_[:start, end:stop] for start, end, stop in sorted(cuts, key=lambda cut: cut[1] - cut[0])]

    def rows(self, reads: Sequence[int], which: Sequence[NDArray[np.int64]]) -> pl.DataFrame:
        """Rows of reads of different entities."""
        parts = [self._frames[read][places] for read, places in zip(reads, which, strict=True)]
        return pl.concat(parts).drop(_ROW, _NUMBER)

    def are_too_many(self, read: int) -> bool:
        """Whether more rows came around the read than can be tried."""
        return self._there(read, _SOON) - self._there(read, 0) > _FEW

    def may_be_missing(self, read: int) -> bool:
        """Whether the table may not yet have all events that had been applied at the read."""
        then = self._table.version_at(self._read_at[read] + _FLUSHED)
        return then is None or self._newest is None or then >= self._newest  # which may have grown since

    def _there(self, read: int, later: int) -> int:
        """How many of the entity's rows the table had when it was read, or later."""
        rows = self._frames[read][_ROW].to_numpy()
        return int(np.searchsorted(rows, self._rows_at(self._read_at[read] + later)))

    def _count(self, instant: int) -> int:
        version = self._table.version_at(instant)
        return 0 if version is None else int(self._table.scan(version).select(pl.len()).collect().item())


def apart(numbers: NDArray[np.int64] | Sequence[int]) -> list[list[int]]:
    """Places in a sequence, in lists in which no number comes twice.

    >>> apart([7, 8, 7, 7])
    [[0, 1], [2], [3]]
    """
    seen: dict[int, int] = {}
    made: list[list[int]] = []
    for place, number in enumerate(numbers):
        turn = seen.get(int(number), 0)
        seen[int(number)] = turn + 1
        if turn == len(made):
            made.append([])
        made[turn].append(place)
    return made


def is_ahead(workspace: Workspace, group: FeatureGroup) -> bool:
    """Whether events have been applied that the table hasn't, or that left no row in it."""
    table, prefix = workspace.table(group.source.name), f"stream/{group.online_spec().place}/"
    marks = workspace.online.marks(prefix).items()
    bases = {name: table.mark(f"stream/{group.source.name}/{name.removeprefix(prefix)}") for name, _ in marks}
    return any(mark > max(bases[name], 0) for name, mark in marks)
