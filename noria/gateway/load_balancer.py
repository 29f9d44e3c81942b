"""LoadBalancer: choose a healthy server for the next request, from Python and with no proxy."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Container, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol
from urllib.parse import urlsplit

from noria.core.errors import ConfigError, allowed
from noria.core.time import Clock, SystemClock, duration, to_iso
from noria.gateway.errors import NoHealthyServerError
from noria.gateway.probe import READY_PATH, probe


@dataclass(frozen=True)
class Server:
    """One server that speaks HTTP.

    >>> Server.of("http://127.0.0.1:8001").name
    '127.0.0.1:8001'
    """

    host: str
    port: int

    @staticmethod
    def of(address: str | Server) -> Server:
        """Read `host:port` or `http://host:port`; an IPv6 host stands in brackets.

        Raises:
            ConfigError: when the address is neither.
        """
        if isinstance(address, Server):
            return address
        try:
            url = urlsplit(address if "://" in address else f"http://{address}")
            if url.scheme == "http" and url.hostname and url.port and url.path in ("", "/") and not url.query:
                return Server(url.hostname, url.port)
        except (ValueError, TypeError):
            pass  # no number, or out of range, or no text at all: all are told below
        raise ConfigError(f"{address!r} is not the address of a server", hint="write host:port, as in 127.0.0.1:8001")

    @property
    def name(self) -> str:
        """`host:port`."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """`http://host:port`."""
        return f"http://{self.name}"


class Policy(Protocol):
    """How the next server is chosen. Calls never overlap: the balancer holds its lock."""

    def choose(self, servers: Sequence[Server], healthy: Container[Server]) -> Server:
        """One of the healthy servers; there is at least one."""
        ...


class RoundRobin:
    """Each healthy server in turn."""

    def __init__(self) -> None:
        self._next = 0

    def choose(self, servers: Sequence[Server], healthy: Container[Server]) -> Server:
        while True:
            server = servers[self._next % len(servers)]
            self._next = (self._next + 1) % len(servers)
            if server in healthy:
                return server


POLICIES: Mapping[str, Callable[[], Policy]] = MappingProxyType({"round_robin": RoundRobin})
"""The policies by name; a new one is one more entry."""


class LoadBalancer:
    """Chooses servers for a client in this process; safe to share between threads.

    Every server counts as healthy until a health check or `mark_down` says otherwise. A server that is down gets
    another chance after `retry_after`, so that a balancer whose health checks nobody runs can't lose it for ever.

    Args:
        servers: their addresses, `host:port` or `http://host:port`.
        policy: a name out of `POLICIES`.
        clock: where the time comes from.
        retry_after: how long a server stays down unless a health check finds it well before.

    Raises:
        ConfigError: for no servers, one that comes twice, a wrong address or an unknown policy.

    >>> balancer = LoadBalancer(["127.0.0.1:8001", "127.0.0.1:8002"])
    >>> [balancer.get_server().port for _ in range(3)]
    [8001, 8002, 8001]
    >>> balancer.mark_down("127.0.0.1:8002")
    >>> [balancer.get_server().port for _ in range(3)]
    [8001, 8001, 8001]
    """

    def __init__(
        self,
        servers: Sequence[str | Server],
        policy: str = "round_robin",
        clock: Clock | None = None,
        *,
        retry_after: str = "30s",
    ) -> None:
        if isinstance(servers, str) or not servers:
            raise ConfigError("a load balancer needs a list of servers", hint='write ["127.0.0.1:8001", …]')
        self.servers = tuple(Server.of(s) for s in servers)
        if len(set(self.servers)) < len(self.servers):
            raise ConfigError("a server comes twice", hint="name each server once", field="servers")
        if policy not in POLICIES:
            raise ConfigError(f"unknown policy {policy!r}", hint=allowed(POLICIES, policy), field="policy")
        self._policy = POLICIES[policy]()
        self._clock = clock or SystemClock()
        self._retry_after = duration(retry_after)
        self._down_until: dict[Server, int] = {}
        self._lock = threading.Lock()

    def get_server(self) -> Server:
        """The server for the next request.

        Raises:
            NoHealthyServerError: when all are down; it says until when.
        """
        with self._lock:
            healthy = self._healthy()
            if healthy:
                return self._policy.choose(self.servers, healthy)
            first = min(self._down_until.values())
        raise NoHealthyServerError(
            f"none of the {len(self.servers)} servers is healthy: {', '.join(s.name for s in self.servers)}",
            hint=f"start one and call health_check(); the first is tried again at {to_iso(first)}",
        )

    def healthy(self) -> tuple[Server, ...]:
        """The servers that get requests now, in their order."""
        with self._lock:
            up = self._healthy()
        return tuple(s for s in self.servers if s in up)

    def mark_down(self, server: str | Server) -> None:
        """Send nothing to a server for `retry_after`: a client calls this when a request couldn't reach it."""
        with self._lock:
            self._down_until[self._known(server)] = self._clock.now() + self._retry_after

    def mark_up(self, server: str | Server) -> None:
        """Send requests to a server again."""
        with self._lock:
            self._down_until.pop(self._known(server), None)

    def health_check(self, timeout: float = 1.0) -> dict[str, bool]:
        """Ask every server at once whether it is ready (`GET /health/ready` answers 200), and mark it so.

        Args:
            timeout: seconds for the whole call, however many servers there are.

        Returns:
            Whether each server is ready, by its name.
        """
        with ThreadPoolExecutor(1) as thread:  # a notebook's own thread already runs an event loop
            ready = thread.submit(asyncio.run, self._ready(timeout)).result()
        for server, well in zip(self.servers, ready, strict=True):
            (self.mark_up if well else self.mark_down)(server)
        return {s.name: well for s, well in zip(self.servers, ready, strict=True)}

    async def _ready(self, timeout: float) -> list[bool]:
        statuses = await asyncio.gather(*(probe(s.host, s.port, timeout, READY_PATH) for s in self.servers))
        return [status == 200 for status in statuses]

    def _healthy(self) -> set[Server]:
        now = self._clock.now()
        return {s for s in self.servers if self._down_until.get(s, now) <= now}

    def _known(self, server: str | Server) -> Server:
        known = Server.of(server)
        if known not in self.servers:
            names = [s.name for s in self.servers]
            raise ConfigError(f"{known.name} is not one of the servers", hint=allowed(names, known.name))
        return known
