"""Scaler: the loop that measures the replicas and has more or fewer of them; `noria.gateway.autoscale` decides."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from noria.gateway.autoscale import Load, ScaleLimits, busy_seconds, busy_share, wanted
from noria.gateway.errors import GatewayError
from noria.gateway.fleet import Fleet


class Scaler:
    """Keeps a fleet between two sizes, for as long as `run` runs.

    Args:
        fleet: what is measured and scaled.
        limits: they may be replaced at any time.
        tell: told what happens.
    """

    def __init__(self, fleet: Fleet, limits: ScaleLimits, tell: Callable[..., None]) -> None:
        self.limits = limits
        self._fleet = fleet
        self._tell = tell

    async def run(self) -> None:
        """Measure and scale, for ever."""
        loads: deque[Load] = deque(maxlen=10_000)
        clock = asyncio.get_running_loop().time
        pids, at = busy_seconds(self._pids()), clock()
        while True:
            await asyncio.sleep(self.limits.interval)
            before, since = pids, at
            pids, at = busy_seconds(self._pids()), clock()
            share = busy_share(before, pids, at - since)
            if set(before) != set(pids):
                loads.clear()  # of other processes: one that has just started warms up
            if share is None or self.limits.minimum == self.limits.maximum or self._fleet.changing:
                continue
            loads.append(Load(share, await self._queued()))
            count = wanted(len(pids), list(loads), self.limits)
            if count != len(pids) and self._whole():
                await self._scale(len(pids), count, share)
                loads.clear()

    async def _scale(self, now: int, count: int, share: float) -> None:
        self._tell("gateway_scaled", cause=f"from {now} to {count} servers, each is busy for {share:.0%} of the time")
        try:
            await self._fleet.scale(count)
        except GatewayError as error:
            self._tell("gateway_failed", cause=f"can't have {count} servers: {error.message}")
            await asyncio.sleep(30)  # it is told once in a while

    def _pids(self) -> list[int]:
        return [r.child.pid for r in self._fleet.replicas if r.state == "ready" and r.child is not None]

    def _whole(self) -> bool:
        """Whether no replica is just being started again: those that are left do its work, for a moment only."""
        return all(replica.state in ("ready", "failed") for replica in self._fleet.replicas)

    async def _queued(self) -> int:
        return await self._fleet.proxy.queued()
