"""Workspace: the stores of one project, opened once, and what a component needs to run against them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from noria.core import Clock, Component, Outcome, Progress, Settings, SystemClock
from noria.storage.urls import open_blobs, open_log, open_online, open_records, open_table

if TYPE_CHECKING:
    from noria.storage.blobs import BlobStore
    from noria.storage.event_log import EventLog
    from noria.storage.online import OnlineStore
    from noria.storage.records import Records
    from noria.storage.tables import Table


@dataclass(frozen=True)
class Workspace:
    """The stores that the settings name. Use it in a `with` block, or `close` it."""

    settings: Settings
    records: Records
    blobs: BlobStore
    online: OnlineStore
    clock: Clock = field(default_factory=SystemClock)
    _logs: list[EventLog] = field(default_factory=list, init=False, repr=False, compare=False)
    _tables: dict[str, Table] = field(default_factory=dict, init=False, repr=False, compare=False)

    @staticmethod
    def open(settings: Settings | None = None, clock: Clock | None = None, *, for_serving: bool = False) -> Workspace:
        """Open every store, making those that don't exist yet.

        For serving, records that aren't there aren't made: they were moved away, and an empty file in their place
        would be taken for them. And reads of online values don't wait for a server that hangs.

        Raises:
            ConfigError: a URL's scheme is unknown.
            StorageError: a store can't be opened.
        """
        settings = settings or Settings.load()
        urls, root = settings.storage, settings.root
        return Workspace(
            settings,
            open_records(urls.records, root, make=not for_serving),
            open_blobs(urls.blobs, root),
            open_online(urls.online, root, impatient=for_serving),
            clock or SystemClock(),
        )

    def table(self, name: str) -> Table:
        """The offline table of that name."""
        if name not in self._tables:  # kept, since opening one costs far more than looking for what is new in it
            self._tables[name] = open_table(self.settings.storage.tables, name, self.settings.root)
        return self._tables[name]

    @property
    def log(self) -> EventLog:
        """The event log, opened when it is first asked for: most components have no use for it."""
        if not self._logs:
            self._logs.append(open_log(self.settings.storage.log, self.settings.root))
        return self._logs[0]

    def close(self) -> None:
        """Close every store."""
        for log in self._logs:
            log.close()
        self.records.close()
        self.online.close()

    def __enter__(self) -> Workspace:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@runtime_checkable
class Runnable(Component, Protocol):
    """A component that does work: `noria run` calls it when it is stale."""

    def inputs(self, settings: Settings) -> dict[str, str]:
        """Versions of what it reads from outside the system (files), by name; empty for most."""
        ...

    def lost(self, workspace: Workspace, version: str) -> str:
        """Why what a run wrote under this version (its outcome's) can't be used any more; empty while it can."""
        ...

    def run(self, workspace: Workspace, run_id: str, progress: Progress, *, full: bool = False) -> Outcome:
        """Do the work. Doing it twice under one `run_id` leaves the same result as doing it once.

        With `full`, nothing that was done before is built upon.
        """
        ...
