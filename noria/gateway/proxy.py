"""Proxy: one HAProxy after another, each told what the servers are now.

The truth about the servers is here, in `upstreams`; the running process is a picture of it. A change is written into
the truth first and told second, so a process that dies in between, or can't be told, is replaced by one that knows.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from noria.gateway.errors import GatewayError
from noria.gateway.haproxy import HAProxy
from noria.gateway.proxy_config import ProxyConfig, Upstream
from noria.gateway.proxy_options import ProxyOptions
from noria.gateway.restarts import Losses, RestartPolicy
from noria.gateway.statistics import ServerStatistics

_IDLE_POLL_SECONDS = 0.05


class Proxy:
    """HAProxy, kept running.

    Args:
        listeners: where clients come in, where HAProxy's own metrics are, and where clients that speak gRPC come in if
            any may; closed by `shut_down`.
        directory: for sockets and the configuration.
        log: the file to which all processes write.
        upstreams: servers that are there from the start.
        options: what HAProxy shall do.
        restarts: how long to wait before it is started again; it is never given up.
        on_event: told what happens.
    """

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        directory: Path,
        log: Path,
        upstreams: Sequence[Upstream],
        options: ProxyOptions,
        restarts: RestartPolicy,
        on_event: Callable[..., None],
    ) -> None:
        self.listeners = listeners
        self.options = options
        self.upstreams = {upstream.name: upstream for upstream in upstreams}
        self._directory, self._log, self._restarts, self._tell = directory, log, restarts, on_event
        self._generation = 0
        self._process: HAProxy | None = None
        self._retired: dict[HAProxy, asyncio.Task[None]] = {}
        self._reports: set[asyncio.Task[None]] = set()
        self._ready = False
        self._lost = asyncio.Event()
        self._lock = asyncio.Lock()
        self.started = asyncio.Event()

    async def keep(self) -> None:
        """Start HAProxy again whenever it ends.

        Raises:
            GatewayError: the first one can't be started.
        """
        losses = Losses(self._restarts.window)
        while True:
            try:
                async with self._lock:
                    if self._process is None or not self._process.child.running:
                        self._ready = False
                        await self._begin(self._process_of(self.options))
                self.started.set()
                await self._lost.wait()
                self._tell("proxy_lost", log=str(self._log))
            except (GatewayError, OSError) as error:
                if not self.started.is_set():
                    raise
                self._tell("proxy_failed", cause=str(error))
            await asyncio.sleep(self._restarts.delay(losses.add()))

    async def reload(self, options: ProxyOptions) -> None:
        """Replace the running process by one with other options, and lose nothing.

        Both accept connections until the new one has proved that it runs; the old one then finishes what it has.

        Raises:
            GatewayError: the new one doesn't start; the old one goes on as it was.
        """
        async with self._lock:
            await self._reload(options)

    async def put(self, upstream: Upstream) -> None:
        """Add a server, or change what is known about it."""
        self.upstreams[upstream.name] = upstream
        async with self._lock:
            if (process := self._running()) is not None:
                try:
                    await process.put(upstream)
                except GatewayError as error:
                    await self._replace(process, error)

    async def change(self, name: str, **changes: object) -> None:
        """Change a server that may be gone by now."""
        if name in self.upstreams:
            await self.put(replace(self.upstreams[name], **changes))  # type: ignore[arg-type]

    async def drain(self, name: str, timeout: float) -> bool:
        """Send a server no new requests, and wait until it has finished those that it has; whether it did in time."""
        await self.change(name, drained=True)
        quiet = 0
        try:
            async with asyncio.timeout(timeout):
                while quiet < 2:  # twice: a request may be on its way
                    await asyncio.sleep(_IDLE_POLL_SECONDS)
                    quiet = quiet + 1 if await self._idle(name) else 0
        except TimeoutError:
            return False
        return True

    async def remove(self, name: str) -> None:
        """Forget a server."""
        self.upstreams.pop(name, None)
        async with self._lock:
            if (process := self._running()) is not None:
                try:
                    await process.remove(name)
                except GatewayError as error:
                    self._tell("server_kept", server=name, cause=error.message)  # in maintenance, until the next start

    async def statistics(self) -> dict[str, ServerStatistics]:
        """What HAProxy counts of each server, by name; nothing while none runs."""
        process = self._running()
        try:
            rows = [] if process is None else await process.statistics()
        except GatewayError:
            rows = []
        return {row.name: row for row in rows if row.name in self.upstreams}

    async def queued(self) -> int:
        """The requests that wait for a server, whichever has room first."""
        process = self._running()
        try:
            return 0 if process is None else await process.queued()
        except GatewayError:
            return 0

    async def shut_down(self, *, patient: bool = False) -> None:
        """Take no new connections, and end when the requests in flight are answered, or all clients have gone."""
        for task in self._retired.values():
            task.cancel()
        await asyncio.gather(*self._retired.values(), return_exceptions=True)
        processes = [*self._retired, *([self._process] if self._process else [])]
        if patient:
            for process in processes:
                with contextlib.suppress(OSError, asyncio.IncompleteReadError):  # it has ended
                    await process.retire()
                    await process.stay()
        await asyncio.gather(*(process.drain() for process in processes))
        for process in processes:
            process.close()

    async def kill(self) -> None:
        """End at once, whatever is in flight."""
        processes = [*self._retired, *([self._process] if self._process else [])]
        for process in processes:
            process.child.kill()
        await asyncio.gather(*(process.child.exited() for process in processes))

    def _process_of(self, options: ProxyOptions, *state: str) -> HAProxy:
        self._generation += 1
        descriptors = [listener.fileno() for listener in self.listeners]
        public, metrics, *grpc = descriptors
        config = ProxyConfig(
            bind=f"fd@{public}",
            metrics_bind=f"fd@{metrics}",
            directory=self._directory,
            upstreams=tuple(self.upstreams.values()),
            options=options,
            generation=self._generation,
            grpc_bind=f"fd@{grpc[0]}" if grpc else "",
        )
        return HAProxy(config, self._log, descriptors, *state)

    async def _begin(self, process: HAProxy) -> None:
        """Make a new process the one that is told; changes that came while it started are told now."""
        known = dict(self.upstreams)
        try:
            await process.ready()
            for name, upstream in self.upstreams.items():
                if known.get(name) != upstream or (upstream.ready and not upstream.takes_new):
                    await process.put(upstream)
            for name in known.keys() - self.upstreams.keys():
                await process.remove(name)
        except BaseException:
            process.child.kill()
            await process.child.exited()
            raise
        self._process, self._ready = process, True
        self._lost.clear()
        self._reports.add(report := asyncio.create_task(self._report(process)))
        report.add_done_callback(self._reports.discard)

    async def _report(self, process: HAProxy) -> None:
        await process.child.exited()
        if self._process is process:
            self._ready = False
            self._lost.set()

    def _running(self) -> HAProxy | None:
        return self._process if self._ready and self._process and self._process.child.running else None

    async def _reload(self, options: ProxyOptions) -> None:
        old = self._running()
        new = self._process_of(options, *([await old.state()] if old else []))
        await self._begin(new)
        self.options = options
        if old is not None and old.child.running:
            await old.retire()
            self._retired[old] = asyncio.create_task(self._bury(old))
        self._tell("proxy_reloaded")

    async def _replace(self, process: HAProxy, cause: GatewayError) -> None:
        """Have a process that knows everything, because this one couldn't be told; gently, if it still hears us."""
        self._tell("proxy_refused", cause=cause.message)
        try:
            await self._reload(self.options)
        except (GatewayError, OSError):
            self._ready = False
            process.child.kill()  # the next one is told everything anew

    async def _idle(self, name: str) -> bool:
        row = (await self.statistics()).get(name)
        return row is None or not (row.sessions or row.queued)

    async def _bury(self, old: HAProxy) -> None:
        await old.stay()
        del self._retired[old]
