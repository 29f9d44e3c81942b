"""The same pipeline on a real Ray on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import noria as nr
from noria.core import ConfigError, DataError, Settings
from noria.storage import Workspace

pytest.importorskip("ray")
pytestmark = pytest.mark.filterwarnings("default")  # Ray's own

SCHEMA = {"id": "int64", "s": "str?", "x": "float64?"}


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    import ray

    from noria.pipelines.ray_compute import connect

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        connect("ray")
        yield
        ray.shutdown()


@pytest.fixture
def roots(tmp_path: Path) -> tuple[Settings, Settings]:
    rows = [f"{i if i % 50 else 'bad'},{i % 7 or ''},{i * 0.1:.3f}" for i in range(5000)]
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.csv").write_text("id,s,x\n" + "\n".join(rows) + "\n1,a\n4999,a,1\n")
    return Settings(tmp_path / "here"), replace(Settings(tmp_path / "there"), compute="ray")


def tables(settings: Settings, **options: Any) -> tuple[Any, ...]:
    source = nr.Source("rows", "a.csv", **{"schema": SCHEMA, **options})
    with Workspace.open(settings) as workspace:
        result = nr.BatchProcessor(source, workspace).run("r")
        steps = workspace.records.get("steps", "rows@r")
        bad = workspace.table("rows__quarantine").read().drop("at")
        return workspace.table("rows").read(), bad, result.rows, result.by_rule, steps and steps.data


@pytest.mark.parametrize(
    "options",
    [
        {},
        {
            "key": "id",
            "where": nr.col("id") % 3 != 0,
            "steps": [nr.Impute(["s", "x"]), nr.Encode(["s"]), nr.Normalize(["x"])],
        },
    ],
)
def test_tables_quarantine_and_fitted_state_are_the_same_to_the_bit(
    roots: tuple[Settings, Settings], options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("noria.pipelines.batch.PIECE_BYTES", 4000)
    here, there = (tables(settings, **options) for settings in roots)
    assert here[0].equals(there[0])
    assert here[1].equals(there[1])
    assert here[2:] == there[2:]


def test_a_worker_that_dies_is_replaced(roots: tuple[Settings, Settings], tmp_path: Path) -> None:
    from noria.pipelines.ray_compute import RayCompute

    def work(item: int) -> tuple[int, None]:
        if item == 3 and not (tmp_path / "died").exists():
            (tmp_path / "died").touch()
            os._exit(1)
        return item * 2, None

    with RayCompute("ray") as compute:
        assert list(compute.each(work, range(8))) == [item * 2 for item in range(8)]
    assert (tmp_path / "died").exists()


def test_a_users_mistake_is_the_same_error(roots: tuple[Settings, Settings]) -> None:
    _, there = roots
    (there.root / "a.csv").write_text("id,s,x\nx,y,z\n")
    with pytest.raises(DataError, match="1 of 1 rows break the contract"):
        tables(there)


def test_a_cluster_needs_tables_that_it_can_reach(roots: tuple[Settings, Settings]) -> None:
    with pytest.raises(ConfigError, match="other machines can't write to the tables"):
        tables(replace(roots[1], compute="ray://127.0.0.1:1"))


def test_ray_outlives_the_thread_that_has_started_it() -> None:
    """In a process of its own: where Ray dies, it ends the process that uses it next."""
    script = """
import threading, time
from noria.pipelines.ray_compute import connect
starter = threading.Thread(target=connect, args=("ray",))
starter.start()
starter.join()
time.sleep(2)
ray = connect("ray")
print(ray.get(ray.remote(num_cpus=0)(lambda: "still there").remote(), timeout=60))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "still there\n"), done.stderr
