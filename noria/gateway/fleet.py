"""Fleet: replicas, each looked after by one task of an event loop, and the proxy before them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, TypeVar

from noria.gateway.autoscale import CORES
from noria.gateway.errors import GatewayError
from noria.gateway.proxy import Proxy
from noria.gateway.proxy_config import BASE_WEIGHT, Upstream
from noria.gateway.replica import HOST, Replica
from noria.gateway.restarts import Losses, RestartPolicy

T = TypeVar("T")


class Fleet:
    """Keeps everything running from `run` until `end`, and changes how many there are meanwhile.

    Args:
        make_replica: a new place to fill, from its index.
        count: how many replicas to start with.
        proxy: what stands before them.
        restarts: when a lost replica is started again.
        drain_timeout: seconds that a replica has to end after SIGTERM.
        on_event: told what happens.
    """

    def __init__(
        self,
        make_replica: Callable[[int], Replica],
        count: int,
        proxy: Proxy,
        restarts: RestartPolicy,
        drain_timeout: float,
        on_event: Callable[..., None],
    ) -> None:
        self.replicas: tuple[Replica, ...] = ()
        self.proxy = proxy
        self._make_replica, self._count = make_replica, count
        self._restarts = restarts
        self._drain_timeout = drain_timeout
        self._tell = on_event
        self._keepers: dict[Replica, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._changing = asyncio.Lock()
        self._over, self._hurry = asyncio.Event(), asyncio.Event()
        self._asked_to_end = self._asked_to_hurry = self._patient = False
        self._cause = ""
        self._broken: asyncio.Future[None] | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self._started = False

    def end(self, *, hurry: bool = False, patient: bool = False, cause: str = "") -> None:
        """Ask for the end, from any thread or signal handler.

        Args:
            hurry: requests in flight are cut off.
            cause: told, if there is one.
            patient: clients that keep their connection are waited for, as long as HAProxy keeps silent ones.
        """
        self._patient, self._cause = self._patient or patient, self._cause or cause
        self._asked_to_end, self._asked_to_hurry = True, self._asked_to_hurry or hurry
        if self.loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: it has ended already
                self.loop.call_soon_threadsafe(self._heed)

    async def run(self, on_started: Callable[[], None], *others: Coroutine[Any, Any, None]) -> None:
        """Start all, call `on_started` when all are ready, and keep them running until `end`.

        Args:
            on_started: called once.
            others: what else shall run from the start to the end; an error there is told, and the rest goes on.

        Raises:
            GatewayError: when something can't be started at first.
        """
        self.loop = asyncio.get_running_loop()
        self._broken = self.loop.create_future()
        self._heed()
        over: asyncio.Task[Any] = asyncio.create_task(self._over.wait())
        try:
            for coroutine in (self.proxy.keep(), self._start(on_started)):
                self._spawn(coroutine)
            for coroutine in others:
                self._spawn(self._aside(coroutine))
            both: set[asyncio.Future[Any]] = {self._broken, over}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if self._broken.done():
                self._broken.result()
        finally:
            await _cancel(over, *self._tasks)
            await self._shut_down()

    @property
    def changing(self) -> bool:
        """Whether it is being scaled or rolled just now."""
        return self._changing.locked()

    async def operate(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something that ends with the fleet.

        Raises:
            GatewayError: the fleet ends first.
        """
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.cancelled():
                raise  # only who asked is gone
            raise GatewayError("the gateway stops", hint="start it again") from None

    async def scale(self, count: int) -> None:
        """Have so many replicas; returns when all new ones are ready and all others are gone.

        Raises:
            GatewayError: a new one can't be started; there are as many as before.
        """
        async with self._changing:
            leaving = [replica for replica in self.replicas if replica.state == "failed"]
            alive = [replica for replica in self.replicas if replica not in leaving]
            await self._grow(count - len(alive))
            leaving += _last_first(alive)[: max(0, len(alive) - count)]
            await asyncio.gather(*(self._retire(replica) for replica in leaving))

    async def roll(self) -> None:
        """Replace each replica by a new process, one after the other: the old one goes when the new one is ready.

        Raises:
            GatewayError: a new one can't be started; those that were not replaced yet go on.
        """
        async with self._changing:
            for old in self.replicas:
                [new] = await self._grow(1, weight=self._weight(old))
                await self._retire(old)
                self._tell("replica_took_over", replica=new.name, cause=f"from {old.name}")

    def _heed(self) -> None:
        if self._asked_to_end and not self._over.is_set():
            if self._cause:
                self._tell("gateway_stops", cause=self._cause)
            self._over.set()
        if self._asked_to_hurry:
            self._hurry.set()

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task whose error is the end of the fleet."""
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)

        def done(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            error = None if task.cancelled() else task.exception()
            if error is not None and self._broken is not None and not self._broken.done():
                self._broken.set_exception(error)

        task.add_done_callback(done)
        return task

    async def _aside(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:
            self._tell("gateway_failed", cause=f"{type(error).__name__}: {error}")

    async def _start(self, on_started: Callable[[], None]) -> None:
        await self._add_few_at_a_time(self._count, BASE_WEIGHT)  # one that fails is the fleet's end, see `_give_up`
        await self.proxy.started.wait()
        self._started = True
        on_started()

    def _add(self, weight: int = BASE_WEIGHT) -> Replica:
        """A new replica at the first index that is free, so that names and logs stay few."""
        used = {replica.index for replica in self.replicas}
        replica = self._make_replica(next(i for i in range(len(used) + 1) if i not in used))
        self.replicas = (*self.replicas, replica)
        self.proxy.upstreams[replica.name] = Upstream(replica.name, HOST, 1, replica.index + 1, weight)
        self._keepers[replica] = self._spawn(self._keep(replica))
        return replica

    async def _grow(self, count: int, weight: int = BASE_WEIGHT) -> list[Replica]:
        """So many more replicas, ready; none when one of them can't be started."""
        new = await self._add_few_at_a_time(count, weight)
        failures = [replica.failure for replica in new if replica.failure is not None]
        if failures:
            await asyncio.gather(*(self._retire(replica) for replica in new))
            raise failures[0]
        return new

    async def _add_few_at_a_time(self, count: int, weight: int) -> list[Replica]:
        """So many more, settled; none is begun once one has failed. A start keeps a core busy for seconds."""
        new: list[Replica] = []

        async def add_in_turn() -> None:
            while len(new) < count and not any(replica.failure for replica in new):
                replica = self._add(weight)
                new.append(replica)
                await replica.settled.wait()

        await asyncio.gather(*(add_in_turn() for _ in range(2 * CORES)))
        return new

    async def _retire(self, replica: Replica) -> None:
        """Take a replica out without losing a request, end its process, and forget it."""
        await _cancel(self._keepers.pop(replica))
        if replica.state == "ready":
            replica.state = "draining"
            if not await self.proxy.drain(replica.name, self._drain_timeout):
                self._tell("replica_cut_off", replica=replica.name, cause="it has requests that take too long")
        if replica.child is not None:
            await replica.child.stop(self._drain_timeout)
        await self.proxy.remove(replica.name)
        replica.state = "failed" if replica.state == "failed" else "stopped"
        self.replicas = tuple(other for other in self.replicas if other is not replica)
        self._tell("replica_retired", replica=replica.name)

    async def _keep(self, replica: Replica) -> None:
        """Start a replica again whenever it is lost; one that was never ready is given up."""
        losses = Losses(self._restarts.window)
        deadline = asyncio.get_running_loop().time() + replica.ready_timeout
        while True:
            taken = {port for other in self.replicas for port in (other.port, other.grpc_port)}
            cause = await replica.run(taken, on_ready=lambda: self._admit(replica))
            count, most = losses.add(), self._restarts.max_failures
            replica.state = "waiting"
            await self.proxy.change(replica.name, ready=False)
            late = count >= min(2, most) or asyncio.get_running_loop().time() >= deadline
            if late and not replica.ever_ready.is_set():
                return self._give_up(replica, self._error(replica, cause, count, "is given up"))
            if count < most:
                self._tell("replica_lost", replica=replica.name, cause=cause)
                await asyncio.sleep(self._restarts.delay(count))
            else:
                pause = self._restarts.longest_pause
                error = self._error(replica, cause, count, f"is tried again every {pause:g} s")
                if not self._started:
                    return self._give_up(replica, error)
                replica.state = "failed"
                told = error.message if count == most else cause  # its log once, for that is long
                self._tell("replica_failed", replica=replica.name, cause=told)
                await asyncio.sleep(pause)
            replica.restarts += 1

    def _error(self, replica: Replica, cause: str, count: int, what: str) -> GatewayError:
        tail = replica.child.tail() if replica.child else ""
        return GatewayError(
            f"{replica.name} {cause}{f' (loss {count} in a short time)' if count > 1 else ''}, and {what}; "
            f"the last lines of its log:\n{tail or '(it has written nothing)'}",
            hint=f"put right what they tell; the log is {replica.log}",
        )

    def _give_up(self, replica: Replica, error: GatewayError) -> None:
        replica.state, replica.failure = "failed", error
        replica.settled.set()
        self._tell("replica_failed", replica=replica.name, cause=error.message)
        if not self._started:
            raise error

    def _weight(self, replica: Replica) -> int:
        known = self.proxy.upstreams.get(replica.name)
        return known.weight if known else BASE_WEIGHT

    async def _admit(self, replica: Replica) -> None:
        known = self.proxy.upstreams.get(replica.name)
        if known is None:  # it was retired in the meantime
            return
        await self.proxy.put(replace(known, port=replica.port, grpc_port=replica.grpc_port, ready=True, ejected=False))
        self._tell("replica_ready", replica=replica.name, address=f"{HOST}:{replica.port}")

    async def _shut_down(self) -> None:
        for listener in self.proxy.listeners:
            listener.close()
        hurry, drain = asyncio.create_task(self._hurry.wait()), asyncio.create_task(self._drain())
        await asyncio.wait({hurry, drain}, return_when=asyncio.FIRST_COMPLETED)
        await _cancel(hurry, drain)
        children = [replica.child for replica in self.replicas if replica.child]
        for child in children:
            child.kill()
        await asyncio.gather(self.proxy.kill(), *(child.exited() for child in children))
        for replica in self.replicas:
            replica.state = "failed" if replica.state == "failed" else "stopped"

    async def _drain(self) -> None:
        if self._started:  # else nobody has been served yet
            await self.proxy.shut_down(patient=self._patient)
            await asyncio.gather(*(r.child.stop(self._drain_timeout) for r in self.replicas if r.child))


def _last_first(replicas: list[Replica]) -> list[Replica]:
    """Those that aren't ready, then those that came last."""
    return sorted(replicas, key=lambda r: (r.state == "ready", -replicas.index(r)))


async def _cancel(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
