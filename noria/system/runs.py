"""The record of every run: what a component read and wrote, how many rows, how long, and how it ended."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from noria.core import Clock, Outcome, fingerprint
from noria.core.decoding import decodable, read_back
from noria.storage import Put, Record, Records

RUNS = "runs"
CURRENT = "components"
"""The collection that holds, for each component, its last successful run."""

FRESH, RUNNING, SUCCEEDED, FAILED, SKIPPED, INTERRUPTED = (
    "fresh",
    "running",
    "succeeded",
    "failed",
    "skipped",
    "interrupted",
)


@decodable
@dataclass(frozen=True)
class ComponentRun:
    """One run of one component.

    Attributes:
        id: sorts by start; the part before the slash is shared by the components of one `noria run`.
        key: hash of definition and inputs; an equal key means that there is nothing to do.
        run_id: the id under which the component's writes are idempotent. It comes from the key and from the last
            successful run, so that a repetition after a kill has the same id, and the same work done anew (a
            definition changed and changed back) has another.
        inputs: versions of what was read: components' and files'.
        version: the version of what was written.
        started: microseconds since 1970.
        error: what went wrong; empty unless `failed`.
    """

    id: str
    component: str
    key: str
    run_id: str
    status: str
    inputs: dict[str, str]
    started: int
    seconds: float = 0.0
    version: str = ""
    rows: dict[str, int] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    error: str = ""


class RunLog:
    """Runs in the records store."""

    def __init__(self, records: Records, clock: Clock) -> None:
        self._records = records
        self._clock = clock

    def new_group(self) -> str:
        """An id for one `noria run`; later ones sort after it, also where the clock is put back."""
        before = next((run.id.partition("-")[0] for run in self.recent(1)), "")
        after = int(before) + 1 if before.isdecimal() else 0
        return f"{max(self._clock.now(), after):020d}-{secrets.token_hex(3)}"

    def last(self, component: str) -> ComponentRun | None:
        """The last successful run of a component."""
        record = self._records.get(CURRENT, component)
        return None if record is None else _read(record)

    def recent(self, limit: int = 50) -> list[ComponentRun]:
        """The newest runs first."""
        records = self._records.list(RUNS, newest_first=True, limit=limit)
        return [_read(record) for record in records]

    def start(self, group: str, component: str, key: str, inputs: dict[str, str]) -> ComponentRun:
        """Record that a component starts."""
        last = self.last(component)
        run_id = f"{component}-{fingerprint([key, last.run_id if last else None])}"
        run = ComponentRun(f"{group}/{component}", component, key, run_id, RUNNING, inputs, self._clock.now())
        self._records.commit(_put(run))
        return run

    def succeed(self, run: ComponentRun, outcome: Outcome, seconds: float) -> ComponentRun:
        """Record the outcome, and in the same commit that the component is fresh now."""
        done = replace(
            run, status=SUCCEEDED, version=outcome.version, rows=outcome.rows, notes=outcome.notes, seconds=seconds
        )
        self._records.commit(_put(done), Put(CURRENT, run.component, msgspec.to_builtins(done)))
        return done

    def fail(self, run: ComponentRun, error: BaseException, seconds: float) -> ComponentRun:
        """Record the error; what was fresh before stays as it was."""
        failed = replace(run, status=FAILED, error=str(error) or type(error).__name__, seconds=seconds)
        self._records.commit(_put(failed))
        return failed

    def close_interrupted(self) -> list[str]:
        """Mark runs that a killed process left `running`; the caller holds the lock. Returns their components."""
        left = [run for run in self.recent() if run.status == RUNNING]
        if left:
            self._records.commit(*(_put(replace(run, status=INTERRUPTED)) for run in left))
        return [run.component for run in left]


def _read(record: Record) -> ComponentRun:
    return read_back(record.data, ComponentRun, f"the run {record.key}")


def _put(run: ComponentRun) -> Put:
    return Put(RUNS, run.id, msgspec.to_builtins(run))
