"""A deployment on one server: who answers each request, and what the judge is told about it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec

from noria.core import SystemClock
from noria.registry import Deployment, Variant
from noria.serving.exchange import Exchange, Reply
from noria.serving.exposures import Exposure, Tally, twin
from noria.serving.inner import Inner
from noria.serving.servable import Servable

MAX_ENTITIES = 200_000
"""Entities whose first exposure is remembered; then the memory begins anew, and some are written down twice."""
MAX_ENTITY = 256
"""Characters of an entity's name that are written down."""
MAX_SHADOWED = 256
"""Requests that may wait for a shadow's answer; more are not compared."""

Assigned = tuple[Variant, str]
"""Who has to answer, and the variant whose twin it is in doing so."""

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
        self.deployment = deployment
        self._seen: set[int] = set()
        self._successor: Callable[[], Servable] | None = None
        self._shadowed = 0
        self.update(deployment, servables)

    def update(self, deployment: Deployment, servables: Mapping[int, Servable]) -> None:
        """Take over a deployment's next state: its totals go on, and each entity is exposed anew by a new step."""
        if self._seen and deployment.step != self.deployment.step:
            self._seen.clear()
        self.deployment = deployment
        self._servables = servables
        self.control = servables[deployment.control.version]
        reward = deployment.judging.reward
        self._missing = Variant("", 0, 0.0)  # what a version that couldn't be loaded here would have answered
        self._exposes = reward is not None and self._expose is not None
        self._once = reward is not None and reward.by != "id"

    def end(self, successor: Callable[[], Servable]) -> None:
        """Ask no version any more, since it may be closed; what still fails, the successor answers."""
        self._successor, self._servables = successor, {}

    def divide(self, exchange: Exchange, operation: str, request: Any) -> dict[Assigned, list[int]]:
        """The rows of each variant, or of its twin; a request that can't be divided is its first entity's.

        Whose request it is says its header `X-Entity-Id`, or the servable finds it in the request. One that names
        nobody is assigned by its id.
        """
        given = exchange.headers.get(b"x-entity-id")
        find = getattr(self.control, "entities", None)
        if given:
            entities: Sequence[str] = (given.decode("utf-8", "replace"),)
        else:
            entities = () if find is None else find(operation, request)
        named = bool(entities)
        if not named:
            entities = (exchange.request_id.decode(),)
        elif not hasattr(self.control, "part"):
            entities = entities[:1]
        exchange.entity = entities[0] if named else ""
        found: dict[Assigned, list[int]] = {}
        for row, entity in enumerate(entities):
            variant, mirrored = self.deployment.variant_of(entity), self.deployment.twin_of(entity)
            if variant.version not in self._servables:
                variant = self._missing
            elif self._exposes and not (self._once and self._is_known(entity)):
                self._write(exchange, variant, entity)
            found.setdefault((variant, mirrored), []).append(row)
        return found

    def choose(self, exchange: Exchange, assigned: Assigned, operation: str, request: Any) -> tuple[Servable, Any]:
        """Who answers for a variant; and the request, which was made for the control, as that one understands it.

        Raises:
            RequestError: the variant doesn't understand it.
        """
        variant, mirrored = assigned
        if variant is self._missing:
            return self.control, request
        exchange.trial, exchange.variant, exchange.twin = self, variant.name, mirrored
        servable = self._servables[variant.version]
        return servable, request if servable is self.control else self.request(exchange, servable, operation)

    def request(self, exchange: Exchange, servable: Servable, operation: str) -> Any:
        """The request as a servable understands it."""
        make = exchange.make
        return servable.decode(operation, exchange.body) if make is None else make(servable)

    # --- what comes of it

    def answered(self, exchange: Exchange, operation: str, answer: Any) -> None:
        """Count an answer, and have the shadow give its own."""
        seconds = time.monotonic() - exchange.started
        self._tally(exchange.variant).add(seconds, entity=exchange.entity)
        if exchange.twin:
            self._tally(twin(exchange.twin)).add(seconds, entity=exchange.entity)
        version = self.deployment.shadow
        servable = None if version is None else self._servables.get(version)
        if servable is None or self._ask_aside is None or self._shadowed >= MAX_SHADOWED:
            return
        copy = Inner(exchange, partial(self._compared, answer))
        copy.route = copy.variant = "shadow"
        try:
            self._ask_aside(copy, servable, operation, self.request(exchange, servable, operation))
            self._shadowed += 1
        except Exception:  # it doesn't understand the request, or has too much to do
            self._tally("shadow").add(0.0, failed=True, entity=exchange.entity)

    def failed(self, exchange: Exchange, error: BaseException) -> Servable | None:
        """Count a failure; gives the control if it hasn't been asked yet."""
        self._tally(exchange.variant).add(0.0, failed=True, entity=exchange.entity)
        exchange.trial, exchange.twin = None, ""
        if exchange.variant == self.deployment.control.name:
            return None
        exchange.variant = self.deployment.control.name
        return self.control if self._successor is None else self._successor()

    def _compared(self, given: Any, shadow: Inner, status: int, reply: Reply) -> None:
        self._shadowed -= 1
        tally = self._tally("shadow")
        try:
            agreed = status < 400 and agrees(given, shadow.made)
        except Exception:  # it isn't made of what JSON is made of
            status, agreed = 500, False
        seconds = time.monotonic() - shadow.started
        tally.add(seconds, failed=status >= 500, entity=shadow.asker.entity)
        if status < 400:
            tally.compare(agreed=agreed)

    def _tally(self, variant: str) -> Tally:
        tally = self.tallies.get(variant)
        if tally is None:
            tally = self.tallies[variant] = Tally()
        return tally

    def _is_known(self, entity: str) -> bool:
        known = hash(entity)  # a client may name entities of any length
        if not entity or known in self._seen:
            return True
        if len(self._seen) >= MAX_ENTITIES:
            self._seen.clear()
        self._seen.add(known)
        return False

    def _write(self, exchange: Exchange, variant: Variant, entity: str) -> None:
        if self._expose is not None:
            trial = self.deployment
            request_id = exchange.request_id.decode()
            known = entity[:MAX_ENTITY]  # clients mustn't fill the disk
            self._expose(Exposure(request_id, self._now(), trial.model, trial.number, variant.name, known))


def agrees(given: Any, other: Any) -> bool:
    """Whether two answers say the same: texts, ids, classes and their order are equal, real numbers within 1 %.

    The version, which differs, doesn't count; nor do the scores of answers that have `predictions` too: what is done
    with those is decided by the class, and two models that were trained apart are never equally sure of it.

    >>> agrees({"version": 3, "scores": [0.701]}, {"version": 4, "scores": [0.7]})
    True
    >>> agrees({"predictions": [1], "scores": [0.6]}, {"predictions": [1], "scores": [0.9]})
    True
    """
    one, two = msgspec.to_builtins(given), msgspec.to_builtins(other)
    if _is_classified(one) and _is_classified(two):
        one, two = ({name: part for name, part in answer.items() if name != "scores"} for answer in (one, two))
    return _same(one, two)


def _is_classified(answer: Any) -> bool:
    return isinstance(answer, dict) and answer.get("scores") is not None and "predictions" in answer


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(key == "version" or _same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, float) and isinstance(b, float):
        return a == b or abs(a - b) <= _CLOSE * max(abs(a), abs(b)) or (a != a and b != b)
    return bool(a == b)
