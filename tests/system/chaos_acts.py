"""What goes wrong in a campaign, and what operators do meanwhile: one function for each."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chaos_load import Answer, Load
from chaos_project import Redis

from noria.core import NoriaError
from noria.gateway.control import ask
from noria.registry import Deployments, ModelRegistry, Variant
from noria.storage import Workspace

ROOM = "x-filler"


@dataclass
class Stand:
    """All that a fault may lay hands on.

    Attributes:
        folder: of the project.
        pid: of `noria serve`.
        disks: small ones, of the logs.
        notes: what the report has to tell besides.
        undo: what puts right what was done.
        turns: counts, so that each has its turn.
        rollbacks: the seconds of each.
        sizes: MB of each replica's process after each fault.
    """

    folder: Path
    pid: int
    redis: Redis
    load: Load
    workspace: Workspace
    disks: Sequence[Path]
    notes: list[str] = field(default_factory=list)
    undo: list[Callable[[], object]] = field(default_factory=list)
    turns: int = 0
    rollbacks: list[float] = field(default_factory=list)
    sizes: dict[int, list[float]] = field(default_factory=dict)

    @property
    def registry(self) -> ModelRegistry:
        return ModelRegistry.of(self.workspace)

    @property
    def deployments(self) -> Deployments:
        return Deployments.of(self.workspace)

    def ask(self, do: str, **fields: Any) -> Any:
        return ask(self.folder / ".noria" / "serve", do, **fields)

    def replicas(self) -> dict[str, int]:
        """The process of each replica that has one."""
        return {one["name"]: one["pid"] for one in self.ask("servers") if one["pid"]}

    def ready(self) -> dict[str, int]:
        """The process of each replica that is ready."""
        return {one["name"]: one["pid"] for one in self.ask("servers") if one["pid"] and one["replica"] == "ready"}

    def in_vain(self) -> list[str]:
        """Replicas that aren't ready."""
        return [one["name"] for one in self.ask("servers") if one["replica"] != "ready"]


Act = Callable[[Stand], object]


def nothing(stand: Stand) -> None: ...


# --- processes


def kill_a_replica(stand: Stand) -> None:
    """The next one in turn, as soon as another one is ready: a busy machine takes long to start one."""
    deadline = time.monotonic() + 30.0
    while len(ready := sorted(stand.ready().values())) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    stand.turns += 1
    with contextlib.suppress(ProcessLookupError):
        os.kill(ready[stand.turns % len(ready)], signal.SIGKILL)


def kill_haproxy(stand: Stand) -> None:
    for pid in _below(stand.pid):
        if b"haproxy.cfg" in _command(pid):
            os.kill(pid, signal.SIGKILL)


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _below(pid: int) -> Iterator[int]:
    for task in Path("/proc").glob(f"{pid}/task/*/children"):
        try:
            children = [int(child) for child in task.read_text().split()]
        except OSError:  # it has ended meanwhile
            continue
        for child in children:
            yield child
            yield from _below(child)


def memory(pid: int) -> float:
    """MB of a process that are its own."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith(("RssAnon", "RssShmem"))) / 1024


# --- versions


def to_and_fro(stand: Stand) -> None:
    stand.turns += 1
    stand.registry.promote("plain", 1 + stand.turns % 2)


def champion(version: int, stand: Stand) -> None:
    stand.registry.promote("plain", version)


def canary(version: int, stand: Stand) -> None:
    variants = [Variant("canary", version, 0.5)]
    stand.deployments.start("plain", variants, kind="canary", steps=(0.5, 0.9), every=1_000_000)


def abort(stand: Stand) -> None:
    latest = stand.deployments.get("plain")
    assert latest is not None
    stand.notes.append(f"{latest.label} was {latest.state} at step {latest.step + 1} ({latest.why})")
    if not latest.over:
        stand.deployments.abort("plain")


def roll_back(stand: Stand) -> None:
    """Measured from the command's start to the last answer of the version that is taken back."""
    stand.registry.promote("plain", 1)
    stand.registry.promote("plain", 2)
    _await(lambda: not _answered_by(stand, 1, time.monotonic() - 1.0) and _answered_by(stand, 2, 0.0))
    started = time.monotonic()
    command = [sys.executable, "-m", "noria", "rollback", "plain"]
    subprocess.run(command, cwd=stand.folder, check=True, capture_output=True)
    said = time.monotonic() - started
    time.sleep(3.0)
    last = max((answer.done for answer in _answered_by(stand, 2, started)), default=started) - started
    stand.rollbacks.append(last)
    stand.notes.append(f"rollback: the last answer of the old version after {last:.2f} s (the command took {said:.2f})")


def _answered_by(stand: Stand, version: int, since: float) -> list[Answer]:
    mark = b'"version":%d' % version
    return [a for a in stand.load.answers[-4000:] if a.kind == "plain" and a.at >= since and mark in a.body]


def _await(condition: Callable[[], object], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.1)


# --- stores


def records(stand: Stand) -> list[Path]:
    return [stand.folder / ".noria" / f"records.db{ending}" for ending in ("", "-wal", "-shm")]


def lock_records(stand: Stand) -> None:
    connection = sqlite3.connect(records(stand)[0], isolation_level=None, check_same_thread=False)
    connection.execute("BEGIN EXCLUSIVE")
    stand.undo.append(connection.close)


def take_records_away(stand: Stand) -> None:
    for file in records(stand):
        if file.exists():
            file.rename(file.with_name("away-" + file.name))


def bring_records_back(stand: Stand) -> None:
    stray = [file.name for file in records(stand) if file.exists()]
    if stray:
        stand.notes.append(f"somebody made {', '.join(stray)} while the registry was away")
    for file in records(stand):
        away = file.with_name("away-" + file.name)
        if away.exists():
            away.rename(file)


def protect_records(stand: Stand) -> None:
    for file in records(stand):
        if file.exists():
            file.chmod(0o444)


def release_records(stand: Stand) -> None:
    for file in records(stand):
        if file.exists():
            file.chmod(0o644)


def undo(stand: Stand) -> None:
    while stand.undo:
        stand.undo.pop()()


def fill_disks(stand: Stand) -> None:
    for disk in stand.disks:
        with (disk / ROOM).open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(1 << 12))
            except OSError:
                pass
    if not stand.disks:
        stand.notes.append("no disk could be mounted, so none was full")


def free_disks(stand: Stand) -> None:
    for disk in stand.disks:
        (disk / ROOM).unlink(missing_ok=True)


# --- the gateway


def tell(do: str, **fields: Any) -> Act:
    """Have the gateway do something; its refusal is noted."""

    def act(stand: Stand) -> None:
        try:
            stand.ask(do, **fields)
        except NoriaError as error:
            stand.notes.append(f"{do}: {error}")

    return act


def weigh(stand: Stand) -> None:
    stand.turns += 1
    names = sorted(stand.replicas())
    stand.ask("weigh", name=names[stand.turns % len(names)], weight=(10, 100, 256, 0)[stand.turns % 4])


def weigh_evenly(stand: Stand) -> None:
    for name in stand.replicas():
        stand.ask("weigh", name=name, weight=100)


def each(*acts: Act) -> Act:
    def act(stand: Stand) -> None:
        for one in acts:
            one(stand)

    return act


def burst(stand: Stand) -> None:
    stand.load.extra["slow"] = 120.0


def calm(stand: Stand) -> None:
    stand.load.extra.clear()
