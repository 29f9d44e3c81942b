"""When something that was lost is started again."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True)
class RestartPolicy:
    """When a lost replica is started again.

    Attributes:
        max_failures: losses within `window` seconds after which it counts as failed and is started again only every
            `longest_pause` seconds; one that was never ready has two, and is given up.
        window: seconds.
        pause: seconds before the second start within a window; doubled for each one more. The first is at once.
        longest_pause: seconds.
    """

    max_failures: int = 5
    window: float = 60.0
    pause: float = 0.2
    longest_pause: float = 10.0

    def delay(self, failures: int) -> float:
        """Seconds to wait after so many losses within the window.

        >>> [RestartPolicy().delay(n) for n in (1, 2, 3, 4, 99)]
        [0.0, 0.2, 0.4, 0.8, 10.0]
        """
        return 0.0 if failures <= 1 else min(self.longest_pause, self.pause * 2.0 ** min(failures - 2, 30))


class Losses:
    """Counts what was lost within the last `window` seconds."""

    def __init__(self, window: float) -> None:
        self._window = window
        self._times: deque[float] = deque()

    def add(self) -> int:
        """Count one more; returns how many there are within the window."""
        now = asyncio.get_running_loop().time()
        self._times.append(now)
        while self._times[0] < now - self._window:
            self._times.popleft()
        return len(self._times)
