"""Cold start of the command line."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.measure import markdown, measure, median

RUNS = 11


def run() -> str:
    noria = str(Path(sys.executable).parent / "noria")
    cases = {
        "`noria --help`": [noria, "--help"],
        "`python -c 'import noria'`": [sys.executable, "-c", "import noria"],
        "`python -c pass`": [sys.executable, "-c", "pass"],
    }
    rows = []
    for name, command in cases.items():
        used = [measure(command) for _ in range(RUNS)]
        rows.append((name, f"{median([u.cpu_seconds for u in used]):.3f}"))
    return markdown("Cold start", ("command", "CPU seconds"), rows, f"Medians of {RUNS} runs; bar: 0.3 s for `--help`.")
