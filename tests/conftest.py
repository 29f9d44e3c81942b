"""Shared by all tests: small projects that are run once and copied."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Libraries that make threads of their own would wait for the other processes of the tests with all of them.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# Timing never fails a test: machines are shared.
settings.register_profile("noria", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("noria")

Noria = Callable[..., subprocess.CompletedProcess[str]]

LONG = (
    "training/test_distributed.py",
    "cli/test_recommender_project.py",
    "storage/test_kafka_log.py",
    "system/test_chaos.py",
    "cli/test_streams.py",
    "training/test_federated.py",
    "pipelines/test_stream.py",
    "cli/test_tabular_project.py",
    "storage/test_kafka_security.py",
    "training/test_distributed_networks.py",
    "gateway/test_grpc.py",
    "training/test_search_ray.py",
    "cli/test_parity.py",
)
"""Files that take half a minute and more come first, so that no process is left alone with one at the end; those that
wait for a server or a clock stand beside those that compute."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    places = {here / name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path, len(LONG)))


@pytest.fixture(scope="session")
def noria() -> Noria:
    """Call the command line in a process of its own: `noria("run", cwd=folder)`."""

    def call(*words: str, cwd: Path, status: int = 0, **environ: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "noria", *words],
            cwd=cwd,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, **environ},
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done

    return call


@pytest.fixture(scope="session")
def movies_once(tmp_path_factory: pytest.TempPathFactory, noria: Noria) -> Path:
    """The recommender template, run once; don't change it, copy it (`movies`)."""
    folder = tmp_path_factory.mktemp("movies")
    noria("init", "shop", cwd=folder)
    noria("run", cwd=folder / "shop")
    return folder / "shop"


@pytest.fixture
def movies(movies_once: Path, tmp_path: Path) -> Path:
    """A copy of the recommender template that has been run."""
    return Path(shutil.copytree(movies_once, tmp_path / "shop"))
