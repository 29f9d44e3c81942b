"""Ejection: the loop that takes outliers out and lets them back in; `noria.gateway.outliers` decides."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from noria.gateway.outliers import outliers
from noria.gateway.proxy import Proxy
from noria.gateway.statistics import ServerStatistics

_OFF_SECONDS = 2.0


async def eject_outliers(proxy: Proxy, tell: Callable[..., None]) -> None:
    """For ever: a server that fails where others don't gets no new requests for a while."""
    before: dict[str, ServerStatistics] = {}
    until: dict[str, float] = {}
    in_a_row: dict[str, int] = {}
    clock = asyncio.get_running_loop().time
    while True:
        limits = proxy.options.outliers
        await asyncio.sleep(limits.interval if limits else _OFF_SECONDS)
        after = await proxy.statistics()
        for name, upstream in list(proxy.upstreams.items()):
            if upstream.ejected and (limits is None or until.get(name, 0.0) <= clock()):
                await proxy.change(name, ejected=False)
                after.pop(name, None)  # what it does from now on counts
                tell("server_returned", server=name)
        out = sum(upstream.ejected for upstream in proxy.upstreams.values())
        found = outliers(before, after, limits, out) if limits and before else []
        for name in found:
            in_a_row[name] = in_a_row.get(name, 0) + 1
            pause = (limits.pause if limits else 0.0) * min(8, 2 ** (in_a_row[name] - 1))
            until[name] = clock() + pause
            await proxy.change(name, ejected=True)
            tell("server_ejected", server=name, cause=f"it fails where others don't; it is out for {pause:g} s")
        in_a_row = {name: n for name, n in in_a_row.items() if not _does_well(before.get(name), after.get(name))}
        before = after


def _does_well(before: ServerStatistics | None, after: ServerStatistics | None) -> bool:
    """Whether it has answered in the meantime, and never wrongly."""
    if before is None or after is None:
        return False
    return after.requests > before.requests and after.failures + after.errors == before.failures + before.errors
