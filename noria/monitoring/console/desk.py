"""What an operation works with: the project, and who asks."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path

from noria.core import Settings
from noria.monitoring.console.pulse import Pulse
from noria.registry import Deployments, ModelRegistry
from noria.serving.key_records import ApiKeys
from noria.storage import Workspace


@dataclass
class Project:
    """A project's stores, opened when they are first needed, and again if that failed.

    Attributes:
        settings: of the project.
        run_dir: where its gateway runs, if it does.
        pulse: how its servers are, at the moment.
    """

    settings: Settings
    run_dir: Path
    pulse: Pulse
    _opened: list[Workspace] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def workspace(self) -> Workspace:
        """The stores.

        Raises:
            StorageError: one of them can't be opened now.
        """
        with self._lock:
            if not self._opened:
                self._opened.append(Workspace.open(self.settings))
            return self._opened[0]

    def close(self) -> None:
        """Let go of the stores."""
        with self._lock:
            while self._opened:
                self._opened.pop().close()


@dataclass(frozen=True)
class Desk:
    """One request's view of the project.

    Attributes:
        project: what is administered.
        who: the API key that asks, for audit trails; None where none is demanded: then it is this process's user.
        key: that key, to ask servers with.
    """

    project: Project
    who: str | None = None
    key: bytes = b""

    @property
    def registry(self) -> ModelRegistry:
        """The models."""
        return ModelRegistry.of(self.project.workspace())

    @property
    def deployments(self) -> Deployments:
        """What is tried of them."""
        return Deployments.of(self.project.workspace())

    @property
    def keys(self) -> ApiKeys:
        """The API keys."""
        workspace = self.project.workspace()
        return ApiKeys(workspace.records, workspace.clock)

    @property
    def now(self) -> int:
        """Microseconds."""
        return self.project.workspace().clock.now()
