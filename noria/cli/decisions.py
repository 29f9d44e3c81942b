"""`noria models promote`, `alias`, `unalias`, `retire`, `reject` and `restore`; and the gates of a promotion."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from noria.cli.project import load_system
from noria.cli.show import VERDICTS, json_out, out, say
from noria.core import ConfigError, ConflictError, GateError, NoriaError, Settings
from noria.registry import Gate, ModelRegistry, ModelVersion, Verdict, parse_label
from noria.storage import Workspace


def promote(options: Namespace) -> int:
    """Make a version the champion, if it passes its gates."""
    with Workspace.open(Settings.load(options.project)) as workspace:
        registry = ModelRegistry.of(workspace)
        version = _named(registry, options.label)
        name, number = version.name, version.version
        was = registry.state(name, number)
        verdicts = promoted(workspace, options.project, version, force=options.force, why=options.why)
    if options.json:
        json_out({"model": name, "version": number, "promoted": True, "verdicts": [one.to_dict() for one in verdicts]})
        return 0
    tell(verdicts)
    already = was == "champion"
    out(
        f"{version.label} is the champion"
        + (" already" if already else "; running servers take it within a few seconds")
    )
    return 0


def promoted(
    workspace: Workspace, project: str, version: ModelVersion, *, force: bool = False, why: str = ""
) -> list[Verdict]:
    """Promote a version past the gates of its model; gives their verdicts.

    Raises:
        GateError: it doesn't pass.
        ConflictError: something is tried, or another process came first.
    """
    from noria.training.gating import promote

    gates = gates_of(project, version)
    if gates:
        say(f"{version.label} is judged by {len(gates)} gate{'s' * (len(gates) > 1)}")
    try:
        return promote(workspace, version, gates, force=force, why=why)
    except ConflictError as error:
        if not force and "is running" in error.message:
            error.hint = f"{error.hint}; --force --why REASON promotes all the same"
        raise
    except GateError:
        say(f"the verdicts are in the audit trail: noria audit {version.name}")
        raise


def gates_of(project: str, version: ModelVersion) -> Sequence[Gate]:
    """The gates that `system.py` declares for the model now, or else those from when the version was trained."""
    from noria.training.gating import kept_gates

    if not (Path(project) / "system.py").exists():
        return kept_gates(version)
    try:
        part = load_system(project)[version.name]
    except NoriaError as error:
        if version.parameters.get("gates"):
            say(f"system.py doesn't say which gates there are ({error.message}): those from the training count")
        return kept_gates(version)
    gates: Sequence[Gate] = getattr(part, "gates", ())
    return gates


def tell(verdicts: Sequence[Verdict]) -> None:
    """What each gate says, a line each."""
    for one in verdicts:
        out(f"  {VERDICTS[one.passed]}  {one.gate}: {one.why}")


def alias(options: Namespace) -> int:
    """Name a version."""
    with Workspace.open(Settings.load(options.project)) as workspace:
        registry = ModelRegistry.of(workspace)
        version = _named(registry, options.label)
        registry.alias(version.name, version.version, options.alias, why=options.why)
    out(f"{version.name}@{options.alias} is version {version.version}")
    return 0


def unalias(options: Namespace) -> int:
    """Take a name away."""
    with Workspace.open(Settings.load(options.project)) as workspace:
        ModelRegistry.of(workspace).unalias(options.name, options.alias, why=options.why)
    out(f"{options.name} has no {options.alias} any more")
    return 0


def retire(options: Namespace) -> int:
    """Say that a version has had its time."""
    return _decide(options, "retire", "is retired; its files are kept")


def reject(options: Namespace) -> int:
    """Say that a version is unfit."""
    return _decide(options, "reject", "is rejected: nothing can be pointed at it until it is restored")


def restore(options: Namespace) -> int:
    """Take that back."""
    return _decide(options, "restore", "is registered again")


def _decide(options: Namespace, action: str, what: str) -> int:
    with Workspace.open(Settings.load(options.project)) as workspace:
        registry = ModelRegistry.of(workspace)
        version = _named(registry, options.label)
        actions = {"retire": registry.retire, "reject": registry.reject, "restore": registry.restore}
        actions[action](version.name, version.version, why=options.why)
    out(f"{version.label} {what}")
    return 0


def _named(registry: ModelRegistry, label: str) -> ModelVersion:
    """The version that is named by its number or by an alias: `late@4`, `late@challenger`."""
    name, rest = parse_label(label)
    if rest is None:
        raise ConfigError(f"{label!r} names no version", hint=f"write {name}@NUMBER; see `noria models list`")
    return registry.get(name, rest)
