"""Batches by turn: the requests that were parsed in one turn of the event loop are answered together.

A lone request doesn't wait for company, and a burst becomes a batch: reading several sockets is one turn, and what it
brought is answered by one call when the turn is over. What would keep the loop for longer than a few milliseconds, as
far as can be told from the batches before, is answered by a thread in pieces, so that nobody else has to wait for it;
what comes in meanwhile becomes the next piece. Nothing of this is configured: what a batch costs is measured.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from random import Random
from typing import Any

import msgspec

from noria.core import NoriaError, RequestError, StorageError
from noria.features.reads import GroupRead
from noria.serving.exchange import Exchange, Reply
from noria.serving.lane import Lane, Traced
from noria.serving.prediction_files import Prediction
from noria.serving.prediction_log import Chosen, PredictionLog
from noria.serving.replies import Replies
from noria.serving.retired import Retired
from noria.serving.servable import Servable
from noria.telemetry import MetricsCollector, MLLogger

INLINE_SECONDS = 0.003
"""A batch that takes longer is answered by a thread."""
PIECE_SECONDS = 0.05
"""How much a thread is given at a time."""
LOG_EVERY = 100
"""One prediction in so many is logged."""

_SWEEP_SECONDS = 0.02
_JSON = b"application/json"


class Batches:
    """The lanes of a server. All methods are called in its loop, but for `warm_up`."""

    def __init__(
        self,
        metrics: MetricsCollector,
        replies: Replies,
        logger: MLLogger | None,
        predictions: PredictionLog | None = None,
        max_wait: float = 1.0,
        random: Random | None = None,
    ) -> None:
        self._metrics = metrics
        self._replies = replies
        self._logger = logger
        self._predictions = predictions
        self._max_wait = max_wait
        self._encode = msgspec.json.Encoder().encode
        self._lanes: dict[tuple[int, str, str], Lane] = {}
        self._random = random or Random()
        self._threads = ThreadPoolExecutor(max(2, os.cpu_count() or 1), "noria-batch")
        self._retired = Retired(metrics)
        self._scheduled = self._sweeping = False
        self._until_log = 1

    def encode(self, servable: Any, answer: Any) -> Reply:
        """An answer as JSON."""
        return self._encode(answer), _JSON, b""

    def warm_up(self, servable: Servable) -> None:
        """Have a servable do once what makes first requests slow, and measure what it takes for the next ones."""
        servable.warm_up()
        lanes = [Lane(servable, operation, self._metrics) for operation in servable.operations]
        for lane in lanes:
            lane.measure()
        for lane in lanes:
            self._lanes[id(servable), lane.operation, ""] = lane

    def add(self, exchange: Exchange, servable: Servable, operation: str, request: Any, *, aside: bool = False) -> None:
        """Put a decoded request into this turn's batch.

        Args:
            exchange, servable, operation, request: who asks whom for what.
            aside: a thread answers, whatever it costs.

        Raises:
            OverloadedError: its turn would come too late.
        """
        lane = self._lanes.get((id(servable), operation, exchange.twin))
        if lane is None or lane.servable is not servable:
            lane = self._lane(servable, operation, exchange.twin)
        lane.aside = aside
        exchange.servable = servable
        rows = 1 if lane.size is None else lane.size(operation, request)
        if lane.busy_until or lane.cost.per_row * lane.rows > INLINE_SECONDS:
            lane.refuse_if_late(exchange, rows, self._max_wait)
        lane.rows += rows
        lane.exchanges.append(exchange)
        lane.requests.append(request)
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self.answer_all)

    def answer_all(self) -> None:
        """Answer every open batch, or have a thread do it."""
        self._scheduled = False
        open_lanes = [lane for lane in list(self._lanes.values()) if lane.exchanges and not lane.busy_until]
        if len(open_lanes) > 1:  # whoever comes first is faster: no variant of a deployment always does
            self._random.shuffle(open_lanes)
        for lane in open_lanes:
            self._turn(lane)

    def retire(self, servable: Servable) -> None:
        """Answer what has come in for a servable, then close it."""
        for lane in self._lanes_of(servable):
            lane.retired = True
        self._close_if_idle(servable)

    def close(self) -> None:
        """Let the threads go."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _lanes_of(self, servable: Servable) -> list[Lane]:
        # A copy first: other threads may warm up a servable meanwhile.
        return [lane for lane in list(self._lanes.values()) if lane.servable is servable]

    def _lane(self, servable: Servable, operation: str, twin: str = "") -> Lane:
        lane = self._lanes.get((id(servable), operation, twin))
        if lane is None or lane.servable is not servable:
            lane = self._lanes[id(servable), operation, twin] = Lane(servable, operation, self._metrics)
            if twin:
                lane.cost = self._lane(servable, operation).cost
        return lane

    def _turn(self, lane: Lane) -> None:
        if lane.aside or lane.cost.at_most(lane.rows) > INLINE_SECONDS:
            self._send(lane)
            return
        exchanges, requests, rows = lane.take()
        chosen = self._choose(exchanges)
        self._reply(lane, exchanges, requests, chosen, lane.work(requests, rows, traced=bool(chosen)))
        if lane.retired:
            self._close_if_idle(lane.servable)

    # --- by a thread

    def _send(self, lane: Lane) -> None:
        """Have a thread answer as much as is a piece of work."""
        self._tell_late(lane.exchanges)
        exchanges, requests, rows = lane.take(PIECE_SECONDS)
        if not exchanges:
            self._close_if_idle(lane.servable)
            return
        chosen = self._choose(exchanges)
        lane.busy_until = time.monotonic() + lane.cost.seconds(rows)
        lane.at_work = exchanges
        loop = asyncio.get_running_loop()
        if not self._sweeping:
            self._sweeping = True
            loop.call_later(_SWEEP_SECONDS, self._sweep)
        try:
            work = loop.run_in_executor(self._threads, partial(lane.work, requests, rows, traced=bool(chosen)))
        except RuntimeError as error:  # the threads are gone: the server is ending
            lane.busy_until, lane.at_work = 0.0, ()
            for exchange in exchanges:
                self._replies.fail(exchange, StorageError(f"the server is stopping: {error}"))
            return
        work.add_done_callback(partial(self._done, lane, exchanges, requests, chosen))

    def _done(
        self,
        lane: Lane,
        exchanges: list[Exchange],
        requests: list[Any],
        chosen: Chosen,
        work: asyncio.Future[Traced],
    ) -> None:
        lane.busy_until, lane.at_work = 0.0, ()
        if work.cancelled():  # the server is ending
            return
        self._reply(lane, exchanges, requests, chosen, work.result())
        if lane.exchanges:
            self._turn(lane)
        else:
            self._close_if_idle(lane.servable)

    def _sweep(self) -> None:
        """While threads work: tell those whose deadline is over, and come again."""
        busy = [lane for lane in list(self._lanes.values()) if lane.busy_until]
        self._sweeping = bool(busy)
        if busy:
            asyncio.get_running_loop().call_later(_SWEEP_SECONDS, self._sweep)
        for lane in busy:
            self._tell_late((*lane.at_work, *lane.exchanges))

    def _tell_late(self, exchanges: Sequence[Exchange]) -> None:
        now = time.monotonic()
        late = [exchange for exchange in exchanges if exchange.deadline <= now and exchange.awaited]
        for exchange in late:
            self._replies.fail(exchange, _too_late(exchange))

    def _close_if_idle(self, servable: Servable) -> None:
        lanes = self._lanes_of(servable)
        if any(lane.busy_until or lane.exchanges or not lane.retired for lane in lanes):
            return
        for key in [key for key, lane in list(self._lanes.items()) if lane.servable is servable]:
            del self._lanes[key]
        try:
            servable.close()
        except Exception as error:
            if self._logger is not None:
                self._logger.log_error(error, model=servable.model, version=servable.version)
        self._retired.add(servable, [lane.servable for lane in list(self._lanes.values())])

    # --- replies

    def _choose(self, exchanges: Sequence[Exchange]) -> Chosen:
        log = self._predictions
        return log.choose(len(exchanges), exchanges[0].started) if log is not None else ()

    def _reply(
        self, lane: Lane, exchanges: Sequence[Exchange], requests: Sequence[Any], chosen: Chosen, outcome: Traced
    ) -> None:
        answers, reads = outcome
        lane.sizes.observe(len(exchanges))
        for exchange, request, answer in zip(exchanges, requests, answers, strict=True):
            try:
                self._answer(lane, exchange, request, answer)
            except Exception as error:  # a mistake of ours or the servable's: the others' answers don't suffer
                self._replies.fail(exchange, error)
        if lane.answered:
            lane.count("", lane.answered)
            lane.answered = 0
        log = self._predictions
        if chosen and log is not None:
            for place, why in chosen:
                if not isinstance(answers[place], BaseException):
                    try:
                        read = [GroupRead.of(one) for one in reads[place]] if reads else []
                        _record(log, lane, why, exchanges[place], requests[place], answers[place], read)
                    except Exception as error:
                        self._replies.log_error(error, exchanges[place])

    def _answer(self, lane: Lane, exchange: Exchange, request: Any, answer: Any) -> None:
        if exchange.answer is not None:  # it was too late
            return
        if exchange.deadline != math.inf and time.monotonic() >= exchange.deadline:
            self._replies.fail(exchange, _too_late(exchange))
            return
        if isinstance(answer, BaseException):
            self._fail(lane, exchange, answer)
            return
        try:
            reply = (exchange.write or self.encode)(lane.servable, answer)
        except Exception as error:
            self._fail(lane, exchange, error)
            return
        trial = exchange.trial
        if trial is not None:
            trial.answered(exchange, lane.operation, answer)
        if exchange.variant:
            lane.count(exchange.variant)
        else:
            lane.answered += 1
        self._replies.send(exchange, 200, reply)
        self._until_log -= 1
        if self._until_log == 0:
            self._log(lane, exchange, request, answer)

    def _fail(self, lane: Lane, exchange: Exchange, error: BaseException) -> None:
        """Tell an error; what a variant can't answer, the control answers."""
        trial = exchange.trial
        if trial is not None and getattr(error, "status", 500) >= 500:
            again = trial.failed(exchange, error)
            if again is not None:
                try:
                    if not isinstance(error, NoriaError):
                        self._replies.log_error(error, exchange)
                    self.add(exchange, again, lane.operation, trial.request(exchange, again, lane.operation))
                except Exception as second:
                    self._replies.fail(exchange, second)
                return
        self._replies.fail(exchange, error)

    def _log(self, lane: Lane, exchange: Exchange, request: Any, answer: Any) -> None:
        self._until_log = LOG_EVERY
        if self._logger is not None:
            seconds = time.monotonic() - exchange.started
            servable, request_id = lane.servable, exchange.request_id.decode()
            self._logger.log_prediction(servable.model, servable.version, request_id, request, answer, seconds)


def _too_late(exchange: Exchange) -> RequestError:
    asked = exchange.deadline - exchange.started
    return RequestError(
        f"there was no answer within the {asked:.3g} s of X-Request-Timeout", status=504, hint="give it more time"
    )


def _record(
    log: PredictionLog, lane: Lane, why: str, exchange: Exchange, request: Any, answer: Any, read: list[GroupRead]
) -> None:
    """Put a request into the prediction log."""
    log.record(
        Prediction(
            exchange.request_id.decode(),
            log.now(),
            lane.operation,
            why,
            time.monotonic() - exchange.started,
            lane.servable.model,
            lane.servable.version,
            read,
            request,
            answer,
            exchange.variant,
            exchange.headers.get(b"traceparent", b"").decode("latin-1"),
        )
    )
