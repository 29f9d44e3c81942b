"""What is imported late, and what mustn't be."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SLOW_NUMPY = """
import time
import polars._dependencies as dependencies
real = dependencies.import_module
def slow(name):
    made = real(name)
    time.sleep(0.5)
    return made
dependencies.import_module = slow
from pathlib import Path
import noria as nr
from noria.core import Settings
from noria.storage import Workspace
Path("rows.csv").write_text("k,x,at\\n1,1.0,1\\n2,2.0,2\\n")
rows = nr.Source("rows", "rows.csv", schema={"k": "int64", "x": "float64", "at": nr.Timestamp("s")}, time="at")
groups = [nr.FeatureGroup(n, entity="k", source=rows, features={n: nr.mean("x")}) for n in ("one", "two")]
with Workspace.open(Settings(Path("."))) as workspace:
    report = nr.System("shop", [rows, *groups]).run(workspace)
    print([step.error for step in report.failed])
"""
"""Two components that first make Polars load NumPy, at the same time."""


def test_polars_loads_numpy_before_threads_do(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", SLOW_NUMPY], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]", done.stderr
