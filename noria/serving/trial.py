"""A deployment on one server: who answers each request, and what the judge is told about it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from noria.core import SystemClock
from noria.registry import Deployment
from noria.serving.exposures import Exposure, Tally
from noria.serving.protocol import Exchange
from noria.serving.servable import Servable

MAX_ENTITIES = 200_000
"""Entities whose first exposure is remembered; then the memory begins anew, and some are written down twice."""
MAX_SHADOWED = 256
"""Requests that may wait for a shadow's answer; more are not compared."""

_CLOSE = 0.01


class Trial:
    """Routes a model's requests to the variants of its deployment, and counts what they do.

    What a variant whose version couldn't be loaded here would answer, the control answers; `errors` says why.

    Args:
        deployment: what is tried.
        servables: the loaded versions.
        expose: takes what each entity was answered by; for the reward.
        shadow: puts a request to those that a thread answers.
        now: microseconds, for exposures.
    """

    def __init__(
        self,
        deployment: Deployment,
        servables: Mapping[int, Servable],
        expose: Callable[[Exposure], None] | None = None,
        shadow: Callable[[Exchange, Servable, str, Any], None] | None = None,
        now: Callable[[], int] | None = None,
    ) -> None:
        self.tallies: dict[str, Tally] = {}
        self.errors: dict[str, str] = {}
        self._expose = expose
        self._ask_aside = shadow
        self._now = now or SystemClock().now
        self._seen: set[str] = set()
        self._shadowed = 0
        self.update(deployment, servables)

    def update(self, deployment: Deployment, servables: Mapping[int, Servable]) -> None:
        """Take over a deployment's next state: its totals go on."""
        self.deployment = deployment
        self._servables = servables
        self.control = servables[deployment.control.version]
        reward = deployment.judging.reward
        self._exposes = reward is not None and self._expose is not None
        self._once = reward is not None and reward.by != "id"

    def choose(self, exchange: Exchange, operation: str, request: Any) -> tuple[Servable, Any]:
        """Who answers a request that was decoded for the control, and the request as that one understands it.

        Raises:
            RequestError: the variant doesn't understand it.
        """
        entity = self.entity(exchange, operation, request)
        variant = self.deployment.variant_of(entity or exchange.request_id.decode())
        servable = self._servables.get(variant.version)
        if servable is None:
            return self.control, request
        exchange.trial, exchange.variant = self, variant.name
        if self._exposes and not (self._once and self._is_known(entity)):
            self._write(exchange, entity)
        if servable is self.control:
            return servable, request
        return servable, self.request(exchange, servable, operation)

    def entity(self, exchange: Exchange, operation: str, request: Any) -> str:
        """For whom a request is: as its header `X-Entity-Id` says, or as the servable finds in it; may be nobody."""
        given = exchange.headers.get(b"x-entity-id")
        if given:
            return given.decode("utf-8", "replace")
        find = getattr(self.control, "entity", None)
        return "" if find is None else find(operation, request)

    def request(self, exchange: Exchange, servable: Servable, operation: str) -> Any:
        """The request as a servable understands it."""
        make = exchange.make
        return servable.decode(operation, exchange.body) if make is None else make(servable)

    # --- what comes of it

    def answered(self, exchange: Exchange, operation: str, answer: Any) -> None:
        """Count an answer, and have the shadow give its own."""
        self._tally(exchange.variant).add(time.monotonic() - exchange.started)
        version = self.deployment.shadow
        servable = None if version is None else self._servables.get(version)
        if servable is None or self._ask_aside is None or self._shadowed >= MAX_SHADOWED:
            return
        copy = Shadowed(exchange, self._compared, answer)
        try:
            self._ask_aside(copy, servable, operation, self.request(exchange, servable, operation))
            self._shadowed += 1
        except Exception:  # it doesn't understand the request, or has too much to do
            self._tally("shadow").add(0.0, failed=True)

    def failed(self, exchange: Exchange, error: Exception) -> Servable | None:
        """Count a failure; gives the control if it hasn't been asked yet."""
        self._tally(exchange.variant).add(0.0, failed=True)
        exchange.trial = None
        if exchange.variant == self.deployment.control.name:
            return None
        exchange.variant = self.deployment.control.name
        return self.control

    def _compared(self, exchange: Shadowed, other: Any) -> None:
        self._shadowed -= 1
        tally = self._tally("shadow")
        tally.add(time.monotonic() - exchange.started, failed=other is None)
        if other is not None:
            tally.compare(agreed=agrees(exchange.given, other))

    def _tally(self, variant: str) -> Tally:
        tally = self.tallies.get(variant)
        if tally is None:
            tally = self.tallies[variant] = Tally()
        return tally

    def _is_known(self, entity: str) -> bool:
        if not entity or entity in self._seen:
            return True
        if len(self._seen) >= MAX_ENTITIES:
            self._seen.clear()
        self._seen.add(entity)
        return False

    def _write(self, exchange: Exchange, entity: str) -> None:
        if self._expose is not None:
            trial = self.deployment
            request_id = exchange.request_id.decode()
            self._expose(Exposure(request_id, self._now(), trial.model, trial.number, exchange.variant, entity))


class Shadowed(Exchange):
    """A copy of an answered request, whose answer goes to nobody."""

    __slots__ = ("_other", "given", "tell")

    counts = False

    def __init__(self, exchange: Exchange, tell: Callable[[Shadowed, Any], None], given: Any) -> None:
        super().__init__(exchange._protocol, exchange.method, exchange.path, exchange.headers)
        self.body, self.make, self.request_id = exchange.body, exchange.make, exchange.request_id
        self.route, self.variant = "shadow", "shadow"
        self.given, self.tell = given, tell
        self.write = self._write  # called with the shadow's answer
        self._other: Any = None

    @property
    def awaited(self) -> bool:
        """Whether it hasn't been answered: nobody else waits for it."""
        return self.answer is None

    def _write(self, servable: Any, answer: Any) -> tuple[bytes, bytes, bytes]:
        self._other = answer
        return b"", b"", b""

    def respond(self, status: int, body: bytes, kind: bytes = b"", extra: bytes = b"") -> None:
        """Compare the answer with the one that was given."""
        if self.answer is None:
            self.answer = b"-"
            self.tell(self, self._other if status < 400 else None)


def agrees(given: Any, other: Any) -> bool:
    """Whether two answers say the same: texts, ids, classes and their order are equal, real numbers within 1 %.

    The version, which differs, doesn't count.

    >>> agrees({"version": 3, "scores": [0.701]}, {"version": 4, "scores": [0.7]})
    True
    """
    return _same(msgspec.to_builtins(given), msgspec.to_builtins(other))


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(key == "version" or _same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, float) and isinstance(b, float):
        return a == b or abs(a - b) <= _CLOSE * max(abs(a), abs(b)) or (a != a and b != b)
    return bool(a == b)
