"""Child: a process that never outlives us, whose output goes to a file, and whose end can be awaited."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

LAUNCHER = Path(__file__).with_name("launch.py")


class Child:
    """A running process in a session of its own, so that Ctrl-C in the terminal reaches only its supervisor.

    The kernel kills it when the *thread* that made it ends: make all children in the one thread that watches them.

    Args:
        command: the program and its arguments.
        log: the file to which its output is appended.
        env: environment variables on top of ours.
        pass_fds: descriptors that it inherits under the same numbers.
    """

    def __init__(
        self, command: Sequence[str], log: Path, env: Mapping[str, str] | None = None, pass_fds: Sequence[int] = ()
    ) -> None:
        self.log = log
        self._log_start = log.stat().st_size if log.exists() else 0
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(LAUNCHER), str(os.getpid()), *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                pass_fds=pass_fds,
                start_new_session=True,
            )
        self.pid = self._process.pid
        self._exited = asyncio.create_task(self._reap(), name=f"reap {self.pid}")

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return not self._exited.done()

    async def exited(self) -> int:
        """Wait for its end; returns the exit status, or minus the number of the signal that killed it."""
        return await asyncio.shield(self._exited)

    async def stop(self, grace: float) -> None:
        """Ask it to end (SIGTERM) and wait; after `grace` seconds it is killed, with all that it has started."""
        self.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(grace):
                await self.exited()
        except TimeoutError:
            self.kill()
            await self.exited()

    def kill(self) -> None:
        """Kill it and all that it has started."""
        if self.running:
            _kill_group(self.pid)

    def signal(self, number: int) -> None:
        """Send it a signal; nothing happens when it has ended."""
        if self.running:
            os.kill(self.pid, number)

    def tail(self, lines: int = 20) -> str:
        """The last lines that it has written, without those of earlier processes with the same log."""
        with self.log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(self._log_start, size - 16_384))
            text = file.read().decode(errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    async def _reap(self) -> int:
        descriptor = os.pidfd_open(self.pid)
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(descriptor, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)
        _kill_group(self.pid)  # what it left behind; before wait(), so the number can't belong to anyone else
        return self._process.wait()


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # nobody is left
        os.killpg(pid, signal.SIGKILL)
