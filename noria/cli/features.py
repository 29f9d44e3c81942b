"""`noria features`: definitions, their versions, and what their values look like."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from noria.cli.progress import TerminalProgress
from noria.cli.project import load_system
from noria.cli.show import json_out, out, table
from noria.core import Component, ConfigError, Settings, allowed, duration, to_iso
from noria.features import FeatureGroup, FeatureStore
from noria.features.catalog import GroupVersion, difference, in_words
from noria.features.statistics import newest
from noria.storage import Workspace
from noria.system import System


@contextmanager
def _store(project: str) -> Iterator[tuple[Workspace, FeatureStore]]:
    load_system(project)  # says so where there is no project, instead of making an empty one
    with Workspace.open(Settings.load(project)) as workspace:
        yield workspace, FeatureStore(workspace)


def listing(options: Namespace) -> int:
    """List the groups with their newest versions."""
    with _store(options.project) as (workspace, store):
        found = [(version := store.catalog.latest(name), _as_of(workspace, version)) for name in store.catalog.names()]
    if options.json:
        json_out([{**_plain(version), "as_of": None if at is None else to_iso(at)} for version, at in found])
    elif not found:
        out("no features yet: call `noria run`")
    else:
        rows = [
            (
                version.label,
                version.entity,
                len(version.spec.features),
                version.state["owner"] or None,
                None if at is None else to_iso(at)[:19],
                version.state["description"] or None,
            )
            for version, at in found
        ]
        out(table(("group", "entity", "features", "owner", "values as of (UTC)", "what"), rows, ("features",)))
    return 0


def show(options: Namespace) -> int:
    """Show a version: its features and the statistics of their values."""
    with _store(options.project) as (workspace, store):
        version = store.catalog.get(options.label)
        statistics = newest(workspace.records, version.spec.place)
    if options.json:
        json_out({**_plain(version), "statistics": statistics})
        return 0
    state, spec = version.state, version.spec
    out(f"{version.label}  {state['description']}".rstrip())
    about = [("entity", version.entity), ("source", state["source"]["name"]), ("ttl", state["ttl"])]
    about += [("owner", state["owner"]), ("tags", ", ".join(state["tags"]))]
    out("  " + "   ".join(f"{name} {value}" for name, value in about if value))
    if statistics is not None:
        out(f"  values as of {to_iso(statistics['as_of'])[:19]}\n")
    found = statistics["features"] if statistics is not None else {}
    rows = [
        (name, kind, in_words(version.definition["features"][name]), *_numbers(found.get(name, {})))
        for name, kind in zip(spec.features, spec.types, strict=True)
    ]
    header = ("feature", "type", "what", "entities", "missing", "distinct", "median", "1 % to 99 %", "moved")
    out(table(header, rows, ("entities", "missing", "distinct", "median")))
    if any("psi" in one for one in found.values()):
        out("\n  moved: the population stability index against a week before; above 0.25 needs a look")
    return 0


def history(options: Namespace) -> int:
    """List a group's versions, and what made each another one."""
    with _store(options.project) as (_, store):
        store.catalog.latest(options.name)
        versions, held = store.catalog.versions(options.name), store.catalog.held()
    if options.json:
        json_out([{**_plain(version), "read_by_models": version.spec.place in held} for version in versions])
        return 0
    before: GroupVersion | None = None
    for version in versions:
        kept = "; models read it" if version.spec.place in held else ""
        out(f"{version.label}  {to_iso(version.at)[:19]} UTC{kept}")
        for line in difference(before.definition, version.definition) if before is not None else ():
            out(f"    {line}")
        before = version
    return 0


def diff(options: Namespace) -> int:
    """Show what makes two versions different."""
    with _store(options.project) as (_, store):
        one, other = store.catalog.get(options.one), store.catalog.get(options.other)
    lines = difference(one.definition, other.definition)
    if options.json:
        json_out(lines)
    else:
        out("\n".join(lines) if lines else "they are the same")
    return 0


