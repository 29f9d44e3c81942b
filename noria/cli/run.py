"""`noria run` and `noria status`."""

from __future__ import annotations

import sys
import traceback
from argparse import Namespace
from typing import Any

from noria.cli.progress import TerminalProgress
from noria.cli.project import load_system
from noria.cli.show import json_out, out, result_apart, say, table
from noria.core import NoriaError, Settings, to_iso
from noria.storage import Workspace
from noria.system import RunReport, Step, System


def run(options: Namespace) -> int:
    """Bring the project up to date and report what was done."""
    system = load_system(options.project)
    with Workspace.open(Settings.load(options.project)) as workspace:
        report = run_with_progress(system, workspace, full=options.full, only=options.component)
    if options.json:
        json_out(_report(report))
    else:
        out(summary(report))
    return 1 if report.failed else 0


def run_with_progress(
    system: System, workspace: Workspace, *, full: bool = False, only: str | None = None
) -> RunReport:
    """Run the system, with progress and errors on standard error."""
    with result_apart(), TerminalProgress() as progress:
        report = system.run(workspace, full=full, only=only, progress=progress)
    for step in report.failed:
        if step.error is not None and not isinstance(step.error, NoriaError):
            traceback.print_exception(step.error, file=sys.stderr)
        say(f"error: {step.component}: {step.error}")
    return report


def summary(report: RunReport) -> str:
    """What each component did, as a table with a closing line."""
    lines = [table(("component", "status", "seconds", "rows", "why"), map(_row, report.steps.values()), ("seconds",))]
    done = [step for step in report.steps.values() if step.status != "fresh"]
    if not done:
        lines.append(f"everything is fresh: nothing to do ({len(report.steps)} components)")
    else:
        slowest = max((s for s in done if s.run), key=lambda s: s.run.seconds if s.run else 0.0, default=None)
        note = f"; longest: {slowest.component}, {slowest.run.seconds:.1f} s" if slowest and slowest.run else ""
        failed = f", {len(report.failed)} failed" if report.failed else ""
        lines.append(f"{len(done)} of {len(report.steps)} components in {report.seconds:.1f} s{failed}{note}")
    lines += [_judged(step) for step in done if step.run and step.run.notes.get("verdict")]
    lines += [f"{s.component}: warning: {text}" for s in done if s.run for text in s.run.notes.get("warnings", ())]
    return "\n".join(line for line in lines if line)


def _judged(step: Step) -> str:
    """A model's verdict and its other metrics: of recommenders, which print theirs elsewhere, only what is unusual."""
    notes = step.run.notes if step.run else {}
    verdict = str(notes["verdict"])
    if "metrics" not in notes:
        return f"{step.component}: {verdict}" if "; not promoted" in verdict else ""
    others = str(notes["metrics"]).partition("], ")[2]
    return f"{step.component}@{notes['version']}: {verdict}" + (f"; {others}" if others else "")


def status(options: Namespace) -> int:
    """Show each component's state and the champions."""
    system = load_system(options.project)
    with Workspace.open(Settings.load(options.project)) as workspace:
        steps = system.status(workspace)
    if options.json:
        json_out({"system": system.name, "components": [_step(step) for step in steps]})
        return 0
    rows = [
        (
            s.component,
            s.status,
            s.why or "-",
            s.run.version if s.run else None,
            to_iso(s.run.started)[:19] if s.run else None,
        )
        for s in steps
    ]
    out(table(("component", "status", "why", "version", "last run (UTC)"), rows))
    return 0


def rows_text(rows: dict[str, int]) -> str:
    """`100,004 in, 99,990 out, 14 quarantined`; what is zero is left out, except `in` and `out`."""
    return ", ".join(f"{count:,} {name}" for name, count in rows.items() if count or name in ("in", "out"))


def _row(step: Step) -> tuple[Any, ...]:
    seconds = f"{step.run.seconds:.1f}" if step.run and step.status != "fresh" else "-"
    return (
        step.component,
        step.status,
        seconds,
        rows_text(step.run.rows) if step.run else "-",
        step.why.partition("\n")[0] or "-",
    )


def _report(report: RunReport) -> dict[str, Any]:
    return {"seconds": round(report.seconds, 3), "components": [_step(step) for step in report.steps.values()]}


def _step(step: Step) -> dict[str, Any]:
    return {"name": step.component, "status": step.status, "why": step.why, "run": step.run}
