"""Tables in Delta Lake: a folder of Parquet files and a transaction log."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from noria.core import NotFoundError, StorageError
from noria.storage.tables import Mode

_RUN_ID = "noria.run_id"
_LOOK_BACK = 100
"""Commits that are searched for a run's id: more than can have come in between a run and its repetition."""
_RETRIES = 10


class DeltaLakeTable:
    """`Table` in the folder `path`, made at the first write."""

    def __init__(self, name: str, path: Path | str) -> None:
        self.name = name
        self._path = str(path)

    def version(self) -> int | None:
        table = self._open()
        return None if table is None else table.version()

    def write(self, frame: pl.DataFrame, *, run_id: str, mode: Mode = "append") -> int:
        for _ in range(_RETRIES):
            table, before = self._find(run_id)
            if before is not None:
                return before
            try:
                self._commit(table, frame, run_id, mode)
            except CommitFailedError as error:  # another writer came between: look again, try again
                failure: Exception = error
            except (DeltaError, OSError) as error:
                if table is not None or self._open() is None:
                    raise self._error(error) from error
                failure = error  # another writer made the table first
            else:
                return self._found(run_id)
        raise self._error(failure) from failure

    def _commit(self, table: DeltaTable | None, frame: pl.DataFrame, run_id: str, mode: Mode) -> None:
        # The snapshot that was searched for the run is the one that is written to, and a run is a transaction in the
        # log: of two processes that do the same run at once, the later one conflicts instead of writing again.
        options = CommitProperties(
            custom_metadata={_RUN_ID: run_id},
            app_transactions=[Transaction(run_id, 1)],
            # Retrying to make a table would add to the one that another writer has just made.
            max_commit_retries=0 if table is None else None,
        )
        if table is None:
            write_deltalake(self._path, frame, mode="error", commit_properties=options)
        elif mode == "overwrite":
            write_deltalake(table, frame, mode="overwrite", schema_mode="overwrite", commit_properties=options)
        else:
            write_deltalake(table, frame, mode="append", schema_mode="merge", commit_properties=options)

    def _find(self, run_id: str) -> tuple[DeltaTable | None, int | None]:
        """The newest snapshot, and the version in it that the run wrote, if it did."""
        table = self._open()
        while table is not None:
            commits = table.history(_LOOK_BACK)
            newest = self._open()
            # `history` reads to the log's end but counts from the snapshot: its numbers hold if nothing came between.
            if newest is not None and newest.version() == table.version():
                return table, next((int(c["version"]) for c in commits if c.get(_RUN_ID) == run_id), None)
            table = newest
        return None, None

    def _found(self, run_id: str) -> int:
        version = self._find(run_id)[1]
        if version is None:
            raise StorageError(f"the commit to table {self.name!r} can't be found again", hint="run it once more")
        return version

    def scan(self, version: int | None = None) -> pl.LazyFrame:
        return pl.scan_delta(self._at(version))

    def read(self, version: int | None = None, columns: Sequence[str] | None = None) -> pl.DataFrame:
        rows = self.scan(version)
        try:
            return (rows if columns is None else rows.select(columns)).collect()
        except (OSError, pl.exceptions.ComputeError) as error:
            raise StorageError(
                f"table {self.name!r} in {self._path} can't be read: {error}",
                hint=f"if a file is lost or damaged, build the table again: noria run {self.name} --full",
            ) from error

    def _open(self) -> DeltaTable | None:
        try:
            return DeltaTable(self._path)
        except TableNotFoundError:
            return None
        except (DeltaError, OSError) as error:
            raise self._error(error) from error

    def _at(self, version: int | None) -> DeltaTable:
        table = self._open()
        if table is None:
            raise NotFoundError(f"table {self.name!r} has never been written", hint="call `noria run` first")
        if version is not None and version != table.version():
            try:
                table = DeltaTable(self._path, version=version)
            except (DeltaError, OSError) as error:
                raise NotFoundError(f"table {self.name!r} has no version {version}: {error}") from error
        return table

    def _error(self, error: Exception) -> StorageError:
        return StorageError(
            f"table {self.name!r} in {self._path} can't be used: {error}",
            hint="check that the folder is writable and the disk isn't full; nothing was half written",
        )
