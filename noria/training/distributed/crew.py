"""A crew: workers on Ray who take calls as they are free. Who does a call has no say in what comes of it.

Ray places the workers, moves arguments and results, and tells when a worker has died. The crew replaces it and gives
its call to another; workers whose place is free only later, on a machine that joins, take calls from then on.
"""

from __future__ import annotations

import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from noria.core import NoriaError, StorageError
from noria.pipelines.ray_compute import connect

MOST_DEATHS = 5
"""So many workers may die of one call: with more, the call itself is deadly."""
START_SECONDS = 120.0
"""With no worker after so long, there is no room for one."""
LAST_SECONDS = 120.0
"""Of workers who need each other, the last one may be so much later than the first; then it hangs."""
LOOK_SECONDS = 0.5
"""How often the crew looks for new machines."""

Call = Callable[..., Any]
Address = tuple[str, int]


class Worker:
    """A process that does what it is told. Module-level state of one call may be found by the next."""

    def ready(self) -> bool:
        return True

    def do(self, call: Call, *arguments: Any) -> Any:
        return call(*arguments)

    def address(self) -> Address:
        """An address of this machine with a port that is free now."""
        import ray

        host: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        with socket.socket() as found:
            found.bind((host, 0))
            return host, int(found.getsockname()[1])


