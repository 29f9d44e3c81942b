"""`noria models gc`: what killed runs have left in the blob store."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import asdict

from noria.cli.show import json_out, out
from noria.core import ConfigError, Settings, duration
from noria.registry import ModelRegistry, collect
from noria.storage import Workspace


def gc(options: Namespace) -> int:
    """Remove what killed runs have left in the blob store."""
    try:
        older_than = duration(options.older_than)
    except ConfigError as error:
        error.field = "--older-than"
        raise
    with Workspace.open(Settings.load(options.project)) as workspace:
        registry = ModelRegistry.of(workspace)
        found = collect(
            registry, older_than=older_than, dry_run=options.dry_run, empty=options.empty, clock=workspace.clock
        )
    if options.json:
        json_out(asdict(found))
        return 0
    done = "would be removed" if found.dry_run else "removed"
    out(f"{done}: {_files(found.orphans, found.orphan_bytes)} that no version refers to")
    out(f"{done}: {_files(found.halves, found.half_bytes)} half written")
    out(f"kept: {_files(found.kept, found.kept_bytes)} of versions")
    if found.young:
        out(f"kept: {_files(found.young, found.young_bytes)} without a version, younger than {options.older_than}")
    return 0


def _files(count: int, size: int) -> str:
    return f"{count:,} {'file' if count == 1 else 'files'} ({size:,} bytes)"
