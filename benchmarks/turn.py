"""A turn of the wheel: `noria run` on the demo's ratings, and on ten times as many."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

import polars as pl

from benchmarks.measure import Usage, markdown, measure
from noria.cli.init import write_project

NORIA = str(Path(sys.executable).parent / "noria")
TIMES = 10


def run() -> str:
    with tempfile.TemporaryDirectory() as folder:
        once, many = Path(folder) / "once", Path(folder) / "many"
        write_project(once, "recommender")
        shutil.copytree(once, many)
        multiply(many / "data")
        measure([NORIA, "run", "--json", "--full"], cwd=str(once))  # compiles the kernels, which are then cached
        runs = [measure([NORIA, "run", "--json", "--full"], cwd=str(path)) for path in (once, many)]
        fresh = measure([NORIA, "run", "--json"], cwd=str(once))
        demo = measure([NORIA, "demo", "--json", "--dir", str(Path(folder) / "demo")])
    seconds = [_seconds(used) for used in runs]
    names = [name for name in seconds[0] if name != "all"]
    rows: list[tuple[object, ...]] = [
        (name, *(f"{part[name]:.2f}" for part in seconds), f"{seconds[1][name] / max(seconds[0][name], 0.01):.1f}")
        for name in [*names, "all"]
    ]
    rows.append(
        (
            "the whole process",
            *(f"{u.wall_seconds:.2f}" for u in runs),
            f"{runs[1].wall_seconds / runs[0].wall_seconds:.1f}",
        )
    )
    rows.append(("peak MiB", *(f"{u.peak_mib:.0f}" for u in runs), f"{runs[1].peak_mib / runs[0].peak_mib:.1f}"))
    note = (
        f"`noria run --full` on 100,004 ratings and on {TIMES} times as many (ids shifted); bar: 12 times the time, 1 GB. "
        f"A second `noria run` with nothing to do took {fresh.wall_seconds:.2f} s. `noria demo --json` from nothing took "
        f"{demo.wall_seconds:.1f} s (bar: 60 s) with a peak of {demo.peak_mib:.0f} MiB in its largest process."
    )
    return markdown("A turn of the wheel", ("component", "seconds", f"seconds × {TIMES}", "ratio"), rows, note)


def multiply(data: Path) -> None:
    """Make ten of each user, movie and rating, by shifting the ids."""
    for file, ids in (("ratings.csv", ("user_id", "item_id")), ("movies.csv", ("item_id",))):
        frame = pl.read_csv(data / file)
        shift = int(max(frame[name].max() for name in ids)) + 1  # type: ignore[type-var, arg-type]
        copies = [frame.with_columns(pl.col(name) + n * shift for name in ids) for n in range(TIMES)]
        pl.concat(copies).write_csv(data / file)


def _seconds(used: Usage) -> dict[str, float]:
    report = json.loads(used.output)
    return {part["name"]: part["run"]["seconds"] for part in report["components"]} | {"all": report["seconds"]}
