"""`noria quarantine`: what broke a contract, why, and how it comes back."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from noria.cli.project import load_system
from noria.cli.show import json_out, out, table
from noria.core import ConfigError, Settings, allowed
from noria.pipelines import Source, Stream
from noria.pipelines.quarantine import replay as replay_source
from noria.pipelines.quarantine import replay_stream, summarize
from noria.pipelines.quarantine import show as show_source
from noria.storage import Workspace


def listing(options: Namespace) -> int:
    """Show for each source how many rows are in quarantine, by rule."""
    sources = _sources(options.project)
    with Workspace.open(Settings.load(options.project)) as workspace:
        found = [summarize(workspace, name) for name in sources]
    if options.json:
        json_out([{"source": s.source, "rows": s.rows, "by_rule": s.by_rule, "newest": s.newest} for s in found])
        return 0
    lines = [(s.source, f"{rows:,}", rule) for s in found for rule, rows in s.by_rule.items()]
    if not lines:
        out("no row is in quarantine")
        return 0
    out(table(("source", "rows", "rule"), lines, ("rows",)))
    out("look at them: noria quarantine show SOURCE; when the contract is mended: noria quarantine replay SOURCE")
    return 0


def show(options: Namespace) -> int:
    """Show rows with their place and every reason."""
    source = _source(options.project, options.source)
    with Workspace.open(Settings.load(options.project)) as workspace:
        rows = show_source(workspace, source.name, rule=options.rule, limit=options.limit)
    if options.json:
        json_out(rows.to_dicts())
        return 0
    for row in rows.iter_rows(named=True):
        out(f"{row['file']}, row {row['position']}: {'; '.join(row['reasons'])}\n  {row['row']}")
    out(f"{len(rows):,} rows" if len(rows) else "no such row is in quarantine")
    return 0


def replay(options: Namespace) -> int:
    """Judge the rows again by the contract as it is now."""
    source = _source(options.project, options.source)
    with Workspace.open(Settings.load(options.project)) as workspace:
        result = replay_source(source, workspace) if isinstance(source, Source) else replay_stream(source, workspace)
    if options.json:
        json_out({**result.rows, "by_rule": result.by_rule})
        return 0
    out(
        f"{result.rows_in:,} rows were in quarantine: {result.rows_out:,} are in the table {source.name!r} now, "
        f"{result.filtered:,} were filtered out, {result.quarantined:,} stay"
    )
    for rule, rows in result.by_rule.items():
        out(f"  {rows:,}  {rule}")
    if result.rows_out:
        out("call `noria run` to bring what depends on them up to date")
    return 0


def _sources(project: str) -> dict[str, Source | Stream]:
    return {part.name: part for part in load_system(project).components if isinstance(part, (Source, Stream))}


def _source(project: str, name: str) -> Source | Stream:
    sources: dict[str, Any] = _sources(project)
    if name not in sources:
        raise ConfigError(f"there is no source {name!r}", hint=allowed(sources, name), field="source")
    found: Source | Stream = sources[name]
    return found
