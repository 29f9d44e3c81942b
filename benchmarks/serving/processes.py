"""Servers as processes: start one on its core, wait for its first right answer, freeze it, weigh it, end all of it."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from benchmarks.serving.contestant import CannotServeError, Contestant
from noria.gateway.ports import free_port

MARK = "NORIA_BENCHMARK"
START_SECONDS = 180.0
SETTLE_SECONDS = 30.0
POLL_SECONDS = 0.005


class Family:
    """A process and all that come of it, also those that have left it: Ray's daemons become init's children."""

    def __init__(self) -> None:
        self.mark = uuid.uuid4().hex
        self._known: dict[int, str] = {}
        self._started: list[subprocess.Popen[bytes]] = []

    def start(
        self, words: Sequence[str], environ: dict[str, str], core: int | None, log: IO[str], folder: str | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a process, with more variables than ours.

        Raises:
            CannotServeError: there is no such program.
        """
        try:
            process = subprocess.Popen(
                words if core is None else ["taskset", "-c", str(core), *words],
                env=self._environ(environ),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        except OSError as error:
            raise CannotServeError(str(error)) from error
        self._started.append(process)
        return process

    def _environ(self, more: dict[str, str]) -> dict[str, str]:
        """The variables for its first process: ours, with compiled modules kept as they are for everybody."""
        ours = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        # One core for each server: threads of one small prediction would only wait for each other.
        return {**ours, "OMP_NUM_THREADS": "1", **more, MARK: self.mark}

    def pids(self) -> list[int]:
        """Those that live, parents before their children."""
        mark = f"{MARK}={self.mark}".encode()
        alive = {pid: stat for pid in _all_pids() if (stat := _stat(pid)) is not None}
        known = {pid for pid, born in self._known.items() if pid in alive and alive[pid][1] == born}
        known |= {process.pid for process in self._started if process.pid in alive}
        known |= {pid for pid in alive if mark in _environ(pid)}
        grown = True
        while grown:  # a program may have overwritten its variables, with its title for example: its parent tells
            more = {pid for pid, (parent, _) in alive.items() if parent in known} - known
            known, grown = known | more, bool(more)
        self._known = {pid: alive[pid][1] for pid in known}
        return sorted(known, key=lambda pid: int(self._known[pid]))

    def pss_mib(self) -> float:
        """Proportional set size of all of them: pages that processes share are counted once, in shares."""
        return sum(_pss_kib(pid) for pid in self.pids()) / 1024

    def freeze(self) -> None:
        """Stop all of them, so that they can't disturb what is measured."""
        self._signal(signal.SIGSTOP, self.pids())

    def thaw(self) -> None:
        """The reverse, children first: a parent finds them as it had left them."""
        self._signal(signal.SIGCONT, reversed(self.pids()))

    def end(self) -> None:
        """End all of them, and return when they are gone."""
        self._signal(signal.SIGCONT, self.pids())
        self._signal(signal.SIGTERM, self.pids()[:1])
        deadline = time.monotonic() + 3
        while self.pids() and time.monotonic() < deadline:
            time.sleep(0.05)
        deadline = time.monotonic() + 20
        while pids := self.pids():
            self._signal(signal.SIGKILL, pids)
            if time.monotonic() > deadline:
                raise RuntimeError(f"the processes {pids} can't be ended")
            time.sleep(0.02)
        for process in self._started:
            process.wait(timeout=10)

    @staticmethod
    def _signal(number: int, pids: Iterator[int] | Sequence[int]) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


class Running:
    """A contestant that answers.

    Attributes:
        start_seconds: from its start to the first right answer.
    """

    def __init__(self, contestant: Contestant, port: int, family: Family, start_seconds: float) -> None:
        self.contestant = contestant
        self.port = port
        self.url = f"http://127.0.0.1:{port}{contestant.path}"
        self.family = family
        self.start_seconds = start_seconds


@contextlib.contextmanager
def running(contestant: Contestant, core: int | None = 0) -> Iterator[Running]:
    """Start a contestant on a core (None: on any); at the end nothing of it is left.

    Raises:
        CannotServeError: it ends, doesn't answer in time, or answers wrongly.
    """
    if contestant.why:
        raise CannotServeError(contestant.why)
    family = Family()
    with tempfile.TemporaryFile("w+") as log:
        try:
            began = time.perf_counter()
            ports = _ports(3 + len(contestant.helpers))
            for words, own in zip(contestant.helpers, ports[3:], strict=True):
                family.start([word.replace("{port}", str(own)) for word in words], {}, core, log)
            port = ports[0]
            places = dict(zip(("{port}", "{port2}", "{port3}", "{helper}", "{helper2}"), map(str, ports), strict=False))
            process = family.start(
                [_filled(word, places) for word in contestant.command],
                {name: _filled(value, places) for name, value in contestant.environ.items()},
                core,
                log,
                contestant.folder,
            )
            _wait_for(ports[3:], process)
            _first_answer(contestant, port, process, log)
            one = Running(contestant, port, family, time.perf_counter() - began)
            verify(contestant, port)
            yield one
        finally:
            family.end()


def verify(contestant: Contestant, port: int) -> None:
    """Ask everything that can be checked.

    Raises:
        CannotServeError: an answer isn't 200, or is wrong.
    """
    for number, body in enumerate(contestant.bodies):
        try:
            status, answer = ask(port, contestant.path, body)
            if status != 200:
                raise ValueError(f"answers {status}: {answer[:200]!r}")
            contestant.check(number, answer)
        except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError, IndexError) as error:
            raise CannotServeError(f"request {number}: {error}") from error


