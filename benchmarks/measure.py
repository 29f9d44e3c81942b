"""Running commands and measuring them from outside."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Usage:
    """What a finished process used."""

    wall_seconds: float
    cpu_seconds: float
    peak_mib: float
    output: str


def measure(command: Sequence[str], cwd: str | None = None) -> Usage:
    """Run a command; its own use of CPU and memory as the kernel counts them, children that it waited for included."""
    # Byte code is kept, as it is for everybody: compiling a peer's thousand modules each time would slow it down.
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    began = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=cwd, env=environ
    )
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"{' '.join(command)} failed with status {status}:\n{output}")
    return Usage(time.perf_counter() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, output)


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def markdown(title: str, header: Sequence[str], rows: Sequence[Sequence[object]], note: str = "") -> str:
    """A section with a table."""
    lines = [f"## {title}", ""]
    if note:
        lines += [note, ""]
    lines += [f"| {' | '.join(header)} |", f"|{' --- |' * len(header)}"]
    lines += [f"| {' | '.join(str(cell) for cell in row)} |" for row in rows]
    return "\n".join(lines)
