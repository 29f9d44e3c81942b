"""Loads: what has been loaded into a source's table, so that the next run takes what is new, and no run counts twice.

A load is prepared in full (its rows lie beside the tables), then written down here, then committed: first to the
quarantine, then to the table, each with the load's number as a mark. Whoever comes after a crash finds the load
written down and commits what is left of it, or finds nothing and starts anew; there is no state in between.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from noria.storage import Put, Workspace
from noria.storage.tables import Mode, Part, Table, TableMark

MARK = "noria/load"
_COLLECTION = "loads"


@dataclass(frozen=True)
class Load:
    """One load.

    Attributes:
        number: of the load; grows, with gaps where loads have failed.
        run_id: of the run that made it: a run that is done twice loads once.
        definition: the fingerprint of the source's definition.
        shape: the fingerprint of what of the definition makes the table, whatever its rows are judged by; empty in
            loads from before it was kept.
        mode: `overwrite` the table, or `append` to it.
        inputs: what was read: name to identity, size, rows, and whether rows added to it may change its last ones.
        before: the table's mark before it.
        parts, bad_parts: the staged rows of the table and of the quarantine.
        path: of the source, where it is files.
        cursor: where a query's cursor column stood at its end.
        result: what the run reports.
    """

    number: int
    run_id: str
    definition: str
    mode: Mode
    inputs: dict[str, dict[str, Any]]
    before: int
    parts: list[dict[str, Any]] = field(default_factory=list)
    bad_mode: Mode = "append"
    bad_before: int = -1
    bad_parts: list[dict[str, Any]] = field(default_factory=list)
    path: str = ""
    cursor: Any = None
    result: dict[str, Any] = field(default_factory=dict)
    shape: str = ""
    done: bool = False


class Loads:
    """A source's loads."""

    def __init__(self, workspace: Workspace, source: str) -> None:
        self._records = workspace.records
        self._source = source
        self.table = workspace.table(source)
        self.quarantine = workspace.table(f"{source}__quarantine")

    def all(self) -> list[Load]:
        """Every load that was written down, the oldest first."""
        return [Load(**record.data) for record in self._records.list(_COLLECTION, f"{self._source}/")]

    def current(self) -> list[Load]:
        """The loads whose rows are in the table now, from the last that overwrote it; empty if that isn't known."""
        mark = self.table.mark(MARK)
        found = [load for load in self.all() if load.done and load.number <= mark]
        if not found or found[-1].number != mark:
            return []
        start = max((at for at, load in enumerate(found) if load.mode == "overwrite"), default=None)
        return [] if start is None else found[start:]

    def next_number(self) -> int:
        """A number that no load has had."""
        newest = self._records.list(_COLLECTION, f"{self._source}/", newest_first=True, limit=1)
        numbers = [int(record.data["number"]) for record in newest]
        return max(self.table.mark(MARK), self.quarantine.mark(MARK), *numbers, -1) + 1

    def commit(self, load: Load) -> int:
        """Write the load down and make its rows visible; returns the table's version.

        Raises:
            ConflictError: another process has loaded in between; then nothing has changed.
        """
        self._write(load)
        return self._finish(load)

    def recover(self) -> None:
        """Finish a load that was written down and not committed to the end."""
        newest = self._records.list(_COLLECTION, f"{self._source}/", newest_first=True, limit=1)
        if not newest or newest[0].data["done"]:
            return
        load = Load(**newest[0].data)
        mark = self.table.mark(MARK)
        if mark in (load.before, load.number):
            self._finish(load)

    def _write(self, load: Load) -> None:
        self._records.commit(Put(_COLLECTION, f"{self._source}/{load.number:012d}", asdict(load)))

    def _finish(self, load: Load) -> int:
        _commit(self.quarantine, load.number, load.bad_before, load.bad_mode, load.bad_parts)
        version = _commit(self.table, load.number, load.before, load.mode, load.parts)
        result = {**load.result, "table_version": version}
        self._write(Load(**{**asdict(load), "done": True, "result": result}))
        return version


def _commit(table: Table, number: int, before: int, mode: Mode, parts: list[dict[str, Any]]) -> int:
    if table.mark(MARK) == number:
        return table.version() or 0
    staged = [Part(**part) for part in parts]
    return table.commit(staged, table.staged_schema(staged[0]), mode=mode, marks=[TableMark(MARK, before, number)])


def known_inputs(loads: list[Load]) -> Mapping[str, dict[str, Any]]:
    """All inputs of these loads, by name, each as it was loaded last; rows are summed over the loads."""
    known: dict[str, dict[str, Any]] = {}
    for load in loads:
        for name, seen in load.inputs.items():
            rows = seen["rows"] + (known[name]["rows"] if name in known else 0)
            known[name] = {**seen, "rows": rows}
    return known
