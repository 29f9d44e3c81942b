"""Lineage both ways: from a version to the files that its rows came from, and from a source or a file to the models.

A version knows the version of each table that it read; a table's loads know which files they brought in, by digest.
Rows of streams came as events: then the table's version is all there is to say.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from noria.pipelines.loads import Load, Loads, known_inputs
from noria.registry.registry import ModelRegistry
from noria.registry.states import State
from noria.registry.version import ModelVersion
from noria.storage import Workspace


@dataclass(frozen=True)
class LoadedFile:
    """A file (or object, or query) whose rows are in a table's version, as it was when it was loaded.

    Attributes:
        identity: the digest of its content.
        rows: read of it, in all loads together.
    """

    name: str
    identity: str
    rows: int


@dataclass(frozen=True)
class Read:
    """A table that a version read.

    Attributes:
        source: its name.
        version: of the table.
        files: whose rows were in it.
        note: why the files aren't known, or not for certain; empty when they are.
    """

    source: str
    version: int
    files: tuple[LoadedFile, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Origin:
    """Where a version comes from.

    Attributes:
        reads: each table with its files.
        features: each feature group's definition hash.
        code: the state of the code.
        dataset: the digest of the training set; empty where it isn't kept.
    """

    label: str
    reads: tuple[Read, ...]
    features: dict[str, str]
    code: dict[str, str]
    dataset: str

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON data."""
        return asdict(self)


@dataclass(frozen=True)
class Fed:
    """A version that a source fed.

    Attributes:
        state: of the version.
        aliases: that point at it.
        table_version: of the source's table, as the version read it.
        files: of those that were asked for, the ones that were in it.
    """

    label: str
    state: State
    aliases: tuple[str, ...]
    table_version: int
    files: tuple[LoadedFile, ...] = ()


def origin(workspace: Workspace, version: ModelVersion) -> Origin:
    """Where a version comes from, down to the files."""
    reads = tuple(_read(workspace, source, int(number)) for source, number in version.lineage.data.items())
    kept = version.lineage
    return Origin(version.label, reads, dict(kept.features), dict(kept.code), str(kept.dataset.get("digest", "")))


def fed_by(workspace: Workspace, source: str | None = None, *, file: str | None = None) -> list[Fed]:
    """The versions that a source fed, of all models, the newest first.

    Args:
        workspace: the stores.
        source: the table's name; None for any.
        file: only those in whose table this file was: its name, the end of its name, or the start of its digest.
    """
    registry, known = ModelRegistry.of(workspace), dict[tuple[str, int], Read]()
    found = []
    for name, aliases in registry.models().items():
        states = registry.states(name)
        for version in registry.versions(name):
            for read, number in version.lineage.data.items():
                if source not in (None, read):
                    continue
                files: tuple[LoadedFile, ...] = ()
                if file is not None:
                    key = (read, int(number))
                    known.setdefault(key, _read(workspace, *key))
                    files = tuple(_matching(known[key].files, file))
                    if not files:
                        continue
                named = tuple(alias for alias, of in aliases.items() if of == version.version)
                state = states.get(version.version, "registered")
                found.append((version.created, Fed(version.label, state, named, int(number), files)))
    return [one for _, one in sorted(found, key=lambda pair: pair[0], reverse=True)]


def sources(workspace: Workspace) -> list[str]:
    """The names of all sources that fed a model."""
    registry = ModelRegistry.of(workspace)
    found = (name for model in registry.models() for one in registry.versions(model) for name in one.lineage.data)
    return sorted(set(found))


def _matching(files: Iterable[LoadedFile], wanted: str) -> list[LoadedFile]:
    return [
        one
        for one in files
        if one.name == wanted
        or one.name.endswith(f"/{wanted}")
        or (len(wanted) >= 6 and one.identity.startswith(wanted))
    ]


def _read(workspace: Workspace, source: str, version: int) -> Read:
    loads = [load for load in Loads(workspace, source).all() if load.done]
    if not loads:
        return Read(
            source, version, note="no files were loaded into it: its rows came from a stream, or from elsewhere"
        )
    lives = _lives(loads)
    held = [load for load in lives[-1] if load.result["table_version"] <= version]
    if not held:
        return Read(source, version, note="the table was made anew since: the files of that time aren't known")
    start = max((place for place, load in enumerate(held) if load.mode == "overwrite"), default=0)
    files = known_inputs(held[start:])
    note = "the table was made anew at some time: these are the files of its present life" if len(lives) > 1 else ""
    made = tuple(LoadedFile(name, str(one["identity"]), int(one["rows"])) for name, one in files.items())
    return Read(source, version, made, note)


def _lives(loads: list[Load]) -> list[list[Load]]:
    """The loads of each life of the table: one that was removed and made anew counts its versions from 0 again."""
    lives: list[list[Load]] = []
    last = -1
    for load in loads:
        version = int(load.result["table_version"])
        if not lives or version <= last:
            lives.append([])
        lives[-1].append(load)
        last = version
    return lives
