"""`noria reproduce`: make a version again, and say whether it is the same."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from noria.cli.progress import TerminalProgress
from noria.cli.project import load_system
from noria.cli.show import json_out, out, result_apart, say, table
from noria.core import NoriaError, Settings
from noria.registry import ModelRegistry
from noria.storage import Workspace

if TYPE_CHECKING:
    from noria.training import ModelTrainingPipeline, Reproduction


def reproduce(options: Namespace) -> int:
    """Make a version again; the exit status is 0 if it is the same, or as near as its definition allows."""
    from noria.training.reproduction import reproduce

    with Workspace.open(Settings.load(options.project)) as workspace, TerminalProgress() as progress:
        version = ModelRegistry.of(workspace).get(options.label)
        pipeline = _pipeline(options.project, version.name)
        with result_apart():
            found = reproduce(workspace, version, pipeline=pipeline, progress=progress)
    if options.json:
        json_out(found.to_dict())
    else:
        _tell(found)
    same = ("identical",) if options.exact else ("identical", "equivalent")
    return 0 if found.outcome in same else 1


def _pipeline(project: str, name: str) -> ModelTrainingPipeline | None:
    """What `system.py` says of the model now; it is asked only where the registry doesn't say all."""
    from noria.training import ModelTrainingPipeline

    if not (Path(project) / "system.py").exists():
        return None
    try:
        part = load_system(project)[name]
    except NoriaError as error:
        say(f"system.py can't be asked: {error.message}")
        return None
    return part if isinstance(part, ModelTrainingPipeline) else None


_WORDS = {
    "identical": "identical: every prediction has the same bits",
    "equivalent": "equivalent: not the same bits, which is explained below, and every metric within its interval",
    "different": "different",
}


_PLAIN = 3


def _tell(found: Reproduction) -> None:
    out(f"{found.label}  {_WORDS[found.outcome]}")
    file = "has the same bytes" if found.same_file else "has other bytes"
    out(f"  {found.rows:,} rows, the same bit for bit (SHA-256 {found.digest[:16]}…); fitted again from {found.source}")
    if found.changed:
        by = f", by {found.largest:.3g} at most" if found.largest else ""
        out(f"  {found.changed:,} rows have another answer{by}; the model's file {file}")
    else:
        out(f"  the model's file {file}")
    rows = [
        (name, one.then, one.now, *(() if one.low is None else (f"{one.low:.4f} to {one.high:.4f}", one.fits)))
        for name, one in found.metrics.items()
    ]
    has_intervals = bool(rows) and all(len(row) > _PLAIN for row in rows)
    header = ("metric", "registered", "now", *(("95 % interval", "within") if has_intervals else ()))
    out("\n" + table(header, [row[: len(header)] for row in rows], ("registered", "now")))
    if found.libraries:
        out("\nlibraries that have moved")
        out(table(("", "then", "now"), [(name, *both) for name, both in found.libraries.items()]))
    for note in found.notes:
        out(f"\n  {note}")
