"""A lane: the requests that wait for one servable and operation, and what is known of their cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from noria.core import RequestError, StorageError
from noria.features.reads import Read
from noria.serving.cost import Cost
from noria.serving.exchange import Exchange
from noria.serving.replies import OverloadedError
from noria.serving.servable import Servable
from noria.telemetry import MetricsCollector
from noria.telemetry.metrics import Counter, Histogram

Traced = tuple[Sequence[Any], Sequence[Sequence[Read]]]

_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_TRIES = 16


class Lane:
    """Requests in the order in which they came.

    Attributes:
        exchanges, requests: those that wait.
        rows: how many rows they have together.
        cost: of a batch.
        busy_until: when the thread that answers for it will be through, on the monotonic clock; 0 while there is none.
        at_work: those that this thread answers.
        answered: of the batch that is being replied to, where nothing is tried.
        size: says how many rows a request has; None where each is one.
        retired: nothing more comes in, and the servable is closed when nothing waits.
        aside: whether it is always answered by a thread.
    """

    def __init__(self, servable: Servable, operation: str, metrics: MetricsCollector) -> None:
        self.servable = servable
        self.operation = operation
        self.exchanges: list[Exchange] = []
        self.requests: list[Any] = []
        self.rows = 0
        self.cost = Cost()
        self.busy_until = 0.0
        self.at_work: Sequence[Exchange] = ()
        self.answered = 0
        self.retired = False
        self.aside = False
        self.size: Callable[[str, Any], int] | None = getattr(servable, "size", None)
        self._answer_traced: Callable[[str, Sequence[Any]], Traced] | None = getattr(servable, "answer_traced", None)
        self._metrics = metrics
        self._answered: dict[str, Counter] = {}
        self._labels = {"model": servable.model, "version": str(servable.version), "operation": operation}
        self.sizes: Histogram = metrics.histogram(
            "noria_batch_size", "Requests answered together.", _SIZES, **self._labels
        )

    def refuse_if_late(self, exchange: Exchange, rows: int, max_wait: float) -> None:
        """Refuse a request whose turn would come too late, as far as can be told: of the first large ones it can't.

        Raises:
            OverloadedError: it would wait longer than it may, or until after its deadline.
        """
        now = time.monotonic()
        # A thread that is late by a second is taken to need another one: one that hangs gathers no requests.
        wait = abs(self.busy_until - now) if self.busy_until else 0.0
        if self.cost.knows(rows):
            wait += self.cost.seconds(self.rows)
        if wait > min(max_wait, exchange.deadline - now):
            label = f"{self.servable.model}@{self.servable.version}"
            raise OverloadedError(f"{label} has more to do than it can do in time: {wait:.2f} s of work", seconds=wait)

    def take(self, seconds: float | None = None) -> tuple[list[Exchange], list[Any], int]:
        """Take out what waits, or as much of it as can be answered within some seconds; and its rows.

        Whose client is gone, or has been told that it is too late, is left out.
        """
        exchanges, requests, rows = self.exchanges, self.requests, self.rows
        if seconds is None:
            self.exchanges, self.requests, self.rows = [], [], 0
            return exchanges, requests, rows
        wanted = [place for place, exchange in enumerate(exchanges) if exchange.awaited]
        sizes = [1 if self.size is None else self.size(self.operation, requests[place]) for place in wanted]
        room, count, taken = self.cost.rows(seconds), 0, 0
        while count < len(wanted) and (count == 0 or taken + sizes[count] <= room):
            taken += sizes[count]
            count += 1
        left = wanted[count:]
        self.exchanges, self.requests = [exchanges[place] for place in left], [requests[place] for place in left]
        self.rows = sum(sizes[count:])
        for exchange in exchanges:  # only now: an answer makes room for a request that was held, which comes here
            if not exchange.awaited:
                exchange.abandon()
        return [exchanges[place] for place in wanted[:count]], [requests[place] for place in wanted[:count]], taken

    def work(self, requests: Sequence[Any], rows: int, *, traced: bool) -> Traced:
        """The answers, or in the place of one the error; and what was read for each if that is asked for.

        What one request does wrong concerns it alone. A store that can't be reached concerns all of them.
        """
        started = time.perf_counter()
        try:
            answers = self._work(requests, traced=traced)
        except StorageError as error:
            return [error] * len(requests), ()
        except BaseException as error:  # SystemExit too, and panics of libraries in Rust: each request gets an answer
            if len(requests) == 1:
                return [error], ()
            return self._one_by_one(requests, traced=traced)
        self.cost.learn(rows, time.perf_counter() - started)
        return answers

    def _one_by_one(self, requests: Sequence[Any], *, traced: bool) -> Traced:
        """One of them may be the culprit: alone, it can't take its neighbours with it."""
        parts = [self.work([request], 1, traced=traced) for request in requests]
        return [part[0][0] for part in parts], [part[1][0] if part[1] else () for part in parts]

    def _work(self, requests: Sequence[Any], *, traced: bool) -> Traced:
        if traced and self._answer_traced is not None:
            answers, reads = self._answer_traced(self.operation, requests)
        else:
            answers, reads = self.servable.answer(self.operation, requests), ()
        if len(answers) != len(requests):
            raise RuntimeError(f"{len(answers)} answers to {len(requests)} requests")
        return answers, reads

    def count(self, variant: str, answers: int = 1) -> None:
        """Count answers."""
        counter = self._answered.get(variant)
        if counter is None:
            counter = self._answered[variant] = self._metrics.counter(
                "noria_predictions", "Answered requests.", **self._labels, variant=variant or "champion"
            )
        counter.inc(answers)

    def measure(self) -> None:
        """Learn from the servable's example what a batch costs; a servable without one is learnt from its requests."""
        for count, seconds in _measured(self.servable, self.operation, self.size):
            self.cost.learn(count, seconds)


def _measured(servable: Servable, operation: str, size: Any) -> Iterator[tuple[int, float]]:
    """Rows and seconds of batches of the example: one, and several where that doesn't take too long."""
    example = servable.describe(operation).get("example")
    if not example:
        return
    try:
        request = servable.decode(operation, msgspec.json.encode(example))
    except RequestError:
        return
    rows = 1 if size is None else size(operation, request)
    for count in (1, _TRIES):
        best = 1e9
        for _ in range(3):
            started = time.perf_counter()
            servable.answer(operation, [request] * count)
            best = min(best, time.perf_counter() - started)
            if best > 0.1:
                break
        yield rows * count, best
        if best > 0.1:
            return
