"""Tables in Delta Lake: a folder of Parquet files and a transaction log."""

from __future__ import annotations

import io
import json
import os
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import arro3.core
import polars as pl
from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties, Transaction
from deltalake import Schema as DeltaSchema
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction, create_table_with_add_actions

from noria.core import ConflictError, NotFoundError, SchemaError, StorageError
from noria.storage.tables import Mode, Part, TableMark

_RUN_ID = "noria.run_id"
_LOOK_BACK = 100
"""Commits that are searched for a run's id: more than can have come in between a run and its repetition."""
_RETRIES = 20
_KEEP_LOG = PostCommitHookProperties(cleanup_expired_logs=False)
"""Delta forgets what is older than 30 days each time that it writes a checkpoint, and with it what models were trained
on. Said with each commit, since tables of others and from before don't have it in their configuration."""
_COMPRESSION: Literal["snappy"] = "snappy"
"""Every reader of Parquet knows it. Zstandard's first level takes twice the time for 5 to 10 % less on numbers."""


class DeltaLakeTable:
    """`Table` in the folder `path`, made at the first write.

    Args:
        name: of the table.
        path: a folder, or an `s3://` URL.
        options: of the object store, as Delta and Polars understand them; empty for a folder.
    """

    def __init__(self, name: str, path: Path | str, options: Mapping[str, str] | None = None) -> None:
        self.name = name
        self._path = str(path)
        self._options = dict(options or {})
        self._remote = "://" in self._path
        self._lock = threading.Lock()
        self._handle: DeltaTable | None = None
        self._log: int | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return DeltaLakeTable, (self.name, self._path, self._options)  # workers elsewhere open it for themselves

    @property
    def is_remote(self) -> bool:
        return self._remote

    def version(self) -> int | None:
        table = self._open()
        return None if table is None else table.version()

    def version_at(self, instant: int) -> int | None:
        if self._open() is None:
            return None
        try:
            table = DeltaTable(self._path, storage_options=self._options or None)  # the shared handle stays the newest
            table.load_as_version(datetime.fromtimestamp(instant / 1_000_000, UTC))
        except (DeltaError, OSError) as error:
            raise self._error(error) from error
        return int(table.version())

    # --- writing

    def write(self, frame: pl.DataFrame, *, run_id: str, mode: Mode = "append") -> int:
        part = None
        for _ in range(_RETRIES):
            table, before = self._find(run_id)
            if before is not None:
                return before
            if part is None:
                start = 0 if table is None else table.version() + 1
                part = self.stage(frame, f"{start:012d}-{time.time_ns():x}-{os.getpid():x}-{id(frame):x}")
            # A run is a transaction in the log: of two processes that do one run at once, the later one conflicts
            # instead of writing again.
            transactions = [Transaction(run_id, 1)]
            try:
                self._commit(table, [part], frame.schema, mode, transactions, {_RUN_ID: run_id})
            except ConflictError as error:  # another writer came between: look again, try again
                failure = error
            else:
                return self._found(run_id)
        raise failure

    def stage(self, frame: pl.DataFrame, name: str) -> Part:
        file = f"part-{name}.parquet"
        try:
            if self._remote:
                size = self._put(file, frame)
            else:
                Path(self._path).mkdir(parents=True, exist_ok=True)
                size = _write_durably(Path(self._path) / file, frame)
        except (OSError, pl.exceptions.PolarsError) as error:
            raise self._error(error) from error
        return Part(file, size, len(frame))

    def _put(self, file: str, frame: pl.DataFrame) -> int:
        from noria.storage.s3 import put

        buffer = io.BytesIO()
        frame.write_parquet(buffer, compression=_COMPRESSION)
        put(f"{self._path}/{file}", buffer.getvalue())
        return buffer.tell()

    def staged_schema(self, part: Part) -> pl.Schema:
        try:
            scan = pl.scan_parquet(f"{self._path}/{part.name}", storage_options=self._options or None, glob=False)
            return scan.collect_schema()
        except (OSError, pl.exceptions.PolarsError) as error:
            raise self._error(error) from error

    def commit(
        self,
        parts: Sequence[Part],
        schema: pl.Schema,
        *,
        mode: Mode,
        marks: Sequence[TableMark] = (),
        version: int | None = None,
    ) -> int:
        transactions = [Transaction(mark.name, mark.after) for mark in marks]
        for _ in range(_RETRIES if version is None else 1):
            table = self._open() if version is None else self._newest(version)
            for mark in marks:
                now = -1 if table is None else _mark(table, mark.name)
                if now != mark.before:
                    raise ConflictError(
                        f"table {self.name!r}: the mark {mark.name!r} is {now}, expected {mark.before}: "
                        "another process has loaded",
                        hint="nothing was written; read what is there now and repeat",
                    )
            try:
                return self._commit(table, parts, schema, mode, transactions, {}, alone=version is not None)
            except ConflictError as error:
                failure = error
        raise failure

    def _commit(
        self,
        table: DeltaTable | None,
        parts: Sequence[Part],
        schema: pl.Schema,
        mode: Mode,
        transactions: list[Transaction],
        metadata: dict[str, str],
        *,
        alone: bool = False,
    ) -> int:
        added: list[AddAction | RemoveAction] = [_add(part) for part in parts]
        made = _delta_schema(schema)
        # Retrying to make a table would add to the one that another writer has just made.
        retries = 0 if table is None or alone else None
        options = CommitProperties(custom_metadata=metadata, app_transactions=transactions, max_commit_retries=retries)
        try:
            if table is None:
                create_table_with_add_actions(
                    self._path,
                    made,
                    [_add(part) for part in parts],
                    mode="error",
                    configuration={"delta.enableExpiredLogCleanup": "false"},
                    storage_options=self._options,
                    commit_properties=options,
                    post_commithook_properties=_KEEP_LOG,
                )
                return 0
            if mode == "append":
                table = self._widen(table, made)
            table.create_write_transaction(
                added, mode, made, commit_properties=options, post_commithook_properties=_KEEP_LOG
            )
            table.update_incremental()  # else it doesn't know its own commit, and conflicts with it
            return int(table.version())
        except CommitFailedError as error:
            raise ConflictError(
                f"table {self.name!r}: another writer came between: {error}", hint="nothing was written; repeat it"
            ) from error
        except (DeltaError, OSError) as error:
            if table is None and self._open() is not None:  # another writer made the table first
                raise ConflictError(f"table {self.name!r}: another writer made it", hint="repeat it") from error
            raise self._error(error) from error

    def _widen(self, table: DeltaTable, schema: DeltaSchema) -> DeltaTable:
        """The table with the columns that only the new rows have; those are missing in the old ones."""
        present = {field.name: field.type for field in table.schema().fields}
        new = [field for field in schema.fields if field.name not in present]
        for field in schema.fields:
            if present.get(field.name, field.type) != field.type:
                raise SchemaError(
                    f"table {self.name!r} has {field.name!r} as {present[field.name]}, the new rows as {field.type}",
                    hint=f"build the table anew: noria run {self.name} --full",
                    field=field.name,
                )
        if new:
            table.alter.add_columns(new, post_commithook_properties=_KEEP_LOG)
            table.update_incremental()
        return table

    def discard(self, prefix: str) -> None:
        if self._remote:  # there another machine may still be at work; an object that no version names does no harm
            return
        left = list(Path(self._path).glob(f"part-{prefix}*.parquet"))
        table = self._open() if left else None
        used = {part.name for part in self._parts(table)} if table is not None else set()
        for file in left:
            if file.name not in used:
                file.unlink(missing_ok=True)

    def mark(self, name: str) -> int:
        table = self._open()
        return -1 if table is None else _mark(table, name)

    def compact(self, *, small: int = 32 << 20) -> int:
        table = self._open()
        if table is None:
            return 0
        removed = 0
        for group in _neighbours(self._parts(table), small):
            files = [f"{self._path}/{part.name}" for part in group]
            joined = self._scan(files, pl.Schema(table.schema().to_arrow())).collect()
            # Named after its last part, so that the order of the parts stays.
            part = self.stage(joined, group[-1].name.removeprefix("part-").removesuffix(".parquet") + "+")
            actions: list[AddAction | RemoveAction] = [_add(part, changes=False), *(_remove(old) for old in group)]
            try:
                table.create_write_transaction(actions, "append", table.schema(), post_commithook_properties=_KEEP_LOG)
                table.update_incremental()
            except CommitFailedError:  # another process compacts, or has replaced the table: it is done then
                break
            except (DeltaError, OSError) as error:
                raise self._error(error) from error
            removed += len(group) - 1
        return removed

    def _parts(self, table: DeltaTable) -> list[Part]:
        actions = pl.DataFrame(table.get_add_actions(flatten=True))
        rows = actions["num_records"].to_list() if "num_records" in actions.columns else [0] * len(actions)
        found = zip(actions["path"].to_list(), actions["size_bytes"].to_list(), rows, strict=True)
        return sorted((Part(str(path), int(size), int(count or 0)) for path, size, count in found), key=_by_name)

    def _find(self, run_id: str) -> tuple[DeltaTable | None, int | None]:
        """The newest snapshot, and the version in it that the run wrote, if it did."""
        table = self._open()
        while table is not None:
            snapshot = table.version()
            commits = table.history(_LOOK_BACK)
            newest = self._open()  # the very same handle, moved on
            # `history` reads to the log's end but counts from the snapshot: its numbers hold if nothing came between.
            if newest is not None and newest.version() == snapshot:
                return newest, next((int(c["version"]) for c in commits if c.get(_RUN_ID) == run_id), None)
            table = newest
        return None, None

    def _found(self, run_id: str) -> int:
        version = self._find(run_id)[1]
        if version is None:
            raise StorageError(f"the commit to table {self.name!r} can't be found again", hint="run it once more")
        return version

    # --- reading

    def scan(self, version: int | None = None) -> pl.LazyFrame:
        return self._scan(*self._files(version))

    def _scan(self, files: list[str], schema: pl.Schema) -> pl.LazyFrame:
        # Not `scan_delta`: the parts' order is part of the table here, and Delta gives files in any order.
        if not files:
            return pl.LazyFrame(schema=schema)
        return pl.scan_parquet(
            files,
            schema=schema,
            missing_columns="insert",
            extra_columns="ignore",
            storage_options=self._options or None,
            glob=False,
        )

    def read(self, version: int | None = None, columns: Sequence[str] | None = None) -> pl.DataFrame:
        rows = self.scan(version)
        try:
            return (rows if columns is None else rows.select(columns)).collect()
        except (OSError, pl.exceptions.ComputeError) as error:
            raise StorageError(
                f"table {self.name!r} in {self._path} can't be read: {error}",
                hint=f"if a file is lost or damaged, build the table again: noria run {self.name} --full",
            ) from error

    def added(self, since: int, version: int | None = None) -> pl.LazyFrame | None:
        before = set(self._files(since)[0])
        now, schema = self._files(version)
        return self._scan([uri for uri in now if uri not in before], schema) if before.issubset(now) else None

    def _files(self, version: int | None) -> tuple[list[str], pl.Schema]:
        """A version's files, in the order of the rows, and its columns."""
        table = self._at(version)
        files, schema = table.file_uris(), pl.Schema(table.schema().to_arrow())
        if version is not None and table.version() != version:  # another thread has moved the shared handle on
            table = self._load(version)
            files, schema = table.file_uris(), pl.Schema(table.schema().to_arrow())
        return sorted(files, key=lambda uri: uri.rsplit("/", 1)[-1]), schema

    def _open(self) -> DeltaTable | None:
        log = None if self._remote else _identity(Path(self._path) / "_delta_log")
        with self._lock:
            try:
                if self._handle is not None and log == self._log:
                    self._handle.update_incremental()  # much cheaper than reading the log again
                else:
                    self._handle, self._log = DeltaTable(self._path, storage_options=self._options or None), log
            except TableNotFoundError:
                self._handle = None
            except (DeltaError, OSError) as error:
                self._handle = None
                raise self._error(error) from error
            return self._handle

    def _newest(self, version: int) -> DeltaTable:
        """The table at this version, which must be its newest; not the shared handle, which others move on."""
        present = self.version()
        if present != version:
            raise ConflictError(
                f"table {self.name!r} has version {present}, expected {version}: another process has written",
                hint="nothing was written; read what is there now and repeat",
            )
        return DeltaTable(self._path, version=version, storage_options=self._options or None)

    def _at(self, version: int | None) -> DeltaTable:
        table = self._open()
        if table is None:
            raise NotFoundError(f"table {self.name!r} has never been written", hint="call `noria run` first")
        return table if version in (None, table.version()) else self._load(version)

    def _load(self, version: int) -> DeltaTable:
        try:
            return DeltaTable(self._path, version=version, storage_options=self._options or None)
        except (DeltaError, OSError) as error:
            raise NotFoundError(
                f"table {self.name!r} has no version {version}: {error}",
                hint=f"the newest is {self.version()}; was it vacuumed, or was the table made anew?",
            ) from error

    def _error(self, error: Exception) -> StorageError:
        return StorageError(
            f"table {self.name!r} in {self._path} can't be used: {error}",
            hint="check that the folder is writable and the disk isn't full; nothing was half written",
        )


