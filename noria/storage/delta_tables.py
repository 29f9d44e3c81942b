"""Tables in Delta Lake: a folder of Parquet files and a transaction log."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl
from deltalake import CommitProperties, DeltaTable, write_deltalake
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
        before = self._committed(run_id)
        if before is not None:
            return before
        for attempt in range(_RETRIES):
            try:
                write_deltalake(
                    self._path,
                    frame,
                    mode=mode,
                    schema_mode="overwrite" if mode == "overwrite" else "merge",
                    commit_properties=CommitProperties(custom_metadata={_RUN_ID: run_id}),
                )
                break
            except CommitFailedError as error:  # another writer came between: look again, try again
                if attempt == _RETRIES - 1:
                    raise self._error(error) from error
            except (DeltaError, OSError) as error:
                raise self._error(error) from error
        version = self._committed(run_id)
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

    def _committed(self, run_id: str) -> int | None:
        table = self._open()
        if table is None:
            return None
        for commit in table.history(_LOOK_BACK):
            if commit.get(_RUN_ID) == run_id:
                return int(commit["version"])
        return None

    def _error(self, error: Exception) -> StorageError:
        return StorageError(
            f"table {self.name!r} in {self._path} can't be used: {error}",
            hint="check that the folder is writable and the disk isn't full; nothing was half written",
        )
