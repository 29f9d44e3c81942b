"""Progress: how long work tells what it is doing, without knowing who shows it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Progress(Protocol):
    """Somebody who watches tasks. Calls may come from several threads."""

    def begin(self, task: str, total: int | None = None) -> None:
        """A task starts; `total` is its number of steps, where known."""
        ...

    def advance(self, task: str, steps: int = 1, note: str = "") -> None:
        """Some steps of the task are done; `note`, if any, says what has come of it so far."""
        ...

    def end(self, task: str, note: str = "") -> None:
        """The task is over; `note` says what came of it."""
        ...


class NoProgress:
    """Shows nothing."""

    def begin(self, task: str, total: int | None = None) -> None:
        pass

    def advance(self, task: str, steps: int = 1, note: str = "") -> None:
        pass

    def end(self, task: str, note: str = "") -> None:
        pass


@contextmanager
def task(progress: Progress, name: str, total: int | None = None) -> Iterator[None]:
    """A task that ends with its block, also when the block fails."""
    progress.begin(name, total)
    try:
        yield
    except BaseException:
        progress.end(name, "failed")
        raise
    progress.end(name)
