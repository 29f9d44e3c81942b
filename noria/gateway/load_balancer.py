"""LoadBalancer: choose a healthy server for the next request, from Python and with no proxy."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from noria.core.errors import ConfigError, allowed
from noria.core.time import Clock, SystemClock, duration, to_iso
from noria.gateway.errors import NoHealthyServerError
from noria.gateway.policies import POLICIES, Candidate
from noria.gateway.probe import READY_PATH, probe
from noria.gateway.server import Server


class LoadBalancer:
    """Chooses servers for a client in this process; safe to share between threads.

    Every server counts as healthy until a health check or `mark_down` says otherwise. A server that is down gets
    another chance after `retry_after`, so that a balancer whose health checks nobody runs can't lose it for ever.

    Args:
        servers: their addresses, `host:port` or `http://host:port`.
        policy: `round_robin`, `least_connections` or `consistent_hash`.
        clock: where the time comes from.
        retry_after: how long a server stays down unless a health check finds it well before.
        weights: of some servers, by address; 1 for all others. One of weight 0 gets no requests.

    Raises:
        ConfigError: for no servers, one that comes twice, a wrong address or weight, or an unknown policy.

    >>> balancer = LoadBalancer(["127.0.0.1:8001", "127.0.0.1:8002"])
    >>> [balancer.get_server().port for _ in range(3)]
    [8001, 8002, 8001]
    >>> balancer.mark_down("127.0.0.1:8002")
    >>> [balancer.get_server().port for _ in range(3)]
    [8001, 8001, 8001]
    >>> by_entity = LoadBalancer(["127.0.0.1:8001", "127.0.0.1:8002"], policy="consistent_hash")
    >>> by_entity.get_server(key="user 15") == by_entity.get_server(key="user 15")
    True
    """

    def __init__(
        self,
        servers: Sequence[str | Server],
        policy: str = "round_robin",
        clock: Clock | None = None,
        *,
        retry_after: str = "30s",
        weights: Mapping[str, int] | None = None,
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
        self._weights: dict[Server, int] = {}
        self._in_flight: dict[Server, int] = {}
        self._lock = threading.Lock()
        for address, weight in (weights or {}).items():
            self.set_weight(address, weight)

    def get_server(self, key: str | None = None) -> Server:
        """The server for the next request, which counts as in flight until `release`; see `using`.

        Args:
            key: the request's entity: with `consistent_hash` its requests go to the same server.

        Raises:
            NoHealthyServerError: when all are down; it says until when.
        """
        with self._lock:
            healthy = self._healthy()
            candidates = [
                Candidate(server, weight, self._in_flight.get(server, 0))
                for server in self.servers
                if server in healthy and (weight := self._weights.get(server, 1))
            ]
            if candidates:
                chosen = self._policy.choose(candidates, key)
                self._in_flight[chosen] = self._in_flight.get(chosen, 0) + 1
                return chosen
            first = min(self._down_until.values(), default=self._clock.now())
        raise NoHealthyServerError(
            f"none of the {len(self.servers)} servers is healthy: {', '.join(s.name for s in self.servers)}",
            hint=f"start one and call health_check(); the first is tried again at {to_iso(first)}",
        )

    def release(self, server: str | Server) -> None:
        """A request to this server is over; `least_connections` needs to know."""
        with self._lock:
            known = self._known(server)
            self._in_flight[known] = max(0, self._in_flight.get(known, 0) - 1)

    @contextmanager
    def using(self, key: str | None = None) -> Iterator[Server]:
        """The server for one request, released afterwards, and marked down if it couldn't be reached.

        >>> balancer = LoadBalancer(["127.0.0.1:8001", "127.0.0.1:8002"], policy="least_connections")
        >>> with balancer.using() as one, balancer.using() as other:
        ...     one != other
        True
        """
        server = self.get_server(key)
        try:
            yield server
        except OSError as error:
            cause = getattr(error, "reason", None) or error  # urllib wraps what the socket said
            if isinstance(cause, ConnectionError | TimeoutError) and server in self.servers:
                self.mark_down(server)
            raise
        finally:
            if server in self.servers:
                self.release(server)

    def set_weight(self, server: str | Server, weight: int) -> None:
        """Let a server have another part of the requests, relative to the others; 0 for none."""
        if not isinstance(weight, int) or weight < 0:
            raise ConfigError(f"{weight!r} is not a weight", hint="give a whole number from 0 on", field="weights")
        with self._lock:
            self._weights[self._known(server)] = weight

    def add_server(self, server: str | Server, weight: int = 1) -> None:
        """Send requests to one more server."""
        new = Server.of(server)
        if new in self.servers:
            raise ConfigError(f"{new.name} is one of the servers already", field="servers")
        with self._lock:
            self.servers = (*self.servers, new)
        self.set_weight(new, weight)

    def remove_server(self, server: str | Server) -> None:
        """Send nothing more to a server, for ever.

        Raises:
            ConfigError: it isn't one of the servers, or the last one.
        """
        with self._lock:
            known = self._known(server)
            if len(self.servers) == 1:
                raise ConfigError(f"{known.name} is the last server", hint="add another one first", field="servers")
            self.servers = tuple(s for s in self.servers if s != known)
            for kept in (self._weights, self._in_flight, self._down_until):
                kept.pop(known, None)

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
        servers = self.servers
        with ThreadPoolExecutor(1) as thread:  # a notebook's own thread already runs an event loop
            ready = thread.submit(asyncio.run, _ready(servers, timeout)).result()
        found = dict(zip(servers, ready, strict=True))
        until = self._clock.now() + self._retry_after
        with self._lock:
            for server in found.keys() & set(self.servers):
                if found[server]:
                    self._down_until.pop(server, None)
                else:
                    self._down_until[server] = until
        return {server.name: well for server, well in found.items()}

    def _healthy(self) -> set[Server]:
        now = self._clock.now()
        return {s for s in self.servers if self._down_until.get(s, now) <= now}

    def _known(self, server: str | Server) -> Server:
        known = Server.of(server)
        if known not in self.servers:
            names = [s.name for s in self.servers]
            raise ConfigError(f"{known.name} is not one of the servers", hint=allowed(names, known.name))
        return known


async def _ready(servers: Sequence[Server], timeout: float) -> list[bool]:
    statuses = await asyncio.gather(*(probe(s.host, s.port, timeout, READY_PATH) for s in servers))
    return [status == 200 for status in statuses]
