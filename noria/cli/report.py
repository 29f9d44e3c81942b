"""`noria models report`: how good a version is, in the terminal or as a page."""

from __future__ import annotations

import webbrowser
from argparse import Namespace
from pathlib import Path
from typing import Any

import msgspec

from noria.cli.show import json_out, out, table
from noria.cli.whole import whole
from noria.core import NotFoundError, Settings
from noria.registry import ModelRegistry, ModelVersion
from noria.storage import Workspace
from noria.training.bootstrap import Interval
from noria.training.evaluation import interval_text
from noria.training.metrics import METRICS
from noria.training.report import JSON_FILE, page

_MOST_SLICES = 8


def report(options: Namespace) -> int:
    """Print what is in a version's report; write it as a page; or open that in the browser."""
    with Workspace.open(Settings.load(options.project)) as workspace:
        registry = ModelRegistry.of(workspace)
        version = registry.get(options.label)
        found = read(registry, version)
        folder = workspace.settings.state_dir / "reports"
    if options.json:
        json_out(found)
        return 0
    if not (options.out or options.open):
        out(summary(found, version.label))
        return 0
    file = Path(options.out) if options.out else folder / f"{version.name}-{version.version}.html"
    with whole(file) as half:
        if not options.out:
            folder.mkdir(parents=True, exist_ok=True)
        half.write_text(page(found, version.label), "utf-8")
    out(f"{version.label}: {file}")
    if options.open and not webbrowser.open(file.resolve().as_uri()):
        out("no browser was found here: open that file in one")
    return 0


def read(registry: ModelRegistry, version: ModelVersion) -> dict[str, Any]:
    """A version's report.

    Raises:
        NotFoundError: it has none.
    """
    if JSON_FILE not in version.files:
        raise NotFoundError(
            f"{version.label} has no report", hint="it isn't a pipeline's model, or it was trained by an older noria"
        )
    found: dict[str, Any] = msgspec.json.decode(registry.files(version)[JSON_FILE].read_bytes())
    return found


def summary(report: dict[str, Any], label: str) -> str:
    """The report in short, for a terminal."""
    evaluation, rows = report["evaluation"], report["rows"]
    lines = [f"{label}  {evaluation['verdict']}"]
    lines.append(f"  trained on {rows['train']:,} rows, judged on {rows['test']:,}\n")
    titles = [evaluation["titles"][name] for name in evaluation["baselines"]]
    body = [
        (name, _interval(one), *(scores.get(name) for scores in evaluation["baselines"].values()))
        for name, one in evaluation["metrics"].items()
    ]
    lines.append(table(("metric", "value [95 %]", *titles), body, tuple(titles)))
    lines += _worst(evaluation)
    features = report["importance"].get("features", [])[:_MOST_SLICES]
    if features:
        body = [(one["name"], f"{one['value']:.4f} [{one['low']:.4f}, {one['high']:.4f}]") for one in features]
        lines += ["", table(("relies on", f"{report['importance']['metric']} lost without it"), body)]
    lines += ["", f"  the whole page: noria models report {label} --open, or --out FILE"]
    return "\n".join(lines)


def _worst(evaluation: dict[str, Any]) -> list[str]:
    """The slices that are clearly worse than the whole, the worst first."""
    if not evaluation["metrics"]:
        return []
    name, whole = next(iter(evaluation["metrics"].items()))
    greater = METRICS[name].greater_is_better
    found = [
        (f"{column} = {value}", part["rows"], part[name])
        for column, parts in evaluation["slices"].items()
        for value, part in parts.items()
        if name in part and (part[name]["high"] < whole["value"] if greater else part[name]["low"] > whole["value"])
    ]
    if not found:
        return ["", "  no slice is clearly worse than the whole"] if evaluation["slices"] else []
    found.sort(key=lambda one: one[2]["value"], reverse=not greater)
    body = [(title, rows, _interval(one)) for title, rows, one in found[:_MOST_SLICES]]
    more = [f"  and {len(found) - _MOST_SLICES} more"] if len(found) > _MOST_SLICES else []
    return ["", table(("worse than the whole", "rows", name), body, ("rows",)), *more]


def _interval(one: dict[str, Any]) -> str:
    return interval_text(Interval(one["value"], one["low"], one["high"]))
