"""How many requests a key is good for: a rate, and the token bucket that holds to it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from noria.core import ConfigError

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_ENOUGH = 1 - 1e-9  # a token less what sums of floats may lack of it


@dataclass(frozen=True)
class Rate:
    """So many requests a second in the long run, and up to `burst` of them at once."""

    per_second: float
    burst: float

    def share(self, parts: int) -> Rate:
        """What each of several processes may allow, so that together they allow about this."""
        return Rate(self.per_second / parts, max(1.0, self.burst / parts))


def parse_rate(text: str, burst: int | None = None) -> Rate:
    """A rate such as `100/s`, `600/m` or `1000/h`; by default as many may come at once as the text names.

    Raises:
        ConfigError: the text is something else, or the burst isn't positive.

    >>> parse_rate("600/m")
    Rate(per_second=10.0, burst=600.0)
    """
    match = re.fullmatch(r"([0-9]{1,9})/([smhd])", text.strip())
    if match is None or int(match[1]) == 0:
        raise ConfigError(
            f"{text!r} is not a rate",
            hint="write requests per unit of time: 100/s, 600/m, 1000/h, 5000/d",
            field="rate",
        )
    if burst is not None and burst < 1:
        raise ConfigError(f"a burst of {burst} lets nothing pass", hint="it must be 1 or more", field="burst")
    count = int(match[1])
    return Rate(count / _SECONDS[match[2]], float(count if burst is None else burst))


class TokenBucket:
    """Holds up to `burst` tokens, gains `per_second` of them each second, and gives one to each request.

    In any time t at most burst + per_second · t requests pass. It is full at the start.

    Args:
        rate: the two figures.
        now: the present time in seconds, of a clock that never goes back, as all others that are given to `take`.
    """

    __slots__ = ("_level", "_since", "rate")

    def __init__(self, rate: Rate, now: float) -> None:
        self.rate = rate
        self._level = rate.burst
        self._since = now

    def take(self, now: float) -> float:
        """Take a token and return 0.0; or, where there is none, the seconds until there will be."""
        if now > self._since:
            self._level = min(self.rate.burst, self._level + (now - self._since) * self.rate.per_second)
            self._since = now
        if self._level >= _ENOUGH:
            self._level -= 1.0
            return 0.0
        return (1.0 - self._level) / self.rate.per_second
