"""`POST /events`: events go to the log, checked, and are answered when they are on the disk.

While one batch is being written, those that come in are gathered: under load many requests share one write. What waits
is bounded; beyond that clients are told to come again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec

from noria.core import RequestError
from noria.pipelines.intake import Intake, StreamSpec
from noria.serving.exchange import Exchange
from noria.storage import Workspace
from noria.telemetry import MetricsCollector

PATH = b"/events"
MAX_WAITING = 200_000
"""Events that may wait to be written."""

_EXAMPLES: dict[str, Any] = {
    "bool": True, "date": "2026-01-01", "str": "a", "uuid": "6f1c0a50-0000-4000-8000-000000000001",
}  # fmt: skip

_Request = tuple[Exchange, StreamSpec, Sequence[bytes], "Sequence[bytes] | None", "tuple[str, int] | None", bool]


class EventDoor:
    """Takes events in for a server. All methods are called in its loop."""

    def __init__(self, specs: Sequence[StreamSpec], workspace: Workspace, metrics: MetricsCollector) -> None:
        self.intake = Intake(specs)
        self._workspace = workspace
        self._waiting: list[_Request] = []
        self._count = 0
        self._writing = False
        self._made: set[str] = set()
        about = "Events that were taken in."
        self._taken = {s.name: metrics.counter("noria_events_taken", about, stream=s.name) for s in specs}

    def accept(self, exchange: Exchange, answer: Any) -> None:
        """Check a request and put it to those that wait; `answer(exchange, status, body or error)` is called later.

        Raises:
            RequestError: it is wrong, or too much waits already.
        """
        spec, request, values, keys = self.intake.decode(exchange.body)
        if self._count + len(values) > MAX_WAITING:
            raise RequestError("more events wait than can be written", status=503, hint="send them again in a second")
        producer = None if request.producer is None else (request.producer, int(request.sequence or 0))
        if not values:
            answer(exchange, 200, b'{"appended":0}')
            return
        self._count += len(values)
        self._waiting.append((exchange, spec, values, keys, producer, request.durable))
        if not request.durable:
            answer(exchange, 202, b'{"accepted":%d}' % len(values))
        if not self._writing:
            self._writing = True
            asyncio.get_running_loop().call_soon(lambda: asyncio.ensure_future(self._write(answer)))

    async def drain(self) -> None:
        """Wait until nothing waits."""
        while self._writing:
            await asyncio.sleep(0.005)

    async def _write(self, answer: Any) -> None:
        while self._waiting:
            requests, self._waiting = self._waiting, []
            self._count = 0
            said = await asyncio.to_thread(self._append_all, requests)
            for (exchange, spec, _, _, _, durable), outcome in zip(requests, said, strict=True):
                if isinstance(outcome, int):
                    self._taken[spec.name].inc(outcome)
                if not durable:
                    continue
                if isinstance(outcome, int):
                    answer(exchange, 200, b'{"appended":%d}' % outcome)
                else:
                    answer(exchange, 500, outcome)
        self._writing = False

    def _append_all(self, requests: Sequence[_Request]) -> list[int | Exception]:
        """Append in as few batches as there are streams; requests of producers that may repeat themselves alone."""
        said: list[int | Exception] = [0] * len(requests)
        together: dict[str, list[int]] = {}
        for number, (_, spec, values, keys, producer, durable) in enumerate(requests):
            if producer is None:
                together.setdefault(spec.name, []).append(number)
            else:
                said[number] = self._append(spec, values, keys, producer, durable)
        for numbers in together.values():
            spec = requests[numbers[0]][1]
            values = [value for number in numbers for value in requests[number][2]]
            keys = [key for number in numbers for key in requests[number][3] or ()] if spec.key is not None else None
            durable = any(requests[number][5] for number in numbers)
            outcome = self._append(spec, values, keys, None, durable)
            for number in numbers:
                said[number] = outcome if isinstance(outcome, Exception) else len(requests[number][2])
        return said

    def _append(
        self,
        spec: StreamSpec,
        values: Sequence[bytes],
        keys: Sequence[bytes] | None,
        producer: tuple[str, int] | None,
        durable: bool,
    ) -> int | Exception:
        try:
            log = self._workspace.log
            if spec.topic not in self._made:
                if spec.topic not in log.topics():
                    log.create(spec.topic, spec.partitions)
                self._made.add(spec.topic)
            return log.append(spec.topic, values, keys, producer=producer, durable=durable)
        except Exception as error:  # answered with 5xx; the server goes on
            return error


def describe(intake: Intake) -> dict[str, Any]:
    """The OpenAPI entry of `POST /events`."""
    schema, components = msgspec.json.schema_components([_Documented], ref_template="#/components/schemas/{name}")
    name, spec = next(iter(intake.specs.items()))
    example = {"stream": name, "events": [{column: _example(kind) for column, kind in spec.schema.items()}]}
    return {
        "components": components,
        "post": {
            "operationId": "events",
            "summary": f"Append events to a stream: {', '.join(intake.specs)}.",
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": schema[0], "example": example}},
            },
            "responses": {
                "200": {"description": "They are durable.", "content": _counted("appended")},
                "202": {"description": "They are on their way (durable=false).", "content": _counted("accepted")},
            },
        },
    }


def _example(kind: str) -> Any:
    plain = kind.partition("[")[0]
    return (
        None if kind.endswith("?") else "2026-01-01T00:00:00Z" if kind == "timestamp[iso]" else _EXAMPLES.get(plain, 1)
    )


def _counted(name: str) -> dict[str, Any]:
    schema = {"type": "object", "properties": {name: {"type": "integer"}}, "required": [name]}
    return {"application/json": {"schema": schema}}


class _Documented(msgspec.Struct):
    events: list[dict[str, Any]]
    stream: str | None = None
    durable: bool = True
    producer: str | None = None
    sequence: int | None = None
