"""The model registry: immutable versions, who is live, and the trail of every change."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from noria.core import (
    Clock,
    ConfigError,
    ConflictError,
    IntegrityError,
    NoriaError,
    NotFoundError,
    SystemClock,
    allowed,
    check_name,
)
from noria.core.decoding import RESTORE
from noria.registry.aliases import whole
from noria.registry.decisions import Decisions
from noria.registry.deployment import CHAMPION
from noria.registry.trail import REGISTER, AuditEntry, Deed, Trail
from noria.registry.version import SEAL, Lineage, ModelVersion, Signature, parse_label, record_key
from noria.storage import ABSENT, Blob, BlobStore, Put, Records, Workspace, open_blobs, open_records

_RETRIES = 1_000
"""Of one registration, when others come first: each time one of them gets a number."""

_LONG = 43_200_000_000
"""Microseconds. When writing a version's files has taken longer, by a clock that may have jumped, `collect` may have
taken some of them for those of a killed run: they are written again, which costs little where they are still there."""


class ModelRegistry(Decisions):
    """Versions and aliases of models, in a records store and a blob store.

    >>> import tempfile
    >>> registry = ModelRegistry(f"sqlite:///{tempfile.mkdtemp()}/registry.db")
    >>> first = registry.register("late", {"model": b"..."}, servable="tabular", run_id="a")
    >>> registry.promote("late", 1, why="the first one")
    >>> registry.get("late").version
    1
    """

    def __init__(
        self, records: Records | str, blobs: BlobStore | Path | str | None = None, *, clock: Clock | None = None
    ) -> None:
        """Open a registry on stores, or on a URL; the model files then live beside the database."""
        if isinstance(records, str):
            scheme, _, rest = records.rpartition("://")
            if scheme in ("", "sqlite"):
                location = rest.removeprefix("/") if scheme else rest
                blobs = blobs or Path(location).parent / "blobs"
            if blobs is None:
                raise ConfigError(
                    f"a registry in {scheme}:// needs a place for the model files too",
                    hint="name a folder or a blob store as the second argument",
                    field="blobs",
                )
            records = open_records(records)
        if blobs is None:
            raise TypeError("a registry on a records store needs a blob store too")
        super().__init__(records, Trail(records, clock or SystemClock()))
        self._blobs = open_blobs(str(blobs)) if isinstance(blobs, (str, Path)) else blobs
        self._clock = clock or SystemClock()

    @staticmethod
    def of(workspace: Workspace) -> ModelRegistry:
        """The registry of a project."""
        return ModelRegistry(workspace.records, workspace.blobs, clock=workspace.clock)

    def register(
        self,
        name: str,
        files: Mapping[str, bytes | Path],
        *,
        servable: str,
        run_id: str,
        spec: dict[str, Any] | None = None,
        metrics: dict[str, Any] | None = None,
        parameters: dict[str, Any] | None = None,
        signature: Signature | None = None,
        lineage: Lineage | None = None,
        who: str | None = None,
    ) -> ModelVersion:
        """Add the next version of a model; it is visible whole or not at all.

        Registering twice under one `run_id` registers once and returns the same version. Large files are given as
        paths: they are copied block by block.

        Raises:
            ConfigError: what is told of it is no plain JSON data.
            NotFoundError: a file isn't there.
            StorageError: it can't be written; nothing of the version is visible.
        """
        check_name(name, "model")
        draft = ModelVersion(
            name=name,
            version=0,
            servable=servable,
            files={},
            spec=spec or {},
            metrics=metrics or {},
            parameters=parameters or {},
            signature=signature or Signature(),
            lineage=lineage or Lineage(),
            run_id=run_id,
            created=self._clock.now(),
        )
        _check_plain(draft)  # before files are written that nothing would refer to
        began = self._clock.now()
        draft = replace(draft, files={file: self._blobs.write(data) for file, data in files.items()})
        if not 0 <= self._clock.now() - began < _LONG:
            draft = replace(draft, files={file: self._blobs.write(data) for file, data in files.items()})
        for _ in range(_RETRIES):
            known = self._records.get("registrations", f"{name}/{run_id}")
            if known is not None:
                return self._version(name, known.data["version"])
            try:
                return self._add(draft, who)
            except ConflictError:
                continue  # another process registered in between: take the next number
        raise ConflictError(
            f"model {name!r} is being changed by too many processes",
            hint=f"try again; if nothing else registers it, its record may be damaged: noria audit {name} --verify",
        )

    def _add(self, draft: ModelVersion, who: str | None) -> ModelVersion:
        """Commit the draft under the next number."""
        model = self._records.get("models", draft.name)
        state: dict[str, Any] = dict(whole(model).data) if model else {"latest": 0, "aliases": {}, "history": {}}
        made = replace(draft, version=state["latest"] + 1)
        kept = made.to_record()
        self._records.commit(
            Put("models", made.name, {**state, "latest": made.version}, model.revision if model else ABSENT),
            Put("versions", record_key(made.name, made.version), kept, ABSENT),
            Put("registrations", f"{made.name}/{made.run_id}", {"version": made.version}, ABSENT),
            *self.trail.puts(made.name, who, Deed(REGISTER, made.version, f"run {made.run_id}", seal=kept[SEAL])),
        )
        return made

    def get(self, label: str, version: int | str | None = None) -> ModelVersion:
        """A version by number or alias: `get("movies@3")`, `get("movies", 3)`; the champion by default."""
        name, in_label = parse_label(label)
        wanted = str(version if version is not None else in_label or CHAMPION)
        if wanted.isascii() and wanted.isdigit():
            return self._version(name, int(wanted))
        aliases = self._model(name).data["aliases"]
        if wanted not in aliases:
            latest = self.versions(name, limit=1)[0].version
            known = f"aliases: {allowed(aliases, wanted).removeprefix('allowed: ')}; " if aliases else ""
            raise NotFoundError(
                f"model {name!r} has no {wanted}", hint=f"{known}its versions are 1 to {latest}: {name}@{latest}"
            )
        return self._version(name, aliases[wanted])

    def champion(self, name: str) -> int:
        """The number of the version that answers; cheaper than `get`.

        Raises:
            NotFoundError: there is none.
        """
        aliases: dict[str, int] = self._model(name).data["aliases"]
        return aliases[CHAMPION] if CHAMPION in aliases else self.get(name).version

    def champions(self, name: str) -> list[int]:
        """The versions that have answered, as far as `rollback` can go back; the present one is the last.

        Raises:
            NotFoundError: there is no such model.
        """
        return list(self._model(name).data["history"].get(CHAMPION, []))

    def models(self) -> dict[str, dict[str, int]]:
        """Every model's name with its aliases."""
        return {one.key: dict(whole(one).data["aliases"]) for one in self._records.list("models")}

    def versions(self, name: str, *, limit: int | None = None) -> list[ModelVersion]:
        """The versions of a model, the newest first; all of them, or the newest `limit`.

        Raises:
            IntegrityError: one of them is damaged, or gone.
        """
        latest = self._model(name).data["latest"]
        found = self._records.list("versions", f"{name}@", newest_first=True, limit=limit)
        made = [ModelVersion.of_record(record) for record in found]
        last = max((latest, *(one.version for one in made)))  # one may have been registered meanwhile
        _check_whole(name, {one.version for one in made}, 1 if limit is None else max(last - limit + 1, 1), last)
        return made

    def files(self, version: ModelVersion) -> dict[str, Path]:
        """The version's files on the local disk, their checksums verified.

        Raises:
            IntegrityError: a file is not what was registered, or is gone.
        """
        return {file: self._file(version, file, blob) for file, blob in version.files.items()}

    def _file(self, version: ModelVersion, file: str, blob: Blob) -> Path:
        try:
            return self._blobs.path(blob.digest)
        except (NotFoundError, IntegrityError) as error:
            raise IntegrityError(
                f"{version.label} can't be loaded, for its file {file} ({blob.size:,} bytes) is not what was "
                f"registered: {error.message}",
                hint=error.hint or "restore the file from a backup, or train and register the model again",
            ) from error

    def damage(self, name: str, number: int | str) -> str:
        """What is wrong with a version's record or files; empty when nothing is."""
        try:
            self.files(self.get(name, number))
        except NoriaError as error:
            return error.message
        return ""

    @property
    def blobs(self) -> BlobStore:
        """Where the versions' files are."""
        return self._blobs

    def references(self) -> frozenset[str]:
        """The digests of every file of every version.

        Raises:
            IntegrityError: a version's record is damaged or gone, so that nobody can tell which files it has.
        """
        latest = {one.key: whole(one).data["latest"] for one in self._records.list("models")}
        made = [ModelVersion.of_record(record) for record in self._records.list("versions")]
        numbers: dict[str, set[int]] = {name: set() for name in latest}
        for version in made:
            numbers.setdefault(version.name, set()).add(version.version)
        for name, number in latest.items():
            _check_whole(name, numbers[name], 1, number)
        return frozenset(blob.digest for version in made for blob in version.files.values())

    def audit(self, name: str | None = None, **which: Any) -> list[AuditEntry]:
        """Everything that was done to a model (or to all), the newest first; `which` as in `Trail.entries`."""
        return self.trail.entries(name, **which)


def _check_whole(name: str, numbers: AbstractSet[int], first: int, last: int) -> None:
    """Versions are never deleted: of a model all numbers are there."""
    gone = next((number for number in range(first, last + 1) if number not in numbers), None)
    if gone is not None:
        raise IntegrityError(f"the record of version {name}@{gone} is gone", hint=RESTORE)


def _check_plain(draft: ModelVersion) -> None:
    try:
        msgspec.json.encode(draft)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"what is told of a version of {draft.name!r} is no plain JSON data: {error}",
            hint="spec, metrics and parameters take text, numbers, Booleans, lists and dicts; of NumPy's, value.item()",
        ) from error
