"""The size of the environment that `make demo` installs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.measure import markdown

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".bench" / "install"


def run() -> str:
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.parent.mkdir(exist_ok=True)
    subprocess.run(["git", "clone", "-q", str(ROOT), str(FOLDER)], check=True)
    subprocess.run(["make", "-s", f"PYTHON={sys.executable}", ".venv/.demo"], cwd=FOLDER, check=True)
    after_install = size(FOLDER / ".venv")
    # As on a user's machine: byte code is kept.
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run([".venv/bin/noria", "demo", "--once"], cwd=FOLDER, check=True, capture_output=True, env=environ)
    rows = [
        ("after the installation", f"{after_install:.0f}"),
        ("after `noria demo` (byte code of what was imported, compiled kernels)", f"{size(FOLDER / '.venv'):.0f}"),
    ]
    shutil.rmtree(FOLDER)
    return markdown("Installed size", ("when", "MB"), rows, "The `.venv` of `make demo` in a fresh clone; bar: 900 MB.")


def size(folder: Path) -> float:
    """Megabytes (10^6 bytes) on disk, as `du` counts them."""
    done = subprocess.run(["du", "-s", "--block-size=1000000", str(folder)], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[0])
