"""A clock that tests drive."""

from __future__ import annotations


class ManualClock:
    """Stands still until it is told to go on.

    >>> clock = ManualClock(1_000)
    >>> clock.advance(500)
    >>> clock.now()
    1500
    """

    def __init__(self, now: int = 0) -> None:
        self._now = now

    def now(self) -> int:
        """Microseconds since 1970, UTC."""
        return self._now

    def advance(self, micros: int) -> None:
        """Let time pass."""
        self._now += micros
