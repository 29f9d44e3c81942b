"""`noria models list`, `show` and `diff`: what a person wants to know of versions, on a page."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Mapping
from shutil import get_terminal_size
from textwrap import wrap
from typing import Any

from noria.cli.show import VERDICTS, json_out, out, table
from noria.core import Settings, to_iso
from noria.registry import AuditEntry, ModelRegistry, ModelVersion
from noria.registry.difference import difference, flat, metric_values
from noria.registry.gates import size_text
from noria.storage import Workspace

_WIDTH = min(100, get_terminal_size((100, 24)).columns)
_TRIALS = 8
_METRICS = 3
_CELL = 36
_TITLE = 24
_APART = ("evaluation", "estimator", "features", "gates", "kind", "labels", "leakage", "metrics", "model", "name")


def listing(options: Namespace) -> int:
    """List every model's versions, the newest first."""
    with Workspace.open(Settings.load(options.project)) as workspace:
        registry = ModelRegistry.of(workspace)
        names = registry.models()
        states = {name: registry.states(name) for name in names}
        found = [version for name in names for version in registry.versions(name)]
    if options.json:
        json_out([_listed(version, names, states) for version in found])
    elif not found:
        out("no models yet: call `noria run`")
    else:
        rows = [
            (
                version.label,
                states[version.name].get(version.version, "registered"),
                ", ".join(_others(names[version.name], version.version)) or None,
                to_iso(version.created)[:19],
                _short(version),
            )
            for version in found
        ]
        out(table(("model", "state", "other aliases", "registered (UTC)", "metrics"), rows))
    return 0


def _listed(version: ModelVersion, names: Mapping[str, dict[str, int]], states: Mapping[str, Any]) -> dict[str, Any]:
    aliases = [alias for alias, number in names[version.name].items() if number == version.version]
    state = states[version.name].get(version.version, "registered")
    return {**version.to_dict(), "aliases": aliases, "state": state}


def _others(aliases: Mapping[str, int], number: int) -> list[str]:
    """The aliases that the state doesn't tell."""
    return [alias for alias, of in aliases.items() if of == number and alias not in ("champion", "challenger")]


def _short(version: ModelVersion) -> str:
    values = metric_values(version)
    more = len(values) - _METRICS
    told = [f"{name} {value:.4f}" for name, value in list(values.items())[:_METRICS]]
    return ", ".join(told) + (f", {more} more" if more > 0 else "")


def show(options: Namespace) -> int:
    """Show a version: a page of what a person wants to know, or all of it as JSON."""
    with Workspace.open(Settings.load(options.project)) as workspace:
        registry = ModelRegistry.of(workspace)
        version = registry.get(options.label)
        state, aliases = registry.state(version.name, version.version), registry.models()[version.name]
        verdicts = registry.verdicts(version.name, version.version)
        entries = registry.audit(version.name, version=version.version)
    if options.json:
        json_out({**version.to_dict(), "state": state, "verdicts": verdicts, "audit": entries})
        return 0
    out(f"{version.label}  {state}" + "".join(f", {alias}" for alias in _others(aliases, version.version)))
    size = sum(blob.size for blob in version.files.values())
    about = (
        f"{version.servable}, registered {to_iso(version.created)[:16].replace('T', ' ')} UTC by run {version.run_id}"
    )
    out(f"  {about}; {len(version.files)} files, {size_text(size)}")
    for title, lines in _sections(version, verdicts, entries):
        out(f"\n{title}")
        out("\n".join(lines))
    out(f"\n  rows: noria models dataset {version.label}    origin: noria models lineage {version.label}")
    out(f"  again: noria reproduce {version.label}    everything: noria models show {version.label} --json")
    return 0


def _sections(
    version: ModelVersion, verdicts: list[dict[str, Any]], entries: list[AuditEntry]
) -> Iterator[tuple[str, list[str]]]:
    yield "metrics", _metrics(version)
    search = (version.parameters.get("learning") or {}).get("search")
    if search:
        yield "search", [*_filled(_search(search)), "", *_trials(search)]
    if verdicts:
        yield "gates", _filled((VERDICTS[one["passed"]], f"{one['gate']}: {one['why']}") for one in verdicts)
    yield "model", _filled(_model(version))
    yield "made of", _filled(_made_of(version))
    code = {name: value[:12] if name == "git" else value for name, value in version.lineage.code.items()}
    yield "code", _filled([("", ", ".join(f"{name} {value}" for name, value in code.items()))])
    if entries:
        yield "history", _filled((one.at[:16].replace("T", " "), _told(one)) for one in entries[:5])


def _metrics(version: ModelVersion) -> list[str]:
    kept = version.parameters.get("evaluation") or {}
    figures, baselines = kept.get("metrics") or {}, kept.get("baselines") or {}
    rows = []
    for name, value in version.metrics.items():
        low, high = (
            value[1:] if isinstance(value, list) else (figures.get(name, {}).get(end) for end in ("low", "high"))
        )
        interval = f"{low:.4f} to {high:.4f}" if low is not None and high is not None else None
        rows.append((name, metric_values(version)[name], interval, *(one.get(name) for one in baselines.values())))
    header = ("metric", "value", "95 % interval", *baselines)
    if all(row[2] is None for row in rows):
        header, rows = (*header[:2], *header[3:]), [(*row[:2], *row[3:]) for row in rows]
    return [table(header, rows, ("value", *baselines))]


