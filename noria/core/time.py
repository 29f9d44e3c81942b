"""Time: event time in UTC as whole microseconds since 1970 (int64), durations as microseconds.

A clock is always an argument, so that tests can drive it (`noria.testing.ManualClock`).
"""

from __future__ import annotations

import re
import time as _time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from noria.core.errors import ConfigError

SECOND = 1_000_000
"""Microseconds in a second."""

_UNITS = {
    "ms": 1_000,
    "s": SECOND,
    "m": 60 * SECOND,
    "h": 3600 * SECOND,
    "d": 86_400 * SECOND,
    "w": 604_800 * SECOND,
}


class Clock(Protocol):
    """Where the time comes from."""

    def now(self) -> int:
        """Microseconds since 1970, UTC."""
        ...


@dataclass(frozen=True)
class SystemClock:
    """The machine's clock."""

    def now(self) -> int:
        return _time.time_ns() // 1_000


def duration(text: str) -> int:
    """Microseconds of a duration such as `30d`, `12h`, `5m`, `90s`, `250ms` or `2w`.

    Raises:
        ConfigError: when the text is not a positive whole number with a unit.

    >>> duration("2h") // SECOND
    7200
    """
    match = re.fullmatch(r"(\d+)(ms|s|m|h|d|w)", text.strip()) if isinstance(text, str) else None
    if match is None or int(match[1]) == 0:
        raise ConfigError(
            f"{text!r} is not a duration",
            hint="write a whole number and a unit: 250ms, 30s, 5m, 12h, 7d or 2w",
        )
    return int(match[1]) * _UNITS[match[2]]


def to_iso(micros: int) -> str:
    """An instant as RFC 3339 text in UTC.

    >>> to_iso(0)
    '1970-01-01T00:00:00Z'
    """
    instant = datetime.fromtimestamp(micros // SECOND, UTC).replace(microsecond=micros % SECOND)
    return instant.isoformat().replace("+00:00", "Z")
