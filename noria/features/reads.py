"""What was read of a feature group for one request: kept with its prediction, so that it can be computed again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from noria.features.online import OnlineFeatures, OnlineSpec

MAX_ROWS = 100
"""Entities that are kept of one read; a request may have ten thousand."""


class Read(NamedTuple):
    """A read as it happened: the group, the ids in their order, and what was found."""

    spec: OnlineSpec
    ids: Sequence[Any]
    found: OnlineFeatures


class GroupRead(msgspec.Struct, frozen=True, omit_defaults=True):
    """A read as it is kept; each list is in the order of the ids.

    Attributes:
        place: the definition whose values they are: `group@hash`, as `OnlineSpec.place`.
        ids: the entities; where several columns are the id, lists of their values.
        values: by full feature name.
        found, expired, event_times, as_of: as of `OnlineFeatures`.
        rows: how many were read, of which the first `MAX_ROWS` are kept.
    """

    place: str
    ids: list[Any]
    values: dict[str, list[Any]]
    found: list[bool]
    expired: list[bool]
    event_times: list[int | None]
    rows: int
    as_of: int | None = None

    @property
    def group(self) -> str:
        """The group's name."""
        return self.place.partition("@")[0]

    @staticmethod
    def of(read: Read) -> GroupRead:
        """What is kept of a read."""
        found, most = read.found, MAX_ROWS
        return GroupRead(
            read.spec.place,
            list(read.ids[:most]),
            {name: column[:most] for name, column in found.columns.items()},
            found.found[:most],
            found.expired[:most],
            found.event_times[:most],
            len(read.ids),
            found.as_of,
        )