def _model(version: ModelVersion) -> Iterator[tuple[str, str]]:
    model = version.parameters.get("model")
    if isinstance(model, dict):
        kind = str(model.get("class", model.get("kind", "")))
        yield kind.rpartition(".")[2] or "model", _pairs(flat(model.get("parameters", model)))
    rest = {name: value for name, value in version.parameters.items() if name not in _APART}
    steps = rest.pop("steps", None) or []
    if steps:
        yield "steps", ", ".join(str(step.get("step")) for step in steps)
    if "learning" in rest:
        rest["learning"] = {name: value for name, value in rest["learning"].items() if name != "search"}
    for name, value in rest.items():
        told = _pairs(flat(value)) if isinstance(value, (dict, list)) else str(value)
        if value is not None and told:
            yield name, told


def _search(search: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What was found, in words; the trials come after it."""
    ends = ", ".join(f"{number:,} {end}" for end, number in search["trials"].items())
    yield "trials", f"{ends}; {search['seconds']:,.0f} s"
    if search.get("note"):
        yield "note", search["note"]
    if search.get("chosen"):
        yield "chosen", search["chosen"]
    if search.get("best"):
        yield "best", _pairs(search["best"])
    if search.get("given") is not None:
        yield "given", f"{search['metric']} {_number(search['given'])} with the parameters as they were written"


def _trials(search: Mapping[str, Any]) -> list[str]:
    """The best trials first; those that have no score last."""
    metric, scores = str(search["metric"]), [one["score"] for one in search["history"] if "score" in one]
    sign = 1 if scores and min(scores) == search["score"] else -1
    history = sorted(search["history"], key=lambda one: sign * one["score"] if "score" in one else float("inf"))
    rows = [
        (
            f"{one['model']} {one['trial']}" if "model" in one else str(one["trial"]),
            one.get("score"),
            f"{one['seconds']:.1f}",
            _cut(": ".join(filter(None, (one.get("end"), one.get("reason"), _pairs(one["parameters"])))), _WIDTH - 40),
        )
        for one in history[:_TRIALS]
    ]
    more = [f"  and {len(history) - _TRIALS:,} more: --json"] if len(history) > _TRIALS else []
    return [table(("trial", metric, "seconds", "parameters"), rows, (metric, "seconds")), *more] if rows else []


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _made_of(version: ModelVersion) -> Iterator[tuple[str, str]]:
    inputs = version.signature.inputs
    yield "inputs", f"{len(inputs)}: " + ", ".join(f"{name} {kind}" for name, kind in inputs.items())
    yield "data", ", ".join(f"{name} version {number}" for name, number in version.lineage.data.items()) or "not kept"
    if version.lineage.features:
        yield "features", ", ".join(f"{name} {digest}" for name, digest in version.lineage.features.items())
    kept = version.lineage.dataset
    if kept:
        yield "rows", f"{kept['rows']:,}, SHA-256 {kept['digest'][:16]}…"


def _told(entry: AuditEntry) -> str:
    return f"{entry.action} by {entry.who}" + (f": {entry.why}" if entry.why else "")


def diff(options: Namespace) -> int:
    """Show what makes two versions different."""
    with Workspace.open(Settings.load(options.project)) as workspace:
        registry = ModelRegistry.of(workspace)
        one = registry.get(options.one)
        other = registry.get(options.other if "@" in options.other else f"{one.name}@{options.other}")
    found = difference(one, other)
    if options.json:
        json_out(found)
        return 0
    if not found:
        out(f"{one.label} and {other.label} are the same in all but number, run and time")
    for place, (part, names) in enumerate(found.items()):
        out(("\n" if place else "") + part)
        rows = [(name, _cell(a), _cell(b), *_change(part, a, b)) for name, (a, b) in names.items()]
        change = ("change",) if part == "metrics" else ()
        out(table(("", one.label, other.label, *change), rows, change))
    return 0


def _change(part: str, one: Any, other: Any) -> tuple[str, ...]:
    if part != "metrics":
        return ()
    return ("" if one is None or other is None else f"{other - one:+.4f}",)


def _cell(value: Any) -> Any:
    text = f"{value:.6g}" if isinstance(value, float) else value
    if not isinstance(text, str) or len(text) <= _CELL:
        return text
    is_path = "." in text and " " not in text  # its end says more
    return f"…{text[1 - _CELL :]}" if is_path else f"{text[: _CELL - 1]}…"


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_number(value)}" for name, value in values.items())


def _number(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value


def _filled(rows: Any) -> list[str]:
    """Titles with texts that are broken to the width of a page; under a title that is too long the text begins anew."""
    rows = list(rows)
    width = max((len(title) + 2 for title, _ in rows if title and len(title) <= _TITLE), default=0)
    lines = []
    for title, text in rows:
        parts = wrap(str(text), _WIDTH - width - 2)
        if title and len(title) + 2 > width:
            lines.append(f"  {title}")
            title = ""
        first, *rest = parts or [""]
        lines.append(f"  {title.ljust(width)}{first}".rstrip())
        lines += [f"  {' ' * width}{part}" for part in rest]
    return lines
