"""Progress on a terminal as bars, elsewhere as one line for each task that ends."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID


class TerminalProgress:
    """Shows tasks on standard error. Use it in a `with` block."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._began: dict[str, float] = {}
        self._notes: dict[str, str] = {}
        self._tasks: dict[str, TaskID] = {}
        self._bars: Bars | None = _bars() if sys.stderr.isatty() else None

    def __enter__(self) -> TerminalProgress:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def begin(self, task: str, total: int | None = None) -> None:
        with self._lock:
            self._began.setdefault(task, time.perf_counter())
            if self._bars is None:
                return
            if task in self._tasks:  # a step of the work learns the number of its steps later than it starts
                self._bars.update(self._tasks[task], total=total)
            else:
                self._tasks[task] = self._bars.add_task(task, total=total, note="")

    def advance(self, task: str, steps: int = 1, note: str = "") -> None:
        with self._lock:
            if note:
                self._notes[task] = note
            if self._bars is not None and task in self._tasks:
                self._bars.advance(self._tasks[task], steps)
                if note:
                    self._bars.update(self._tasks[task], note=note)

    def end(self, task: str, note: str = "") -> None:
        with self._lock:
            seconds = time.perf_counter() - self._began.pop(task, time.perf_counter())
            note = note or self._notes.pop(task, "")
            if self._bars is None:
                sys.stderr.write(f"  {task:<28} {seconds:6.1f} s  {note}".rstrip() + "\n")
                sys.stderr.flush()
            elif task in self._tasks:
                task_id = self._tasks.pop(task)
                total = self._bars.tasks[task_id].total or 1
                self._bars.update(task_id, total=total, completed=total, note=note)


def _bars() -> Bars:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    return Progress(
        SpinnerColumn(finished_text="[green]✓"),
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("[dim]{task.fields[note]}"),
        console=Console(stderr=True),
    )
