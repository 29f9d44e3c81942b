from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from noria.gateway import RestartPolicy, Supervisor

SCRIPT = str(Path(__file__).with_name("tiny_replica.py"))
PATIENT = RestartPolicy(max_failures=1000, pause=0.01, longest_pause=0.05)


def tiny(mode: str = "") -> Callable[[int, int], Sequence[str]]:
    return lambda index, port: [sys.executable, "-I", "-S", SCRIPT, str(port), mode]


@pytest.fixture
def tiny_command() -> Callable[[str], Callable[[int, int], Sequence[str]]]:
    return tiny


@pytest.fixture
def supervise(tmp_path: Path) -> Iterator[Callable[..., Supervisor]]:
    """Start a supervisor that is stopped after the test."""
    with ExitStack() as stack:

        def start(replicas: int = 2, **settings: Any) -> Supervisor:
            settings = {"port": 0, "run_dir": tmp_path / "run", "restarts": PATIENT} | settings
            command = settings.pop("command", tiny())
            return stack.enter_context(Supervisor(command, replicas, **settings))

        yield start
