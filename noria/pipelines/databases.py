"""Databases: the answer to one query, read in blocks, without writing anything.

Each engine is asked in the way that streams: PostgreSQL through ADBC (binary `COPY`, Arrow all the way), DuckDB through
its own Arrow stream, SQLite with the standard library (it converts nothing, so that the contract sees what is there),
MySQL and MariaDB through PyMySQL's unbuffered cursor.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

import polars as pl

from noria.core import ConfigError, DataError, MissingExtraError, NoriaError, StorageError, allowed
from noria.pipelines.event_formats import column

_SECONDS = 10
"""How long a database may take to answer that it is there."""


class Database(Protocol):
    """How one kind of database is asked."""

    def blocks(self, query: str, rows: int) -> Iterator[pl.DataFrame]:
        """The answer in blocks of about so many rows, at least one; the columns are there when there are no rows."""
        ...

    def tables(self) -> list[str]:
        """The names of its tables, for people who have misspelt one."""
        ...

    def quoted(self, name: str) -> str:
        """A column's or table's name in a query."""
        ...

    def literal(self, value: Any) -> str:
        """A number or a text as it stands in a query."""
        ...


def masked(url: str) -> str:
    """The URL without its password, for reports and errors."""
    return re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", url)


def open_database(url: str, root: Path) -> Database:
    """The database at a URL; nothing is connected yet."""
    scheme = url.partition("://")[0]
    if scheme == "sqlite":
        return Sqlite(_file(url, root))
    if scheme == "duckdb":
        return DuckDb(_file(url, root))
    return MySql(url) if scheme in ("mysql", "mariadb") else PostgreSql(url)


def _file(url: str, root: Path) -> Path:
    """`sqlite:///name.db` is relative to the project's folder, `sqlite:////var/name.db` is absolute."""
    path = root / url.partition("://")[2].removeprefix("/")
    if not path.is_file():
        raise DataError(
            f"there is no database {path}", hint="relative paths start at the project's folder", field="path"
        )
    return path


class _Standard:
    """What standard SQL says."""

    def quoted(self, name: str) -> str:
        return ".".join('"' + part.replace('"', '""') + '"' for part in name.split("."))

    def literal(self, value: Any) -> str:
        if isinstance(value, (int, float)):
            return repr(value)
        return "'" + str(value).replace("'", "''") + "'"


class Sqlite(_Standard):
    """A SQLite file, opened for reading."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def blocks(self, query: str, rows: int) -> Iterator[pl.DataFrame]:
        with self._connection() as connection:
            connection.text_factory = lambda data: data.decode("utf-8", "replace")
            yield from _row_blocks(connection.execute(query), rows)

    def tables(self) -> list[str]:
        with self._connection() as connection:
            found = connection.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')").fetchall()
        return [str(row[0]) for row in found]

    @contextmanager
    def _connection(self) -> Iterator[Any]:
        import sqlite3

        address = f"{self._file.as_uri()}?mode=ro"
        with (
            _explained(str(self._file), sqlite3.Error),
            closing(sqlite3.connect(address, uri=True, timeout=_SECONDS)) as connection,
        ):
            yield connection


class DuckDb(_Standard):
    """A DuckDB file, opened for reading."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def blocks(self, query: str, rows: int) -> Iterator[pl.DataFrame]:
        import arro3.core

        with self._connection() as connection:
            reader = arro3.core.RecordBatchReader.from_stream(connection.sql(query))
            yield from _arrow_blocks(reader, rows)

    def tables(self) -> list[str]:
        with self._connection() as connection:
            return [str(row[0]) for row in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()]

    @contextmanager
    def _connection(self) -> Iterator[Any]:
        try:
            import duckdb
        except ImportError as error:
            raise MissingExtraError("duckdb", "duckdb", "reading a DuckDB file") from error
        with (
            _explained(str(self._file), duckdb.Error, OSError),
            closing(duckdb.connect(str(self._file), read_only=True)) as connection,
        ):
            connection.execute("SET TimeZone = 'UTC'")
            yield connection


class PostgreSql(_Standard):
    """A PostgreSQL server; all of a query is one snapshot."""

    def __init__(self, url: str) -> None:
        self._url = url

    def blocks(self, query: str, rows: int) -> Iterator[pl.DataFrame]:
        import arro3.core

        with self._connection() as connection, closing(connection.cursor()) as cursor:
            cursor.execute(query)
            reader = arro3.core.RecordBatchReader.from_stream(cursor.fetch_arrow())
            yield from _arrow_blocks(reader, rows)

    def tables(self) -> list[str]:
        with self._connection() as connection, closing(connection.cursor()) as cursor:
            cursor.execute(
                "SELECT table_schema || '.' || table_name FROM information_schema.tables "
                "WHERE table_schema NOT IN ('pg_catalog', 'information_schema')"
            )
            return [str(row[0]).removeprefix("public.") for row in pl.DataFrame(cursor.fetch_arrow()).rows()]

    @contextmanager
    def _connection(self) -> Iterator[Any]:
        try:
            from adbc_driver_manager import Error
            from adbc_driver_postgresql import dbapi
        except ImportError as error:
            raise MissingExtraError("adbc-driver-postgresql", "postgresql", "reading a PostgreSQL database") from error
        sign = "&" if "?" in self._url else "?"
        options = "connect_timeout=%d&options=-c%%20default_transaction_read_only%%3Don%%20-c%%20timezone%%3DUTC"
        address = self._url + sign + options % _SECONDS
        with _explained(masked(self._url), Error), closing(dbapi.connect(address)) as connection:
            yield connection


