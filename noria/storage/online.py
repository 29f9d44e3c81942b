"""Online store: the newest value of each entity, read by the server in microseconds.

A store knows nothing about features: it keeps bytes under a group and a key together with the event time that
they belong to. The newer event time wins, whatever the order of arrival; at equal times the later write wins, so
that doing a write twice changes nothing. Expiry is the reader's business: it gets the event time with the value.

What must not be done twice, such as counting, moves a *mark* in the same transaction: a number with a name that says
how far a stream has been applied.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from noria.core import StorageError

TIME = struct.Struct("<q")
"""How a backend that keeps bytes begins a value: with its time."""


class UnreachableError(StorageError):
    """The store's server can't be reached, or doesn't answer in time."""


class OnlineValue(NamedTuple):
    """A stored value and its event time in microseconds since 1970."""

    time: int
    value: bytes


@dataclass(frozen=True)
class Mark:
    """How far something has been applied: `before` is what the mark must be now (-1: not there yet)."""

    name: str
    before: int
    after: int


Merge = Callable[[list[OnlineValue | None]], tuple[Sequence[int], Sequence[bytes]]]
"""From the values that are there to the times and values that take their place."""


class OnlineStore(Protocol):
    """Packed values by group and key. Safe to share between threads and processes."""

    def write(
        self,
        group: str,
        keys: Sequence[bytes],
        times: Sequence[int],
        values: Sequence[bytes],
        *,
        mark: Mark | None = None,
    ) -> int:
        """Store the values that are not older than what is there; returns how many those were.

        All of them become visible together, with the mark, and durable before this returns.

        Raises:
            ConflictError: the mark isn't what it should be; nothing was changed.
        """
        ...

    def update(self, group: str, keys: Sequence[bytes], merge: Merge, *, mark: Mark | None = None) -> None:
        """Read the values of distinct keys and put others in their place, in one step with moving the mark.

        `merge` gets what is there in the order of the keys. It may be called again if another writer came between.

        Raises:
            ConflictError: the mark isn't what it should be; nothing was changed.
        """
        ...

    def marks(self, prefix: str = "") -> dict[str, int]:
        """All marks whose names start so."""
        ...

    def read(self, group: str, keys: Sequence[bytes]) -> list[OnlineValue | None]:
        """The values in the order of the keys; None where there is none.

        Raises:
            UnreachableError: its server doesn't answer.
        """
        ...

    def count(self, group: str) -> int:
        """How many keys the group has."""
        ...

    def expire(self, group: str, keys: Sequence[bytes], seconds: int) -> None:
        """Allow the values to be forgotten after so many seconds, unless they are written again.

        A server that can do it frees its memory so; no reader may rely on it.
        """
        ...

    def drop(self, group: str, *, older_than: int | None = None) -> None:
        """Forget the whole group, or only its values of before `older_than`; at once, for all readers."""
        ...

    def close(self) -> None:
        """Let go of the files or connections."""
        ...


def pack(times: Iterable[int], values: Iterable[bytes]) -> list[bytes]:
    """What such a backend keeps: the time, then the value."""
    return [time + value for time, value in zip(map(TIME.pack, times), values, strict=True)]


def unpack(kept: Sequence[bytes | None]) -> list[OnlineValue | None]:
    """What was packed, in the order."""
    # `OnlineValue(…)` does the same by way of a function in Python; a server does it for each entity that it looks up.
    time, new = TIME.unpack_from, tuple.__new__
    return [None if data is None else new(OnlineValue, (*time(data), data[8:])) for data in kept]
