"""Running commands and measuring them from outside."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ENVIRONMENTS = Path(__file__).parent.parent / ".bench"


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


def environment(name: str, packages: Sequence[str], module: str) -> tuple[str | None, str]:
    """A peer's own Python with these packages; None, and why, when it can't be installed."""
    folder = ENVIRONMENTS / name
    python = folder / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *packages]
    try:
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, capture_output=True, text=True)
            subprocess.run(pip, check=True, capture_output=True, text=True)
        subprocess.run([str(python), "-c", f"import {module}"], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        shutil.rmtree(folder, ignore_errors=True)  # so that the next run tries again
        said = str(getattr(error, "stderr", None) or error).strip().splitlines()
        return None, said[-1]
    return str(python), ""


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
