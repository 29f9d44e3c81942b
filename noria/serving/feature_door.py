"""`POST /features`: the newest values of registered feature groups.

The requests that were parsed in one turn of the event loop are read together, each group once for all of them. What is
registered is read again every second, and when a request names what isn't known: beside the loop, not in it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from noria.core.bodies import decode
from noria.features.online import OnlineFeatures, OnlineSpec
from noria.features.reads import GroupRead, Read
from noria.serving.exchange import Exchange
from noria.serving.feature_groups import (
    STATUSES,
    Group,
    Groups,
    Part,
    Plan,
    UnknownFeatureError,
    ids_of,
    registered,
)
from noria.serving.prediction_files import Prediction
from noria.serving.prediction_log import PredictionLog
from noria.storage import Workspace
from noria.telemetry import MetricsCollector, MLLogger

REFRESH_SECONDS = 1.0

_encode = msgspec.json.Encoder().encode
_EXAMPLES: dict[str, Any] = {"str": "a", "uuid": "6f1c0a50-0000-4000-8000-000000000001"}
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)

Answer = Callable[[Exchange, int, "bytes | Exception"], None]


class Found(NamedTuple):
    """What was read of one part of a plan, each list in the order of the request's ids."""

    columns: dict[str, list[Any]]
    statuses: list[str]
    event_times: list[int | None]
    as_of: int | None


Write = Callable[[Plan, Sequence[Found]], bytes]
"""Makes an answer's body."""


class _Request(msgspec.Struct, forbid_unknown_fields=True):
    entities: dict[str, Any]
    groups: tuple[str, ...] = ()
    features: tuple[str, ...] = ()


class _Question(NamedTuple):
    exchange: Exchange
    plan: Plan
    ids: list[list[Any]]
    write: Write
    answer: Answer


class FeatureDoor:
    """Reads features for a server. All methods are called in its loop, but for the constructor."""

    def __init__(
        self,
        workspace: Workspace,
        metrics: MetricsCollector,
        logger: MLLogger | None = None,
        predictions: PredictionLog | None = None,
    ) -> None:
        self.groups = Groups()
        self._workspace = workspace
        self._metrics = metrics
        self._logger = logger
        self._predictions = predictions
        self._decoder = msgspec.json.Decoder(_Request)
        self._asked: list[_Question] = []
        self._puzzling: list[tuple[Callable[[], None], Exchange, Answer]] = []
        self._reading = False
        self._batch_size = metrics.histogram("noria_features_batch_size", "Requests read together.", _SIZES)
        self._take(registered(workspace))

    def accept(self, exchange: Exchange, answer: Answer) -> None:
        """Check a request and put it to those of this turn; `answer(exchange, status, body or error)` is called later.

        Raises:
            RequestError: it is wrong.
        """
        request = decode(self._decoder, exchange.body)
        self.ask(exchange, request.groups, request.features, request.entities, write_answer, answer)

    def ask(
        self,
        exchange: Exchange,
        groups: tuple[str, ...],
        features: tuple[str, ...],
        entities: dict[str, Any],
        write: Write,
        answer: Answer,
    ) -> None:
        """Read at the end of this turn; what isn't known is looked for among what is registered first.

        Raises:
            RequestError: the ids are wrong.
        """
        try:
            plan = self.groups.plan(groups, features)
        except UnknownFeatureError:

            def again() -> None:
                self._add(exchange, self.groups.plan(groups, features), entities, write, answer)

            self._puzzle(again, exchange, answer)
            return
        self._add(exchange, plan, entities, write, answer)

    def _add(self, exchange: Exchange, plan: Plan, entities: dict[str, Any], write: Write, answer: Answer) -> None:
        ids = ids_of(plan, entities)
        if not self._asked:
            asyncio.get_running_loop().call_soon(self._answer_turn)
        self._asked.append(_Question(exchange, plan, ids, write, answer))

    # --- reading

    def _answer_turn(self) -> None:
        asked, self._asked = self._asked, []
        self._batch_size.observe(len(asked))
        self._answer_all(asked)

    def _answer_all(self, asked: Sequence[_Question]) -> None:
        try:
            found = _read(asked)
        except Exception as error:
            if len(asked) == 1:
                asked[0].answer(asked[0].exchange, 500, error)
                return
            # One of them may be the culprit: alone, it can't take its neighbours with it.
            for question in asked:
                self._answer_all([question])
            return
        for question, parts in zip(asked, found, strict=True):
            body: bytes | Exception
            try:
                body = question.write(question.plan, parts)
            except Exception as error:
                body = error
            question.answer(question.exchange, 200, body)
        self._record(asked, found)

    def _record(self, asked: Sequence[_Question], found: Sequence[Sequence[Found]]) -> None:
        log = self._predictions
        if log is None:
            return
        for place, why in log.choose(len(asked), asked[0].exchange.started):
            question = asked[place]
            exchange, parts = question.exchange, zip(question.plan, question.ids, found[place], strict=True)
            groups = [_kept(part, ids, read) for part, ids, read in parts]
            latency = time.monotonic() - exchange.started
            log.record(Prediction(exchange.request_id.decode(), log.now(), "features", why, latency, groups=groups))

    # --- what is registered

    async def keep_fresh(self) -> None:
        """Read again what is registered, every second until cancelled; what can't be read stays as it was."""
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            try:
                self._take(await asyncio.to_thread(registered, self._workspace))
            except Exception as error:
                self._log(error)

    def _puzzle(self, again: Callable[[], None], exchange: Exchange, answer: Answer) -> None:
        """Try again when the registrations have been read, at a time after now."""
        self._puzzling.append((again, exchange, answer))
        if not self._reading:
            self._reading = True
            self._task = asyncio.ensure_future(self._look())

    async def _look(self) -> None:
        while self._puzzling:
            puzzling, self._puzzling = self._puzzling, []
            try:
                self._take(await asyncio.to_thread(registered, self._workspace))
            except Exception as error:
                self._log(error)
            for again, exchange, answer in puzzling:
                try:
                    again()
                except Exception as error:
                    answer(exchange, 500, error)
        self._reading = False

    def _take(self, specs: Sequence[OnlineSpec]) -> None:
        before = self.groups.by_name
        if [group.spec for group in before.values()] == specs:
            return
        same = {name: group for name, group in before.items() if group.spec in specs}
        self.groups = Groups(same.get(spec.group) or Group(spec, self._workspace, self._metrics) for spec in specs)

    def _log(self, error: Exception) -> None:
        if self._logger is not None:
            self._logger.log_error(error, what="the registered feature groups can't be read")

    # --- what is told of it

    def about(self) -> dict[str, Any]:
        """The groups with their keys, and the types of their features."""
        return {
            name: {
                "keys": dict(zip(group.spec.keys, group.spec.key_types, strict=True)),
                "features": dict(zip(group.features, group.spec.types, strict=False)) or list(group.features),
            }
            for name, group in self.groups.by_name.items()
        }

    def describe(self) -> dict[str, Any]:
        """The OpenAPI entry of `POST /features`."""
        (request, response), components = msgspec.json.schema_components(
            [_DocumentedRequest, _DocumentedAnswer], ref_template="#/components/schemas/{name}"
        )
        groups = list(self.groups.by_name.values())[:1]
        entities = {
            key: [_EXAMPLES.get(kind, 1)]
            for g in groups
            for key, kind in zip(g.spec.keys, g.spec.key_types, strict=True)
        }
        example = {"groups": [group.name for group in groups], "entities": entities}
        return {
            "components": components,
            "post": {
                "operationId": "features",
                "summary": f"The newest features of entities: {', '.join(self.groups.by_name) or 'no group yet'}.",
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": request, "example": example}},
                },
                "responses": {
                    "200": {"description": "OK", "content": {"application/json": {"schema": response}}},
                },
            },
        }


