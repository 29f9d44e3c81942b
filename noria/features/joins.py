"""Point-in-time joins: the features of groups as of the times of labels, in memory or partition by partition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria.core.lazy import load_before_threads
from noria.features import partitions
from noria.features.events import Events, events_of
from noria.features.group import FeatureGroup
from noria.features.ids import ids_of
from noria.features.partitions import Wanted, fits, hash_ids, partition_of, partitioned, partitions_for, size
from noria.features.values import as_of
from noria.pipelines.compute import in_order
from noria.storage import Workspace

_WORKERS = 2
"""Partitions that are worked on at once: while one is read, another is computed, and Polars has its own threads."""


class Joins:
    """Features of groups for labels, worked out when they are asked for; groups of one source and entity together.

    Args:
        labels: with the groups' entity columns.
        at: [labels] their instants, microseconds.
        given: frames to read instead of tables, by source.
        versions: of the tables, by source.
    """

    def __init__(
        self,
        groups: Sequence[FeatureGroup],
        labels: pl.DataFrame,
        at: NDArray[np.int64],
        workspace: Workspace,
        given: Mapping[str, pl.DataFrame] | None,
        versions: Mapping[str, int] | None,
    ) -> None:
        self._groups = groups
        self._labels = labels
        self._at = at
        self._events = events_of(groups, workspace, given, versions)
        self._folder = workspace.settings.state_dir / "scratch" / "joins"
        self._made: dict[int, list[pl.Series]] = {}

    def features(self, number: int) -> list[pl.Series]:
        """The columns of a group, by its place among the groups."""
        if number not in self._made:
            events = self._events[number]
            sharing = [place for place, other in enumerate(self._events) if other is events]
            made = self._join([self._groups[place] for place in sharing], events)
            self._made |= dict(zip(sharing, made, strict=True))
        return self._made.pop(number)

    def _join(self, groups: Sequence[FeatureGroup], events: Events) -> list[list[pl.Series]]:
        ids = ids_of(self._labels, groups[0])
        needed = size(events, groups)
        if fits(needed) or ids.is_empty():
            return as_of(groups, events.timeline(events.read()), ids, self._at)
        return _join_by_partition(groups, events, ids, self._at, partitions_for(needed), self._folder)


def _join_by_partition(
    groups: Sequence[FeatureGroup],
    events: Events,
    ids: pl.DataFrame,
    at: NDArray[np.int64],
    count: int,
    folder: Path,
) -> list[list[pl.Series]]:
    """The same as `as_of`, to the bit, without ever having all events in memory."""
    hashes = hash_ids(ids, events.types)
    numbers = partition_of(hashes, count)
    order = np.argsort(numbers, kind="stable")
    ends = np.cumsum(np.bincount(numbers, minlength=count))
    asked = np.bincount(numbers, minlength=count) > 0

    def work(number: int) -> list[pl.DataFrame]:
        mine = order[ends[number - 1] if number else 0 : ends[number]]
        columns = as_of(groups, events.timeline(parts.read(number)), ids[mine], at[mine])
        return [pl.DataFrame(of_group) for of_group in columns]

    load_before_threads()
    with (
        partitioned(
            events.batches(partitions.BATCH),
            events.types,
            count,
            folder,
            schema=events.schema,
            wanted=Wanted(hashes),
        ) as parts,
        ThreadPoolExecutor(_WORKERS, "noria-join") as pool,
    ):
        del hashes
        made = list(in_order(pool, (partial(work, int(number)) for number in np.flatnonzero(asked)), ahead=1))
    back = np.empty(len(order), np.int64)
    back[order] = np.arange(len(order))
    return [pl.concat(list(frames))[back].get_columns() for frames in zip(*made, strict=True)]
