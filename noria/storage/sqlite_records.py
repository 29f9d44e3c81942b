"""Records in one SQLite file: write-ahead log, every commit durable, several processes at once."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from noria.core import IntegrityError, StorageError
from noria.core.decoding import RESTORE
from noria.storage.records import ABSENT, Put, Record, conflict, record
from noria.storage.records_schema import missing

STEPS = (
    # `IF NOT EXISTS`, for the first files were made before their schema had a number.
    """
    CREATE TABLE IF NOT EXISTS records (
        collection TEXT NOT NULL, key TEXT NOT NULL, revision INTEGER NOT NULL, data BLOB NOT NULL,
        PRIMARY KEY (collection, key)
    ) WITHOUT ROWID
    """,
)
"""What makes each version of the schema of the one before; see `records_schema`."""
_BUSY_SECONDS = 30.0
"""How long a writer waits for another process's commit."""

T = TypeVar("T")


class SqliteRecords:
    """`Records` in the SQLite file `path`, which is made when it is missing, unless `make` is false."""

    def __init__(self, path: Path | str, *, make: bool = True) -> None:
        self._path = Path(path)
        self._lock = threading.RLock()
        self._closed = False
        try:
            if make:
                self._path.parent.mkdir(parents=True, exist_ok=True)
            elif not self._path.exists():
                raise StorageError(
                    f"there is no records store {self._path}", hint="was it moved away? noria run makes a new one"
                )
            self._connection = sqlite3.connect(
                f"{self._path.absolute().as_uri()}?mode={'rwc' if make else 'rw'}",
                uri=True,
                timeout=_BUSY_SECONDS,
                isolation_level=None,
                check_same_thread=False,
            )
        except (OSError, sqlite3.Error) as error:
            raise self._error(error) from error
        try:
            self._run(self._prepare)
        except StorageError:
            self._connection.close()
            raise

    def _prepare(self) -> None:
        deadline = time.monotonic() + _BUSY_SECONDS
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
                break
            except sqlite3.OperationalError as error:
                # SQLite doesn't wait here by itself when another process makes the same file.
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
        self._connection.execute("PRAGMA synchronous = FULL")
        if self._missing():
            self._transaction(self._migrate)

    def _missing(self) -> Sequence[str]:
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        return missing(version, STEPS, f"the records store {self._path}")

    def _migrate(self) -> None:
        for step in self._missing():  # asked again, under the lock: another process may have done it
            self._connection.execute(step)
        self._connection.execute(f"PRAGMA user_version = {len(STEPS)}")

    def get(self, collection: str, key: str) -> Record | None:
        def read() -> Record | None:
            row = self._connection.execute(
                "SELECT key, revision, data FROM records WHERE collection = ? AND key = ?", (collection, key)
            ).fetchone()
            return record(row) if row else None

        return self._run(read)

    def list(
        self, collection: str, prefix: str = "", *, newest_first: bool = False, limit: int | None = None
    ) -> list[Record]:
        order = "DESC" if newest_first else "ASC"
        # A key range, not LIKE: it uses the primary key, and `%` or `_` in a key mean themselves.
        query = (
            "SELECT key, revision, data FROM records WHERE collection = ? AND key >= ? AND key < ? "
            f"ORDER BY key {order} LIMIT ?"
        )
        bounds = (collection, prefix, prefix + "\U0010ffff", -1 if limit is None else limit)
        return self._run(lambda: [record(row) for row in self._connection.execute(query, bounds)])

    def commit(self, *changes: Put) -> None:
        def write() -> None:
            for change in changes:
                self._put(change)

        self._run(lambda: self._transaction(write))

    def _transaction(self, work: Callable[[], None]) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            work()
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def _put(self, change: Put) -> None:
        row = self._connection.execute(
            "SELECT revision FROM records WHERE collection = ? AND key = ?", (change.collection, change.key)
        ).fetchone()
        revision = row[0] if row else ABSENT
        if not isinstance(revision, int):
            raise IntegrityError(f"the record {change.key!r} is damaged: its revision is {revision!r}", hint=RESTORE)
        if change.expect is not None and change.expect != revision:
            raise conflict(change, revision)
        self._connection.execute(
            "INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?)",
            (change.collection, change.key, revision + 1, msgspec.json.encode(change.data)),
        )

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._connection.close()

    def _run(self, work: Callable[[], T]) -> T:
        with self._lock:
            if self._closed:
                raise StorageError(f"the records store {self._path} is closed")
            try:
                return work()
            except sqlite3.Error as error:
                raise self._error(error) from error

    def _error(self, error: Exception) -> StorageError:
        hint = "check that the folder exists and is writable, that the disk isn't full and the file is SQLite's"
        if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY:
            hint = f"another process has been writing for {_BUSY_SECONDS:.0f} s: wait until it has finished, or end it"
        return StorageError(f"the records store {self._path} can't be used: {error}", hint=hint)