class _DocumentedRequest(msgspec.Struct):
    entities: dict[str, list[int | str]]
    groups: list[str] = []
    features: list[str] = []


class _DocumentedGroup(msgspec.Struct):
    status: list[Literal["present", "missing", "expired"]]
    event_times: list[int | None]


class _DocumentedAnswer(msgspec.Struct):
    features: dict[str, list[Any]]
    groups: dict[str, _DocumentedGroup]


def write_answer(plan: Plan, found: Sequence[Found]) -> bytes:
    """The body of an answer to `POST /features`."""
    features: dict[str, list[Any]] = {}
    groups = {}
    for part, read in zip(plan, found, strict=True):
        features |= read.columns
        groups[part.group.name] = {"status": read.statuses, "event_times": read.event_times}
    return _encode({"features": features, "groups": groups})


def _read(asked: Sequence[_Question]) -> list[list[Found]]:
    """What each question asked for; each group is read once for all of them."""
    together: dict[Group, list[Any]] = {}
    for question in asked:
        for part, ids in zip(question.plan, question.ids, strict=True):
            together.setdefault(part.group, []).extend(ids)
    read = {group: _read_group(group, ids) for group, ids in together.items()}
    starts = dict.fromkeys(together, 0)
    answers = []
    for question in asked:
        found = []
        for part, ids in zip(question.plan, question.ids, strict=True):
            start = starts[part.group]
            end = starts[part.group] = start + len(ids)
            found.append(_slice(read[part.group], part.names, start, end))
        answers.append(found)
    return answers


def _read_group(group: Group, ids: list[Any]) -> Found:
    read = group.reader.read(group.name, ids)
    statuses = [
        "expired" if expired else "present" if found else "missing"
        for found, expired in zip(read.found, read.expired, strict=True)
    ]
    for counter, status in zip(group.counters, STATUSES, strict=True):
        counter.inc(statuses.count(status))
    return Found(read.columns, statuses, read.event_times, read.as_of)


def _slice(read: Found, names: tuple[str, ...] | None, start: int, end: int) -> Found:
    if names is None:
        columns = {name: column[start:end] for name, column in read.columns.items()}
    else:
        columns = {name: read.columns[name][start:end] for name in names}
    return Found(columns, read.statuses[start:end], read.event_times[start:end], read.as_of)


def _kept(part: Part, ids: list[Any], found: Found) -> GroupRead:
    """A part's answer as the prediction log keeps it."""
    present, expired = ([status == which for status in found.statuses] for which in ("present", "expired"))
    there = [one or other for one, other in zip(present, expired, strict=True)]
    features = OnlineFeatures(found.columns, there, expired, found.event_times, found.as_of)
    return GroupRead.of(Read(part.group.spec, ids, features))