def settle(one: Running) -> None:
    """Wait until it has done what the last load has left behind: wrk goes without waiting for answers.

    Raises:
        CannotServeError: it doesn't answer any more.
    """
    try:
        for _ in range(2):
            ask(one.port, one.contestant.path, one.contestant.bodies[0], SETTLE_SECONDS)
    except (OSError, http.client.HTTPException) as error:
        raise CannotServeError(f"after a load it doesn't answer within {SETTLE_SECONDS:.0f} s: {error!r}") from error


def ask(port: int, path: str, body: bytes, seconds: float = 10) -> tuple[int, bytes]:
    """One request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)
    try:
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def _filled(word: str, places: dict[str, str]) -> str:
    for place, port in places.items():
        word = word.replace(place, port)
    return word


def _ports(count: int) -> list[int]:
    found: list[int] = []
    for _ in range(count):
        found.append(free_port(found))
    return found


def _wait_for(ports: Sequence[int], process: subprocess.Popen[bytes]) -> None:
    """Wait until all helpers listen: a balancer answers as soon as one of its servers does."""
    deadline = time.monotonic() + START_SECONDS
    for port in ports:
        while process.poll() is None and time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(POLL_SECONDS)


def _first_answer(contestant: Contestant, port: int, process: subprocess.Popen[bytes], log: IO[str]) -> None:
    deadline = time.monotonic() + START_SECONDS
    said: object = "it doesn't listen"
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise CannotServeError(f"ended with status {process.returncode}: {_last_words(log)}")
        try:
            status, answer = ask(port, contestant.path, contestant.bodies[0])
            if status == 200:
                contestant.check(0, answer)
                return
            said = f"answers {status}: {answer[:200]!r}"
        except (OSError, http.client.HTTPException) as error:
            said = error
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise CannotServeError(f"a wrong answer: {error!r}") from error
        time.sleep(POLL_SECONDS)
    raise CannotServeError(f"not ready after {START_SECONDS:.0f} s ({said}): {_last_words(log)}")


def _last_words(log: IO[str]) -> str:
    log.seek(0)
    lines = [line.strip() for line in log.read()[-4000:].splitlines() if line.strip()]
    return " / ".join(lines[-3:])[-300:].replace("|", "/")


def _all_pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _stat(pid: int) -> tuple[int, str] | None:
    """The parent, and when the process was born; None if it is gone or only waits to be reaped."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else (int(fields[1]), fields[19])


def _environ(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def _pss_kib(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
