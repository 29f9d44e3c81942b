"""Fleet: HAProxy and its replicas, each looked after by one task of an event loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from noria.gateway.errors import GatewayError
from noria.gateway.haproxy import HAProxy
from noria.gateway.replica import HOST, Replica


@dataclass(frozen=True)
class RestartPolicy:
    """When a lost replica is started again.

    Attributes:
        max_failures: losses within `window` seconds after which it is given up; one that was never ready has two.
        window: seconds.
        pause: seconds before the second start within a window; doubled for each one more. The first is at once.
        longest_pause: seconds.
    """

    max_failures: int = 5
    window: float = 60.0
    pause: float = 0.2
    longest_pause: float = 10.0

    def delay(self, failures: int) -> float:
        """Seconds to wait after so many losses within the window.

        >>> [RestartPolicy().delay(n) for n in (1, 2, 3, 4, 99)]
        [0.0, 0.2, 0.4, 0.8, 10.0]
        """
        return 0.0 if failures <= 1 else min(self.longest_pause, self.pause * 2.0 ** min(failures - 2, 30))


class Fleet:
    """Keeps everything running from `run` until `end`.

    Args:
        replicas: the places to fill.
        start_proxy: starts an HAProxy that knows the replicas but sends nothing to them yet.
        listeners: the sockets on which that HAProxy accepts; closed at the end.
        restarts: when a lost replica is started again. HAProxy always is.
        drain_timeout: seconds that a replica has to end after SIGTERM.
        on_event: told what happens.
    """

    def __init__(
        self,
        replicas: Sequence[Replica],
        start_proxy: Callable[[], HAProxy],
        listeners: Sequence[socket.socket],
        restarts: RestartPolicy,
        drain_timeout: float,
        on_event: Callable[..., None],
    ) -> None:
        self.replicas = replicas
        self._start_proxy = start_proxy
        self._listeners = listeners
        self._restarts = restarts
        self._drain_timeout = drain_timeout
        self._tell = on_event
        self._proxy: HAProxy | None = None
        self._proxy_ready = False
        self._proxy_started = asyncio.Event()
        self._proxy_lock = asyncio.Lock()
        self._over, self._hurry = asyncio.Event(), asyncio.Event()
        self._asked_to_end = self._asked_to_hurry = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._started = False

    def end(self, *, hurry: bool = False) -> None:
        """Ask for the end, from any thread or signal handler; in a hurry, requests in flight are cut off."""
        self._asked_to_end, self._asked_to_hurry = True, self._asked_to_hurry or hurry
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: it has ended already
                self._loop.call_soon_threadsafe(self._heed)

    async def run(self, on_started: Callable[[], None]) -> None:
        """Start all, call `on_started` when all are ready, and keep them running until `end`.

        Raises:
            GatewayError: when something can't be started at first, or when the last replica is given up.
        """
        self._loop = asyncio.get_running_loop()
        self._heed()
        work = [self._keep_proxy(), self._await_start(on_started), *(self._keep(r) for r in self.replicas)]
        keepers = [asyncio.create_task(coroutine) for coroutine in work]
        everything: asyncio.Future[Any] = asyncio.gather(*keepers)
        over: asyncio.Task[Any] = asyncio.create_task(self._over.wait())
        try:
            await asyncio.wait({everything, over}, return_when=asyncio.FIRST_COMPLETED)
            if everything.done():
                everything.result()  # it ends only by an error
        finally:
            await _cancel(*keepers, over)
            await asyncio.gather(everything, return_exceptions=True)
            await self._shut_down()

    def _heed(self) -> None:
        if self._asked_to_end:
            self._over.set()
        if self._asked_to_hurry:
            self._hurry.set()

    async def _await_start(self, on_started: Callable[[], None]) -> None:
        for event in (self._proxy_started, *(replica.ever_ready for replica in self.replicas)):
            await event.wait()
        self._started = True
        on_started()

    async def _keep_proxy(self) -> None:
        """Start HAProxy again whenever it ends."""
        losses = _Losses(self._restarts.window)
        while True:
            try:
                self._proxy = self._start_proxy()
                await self._proxy.ready()
                self._proxy_ready = True
                for replica in self.replicas:
                    await self._announce(replica)
                self._proxy_started.set()
                await self._proxy.child.exited()
                self._tell("proxy_lost", log=str(self._proxy.child.log))
            except (GatewayError, OSError) as error:
                if not self._started:
                    raise
                self._tell("proxy_failed", cause=str(error))
            finally:
                self._proxy_ready = False
            await asyncio.sleep(self._restarts.delay(losses.add()))

    async def _keep(self, replica: Replica) -> None:
        """Start a replica again whenever it is lost, until it has to be given up."""
        losses = _Losses(self._restarts.window)
        deadline = asyncio.get_running_loop().time() + replica.ready_timeout
        while True:
            cause = await replica.run({r.port for r in self.replicas}, on_ready=lambda: self._admit(replica))
            count = losses.add()
            if replica.ever_ready.is_set():
                given_up = count >= self._restarts.max_failures
            else:
                given_up = count >= 2 or asyncio.get_running_loop().time() >= deadline
            replica.state = "failed" if given_up else "waiting"
            await self._announce(replica)
            if given_up:
                return self._give_up(replica, cause, count)
            self._tell("replica_lost", replica=replica.name, cause=cause)
            await asyncio.sleep(self._restarts.delay(count))
            replica.restarts += 1

    def _give_up(self, replica: Replica, cause: str, count: int) -> None:
        tail = replica.child.tail() if replica.child else ""
        error = GatewayError(
            f"{replica.name} {cause}{f' (loss {count} in a short time)' if count > 1 else ''}, and is given up; "
            f"the last lines of its log:\n{tail or '(it has written nothing)'}",
            hint=f"put right what they tell; the log is {replica.log}",
        )
        self._tell("replica_failed", replica=replica.name, cause=error.message)
        if not self._started or all(r.state == "failed" for r in self.replicas):
            raise error

    async def _admit(self, replica: Replica) -> None:
        await self._announce(replica)
        self._tell("replica_ready", replica=replica.name, address=f"{HOST}:{replica.port}")

    async def _announce(self, replica: Replica) -> None:
        """Tell HAProxy the present state of a replica; one that is just starting is told when it is ready."""
        async with self._proxy_lock:
            if self._proxy is None or not self._proxy_ready:
                return
            try:
                if replica.state == "ready":
                    await self._proxy.admit(replica.name, HOST, replica.port)
                else:
                    await self._proxy.dismiss(replica.name)
            except GatewayError as error:
                self._tell("proxy_lost", cause=error.message)
                self._proxy.child.kill()  # the next one is told everything anew

    async def _shut_down(self) -> None:
        for listener in self._listeners:
            listener.close()
        hurry, drain = asyncio.create_task(self._hurry.wait()), asyncio.create_task(self._drain())
        await asyncio.wait({hurry, drain}, return_when=asyncio.FIRST_COMPLETED)
        await _cancel(hurry, drain)
        children = [owner.child for owner in (self._proxy, *self.replicas) if owner and owner.child]
        for child in children:
            child.kill()
        await asyncio.gather(*(child.exited() for child in children))
        for replica in self.replicas:
            replica.state = "failed" if replica.state == "failed" else "stopped"

    async def _drain(self) -> None:
        if self._started:  # else nobody has been served yet
            if self._proxy is not None:
                await self._proxy.drain()
            await asyncio.gather(*(r.child.stop(self._drain_timeout) for r in self.replicas if r.child))


class _Losses:
    """Counts what was lost within the last `window` seconds."""

    def __init__(self, window: float) -> None:
        self._window = window
        self._times: deque[float] = deque()

    def add(self) -> int:
        """Count one more; returns how many there are within the window."""
        now = asyncio.get_running_loop().time()
        self._times.append(now)
        while self._times[0] < now - self._window:
            self._times.popleft()
        return len(self._times)


async def _cancel(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
