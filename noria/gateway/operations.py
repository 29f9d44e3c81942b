"""Operations: what can be done to a running gateway, from Python (`Supervisor`) and over the control socket."""

from __future__ import annotations

import asyncio
import re
import socket
from dataclasses import dataclass, replace
from typing import Any

from noria.core.decoding import decodable
from noria.core.errors import ConfigError, NotFoundError, allowed
from noria.core.settings import MOST_REPLICAS
from noria.gateway.autoscale import CORES
from noria.gateway.fleet import Fleet
from noria.gateway.proxy_config import BASE_WEIGHT, FIRST_ID_ELSEWHERE, Upstream
from noria.gateway.proxy_options import ProxyOptions
from noria.gateway.scaler import Scaler
from noria.gateway.server import Server
from noria.gateway.statistics import ServerStatistics

USUAL_REPLICAS = min(MOST_REPLICAS, max(16, 4 * CORES))
"""More have to be asked for with force."""


@decodable
@dataclass(frozen=True)
class ServerStatus:
    """A server of the gateway: a replica, or one elsewhere.

    Attributes:
        name: `replica-0`, or `host:port` of a server elsewhere.
        address: `host:port` where it listens.
        pid: the replica's process; None when it has none now, and for a server elsewhere.
        replica: the replica's state, see `ReplicaStatus`; empty for a server elsewhere.
        restarts: how often the replica was started again.
        drained, ejected: whether it gets no new requests, by somebody's wish or for its answers.
        proxy: what HAProxy counts of it; None while HAProxy can't be asked.
    """

    name: str
    address: str
    pid: int | None
    replica: str
    restarts: int
    drained: bool
    ejected: bool
    proxy: ServerStatistics | None


class Operations:
    """The verbs of a gateway; all run in its event loop."""

    def __init__(self, fleet: Fleet, scaler: Scaler) -> None:
        self._fleet, self._proxy, self._scaler = fleet, fleet.proxy, scaler

    async def servers(self) -> list[ServerStatus]:
        """How each server is."""
        counted = await self._proxy.statistics()
        replicas = {status.name: status for status in (replica.status() for replica in self._fleet.replicas)}
        found = []
        for name, upstream in self._proxy.upstreams.items():
            replica = replicas.get(name)
            found.append(
                ServerStatus(
                    name,
                    replica.address if replica else upstream.address,
                    replica.pid if replica else None,
                    replica.state if replica else "",
                    replica.restarts if replica else 0,
                    upstream.drained,
                    upstream.ejected,
                    counted.get(name),
                )
            )
        return found

    async def scale(self, minimum: int, maximum: int | None = None, force: bool = False) -> None:
        """Have so many replicas; with a maximum as many in between as the load asks for, from now on.

        Args:
            minimum, maximum: how many.
            force: even if nobody answers then, or if there are many more than cores.

        Raises:
            ConfigError: numbers that can't be, or need force.
            GatewayError: a replica can't be started; there are as many as before.
        """
        least, most = (0, MOST_REPLICAS) if force else (0 if await self._others_answer() else 1, USUAL_REPLICAS)
        for count in (minimum, minimum if maximum is None else maximum):
            if type(count) is not int or not least <= count <= most:
                why = "nobody would answer" if count == 0 else f"each wants a core, and there are {CORES}"
                forced = f"; --force allows 0 to {MOST_REPLICAS}: {why}" if type(count) is int and not force else ""
                raise ConfigError(
                    f"{count} replicas can't be run", hint=f"allowed: {least} to {most}{forced}", field="replicas"
                )
        limits = replace(self._scaler.limits, minimum=minimum, maximum=minimum if maximum is None else maximum)
        now = sum(replica.state != "failed" for replica in self._fleet.replicas)
        await self._fleet.scale(min(max(now, limits.minimum), limits.maximum))
        self._scaler.limits = limits

    async def restart(self) -> None:
        """Replace every replica by a new process, one after the other, with no request lost.

        Raises:
            GatewayError: a new one can't be started; those that were not replaced yet go on.
        """
        await self._fleet.roll()

    async def reload(self, options: ProxyOptions | None = None) -> None:
        """Replace HAProxy by a new process, with other options, or for a new certificate in the same file.

        Raises:
            GatewayError: the new one doesn't start; the old one goes on.
        """
        await self._proxy.reload(options or self._proxy.options)

    async def add(self, address: str, weight: int = BASE_WEIGHT) -> str:
        """Send requests to one more server elsewhere; returns its name.

        Raises:
            ConfigError: the address is wrong, unknown, or there already.
        """
        upstream = await upstream_of(address, self._proxy.upstreams, weight)
        await self._proxy.put(replace(upstream, ready=True))
        return upstream.name

    async def remove(self, name: str) -> None:
        """Take a server elsewhere out, when it has finished what it has.

        Raises:
            ConfigError: it is a replica.
        """
        if self._known(name) in {replica.name for replica in self._fleet.replicas}:
            raise ConfigError(f"{name} is a replica", hint="to have fewer: noria scale N; to drain it: drain")
        await self._proxy.drain(name, self._proxy.options.drain_timeout)
        await self._proxy.remove(name)

    async def drain(self, name: str) -> bool:
        """Send a server no new requests; returns whether it has finished what it had within `drain_timeout`."""
        return await self._proxy.drain(self._known(name), self._proxy.options.drain_timeout)

    async def resume(self, name: str) -> None:
        """Send requests to a server again."""
        await self._proxy.change(self._known(name), drained=False, ejected=False)

    async def weigh(self, name: str, weight: int) -> None:
        """Let a server have another part of the requests: 0 (none) to 256; the others have 100."""
        await self._proxy.change(self._known(name), weight=_weight(weight))

    async def _others_answer(self) -> bool:
        """Whether there is a healthy server elsewhere."""
        names = self._proxy.upstreams.keys() - {replica.name for replica in self._fleet.replicas}
        if not names:
            return False
        counted = await self._proxy.statistics()
        # A new one counts as up until its first check fails.
        seen = [counted[name] for name in names & counted.keys()]
        return any(one.state.startswith("UP") and one.check.startswith("L7OK") for one in seen)

    def _known(self, name: Any) -> str:
        if name not in self._proxy.upstreams:
            raise NotFoundError(f"there is no server {name!r}", hint=allowed(self._proxy.upstreams, str(name)))
        return str(name)


