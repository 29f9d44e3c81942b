"""What the judge of a deployment reads: how often each variant answered and failed, and to whom its answers went.

Each server keeps running totals of its own and writes them into the registry's records once a second. They only grow,
so that a write that failed is made good by the next one. Which entity met which variant goes into files like those of
the prediction log, since rewards come later and are looked up by prediction or entity.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any
from zlib import crc32

import msgspec

from noria.core.decoding import decodable

TALLIES = "tallies"
"""The collection of the servers' totals: key `MODEL/NUMBER/SERVER`, see `tally_key`.

A document has `variants`, a `Tally` by name; `failed`, why this server can't load a variant, by name; and `step`, the
one that it follows. A process that starts anew takes another name for itself, since totals only grow.
"""
FOLDER = "exposures"
"""Where the files with exposures are, in the project's state directory."""


GROUPS = 32
"""Into so many parts entities are divided, by a hash that has nothing to do with who answers them."""


class Group(msgspec.Struct, array_like=True):
    """What a variant did for a part of the entities; see `Tally`."""

    requests: int = 0
    errors: int = 0
    log_seconds: float = 0.0


@decodable
class Tally(msgspec.Struct, omit_defaults=True):
    """The totals of one variant on one server.

    Attributes:
        requests: answered, errors included.
        errors: that are the server's fault; a request that was wrong itself isn't counted at all.
        log_seconds, log_seconds2: sums of the logarithms of the latencies, and of their squares.
        compared: answers of a shadow that were compared with the answer that was given.
        agreed: those that were equal.
        groups: these of each of `GROUPS` parts of the entities, or none: how differently they fare shows how much a
            count of requests is worth.
    """

    requests: int = 0
    errors: int = 0
    log_seconds: float = 0.0
    log_seconds2: float = 0.0
    compared: int = 0
    agreed: int = 0
    groups: list[Group] = []

    def add(self, seconds: float, *, failed: bool = False, entity: str = "") -> None:
        """Count a request; one that names nobody is taken to be somebody else's than all others."""
        if not self.groups:
            self.groups = [Group() for _ in range(GROUPS)]
        group = self.groups[(crc32(entity.encode()) if entity else self.requests) % GROUPS]
        self.requests += 1
        group.requests += 1
        if failed:
            self.errors += 1
            group.errors += 1
        else:
            logarithm = math.log(max(seconds, 1e-6))
            self.log_seconds += logarithm
            self.log_seconds2 += logarithm * logarithm
            group.log_seconds += logarithm

    def compare(self, *, agreed: bool) -> None:
        """Count an answer of a shadow."""
        self.compared += 1
        self.agreed += agreed

    def __add__(self, other: Tally) -> Tally:
        return self._with(other, 1)

    def __sub__(self, other: Tally) -> Tally:
        return self._with(other, -1)

    def _with(self, other: Tally, sign: int) -> Tally:
        made = Tally(*(mine + sign * theirs for mine, theirs in zip(_numbers(self), _numbers(other), strict=True)))
        if self.groups or other.groups:
            none = [Group()] * GROUPS
            made.groups = [
                Group(*(a + sign * b for a, b in zip(_values(one), _values(two), strict=True)))
                for one, two in zip(self.groups or none, other.groups or none, strict=True)
            ]
        return made


@decodable
class Exposure(msgspec.Struct, frozen=True, omit_defaults=True):
    """An answer that a variant gave.

    Attributes:
        id: the request's id.
        at: microseconds.
        model, number: the deployment.
        variant: its name.
        entity: for whom; empty where the request named nobody.
    """

    id: str
    at: int
    model: str
    number: int
    variant: str
    entity: str = ""


def twin(variant: str) -> str:
    """Under which name a variant's twin is counted (`Deployment.twin_of`); its requests are the control's as well."""
    return f"{variant}~twin"


def tally_key(model: str, number: int, server: str = "") -> str:
    """Where a server's totals of a deployment are; without a server, what all their keys start with."""
    return f"{model}/{number:08d}/{server}"


def server_key(server: str, process: str) -> str:
    """A server's part of the key: its name, `replica-0@HOST`, and what tells its processes apart."""
    return f"{server}~{process}"


def server_names(keys: Iterable[str]) -> dict[str, str]:
    """How people call the servers of these parts of keys: without the process, and the host where there is but one.

    >>> server_names(["replica-0@web~1f", "replica-0@web~2e"])
    {'replica-0@web~1f': 'replica-0', 'replica-0@web~2e': 'replica-0'}
    """
    names = {key: key.partition("~")[0] for key in keys}
    hosts = {name.partition("@")[2] for name in names.values()}
    return {key: name if len(hosts) > 1 else name.partition("@")[0] for key, name in names.items()}


def tallies_of(data: dict[str, Any]) -> dict[str, Tally]:
    """The totals by variant in a document of `TALLIES`."""
    return msgspec.convert(data["variants"], dict[str, Tally])


def _numbers(tally: Tally) -> tuple[Any, ...]:
    return _values(tally)[:-1]


def _values(struct: msgspec.Struct) -> tuple[Any, ...]:
    return msgspec.structs.astuple(struct)
