"""Online store: the newest value of each entity, read by the server in microseconds.

A store knows nothing about features: it keeps bytes under a group and a key together with the event time that
they belong to. The newer event time wins, whatever the order of arrival; at equal times the later write wins, so
that doing a write twice changes nothing. Expiry is the reader's business: it gets the event time with the value.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class OnlineValue(NamedTuple):
    """A stored value and its event time in microseconds since 1970."""

    time: int
    value: bytes


class OnlineStore(Protocol):
    """Packed values by group and key. Safe to share between threads and processes."""

    def write(self, group: str, keys: Sequence[bytes], times: Sequence[int], values: Sequence[bytes]) -> int:
        """Store the values that are not older than what is there; returns how many those were.

        All of them become visible together and durable before this returns.
        """
        ...

    def read(self, group: str, keys: Sequence[bytes]) -> list[OnlineValue | None]:
        """The values in the order of the keys; None where there is none."""
        ...

    def count(self, group: str) -> int:
        """How many keys the group has."""
        ...

    def drop(self, group: str, *, older_than: int | None = None) -> None:
        """Forget the whole group, or only its values of before `older_than`; at once, for all readers."""
        ...

    def close(self) -> None:
        """Let go of the files or connections."""
        ...
