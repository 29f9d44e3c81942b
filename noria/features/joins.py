"""Point-in-time joins: the features of groups as of the times of labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria.features.events import Events, events_of
from noria.features.group import FeatureGroup
from noria.features.values import as_of
from noria.storage import Workspace


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
        return as_of(groups, events.timeline(events.read()), self._labels.select(events.keys), self._at)
