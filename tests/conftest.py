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

# Timing never fails a test: machines are shared.
settings.register_profile("noria", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("noria")

Noria = Callable[..., subprocess.CompletedProcess[str]]


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
