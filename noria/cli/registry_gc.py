"""`noria models gc`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from noria.core.errors import ConfigError


def add_gc(actions: Any, project: argparse.ArgumentParser, add: Callable[..., Any]) -> None:
    """Add it to the command line; `add` makes a command of a name, a function and a help text."""
    gc = add(actions, "gc", "registry_gc:gc", "remove files that no version refers to", project)
    gc.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    gc.add_argument(
        "--older-than",
        default="1d",
        metavar="DURATION",
        help="leave younger ones: a run may be about to need them (1d)",
    )
    gc.add_argument("--empty", action="store_true", help="even if the registry has no version at all")
    gc.add_argument("--json", action="store_true", help="print the counts as JSON")


def gc(options: argparse.Namespace) -> int:
    """Remove what killed runs have left in the blob store."""
    # Here, for `add_gc` is asked for each command, and these are a hundred modules.
    from noria.cli.show import json_out, out
    from noria.core import Settings, duration
    from noria.registry import ModelRegistry, collect
    from noria.storage import Workspace

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