def backfill(options: Namespace) -> int:
    """Compute a group's features over the whole history, into a table."""
    system = load_system(options.project)
    with Workspace.open(Settings.load(options.project)) as workspace, TerminalProgress() as progress:
        store = FeatureStore(workspace)
        group = store.catalog.get(options.label).group() if "@" in options.label else _group(system, options.label)
        if options.out in {part.name for part in system.components}:
            raise ConfigError(f"{options.out!r} is a component of the system", hint="give the table another name")
        asked = _asked(options, system)
        done = store.backfill(group, options.out, **asked, progress=progress)
    if options.json:
        json_out(done)
        return 0
    before = done.partitions - done.computed
    how = f", {before:,} of them done before" if before and done.computed else ""
    parts = f"{done.partitions:,} partition{'s' if done.partitions > 1 else ''}{how}"
    what = f"{done.rows:,} rows in {parts}" if done.computed else f"{done.rows:,} rows"
    read = ", ".join(f"{name} version {number}" for name, number in done.versions.items())
    fresh = "" if done.computed else "; it was complete, nothing to do"
    out(f"table {done.table} version {done.version}: {what}, made of {read}{fresh}")
    return 0


_MOST_INSTANTS = 100_000


def _asked(options: Namespace, system: System) -> dict[str, Any]:
    """The rows that a backfill is asked for."""
    if options.labels and not options.every:
        source = _component(system, options.labels, ("source", "stream"))
        time = options.time or getattr(source, "time", None)
        if time is None:
            raise ConfigError(f"source {options.labels!r} has no event time", hint="name a column with --time")
        return {"labels": options.labels, "time": time}
    if options.labels:
        raise ConfigError(
            "a backfill is either of labels or of instants",
            hint="leave one out: --labels, or --every with --from and --until",
        )
    if not (options.every and options.start and options.until):
        raise ConfigError(
            "a backfill needs the rows for which to compute",
            hint="--labels SOURCE, or --every 1d --from 2024-01-01 --until 2024-02-01",
        )
    start, end, step = _instant(options.start), _instant(options.until), duration(options.every)
    if not 0 < (end - start + step - 1) // step <= _MOST_INSTANTS:
        raise ConfigError(
            f"--every {options.every} --from {options.start} --until {options.until} are "
            f"{max(0, (end - start + step - 1) // step):,} instants",
            hint=f"there must be 1 to {_MOST_INSTANTS:,}",
        )
    return {"instants": list(range(start, end, step))}


def _instant(text: str) -> int:
    """Microseconds of an ISO date or instant; UTC where it names no zone."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"{text!r} is no instant: {error}", hint="2024-01-31, or 2024-01-31T12:00:00") from error
    found = found if found.tzinfo is not None else found.replace(tzinfo=UTC)
    return (found - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def _group(system: System, name: str) -> FeatureGroup:
    found = _component(system, name, ("features",))
    assert isinstance(found, FeatureGroup)
    return found


def _component(system: System, name: str, kinds: Sequence[str]) -> Component:
    names = [part.name for part in system.components if part.kind in kinds]
    if name not in names:
        raise ConfigError(f"the system has no {kinds[0]} {name!r}", hint=allowed(names, name))
    return system[name]


def _as_of(workspace: Workspace, version: GroupVersion) -> int | None:
    record = workspace.records.get("materialized", version.spec.place)
    return None if record is None or record.data.get("forgotten") else int(record.data["as_of"])


def _plain(version: GroupVersion) -> dict[str, Any]:
    state = {name: version.state[name] for name in ("description", "owner", "tags")}
    state |= {"entity_name": version.state["named"]["name"]} if "named" in version.state else {}
    return {"group": version.name, "version": version.version, "at": to_iso(version.at), **version.definition, **state}


def _numbers(found: Mapping[str, Any]) -> tuple[Any, ...]:
    quantiles = found.get("quantiles")
    middle = None if quantiles is None else f"{quantiles[6]:.6g}"
    spread = None if quantiles is None else f"{quantiles[1]:.6g} to {quantiles[11]:.6g}"
    moved = f"{found['psi']:.3f}" if "psi" in found else None
    return found.get("count"), found.get("missing"), found.get("distinct"), middle, spread, moved
