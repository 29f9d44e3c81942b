"""Batch: a large CSV file through contract and steps into a table, beside pandas with scikit-learn and bare Polars."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.measure import Usage, markdown, measure, median

PEERS = Path(__file__).parent / "peers"
ENVIRONMENT = Path(__file__).parent.parent / ".bench" / "pandas"
ROWS = 5_000_000
TURNS = 3


def run(rows: int = ROWS) -> str:
    with tempfile.TemporaryDirectory(prefix="noria-bench-") as folder:
        root = Path(folder)
        write(root / "rows.csv", rows)
        write(root / "ten.csv", 10 * rows)
        return "\n\n".join([_peers(root, rows), _memory(root, rows)])


def _peers(root: Path, rows: int) -> str:
    ways = {
        "pandas + scikit-learn": [str(environment()), str(PEERS / "csv_pandas.py")],
        "Polars by hand, in memory": [sys.executable, str(PEERS / "csv_polars.py")],
        "noria": [sys.executable, str(PEERS / "csv_noria.py"), "plain"],
        "noria, with three checks": [sys.executable, str(PEERS / "csv_noria.py"), "checks"],
    }
    used: dict[str, list[Usage]] = {name: [] for name in ways}
    for _ in range(TURNS):  # in turns, so that a slow minute of the machine is everybody's
        for name, (python, script, *more) in ways.items():
            used[name].append(measure([python, script, str(root / "rows.csv"), str(fresh(root)), *more]))
    seconds = {name: median([u.wall_seconds for u in found]) for name, found in used.items()}
    hand, pandas = seconds["Polars by hand, in memory"], seconds["pandas + scikit-learn"]
    return markdown(
        "CSV to table",
        ("way", "seconds", "peak MiB", "times hand-written Polars", "times faster than pandas"),
        [
            (name, f"{s:.2f}", f"{max(u.peak_mib for u in used[name]):.0f}", f"{s / hand:.2f}", f"{pandas / s:.1f}")
            for name, s in seconds.items()
        ],
        f"{rows:,} rows of 4 categories and 8 numbers, 1 % missing: drop, encode, standardise, write; whole processes, "
        f"medians of {TURNS}. noria also hashes the file, keeps quarantine and fitted state, and commits a version. "
        "Bars: 4 times faster than pandas under 1,200 MiB; 1.2 times Polars, with checks 1.5.",
    )


def _memory(root: Path, rows: int) -> str:
    lines = []
    for mode in ("load", "checks"):
        for count, file in ((rows, "rows.csv"), (10 * rows, "ten.csv")):
            script = [sys.executable, str(PEERS / "csv_noria.py"), str(root / file), str(fresh(root)), mode]
            found = measure(script)
            what = "contract only" if mode == "load" else "contract and steps"
            size = (root / file).stat().st_size / 1e9
            lines.append((what, f"{count:,}", f"{size:.1f}", f"{found.wall_seconds:.1f}", f"{found.peak_mib:.0f}"))
    header = ("work", "rows", "GB", "seconds", "peak MiB")
    return markdown("Memory as the input grows tenfold", header, lines)


def fresh(root: Path) -> Path:
    """A folder with nothing in it; for the peers a file's name."""
    shutil.rmtree(root / "out", ignore_errors=True)
    (root / "out").unlink(missing_ok=True)
    return root / "out"


def write(file: Path, rows: int) -> None:
    """A file of 4 categories with 10 to 1,000 levels and 8 numbers with 1 % missing."""
    rng = np.random.default_rng(0)
    with file.open("wb") as stream:
        for start in range(0, rows, 1_000_000):
            count = min(1_000_000, rows - start)
            columns: dict[str, pl.Series] = {}
            for n, levels in enumerate((10, 50, 200, 1000)):
                columns[f"c{n}"] = pl.Series([f"v{k}" for k in range(levels)]).gather(rng.integers(0, levels, count))
            for n in range(8):
                values = pl.Series(np.round(rng.normal(10 * n, 1 + n, count), 4))
                columns[f"x{n}"] = values.set(pl.Series(rng.random(count) < 0.01), None)
            stream.write(pl.DataFrame(columns).write_csv(include_header=start == 0).encode())


def environment() -> Path:
    """The peers' own Python."""
    python = ENVIRONMENT / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(ENVIRONMENT)], check=True)
        pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        subprocess.run([*pip, "pandas", "scikit-learn", "pyarrow"], check=True)
    return python
