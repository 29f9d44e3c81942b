"""`noria predictions`: what servers recorded of the requests that they answered."""

from __future__ import annotations

from argparse import Namespace
from datetime import UTC, datetime
from typing import Any

import msgspec

from noria.cli.project import load_system
from noria.cli.show import json_out, out, say, table
from noria.core import ConfigError, NotFoundError, Settings, duration, to_iso
from noria.features.reads import GroupRead
from noria.monitoring.tracing import traced
from noria.registry import ModelRegistry, parse_label
from noria.serving.prediction_files import Prediction, PredictionReader, newest
from noria.storage import Workspace

_MOST_ROWS = 5


def listing(options: Namespace) -> int:
    """List the newest predictions."""
    found = recorded(options, default=20)
    if options.json:
        json_out(found)
        return 0
    rows = [
        (
            to_iso(one.at)[:19],
            one.id,
            _who(one.kind, one.model, one.version, one.variant),
            f"{one.latency * 1000:.1f}",
            ", ".join(_in_short(read) for read in one.groups) or None,
            _shortened(_result(one.output)),
        )
        for one in found
    ]
    out(table(("answered (UTC)", "id", "model", "ms", "features of", "output"), rows, ("ms",)))
    return 0


def show(options: Namespace) -> int:
    """Show a prediction with its model and features."""
    system_checked(options)
    settings = Settings.load(options.project)
    reader = PredictionReader(settings.state_dir / "predictions")
    found = [one for one in reader if one.id == options.id]
    if not found:
        raise NotFoundError(
            f"no prediction {options.id!r} is recorded",
            hint=f"a share of {settings.predictions.log_share:g} of the requests is recorded, and the oldest go first; "
            "see `noria predictions`",
        )
    with Workspace.open(settings) as workspace:
        traces = [traced(one, workspace) for one in found]
    if options.json:
        json_out(traces)
    else:
        for one in traces:
            _tell(one)
    return 0


def recorded(options: Namespace, default: int) -> list[Prediction]:
    """The predictions that the words `--model`, `--since` and `--limit` choose, the oldest first.

    Raises:
        NotFoundError: there is none; the hint says how to record some.
    """
    system_checked(options)
    settings = Settings.load(options.project)
    limit = default if options.limit is None else options.limit
    if limit < 1:
        raise ConfigError(f"--limit {limit} leaves nothing", hint="give a number from 1", field="limit")
    since = None if options.since is None else instant(options.since)
    reader = PredictionReader(settings.state_dir / "predictions")
    found = newest(reader, model=options.model, since=since, limit=limit)
    if reader.torn:
        say(f"{reader.torn} lines of the prediction log are torn, and left out: a server was killed while it wrote")
    if found:
        return found
    if options.model is not None:
        _check_model(settings, options.model)
    if next(iter(reader), None) is not None:
        raise NotFoundError("no recorded prediction is such", hint="see `noria predictions` without --model or --since")
    how = (
        "it is switched off: set log_share in [predictions] of noria.toml, 0.01 by default"
        if settings.predictions.log_share == 0
        else "call `noria serve` and send it requests; of each server at least one a second is recorded"
    )
    raise NotFoundError("no predictions are recorded yet", hint=how)


def _check_model(settings: Settings, label: str) -> None:
    """Say so where there is no such model or version."""
    name, version = parse_label(label)
    with Workspace.open(settings) as workspace:
        registry = ModelRegistry.of(workspace)
        registry.versions(name)
        if version is not None:
            registry.get(name, version)


def system_checked(options: Namespace) -> None:
    """Say so where there is no project."""
    load_system(options.project)


def instant(text: str, word: str = "since") -> int:
    """Microseconds of `2026-01-31`, `2026-01-31T12:00:00Z`, or of so long ago: `2h`; `word` is the option's.

    Raises:
        ConfigError: it is neither.
    """
    try:
        return int(datetime.now(UTC).timestamp() * 1_000_000) - duration(text)
    except ConfigError:
        pass
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            f"--{word} {text!r} is no time", hint="write how long ago (2h, 7d), or when: 2026-01-31T12:00:00Z"
        ) from None
    when = when if when.tzinfo is not None else when.replace(tzinfo=UTC)
    return int(when.timestamp() * 1_000_000)


def _tell(one: dict[str, Any]) -> None:
    who = _who(one["kind"], one.get("model"), one.get("version"), one.get("variant", ""))
    out(f"{one['id']}  {who}  answered {one['at']} in {one['latency'] * 1000:.1f} ms")
    registered = one.get("registered")
    if registered:
        data = ", ".join(f"{name} version {version}" for name, version in registered["data"].items())
        out(f"  model     registered {registered['at'][:19]} by run {registered['run']}, trained on {data}")
    if one.get("traceparent"):
        out(f"  trace     {one['traceparent']}")
    if one.get("inputs") is not None:
        out(f"  asked     {_shortened(_given(one['inputs']), 200)}")
    if one.get("output") is not None:
        out(f"  answered  {_shortened(one['output'], 200)}")
    for read in one["groups"]:
        instant_of = f", values as of {read['as_of']}" if read.get("as_of") else ""
        out(f"\n  {read['version'] or read['place']}{instant_of}")
        rows = [
            (_entity(entity), name, _shortened(column[at]), _status(read, at), (read["event_times"][at] or "-")[:19])
            for at, entity in enumerate(read["ids"][:_MOST_ROWS])
            for name, column in read["values"].items()
        ]
        out(table(("entity", "feature", "value", "status", "newest event"), rows))
        if read["rows"] > _MOST_ROWS:
            out(f"  … of {read['rows']} entities")


def _who(kind: str, model: str | None, version: int | None, variant: str) -> str:
    """Who answered: `late@3`, and which variant it was while something was tried: `late@4 (canary)`."""
    label = kind if model is None else f"{model}@{version}"
    return f"{label} ({variant})" if variant else label


def _status(read: dict[str, Any], at: int) -> str:
    return "expired" if read["expired"][at] else "present" if read["found"][at] else "missing"


def _entity(entity: Any) -> str:
    return ", ".join(map(str, entity)) if isinstance(entity, list) else str(entity)


def _in_short(read: GroupRead) -> str:
    first = _entity(read.ids[0]) if read.ids else "-"
    return f"{read.group} {first}{f' and {read.rows - 1} more' if read.rows > 1 else ''}"


def _given(inputs: Any) -> Any:
    """What was asked, without what was left out."""
    return {k: v for k, v in inputs.items() if v is not None} if isinstance(inputs, dict) else inputs


def _result(output: Any) -> Any:
    """What was predicted, without the names of who did."""
    if isinstance(output, dict):
        return {name: value for name, value in output.items() if name not in ("model", "version")}
    return output


def _shortened(value: Any, most: int = 60) -> str:
    text = "-" if value is None else msgspec.json.encode(value).decode()
    return text if len(text) <= most else f"{text[:most]}…"
