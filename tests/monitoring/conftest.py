"""A real console on a free port, of a project with four versions of a model; a real gateway where one is wanted."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from noria.core import Settings
from noria.gateway import Supervisor
from noria.monitoring.console.running import Running, running
from noria.registry import ModelRegistry
from noria.serving.exposures import TALLIES, Tally, tally_key
from noria.storage import Put, Workspace

REPLICA = str(Path(__file__).with_name("metric_replica.py"))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return project(tmp_path)


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A console for tests that change nothing."""
    settings = project(tmp_path_factory.mktemp("lasting"))
    with running(settings, settings.state_dir / "serve", lambda what: None) as made, httpx.Client() as client:
        client.base_url = httpx.URL(made.url)
        yield client


def project(folder: Path) -> Settings:
    settings = Settings.load(folder, environ={"NORIA_SERVE_ADMIN_PORT": "0"})
    with Workspace.open(settings) as workspace:
        registry = ModelRegistry.of(workspace)
        for run in "abcd":
            registry.register(
                "late",
                {"model": run.encode()},
                servable="doubler",
                run_id=run,
                metrics={"auc": [0.7, 0.6, 0.8], "f1": 0.5},
            )
        registry.promote("late", 3, why="the best so far")
    return settings


@pytest.fixture
def start(settings: Settings) -> Iterator[Callable[..., Running]]:
    """Start consoles that are stopped after the test."""
    with ExitStack() as stack:

        def begin(tell: Callable[[str], None] = lambda what: None, **serve: Any) -> Running:
            changed = replace(settings, serve=replace(settings.serve, **serve))
            return stack.enter_context(running(changed, settings.state_dir / "serve", tell))

        yield begin


@pytest.fixture
def client(start: Callable[..., Running]) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=start().url) as client:
        yield client


@pytest.fixture
def gateway(settings: Settings) -> Iterator[Supervisor]:
    def command(index: int, port: int) -> list[str]:
        return [sys.executable, "-I", "-S", REPLICA, str(port)]

    with Supervisor(command, 2, port=0, run_dir=settings.state_dir / "serve") as running:
        yield running


@pytest.fixture
def counted(settings: Settings) -> Callable[..., None]:
    """Write down what a server would have counted."""

    def write(number: int, **tallies: tuple[int, int]) -> None:
        made = {}
        for name, (requests, errors) in tallies.items():
            n = requests - errors
            made[name] = Tally(requests, errors, n * math.log(0.05), n * (math.log(0.05) ** 2 + 0.2))
        with Workspace.open(settings) as workspace:
            data = {"variants": msgspec.to_builtins(made)}
            workspace.records.commit(Put(TALLIES, tally_key("late", number, "server-1"), data))

    return write


@pytest.fixture
def wait_for() -> Callable[[Callable[[], bool]], None]:
    """Stay until something is true."""

    def wait(true: Callable[[], bool], seconds: float = 10.0) -> None:
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end
            time.sleep(0.02)

    return wait
