"""Budgets: how many trials and how many minutes a search may take."""

from __future__ import annotations

from dataclasses import dataclass, replace

from noria.core import ConfigError
from noria.training.search.trial import Clock


@dataclass(frozen=True)
class Budget:
    """What a search may take.

    Attributes:
        trials: at most; None: no limit.
        minutes: at most; None: no limit.
        clock: by which time passes.
        origin: the clock when the search began; earlier by what it had taken before a kill.

    Raises:
        ConfigError: neither is limited, or one isn't above 0.
    """

    trials: int | None
    minutes: float | None
    clock: Clock
    origin: float = 0.0

    def __post_init__(self) -> None:
        if self.trials is None and self.minutes is None:
            raise ConfigError("a search without a budget would never end", hint="trials=50, or minutes=5, or both")
        if self.trials is not None and (type(self.trials) is not int or self.trials < 1):
            raise ConfigError(f"trials={self.trials!r} is no number of trials", hint="allowed: 1 and more")
        if self.minutes is not None and not self.minutes > 0:
            raise ConfigError(f"minutes={self.minutes!r} is no time", hint="write a number above 0, such as 0.5")

    def begun(self, seconds: float = 0.0) -> Budget:
        """The same, from now on; so many seconds were taken before a kill."""
        return replace(self, origin=self.clock() - seconds)

    def spent(self, seconds: float) -> Budget:
        """The same if at least so many seconds have been taken."""
        return replace(self, origin=min(self.origin, self.clock() - seconds))

    def elapsed(self) -> float:
        """Seconds that the search has taken."""
        return self.clock() - self.origin

    def left(self) -> float | None:
        """Seconds; None without a limit."""
        return None if self.minutes is None else self.minutes * 60 - self.elapsed()
