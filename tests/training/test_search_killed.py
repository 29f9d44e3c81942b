"""A search in a real `noria run` that is killed with SIGKILL goes on where it was at the next one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from noria.core import Settings
from noria.registry import ModelRegistry
from noria.storage import Workspace
from noria.training.search.journal import FILE

pytest.importorskip("optuna")

SYSTEM = """
import os, sys, time
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import noria as nr
from slow import SlowRidge

rows = nr.Source("rows", "rows.csv", schema={"x": "float64", "z": "float64", "y": "float64", "at": nr.Timestamp("s")})
model = nr.ModelTrainingPipeline(
    "level", labels=rows, target="y", features=["x", "z"], metrics=["rmse"],
    model=nr.tune(SlowRidge(), {"alpha": nr.log(1e-3, 1e3)}, trials=14, folds=2),
)
system = nr.System("shop", [rows, model])
"""
SLOW = """
import os, time
from sklearn.linear_model import Ridge

class SlowRidge(Ridge):
    def fit(self, X, y, sample_weight=None):
        with open(os.path.join(os.path.dirname(__file__), "fits.txt"), "a") as log:
            log.write(f"{self.alpha!r} {len(X)}\\n")
        time.sleep(float(os.environ.get("SLOW", "0")))
        return super().fit(X, y, sample_weight)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "system.py").write_text(SYSTEM)
    (tmp_path / "slow.py").write_text(SLOW)
    (tmp_path / "noria.toml").write_text("[registry]\ntrust_pickles = true\n")  # a class of one's own is a pickle
    lines = [f"{i % 7},{i % 5},{(i % 7) - (i % 5) + (i * 7919 % 13) / 13},{i * 60}" for i in range(200)]
    (tmp_path / "rows.csv").write_text("x,z,y,at\n" + "\n".join(lines) + "\n")
    return tmp_path


def start(project: Path, slow: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "noria", "run", "--project", str(project)],
        env={**os.environ, "SLOW": str(slow)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finished(project: Path) -> int:
    files = list((project / ".noria" / "learning").glob(f"*/*/{FILE}"))
    return files[0].read_bytes().count(b'"state":1') if files else 0


def search_of(project: Path) -> dict[str, Any]:
    with Workspace.open(Settings(project)) as workspace:
        notes: dict[str, Any] = ModelRegistry.of(workspace).get("level").parameters["learning"]["search"]
    return notes


def test_no_finished_trial_is_repeated_and_the_result_is_that_of_an_undisturbed_search(project: Path) -> None:
    other = project / "other"
    other.mkdir()
    for name in ("system.py", "slow.py", "rows.csv", "noria.toml"):
        (other / name).write_text((project / name).read_text())
    undisturbed = start(other, 0.0)
    for goal in (3, 8):
        process = start(project, 0.1)
        deadline = time.monotonic() + 60
        while finished(project) < goal and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert goal <= finished(project) < 14
    process = start(project, 0.0)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    again = search_of(project)
    assert [one["trial"] for one in again["history"]] == list(range(14))
    assert list((project / ".noria" / "learning").iterdir()) == []

    fits = (project / "fits.txt").read_text().split("\n")[:-1]
    folds = {int(line.split()[1]) for line in fits}
    assert len(folds) == 3  # two folds, and all rows
    # As it was given once, each trial once, the best once more; and what the two kills cut off.
    firsts = [line for line in fits if line.endswith(f" {min(folds)}")]
    assert len(firsts) <= 1 + 14 + 2
    assert len(set(firsts)) == 15

    said, _ = undisturbed.communicate(timeout=120)
    assert undisturbed.returncode == 0, said
    whole = search_of(other)

    def plain(notes: dict[str, Any]) -> str:
        return json.dumps([{k: v for k, v in one.items() if k != "seconds"} for one in notes["history"]])

    assert plain(whole) == plain(again)
