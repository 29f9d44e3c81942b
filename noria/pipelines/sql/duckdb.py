"""DuckDB, through its own Arrow stream, on a file that is opened for reading."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from datetime import date, datetime
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl

from noria.core import MissingExtraError
from noria.pipelines.sql.errors import Failure, Kind
from noria.pipelines.sql.session import BrokenStreamError, Dialect, arrow_frames, in_blocks
from noria.pipelines.sql.text import typed
from noria.pipelines.sql.url import file_of

_AS_IT_IS = (
    "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "FLOAT", "DOUBLE",
    "VARCHAR", "BOOLEAN", "DATE", "TIMESTAMP", "TIMESTAMP_MS", "TIMESTAMP_NS", "TIMESTAMP WITH TIME ZONE", "BLOB",
)  # fmt: skip
DIALECT = Dialect('"', dict.fromkeys(_AS_IT_IS, "{}"), "CAST({} AS VARCHAR)", "CAST(? AS {type})")

# A large sort goes to disk rather than taking most of the machine's memory, which is DuckDB's own way.
_MEMORY = "1GB"


class DuckDb:
    """A DuckDB file."""

    def __init__(self, url: str, root: Path) -> None:
        self._file = file_of(url, root)

    @contextmanager
    def session(self) -> Iterator[DuckDbSession]:
        try:
            import duckdb
        except ImportError as error:
            raise MissingExtraError("duckdb", "duckdb", "reading a DuckDB file") from error
        options: dict[str, Any] = {"memory_limit": _MEMORY, "temp_directory": _scratch()}
        try:
            connection = duckdb.connect(str(self._file), read_only=True, config=options)
        except duckdb.Error as error:
            raise Failure("file", str(error)) from None
        with closing(connection):
            try:
                yield DuckDbSession(connection)
            except (duckdb.Error, OSError) as error:
                raise Failure(_kind(error), str(error)) from None
            except BrokenStreamError as error:
                raise Failure("values", str(error)) from None


@cache
def _scratch() -> str:
    """Where sorts go: one folder for the process, since all its connections to a file must have equal options."""
    folder = tempfile.mkdtemp(prefix="noria-duckdb-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


class DuckDbSession:
    """One transaction on the file."""

    dialect = DIALECT

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("BEGIN TRANSACTION READ ONLY")

    def columns(self, rows: str) -> list[tuple[str, str]]:
        described = self._connection.execute(f"DESCRIBE {typed(rows)}").fetchall()
        return [(str(row[0]), str(row[1])) for row in described]

    def frames(
        self, select: str, columns: dict[str, str], cursor: str | None, after: Any, block_rows: int
    ) -> Generator[pl.DataFrame]:
        bound = [] if after is None else [after.isoformat() if isinstance(after, (date, datetime)) else after]
        relation = self._connection.sql(select, params=bound)
        yield from in_blocks(arrow_frames(relation), block_rows)

    def tables(self) -> list[str]:
        found = self._connection.execute(
            "SELECT table_schema, table_name FROM information_schema.tables "
            "WHERE table_schema NOT IN ('information_schema', 'pg_catalog')"
        ).fetchall()
        return [name if schema == "main" else f"{schema}.{name}" for schema, name in found]


def _kind(error: Any) -> Kind:
    import duckdb

    if isinstance(error, duckdb.CatalogException) and "Table with name" in str(error):
        return "table"
    if isinstance(error, (duckdb.ConversionException, duckdb.OutOfRangeException)):
        return "values"
    if isinstance(error, (duckdb.IOException, duckdb.FatalException, duckdb.InternalException)):
        return "file"
    return "writes" if "read-only" in str(error) else "query"
