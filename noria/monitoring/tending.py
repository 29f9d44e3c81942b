"""The loop in which a process looks after deployments, for as long as it lives."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from noria.core import Settings
from noria.monitoring.rollout import Done, Rollout
from noria.storage import Workspace
from noria.telemetry import MLLogger

EVERY = 2.0
"""Seconds between two looks."""


@contextmanager
def tending(settings: Settings, tell: Callable[[str], None], *, every: float = EVERY) -> Iterator[None]:
    """Look after a project's deployments in a thread, until the block ends.

    What is done is told and logged (`.noria/logs/rollout.jsonl`). An error is told once, logged, and ends nothing: when
    the registry can be reached again, the loop goes on where it is then.
    """
    stop = threading.Event()
    log = MLLogger(settings.state_dir / "logs" / "rollout.jsonl")
    loop = _Loop(settings, tell, log)

    def run() -> None:
        while not stop.is_set():
            loop.look()
            stop.wait(every)
        loop.close()

    thread = threading.Thread(target=run, name="noria-rollout", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        log.close()


@dataclass
class _Loop:
    settings: Settings
    tell: Callable[[str], None]
    log: MLLogger
    _rollout: Rollout | None = None
    _failing: str = ""
    _told: set[str] = field(default_factory=set)

    def look(self) -> None:
        try:
            if self._rollout is None:
                self._rollout = Rollout(Workspace.open(self.settings, for_serving=True))
            done = self._rollout.tend(self._rollout.workspace.clock.now())
            self._failing = ""
        except Exception as error:  # whatever it is, the next look may go better
            if str(error) != self._failing:
                self.log.log_error(error, task="rollout")
                self.tell(f"deployments can't be looked after: {error}")
            self._failing = str(error)
            self.close()
            return
        for one in done:
            self._say(one)

    def _say(self, one: Done) -> None:
        if one.action == "fail":
            if one.why in self._told:
                return
            self._told.add(one.why)
        self.log.log("rollout", deployment=one.deployment, action=one.action, why=one.why)
        self.tell(f"{one.deployment}: {one.action}, {one.why}")

    def close(self) -> None:
        """Let go of the stores."""
        if self._rollout is not None:
            self._rollout.workspace.close()
            self._rollout = None
