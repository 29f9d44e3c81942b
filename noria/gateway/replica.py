"""Replica: one server process of the gateway, from its start to its loss."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from noria.gateway.child import Child
from noria.gateway.errors import GatewayError
from noria.gateway.ports import free_port
from noria.gateway.probe import probe

HOST = "127.0.0.1"
State = Literal["starting", "ready", "waiting", "draining", "failed", "stopped"]
_POLL_SECONDS = 0.05
_PROBE_SECONDS = 1.0


@dataclass(frozen=True)
class ReplicaStatus:
    """A replica as seen from outside.

    Attributes:
        name: `replica-0`, `replica-1`, ….
        pid: its process; None when it has none now.
        address: `host:port` where it listens itself; a new one after each start.
        state: `starting`, `ready` (gets requests), `waiting` (to be started again), `draining` (it finishes
            what it has), `failed` (lost too often, and tried again now and then) or `stopped`.
        restarts: how often it was started again.
    """

    name: str
    pid: int | None
    address: str
    state: State
    restarts: int


class Replica:
    """A place in the gateway that one process after another fills."""

    def __init__(
        self,
        index: int,
        command: Callable[..., Sequence[str]],
        log: Path,
        env: Mapping[str, str] | None,
        ready_timeout: float,
        hang_timeout: float,
        speaks_grpc: bool = False,
    ) -> None:
        self.index = index
        self.name = f"replica-{index}"
        self.log = log
        self.state: State = "starting"
        self.port = self.grpc_port = 0
        self._speaks_grpc = speaks_grpc
        self.restarts = 0
        self.ever_ready = asyncio.Event()
        self.settled = asyncio.Event()  # it was ready, or was given up before
        self.failure: GatewayError | None = None
        self.child: Child | None = None
        self._command = command
        self._env = env
        self.ready_timeout = ready_timeout
        self._hang_timeout = hang_timeout

    def status(self) -> ReplicaStatus:
        """How it is; may be called from any thread."""
        child = self.child
        pid = child.pid if child is not None and child.running else None
        return ReplicaStatus(self.name, pid, f"{HOST}:{self.port}", self.state, self.restarts)

    async def run(self, taken: Collection[int], on_ready: Callable[[], Awaitable[None]]) -> str:
        """Start a process and stay until it is lost; when cancelled, the process goes on.

        Args:
            taken: ports that it can't have.
            on_ready: awaited once it is ready; only then it counts as started.

        Returns:
            Why it was lost, as the end of a sentence that begins with its name.
        """
        self.state = "starting"
        self.port = free_port(taken)
        ports = [self.port]
        if self._speaks_grpc:
            self.grpc_port = free_port({*taken, self.port})
            ports.append(self.grpc_port)
        command = self._command(self.index, *ports)
        try:
            child = self.child = Child(command, self.log, self._env)
        except OSError as error:  # no more processes, memory or disk
            return f"can't be started: {error.strerror}"
        exited = asyncio.create_task(child.exited())
        watch = asyncio.create_task(self._watch(on_ready))
        try:
            await asyncio.wait({exited, watch}, return_when=asyncio.FIRST_COMPLETED)
            if exited.done():
                return _cause(exited.result())
            child.kill()
            await exited
            return watch.result()
        finally:
            exited.cancel()
            watch.cancel()
            await asyncio.gather(exited, watch, return_exceptions=True)

    async def _watch(self, on_ready: Callable[[], Awaitable[None]]) -> str:
        try:
            async with asyncio.timeout(self.ready_timeout):
                while await probe(HOST, self.port, _PROBE_SECONDS) != 200:
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            return f"was not ready within {self.ready_timeout:g} seconds"
        self.state = "ready"
        await asyncio.shield(on_ready())
        self.ever_ready.set()
        self.settled.set()
        clock = asyncio.get_running_loop().time
        heard = clock()
        while clock() - heard < self._hang_timeout:
            await asyncio.sleep(min(_PROBE_SECONDS, self._hang_timeout))
            if await probe(HOST, self.port, self._hang_timeout) is not None:
                heard = clock()
        return f"did not answer for {self._hang_timeout:g} seconds"


def _cause(status: int) -> str:
    return f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