class MySql(_Standard):
    """A MySQL or MariaDB server."""

    def __init__(self, url: str) -> None:
        self._url = url

    def quoted(self, name: str) -> str:
        return ".".join("`" + part.replace("`", "``") + "`" for part in name.split("."))

    def literal(self, value: Any) -> str:
        return super().literal(value).replace("\\", "\\\\")

    def blocks(self, query: str, rows: int) -> Iterator[pl.DataFrame]:
        with self._connection() as connection, connection.cursor() as cursor:
            cursor.execute("SET SESSION time_zone = '+00:00'")
            cursor.execute("START TRANSACTION READ ONLY")
            cursor.execute(query)
            yield from _row_blocks(cursor, rows)

    def tables(self) -> list[str]:
        with self._connection() as connection, connection.cursor() as cursor:
            cursor.execute("SHOW TABLES")
            return [str(row[0]) for row in cursor.fetchall()]

    @contextmanager
    def _connection(self) -> Iterator[Any]:
        try:
            import pymysql
            from pymysql.cursors import SSCursor
        except ImportError as error:
            raise MissingExtraError("PyMySQL", "mysql", "reading a MySQL or MariaDB database") from error
        parts = urlsplit(self._url)
        query = dict(part.partition("=")[::2] for part in parts.query.split("&") if part)
        with (
            _explained(masked(self._url), pymysql.Error, OSError),
            closing(
                pymysql.connect(
                    host=parts.hostname or "127.0.0.1",
                    port=parts.port or 3306,
                    user=unquote(parts.username or ""),
                    password=unquote(parts.password or ""),
                    database=parts.path.strip("/") or None,
                    unix_socket=unquote(query["unix_socket"]) if "unix_socket" in query else None,
                    charset="utf8mb4",
                    cursorclass=SSCursor,
                    connect_timeout=_SECONDS,
                )
            ) as connection,
        ):
            yield connection


def _arrow_blocks(reader: Any, rows: int) -> Iterator[pl.DataFrame]:
    """The batches of a stream, joined and cut so that they have so many rows."""
    import arro3.core

    waiting = pl.DataFrame(arro3.core.Table.from_batches([], schema=reader.schema))
    empty = True
    for batch in reader:
        waiting = pl.concat([waiting, pl.DataFrame(batch)])
        while len(waiting) >= rows:
            yield waiting[:rows]
            waiting, empty = waiting[rows:], False
    if len(waiting) or empty:
        yield waiting


def _row_blocks(cursor: Any, rows: int) -> Iterator[pl.DataFrame]:
    """Rows of a cursor as columns; values of different types in one column become text."""
    names = [described[0] for described in cursor.description]
    first = True
    while (some := cursor.fetchmany(rows)) or first:
        values: Sequence[Sequence[Any]] = list(zip(*some, strict=True)) if some else [() for _ in names]
        yield pl.DataFrame([_values(name, found) for name, found in zip(names, values, strict=True)])
        first = False
        if len(some) < rows:
            return


def _values(name: str, values: Sequence[Any]) -> pl.Series:
    if not any(value is not None for value in values):
        return pl.Series(name, [None] * len(values), pl.String)
    if any(isinstance(value, timedelta) for value in values):  # MySQL's TIME
        return pl.Series(name, [None if value is None else str(value) for value in values], pl.String)
    return column(name, list(values))


@contextmanager
def _explained(shown: str, *kinds: type[BaseException]) -> Iterator[None]:
    """Turn a driver's errors into ours."""
    try:
        yield
    except NoriaError:
        raise
    except kinds as error:
        text = masked(re.sub(r"\s+", " ", str(error)))[:400]
        lowered = text.lower()
        if any(
            sign in lowered for sign in ("connect", "refused", "timeout", "timed out", "lost", "closed", "terminat")
        ):
            raise StorageError(
                f"the database {shown} can't be reached: {text}",
                hint="is it up, and are host, port, name, user and password right?",
            ) from error
        raise DataError(f"the database {shown} says: {text}", hint="is the query right?", field="query") from error


def misspelt(error: DataError, database: Database, name: str) -> DataError:
    """The error with the tables that there are, if it may be the table's name that is wrong."""
    try:
        tables = database.tables()
    except NoriaError:
        return error
    known = {table.lower() for table in tables} | {table.lower().rpartition(".")[2] for table in tables}
    return error if name.lower() in known else DataError(error.message, hint=allowed(tables, name), field="query")


def check_cursor(frame: pl.DataFrame, cursor: str) -> None:
    """Raise a `ConfigError` if the answer has no such column."""
    if cursor not in frame.columns:
        raise ConfigError(
            f"the query's answer has no column {cursor!r}", hint=allowed(frame.columns, cursor), field="cursor"
        )
