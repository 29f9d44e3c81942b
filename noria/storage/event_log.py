"""Event log: topics of events, each an ordered, durable sequence in partitions, read by groups that remember how far.

Events enter and leave in columns: a batch of values, perhaps with keys. Events with one key go to one partition, and
within a partition order is kept. A group's partitions are divided among its live members, in any number of processes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Change = Callable[[Sequence[int]], None]


@dataclass(frozen=True)
class Events:
    """Events of one partition in columns, offsets ascending.

    Attributes:
        offsets: int64; gaps are allowed.
        times: int64, when they were appended, in microseconds since 1970.
        keys: None for an event without a key.
    """

    partition: int
    offsets: NDArray[np.int64]
    times: NDArray[np.int64]
    keys: Sequence[bytes | None]
    values: Sequence[bytes]

    def __len__(self) -> int:
        return len(self.values)

    @property
    def next_offset(self) -> int:
        """The offset after the last one."""
        return int(self.offsets[-1]) + 1


class EventLog(Protocol):
    """A store of events. Safe to share between threads; several processes may use one log at once."""

    def create(self, topic: str, partitions: int = 1) -> None:
        """Make a topic; nothing happens if it exists.

        Raises:
            ConflictError: it exists with another number of partitions.
        """
        ...

    def topics(self) -> dict[str, int]:
        """Every topic with its number of partitions."""
        ...

    def append(
        self,
        topic: str,
        values: Sequence[bytes],
        keys: Sequence[bytes | None] | None = None,
        *,
        producer: tuple[str, int] | None = None,
        durable: bool = True,
    ) -> int:
        """Append events and return how many were new.

        They are durable when this returns, unless `durable` is false. With a `producer` (its id, and a number that
        grows with each batch) a batch that is appended again is ignored, so that a producer may repeat what it isn't
        sure of, even after a crash.

        Raises:
            NotFoundError: there is no such topic.
            StorageError: the log can't be written; none of the events is in it, or the call may be repeated.
        """
        ...

    def read(self, topic: str, partition: int, offset: int, limit: int) -> Events:
        """At most `limit` events from an offset on; from the first one kept if that has been removed."""
        ...

    def bounds(self, topic: str) -> dict[int, tuple[int, int]]:
        """For each partition the first offset that is kept, and the next one to be written."""
        ...

    def identity(self, topic: str) -> str:
        """Tells a topic from another that was made in its place under its name; empty if this log can't tell."""
        ...

    def reader(self, topic: str, group: str, *, start: str = "earliest") -> EventReader:
        """A new member of a group; partitions that it never read begin at the `earliest` or `latest` event."""
        ...

    def close(self) -> None:
        """Let go of files and connections."""
        ...


class EventReader(Protocol):
    """One member of a group. Used by one thread."""

    def poll(self, limit: int, timeout: float) -> list[Events]:
        """At most `limit` events in all, as soon as there are some; none after `timeout` seconds."""
        ...

    @property
    def assigned(self) -> tuple[int, ...]:
        """The partitions that are this member's now."""
        ...

    @property
    def joined(self) -> bool:
        """Whether the group has been divided with this member in it: before that, having no partition means nothing."""
        ...

    def on_change(self, given: Change, taken: Change) -> None:
        """Whom to tell, from within `poll`: of partitions given, before their first event; of partitions taken away,
        before another member gets them.
        """
        ...

    def seek(self, partition: int, offset: int) -> None:
        """Go on reading there."""
        ...

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Remember durably, for the group, the next offset to be read of partitions that are this member's.

        Raises:
            ConflictError: one of them is not this member's any more.
        """
        ...

    def committed(self) -> dict[int, int]:
        """What the group has committed."""
        ...

    def close(self) -> None:
        """Leave the group."""
        ...