def _write_durably(file: Path, frame: pl.DataFrame) -> int:
    with file.open("wb") as stream:
        frame.write_parquet(stream, compression=_COMPRESSION)
        stream.flush()
        os.fsync(stream.fileno())
        return stream.tell()


def _identity(folder: Path) -> int | None:
    """Tells a folder from one that was made in its place."""
    try:
        return folder.stat().st_ino
    except OSError:
        return None


def _add(part: Part, *, changes: bool = True) -> AddAction:
    now = int(time.time() * 1000)
    return AddAction(part.name, part.size, {}, now, changes, json.dumps({"numRecords": part.rows}))


def _remove(part: Part) -> RemoveAction:
    return RemoveAction(part.name, False, int(time.time() * 1000), part.size, {})


def _mark(table: DeltaTable, name: str) -> int:
    found = table.transaction_version(name)
    return -1 if found is None else int(found)


def _by_name(part: Part) -> str:
    return part.name


def _neighbours(parts: Sequence[Part], small: int) -> list[list[Part]]:
    """Runs of small parts that together stay small, of two and more."""
    groups: list[list[Part]] = [[]]
    for part in parts:
        if part.size >= small:
            groups.append([])
        elif sum(p.size for p in groups[-1]) + part.size > small:
            groups.append([part])
        else:
            groups[-1].append(part)
    return [group for group in groups if len(group) > 1]


def _delta_schema(schema: pl.Schema) -> DeltaSchema:
    return DeltaSchema.from_arrow(arro3.core.Table.from_arrow(pl.DataFrame(schema=schema)).schema)
