"""Policies: how the next server is chosen. HAProxy's algorithms of the same names do the same before the gateway."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from types import MappingProxyType
from typing import Protocol

from noria.gateway.server import Server


@dataclass(frozen=True)
class Candidate:
    """A server that may be chosen.

    Attributes:
        server: its address.
        weight: its part of the requests, relative to that of the others; above 0.
        in_flight: requests that it was chosen for and that haven't been released.
    """

    server: Server
    weight: int = 1
    in_flight: int = 0


class Policy(Protocol):
    """How the next server is chosen. Calls never overlap: the balancer holds its lock."""

    def choose(self, candidates: Sequence[Candidate], key: str | None) -> Server:
        """One of the servers, of which there is at least one; `key` names the request's entity."""
        ...


class RoundRobin:
    """Each server in turn, by weight, and evenly: with weights 2 and 1 it is a, b, a and not a, a, b.

    Each gains its weight in every round; the richest is chosen and pays the sum (nginx's smooth weighted round robin).
    """

    def __init__(self) -> None:
        self._credit: dict[Server, int] = {}

    def choose(self, candidates: Sequence[Candidate], key: str | None) -> Server:
        credit = {c.server: self._credit.get(c.server, 0) + c.weight for c in candidates}
        chosen = max(credit, key=credit.__getitem__)
        credit[chosen] -= sum(c.weight for c in candidates)
        self._credit = credit  # one that is away starts anew
        return chosen


class LeastConnections:
    """The server with the fewest requests in flight for its weight; equals take turns."""

    def __init__(self) -> None:
        self._turns = RoundRobin()

    def choose(self, candidates: Sequence[Candidate], key: str | None) -> Server:
        def load(candidate: Candidate) -> float:
            return (candidate.in_flight + 1) / candidate.weight

        least = min(map(load, candidates))
        return self._turns.choose([c for c in candidates if load(c) == least], key)


class ConsistentHash:
    """The same server for the same key, as long as it is there; without a key round robin.

    Weighted rendezvous hashing (Thaler and Ravishankar, 1998; weights after Schindelhauer and Schomaker, 2005): of
    `-weight / ln h(server, key)`, with `h` even in (0, 1), the largest wins. A server that leaves takes only its own
    keys away, and one that comes gets only those that it wins; all others stay where they are.
    """

    def __init__(self) -> None:
        self._turns = RoundRobin()

    def choose(self, candidates: Sequence[Candidate], key: str | None) -> Server:
        if key is None:
            return self._turns.choose(candidates, key)
        return max(candidates, key=lambda c: -c.weight / math.log(_hash(c.server.name, key))).server


def _hash(server: str, key: str) -> float:
    digest = blake2b(key.encode(), digest_size=8, key=server.encode()[:64]).digest()
    return ((int.from_bytes(digest, "big") >> 12) + 0.5) / 2**52


POLICIES: Mapping[str, Callable[[], Policy]] = MappingProxyType(
    {"round_robin": RoundRobin, "least_connections": LeastConnections, "consistent_hash": ConsistentHash}
)
"""The policies by name; a new one is one more entry."""