async def upstream_of(address: str, others: dict[str, Upstream], weight: int = BASE_WEIGHT) -> Upstream:
    """A server elsewhere; its host is looked up now, once.

    Raises:
        ConfigError: the address is wrong, unknown, or one of the others.
    """
    server = Server.of(address)
    name = f"{server.host}:{server.port}"
    if name in others:
        raise ConfigError(f"{name} is one of the servers already", field="servers")
    if not re.fullmatch(r"[A-Za-z0-9_.:-]+", name):
        raise ConfigError(f"HAProxy can't use the name {name!r}", hint="use letters, digits, '.' and '-'")
    try:
        found = await asyncio.get_running_loop().getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        raise ConfigError(f"unknown host {server.host!r}", hint="use an address", field="servers") from error
    ids = {upstream.id for upstream in others.values()}
    free = next(number for number in range(FIRST_ID_ELSEWHERE, FIRST_ID_ELSEWHERE + len(ids) + 1) if number not in ids)
    return Upstream(name, str(found[0][4][0]), server.port, free, _weight(weight), ready=True)


def operations(fleet: Fleet, scaler: Scaler) -> dict[str, Any]:
    """The verbs by name, for the control socket; the options of HAProxy are not for others to choose."""
    verbs = Operations(fleet, scaler)

    async def reload() -> None:
        await verbs.reload()

    names = ("servers", "scale", "restart", "add", "remove", "drain", "resume", "weigh")
    return {name: getattr(verbs, name) for name in names} | {"reload": reload}


def _weight(weight: Any) -> int:
    if type(weight) is not int or not 0 <= weight <= 256:
        raise ConfigError(f"{weight!r} is not a weight", hint="allowed: 0 to 256", field="weight")
    return weight