class Crew:
    """Workers on the cluster of `compute`; use it in a `with` block.

    Args:
        compute: `ray` for one on this machine, `ray://host:port` for that one.
        workers: at most so many; None for as many as the cluster has CPUs, those that join later too.

    Raises:
        ConfigError: there is no cluster at the address.
        MissingExtraError: Ray isn't installed.
    """

    def __init__(self, compute: str, workers: int | None = None) -> None:
        self._compute = compute
        self._most = workers
        self._starting: dict[Any, Any] = {}
        self._idle: list[Any] = []
        self._busy: dict[Any, tuple[Any, int]] = {}
        self._asked = 0.0
        self._unborn = 0
        self.lost = 0
        """Workers that have died."""

    def __enter__(self) -> Crew:
        self.ray = connect(self._compute)
        self._worker = self.ray.remote(num_cpus=1)(Worker)
        return self

    def __exit__(self, *_: object) -> None:
        self._dismiss()

    def put(self, value: Any) -> Any:
        """Store a value for the workers, who get it as an argument without a copy of its arrays."""
        return self.ray.put(value)

    def size(self) -> int:
        """How many workers the cluster has room for, up to the number that was asked for."""
        room = int(self.ray.cluster_resources().get("CPU", 1))
        return max(1, room if self._most is None else min(self._most, room))

    def each(self, work: Call, calls: Sequence[tuple[Any, ...]]) -> Iterator[tuple[int, Any]]:
        """Call `work` with each of the arguments; yields (place in `calls`, result) as they are done.

        Raises:
            NoriaError: a call has raised it.
            StorageError: one call after the other has ended its worker, or there is no room for a worker.
        """
        waiting, deaths, done = deque(range(len(calls))), Counter[int](), 0
        work = self.put(work)
        try:
            while done < len(calls):
                self._grow(min(self._wanted(), len(waiting) + len(self._busy)))
                while waiting and self._idle:
                    worker, place = self._idle.pop(), waiting.popleft()
                    self._busy[worker.do.remote(work, *calls[place])] = (worker, place)
                for reference in self._finished():
                    worker, place = self._busy.pop(reference)
                    try:
                        result = self.ray.get(reference)
                    except self.ray.exceptions.RayActorError as error:
                        self._bury(worker, deaths, place, error)
                        waiting.appendleft(place)
                        continue
                    self._idle.append(worker)
                    done += 1
                    yield place, result
        except self.ray.exceptions.RayTaskError as error:
            raise cause(error) from None
        finally:
            # Of work that nobody waits for any more.
            for worker, _ in self._busy.values():
                self.ray.kill(worker)
            self._busy = {}

    def together(self, work: Call, calls: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Call `work` with (addresses, place, …) at the same time, each in a worker of its own; the results in order.

        The calls talk to each other, at the addresses: one for each. When one of them fails, all begin again.

        Raises:
            NoriaError: a call has raised it.
            StorageError: workers have died, or the calls have failed, again and again.
        """
        work, failures = self.put(work), Counter[int]()
        while True:
            workers = self.gather(len(calls))
            try:
                addresses = self.ray.get([worker.address.remote() for worker in workers])
                running = [
                    worker.do.remote(work, addresses, place, *arguments)
                    for place, (worker, arguments) in enumerate(zip(workers, calls, strict=True))
                ]
                return self._gathered(running)
            except self.ray.exceptions.RayError as error:
                # The others wait for the one that is gone, or have given up for its sake.
                self._dismiss()
                raised = cause(error)
                if isinstance(raised, NoriaError):
                    raise raised from None
                self._bury(None, failures, 0, raised)

    def _gathered(self, running: list[Any]) -> list[Any]:
        left = list(running)
        while left:
            patience = None if len(left) == len(running) else LAST_SECONDS
            finished, left = self.ray.wait(left, num_returns=1, timeout=patience)
            if not finished:
                raise self.ray.exceptions.GetTimeoutError(f"{len(left)} of {len(running)} workers hang")
            self.ray.get(finished)  # raises as soon as one fails
        return list(self.ray.get(running))

    def gather(self, count: int) -> list[Any]:
        """So many workers, ready at the same time."""
        until = time.monotonic() + START_SECONDS
        while len(self._idle) < count:
            if time.monotonic() > until:
                raise self._no_room(f"only {len(self._idle)} of {count} workers could start")
            self._grow(count)
            self._finished()
        return self._idle[:count]

    def _wanted(self) -> int:
        return self.size() if self._most is None else self._most

    def _grow(self, wanted: int) -> None:
        """Ask Ray for workers; they start when it has a place for them."""
        if not (self._starting or self._idle or self._busy):
            self._asked = time.monotonic()
        for _ in range(wanted - len(self._starting) - len(self._idle) - len(self._busy)):
            worker = self._worker.remote()
            self._starting[worker.ready.remote()] = worker

    def _finished(self) -> list[Any]:
        """Calls that have ended; workers that have started are idle from now on."""
        ready, _ = self.ray.wait([*self._starting, *self._busy], num_returns=1, timeout=LOOK_SECONDS)
        ended = [reference for reference in ready if reference in self._busy]
        for reference in ready:
            if reference in self._starting:
                worker = self._starting.pop(reference)
                self._welcome(worker, reference)
        if not (self._idle or self._busy) and time.monotonic() - self._asked > START_SECONDS:
            raise self._no_room("no worker could start")
        return ended

    def _no_room(self, what: str) -> StorageError:
        free = self.ray.available_resources().get("CPU", 0)
        return StorageError(
            f"{what} within {START_SECONDS:.0f} s: the cluster has {free:g} CPUs free",
            hint="end other work on the cluster, add a machine, or ask for fewer workers",
        )

    def _welcome(self, worker: Any, reference: Any) -> None:
        """Count a worker in that has started."""
        try:
            self.ray.get(reference)
        except self.ray.exceptions.RayError as error:
            self._unborn += 1
            if self._unborn >= MOST_DEATHS:
                raise StorageError(
                    f"{self._unborn} workers in a row couldn't start: {cause(error)}",
                    hint="is noria installed on all machines of the cluster, in the same version?",
                ) from error
            return
        self._unborn = 0
        self._idle.append(worker)

    def _bury(self, worker: Any, deaths: Counter[int], place: int, error: BaseException) -> None:
        """Count a death and let go what is left of the worker.

        Raises:
            StorageError: there were too many.
        """
        self.lost += 1
        deaths[place] += 1
        if worker is not None:
            self.ray.kill(worker)
        if deaths[place] >= MOST_DEATHS:
            raise StorageError(
                f"{deaths[place]} workers have died of the same work: {error}",
                hint="is there enough memory? more partitions are smaller",
            ) from error

    def _dismiss(self) -> None:
        for worker in (*self._starting.values(), *self._idle, *(worker for worker, _ in self._busy.values())):
            self.ray.kill(worker)
        self._starting, self._idle, self._busy = {}, [], {}


def cause(error: BaseException) -> Exception:
    """What a call has raised, or how Ray lost it."""
    raised = getattr(error, "cause", None)
    if isinstance(raised, Exception):
        return raised
    return error if isinstance(error, Exception) else RuntimeError(str(error))
