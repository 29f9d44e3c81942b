"""Autoscaling: how many replicas the load asks for.

The load is the time that the replicas' processes spend on the processor, not the requests in flight. A replica answers
a turn's requests as one batch on one core, so what runs out is that core; requests in flight tell how long an answer
takes, and there are many of them, too, when replicas merely wait for a database, where more replicas would not help.
What the processor's time can't tell, that requests wait because every replica is at its limit, HAProxy's queue does.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from noria.core.errors import ConfigError

CORES = len(os.sched_getaffinity(0))
"""Those that we may use."""
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class ScaleLimits:
    """Between which numbers, and how fast.

    Attributes:
        minimum, maximum: replicas; the same number twice is no autoscaling.
        target: the share of a core that a replica should be busy; scaling aims at it.
        band: how far from `target`, as a share of it, nothing is changed.
        interval: seconds between two measurements.
        up_after: measurements in a row that have to ask for more before there are more.
        down_after: measurements in a row that have to ask for fewer; then one replica goes.
    """

    minimum: int = 1
    maximum: int = 1
    target: float = 0.6
    band: float = 0.2
    interval: float = 1.0
    up_after: int = 3
    down_after: int = 60

    def __post_init__(self) -> None:
        if not 0 <= self.minimum <= self.maximum:
            raise ConfigError(
                f"replicas can't be between {self.minimum} and {self.maximum}",
                hint="give the smaller number first",
                field="replicas_max",
            )
        if not (self.target > 0 and 0 <= self.band < 1 and self.target * (1 + self.band) < 1):
            raise ConfigError(
                f"target {self.target} and band {self.band} ask for more only when a core is more than busy",
                hint="target * (1 + band) has to be below 1, and both positive",
                field="target",
            )
        if min(self.interval, self.up_after, self.down_after) <= 0:
            raise ConfigError("interval, up_after and down_after must be positive", field="interval")


@dataclass(frozen=True)
class Load:
    """One measurement.

    Attributes:
        busy: the mean share of a core that a ready replica has used since the measurement before.
        queued: requests that wait for a replica.
    """

    busy: float
    queued: int = 0


def wanted(replicas: int, loads: Sequence[Load], limits: ScaleLimits) -> int:
    """How many replicas there should be: `ceil(replicas * busy / target)` (as in Kubernetes' HPA), with patience.

    More only when each of the last `up_after` loads is above the band, or had a queue: as many as the mildest of them
    asks for, at least one and at most twice as many. One fewer only when all of the last `down_after` loads would
    leave the rest below the band's lower edge. In between nothing moves, so two sizes don't alternate.

    Args:
        replicas: how many there are.
        loads: of that many replicas, the newest last; those of another number of replicas say nothing here.
        limits: what is allowed.

    >>> limits = ScaleLimits(1, 8, target=0.5, up_after=2, down_after=3)
    >>> wanted(2, [Load(0.9), Load(0.8)], limits), wanted(2, [Load(0.1), Load(0.8)], limits)
    (4, 2)
    >>> wanted(4, [Load(0.2)] * 3, limits), wanted(4, [Load(0.4)] * 3, limits)
    (3, 4)
    """
    count = min(max(replicas, limits.minimum), limits.maximum)
    if count != replicas:
        return count
    up = loads[-limits.up_after :]
    if len(up) == limits.up_after and all(load.queued or load.busy > limits.target * (1 + limits.band) for load in up):
        asked = math.ceil(replicas * min(load.busy for load in up) / limits.target)
        return min(max(replicas + 1, asked), 2 * replicas, limits.maximum)
    down = loads[-limits.down_after :]
    if replicas > max(1, limits.minimum) and len(down) == limits.down_after:
        most = max(load.busy for load in down) * replicas / (replicas - 1)
        if most < limits.target * (1 - limits.band) and not any(load.queued for load in down):
            return replicas - 1
    return replicas


def busy_seconds(pids: Iterable[int]) -> dict[int, float]:
    """The processor time that each process has used, all its threads together; those that are gone are left out."""
    used = {}
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        used[pid] = (int(fields[11]) + int(fields[12])) / _TICKS  # utime and stime; proc(5)
    return used


def busy_share(before: dict[int, float], after: dict[int, float], seconds: float) -> float | None:
    """The mean share of a core over the processes that were there both times; None when there were none.

    >>> busy_share({1: 5.0, 2: 0.0}, {1: 6.0, 2: 0.5, 3: 9.0}, seconds=1.0)
    0.75
    """
    shares = [(after[pid] - before[pid]) / seconds for pid in after.keys() & before.keys()]
    return sum(shares) / len(shares) if shares else None
