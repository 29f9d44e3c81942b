"""Batches by turn: the requests that were parsed in one turn of the event loop are answered together.

A lone request doesn't wait for company, and a burst becomes a batch: reading several sockets is one turn, and what it
brought is answered by one call when the turn is over.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from noria.core import NoriaError, RequestError
from noria.features.reads import GroupRead, Read
from noria.serving.prediction_files import Prediction
from noria.serving.prediction_log import Chosen, PredictionLog
from noria.serving.protocol import Exchange
from noria.serving.servable import Servable
from noria.telemetry import MetricsCollector, MLLogger
from noria.telemetry.metrics import SECONDS_BUCKETS, Counter, Histogram

LOG_EVERY = 100
"""One prediction in so many is logged."""

_Traced = tuple[Sequence[Any], Sequence[Sequence[Read]]]
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_PROBLEM = b"application/problem+json"


class _Batch:
    """The requests of one servable and operation in the present turn, and the instruments that count them."""

    def __init__(self, servable: Servable, operation: str, metrics: MetricsCollector) -> None:
        self.servable = servable
        self.operation = operation
        self.path = f"/{operation}"
        self._answer_traced: Callable[[str, Sequence[Any]], _Traced] | None = getattr(servable, "answer_traced", None)
        self.exchanges: list[Exchange] = []
        self.requests: list[Any] = []
        labels = {"model": servable.model, "version": str(servable.version), "operation": operation}
        self.answered: Counter = metrics.counter("noria_predictions", "Answered requests.", **labels)
        self.sizes: Histogram = metrics.histogram("noria_batch_size", "Requests answered together.", _SIZES, **labels)

    def answer(self, requests: Sequence[Any], *, traced: bool) -> _Traced:
        """The answers; and if it was asked for, what was read for each."""
        if traced and self._answer_traced is not None:
            answers, reads = self._answer_traced(self.operation, requests)
        else:
            answers, reads = self.servable.answer(self.operation, requests), ()
        if len(answers) != len(requests):
            raise RuntimeError(f"{len(answers)} answers to {len(requests)} requests")
        return answers, reads


class Batches:
    """The open batches of a server."""

    def __init__(
        self, metrics: MetricsCollector, logger: MLLogger | None, predictions: PredictionLog | None = None
    ) -> None:
        self._metrics = metrics
        self._logger = logger
        self._predictions = predictions
        self._encode = msgspec.json.Encoder().encode
        self._batches: dict[tuple[int, str], _Batch] = {}
        self._counted: dict[tuple[bytes, str, int], tuple[Counter, Histogram]] = {}
        self._scheduled = False
        self._until_log = 1

    def add(self, exchange: Exchange, servable: Servable, operation: str, request: Any) -> None:
        """Put a decoded request into this turn's batch."""
        key = (id(servable), operation)
        batch = self._batches.get(key)
        if batch is None or batch.servable is not servable:
            batch = self._batches[key] = _Batch(servable, operation, self._metrics)
        batch.exchanges.append(exchange)
        batch.requests.append(request)
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self.answer_all)

    def answer_all(self) -> None:
        """Answer every open batch."""
        self._scheduled = False
        for batch in list(self._batches.values()):
            if batch.requests:
                exchanges, requests = batch.exchanges, batch.requests
                batch.exchanges, batch.requests = [], []
                self._answer(batch, exchanges, requests)

    def forget(self, servable: Servable) -> None:
        """Let go of a servable that is served no more."""
        self._batches = {key: batch for key, batch in self._batches.items() if batch.servable is not servable}

    def _answer(self, batch: _Batch, exchanges: list[Exchange], requests: list[Any]) -> None:
        batch.sizes.observe(len(requests))
        log = self._predictions
        chosen = log.choose(len(requests), exchanges[0].started) if log is not None else ()
        try:
            answers, reads = batch.answer(requests, traced=bool(chosen))
        except Exception as error:
            if len(requests) == 1:
                self.fail(exchanges[0], error)
                return
            # One of them may be the culprit: alone, it can't take its neighbours with it.
            for exchange, request in zip(exchanges, requests, strict=True):
                self._answer(batch, [exchange], [request])
            return
        self._respond(batch, exchanges, requests, answers)
        if chosen and log is not None:
            _record(log, batch, chosen, exchanges, requests, answers, reads)

    def _respond(
        self, batch: _Batch, exchanges: Sequence[Exchange], requests: Sequence[Any], answers: Sequence[Any]
    ) -> None:
        for exchange, request, answer in zip(exchanges, requests, answers, strict=True):
            if isinstance(answer, BaseException):
                self.fail(exchange, answer)
                continue
            try:
                body = self._encode(answer)
            except Exception as error:
                self.fail(exchange, error)
                continue
            batch.answered.inc()
            self.count(exchange, batch.path, 200)
            exchange.respond(200, body)
            self._until_log -= 1
            if self._until_log == 0:
                self._log(batch, exchange, request, answer)

    def _log(self, batch: _Batch, exchange: Exchange, request: Any, answer: Any) -> None:
        self._until_log = LOG_EVERY
        if self._logger is not None:
            seconds = time.monotonic() - exchange.started
            servable, request_id = batch.servable, exchange.request_id.decode()
            self._logger.log_prediction(servable.model, servable.version, request_id, request, answer, seconds)

    def fail(self, exchange: Exchange, error: BaseException) -> None:
        """Answer with an error; one that isn't the user's is logged with its traceback and told without details."""
        known = error if isinstance(error, NoriaError) else None
        if known is None and self._logger is not None:
            self._logger.log_error(error, request_id=exchange.request_id.decode())
        told = known or RequestError(
            "the server failed to answer this request", status=500, hint="see the server's log"
        )
        problem = {**told.to_problem(), "request_id": exchange.request_id.decode()}
        self.count(exchange, exchange.path.decode("latin-1"), told.status)
        exchange.respond(told.status, msgspec.json.encode(problem), _PROBLEM)

    def count(self, exchange: Exchange, path: str, status: int) -> None:
        """Count an answered request and its duration; `path` is one of a few known routes."""
        found = self._counted.get((exchange.method, path, status))
        if found is None:
            method = exchange.method.decode("latin-1") or "-"
            labels = {"method": method, "path": path, "code": str(status)}
            found = self._counted[exchange.method, path, status] = (
                self._metrics.counter("noria_http_requests", "Answered HTTP requests.", **labels),
                self._metrics.histogram(
                    "noria_http_request_duration_seconds", "From request to answer.", SECONDS_BUCKETS, **labels
                ),
            )
        found[0].inc()
        found[1].observe(time.monotonic() - exchange.started)


def _record(
    log: PredictionLog,
    batch: _Batch,
    chosen: Chosen,
    exchanges: Sequence[Exchange],
    requests: Sequence[Any],
    answers: Sequence[Any],
    reads: Sequence[Sequence[Read]],
) -> None:
    """Put the chosen requests into the prediction log, but for those that were answered with an error."""
    for place, why in chosen:
        if isinstance(answers[place], BaseException):
            continue
        exchange = exchanges[place]
        log.record(
            Prediction(
                exchange.request_id.decode(),
                log.now(),
                batch.operation,
                why,
                time.monotonic() - exchange.started,
                batch.servable.model,
                batch.servable.version,
                [GroupRead.of(read) for read in reads[place]] if reads else [],
                requests[place],
                answers[place],
            )
        )
