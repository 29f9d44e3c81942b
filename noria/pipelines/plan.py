"""Plan: what a load has to read, given what has been loaded. It decides; nothing is changed here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import polars as pl

from noria.core import DataError, fingerprint
from noria.pipelines.checks import Unique
from noria.pipelines.dtypes import polars_schema
from noria.pipelines.extract import Input
from noria.pipelines.files import has_grown
from noria.pipelines.loads import Load, known_inputs
from noria.pipelines.source import Source
from noria.pipelines.steps import steps_from_dict
from noria.storage import Workspace
from noria.storage.tables import Mode


def _no_cursor() -> Any:
    return None


@dataclass(frozen=True)
class Plan:
    """What to read, and what becomes of the table.

    Attributes:
        rows_before: rows of an input that have been loaded already, where it is read on from its middle.
        steps: the fitted state that new rows are transformed by; None to fit anew, to all rows.
        cursor: called when all is read: where the query's cursor stands then.
    """

    mode: Mode
    inputs: tuple[Input, ...]
    rows_before: dict[str, int] = field(default_factory=dict)
    steps: list[dict[str, Any]] | None = None
    cursor: Callable[[], Any] = _no_cursor


def plan_load(source: Source, workspace: Workspace, current: list[Load], full: bool) -> Plan | None:
    """What the next load does; None when there is nothing new.

    New inputs come to the table, and so does the tail of a file that has grown. When an input has changed otherwise,
    when the definition has, when a step needs to see all rows together, or when the table doesn't have the keys that
    new rows may not repeat, everything is read anew.

    Raises:
        DataError: there is no input at all, or reading anew would lose the rows of inputs that are gone.
    """
    unchanged = bool(current) and not full and current[-1].definition == fingerprint(source.to_dict())
    if source.is_query:
        return _plan_query(source, workspace, current if unchanged else [])
    found = source.find(workspace.settings)
    known = known_inputs(current)
    new, rows_before, same = [], {}, unchanged
    for item in found if unchanged else []:
        seen = known.get(item.name)
        if seen is None:
            new.append(item)
        elif seen["identity"] != item.identity:
            if has_grown(item, seen):
                new.append(replace(item, start=seen["size"], size=item.size))
                rows_before[item.name] = seen["rows"]
            else:
                same = False
    if same and not new:
        return None
    if same:
        steps = state_to_append_by(source, workspace, current)
        if steps is not None:
            return Plan("append", tuple(new), rows_before, steps)
    gone = sorted(set(known) - {item.name for item in found})
    if gone and not full and current[-1].path == source.path:
        raise DataError(
            f"source {source.name!r} has to be read anew, and {gone[0]}"
            f"{f' and {len(gone) - 1} more' if len(gone) > 1 else ''}, whose rows are in its table, is gone",
            hint=f"put it back, or give its rows up: noria run {source.name} --full",
        )
    return Plan("overwrite", tuple(found))


def _plan_query(source: Source, workspace: Workspace, current: list[Load]) -> Plan | None:
    last = current[-1].cursor if current else None
    if last is not None and last["value"] is None:  # no row had a value that can be read on from
        last = None
    steps = state_to_append_by(source, workspace, current) if current else None
    if source.cursor is None or last is None or steps is None:
        query = source.open_query(workspace.settings, None)
        return Plan("overwrite", (query.input,), cursor=query.state)
    query = source.open_query(workspace.settings, last)
    if query.is_done():
        return None
    name = query.input.name
    return Plan("append", (query.input,), {name: known_inputs(current)[name]["rows"]}, steps, query.state)


def state_to_append_by(source: Source, workspace: Workspace, current: list[Load]) -> list[dict[str, Any]] | None:
    """The steps as they were fitted; None if new rows can't come to the table without all others being read again."""
    state = fitted_state(source, workspace, current)
    return state if state is not None and _has_keys(source, state) else None


def fitted_state(source: Source, workspace: Workspace, current: list[Load]) -> list[dict[str, Any]] | None:
    """The steps as they were fitted when the table was made; None if they are lost or look at several rows."""
    if not source.steps:
        return []
    record = workspace.records.get("steps", f"{source.name}@{current[0].run_id}")
    if record is None or not all(step.by_row for step in steps_from_dict(record.data["steps"])):
        return None
    state: list[dict[str, Any]] = record.data["steps"]
    return state


def _has_keys(source: Source, state: list[dict[str, Any]]) -> bool:
    """Whether the table has all keys that were loaded, as they were loaded.

    Keys are compared before `where` and the steps. A row that these leave out still has the first right to its key, and
    of a column that a step changes the table has other values than new rows bring.
    """
    keys = {name for check in source.checks if isinstance(check, Unique) for name in check.columns}
    if not keys:
        return True
    if source.where is not None:
        return False
    schema = pl.Schema(polars_schema(source.schema))
    for step, fitted in zip(source.steps, steps_from_dict(state), strict=True):
        touched = getattr(step, "touched", None)  # without it, nobody knows what the step does
        if touched is None or not keys.isdisjoint(touched(schema)):
            return False
        schema = fitted.apply(pl.DataFrame(schema=schema)).schema
    return True
