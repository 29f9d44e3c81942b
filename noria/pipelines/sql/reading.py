"""Rows of SQL databases, in blocks: PostgreSQL, MySQL and MariaDB, SQLite, DuckDB.

A query is read once, in one snapshot, through a connection that can't write; no more than a block of rows is held.
Each database is asked in its own fastest way that streams (see `postgresql` and its neighbours). What has no exact
counterpart in a dataframe (`numeric`, `json`, `uuid`, times of day, a SQLite column of mixed types, MySQL's zero dates)
arrives as text, for the schema to judge: the same column may be text in one block and typed in the next.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from noria.core import ConfigError, DataError, NoriaError, allowed
from noria.pipelines.convert import python_values
from noria.pipelines.sql.duckdb import DuckDb
from noria.pipelines.sql.errors import Failure, to_noria
from noria.pipelines.sql.mysql import MySql
from noria.pipelines.sql.postgresql import PostgreSql
from noria.pipelines.sql.session import Database, Session, refuse_bytes
from noria.pipelines.sql.sqlite import Sqlite
from noria.pipelines.sql.text import after_first, newest_first, rows_of, table_of
from noria.pipelines.sql.url import masked, scheme_of

__all__ = ["SqlQuery", "is_sql", "masked", "newest", "read_sql"]

_DATABASES: dict[str, type[PostgreSql] | type[MySql] | type[Sqlite] | type[DuckDb]] = {
    "postgresql": PostgreSql,
    "postgres": PostgreSql,
    "mysql": MySql,
    "mariadb": MySql,
    "sqlite": Sqlite,
    "duckdb": DuckDb,
}


@dataclass(frozen=True)
class SqlQuery:
    """What is read, and where.

    Attributes:
        url: `postgresql://user:password@host:port/database`, `mysql://…`, `mariadb://…`, `sqlite:///file.db` (relative
            to the project's folder; four slashes for an absolute path), `duckdb:///file.duckdb`.
        query: a `SELECT`, or a table's name, `schema.table` included, which means all of its rows.
        cursor: a column that never shrinks, such as an id or the time of the last change.
    """

    url: str
    query: str
    cursor: str | None = None

    def __repr__(self) -> str:
        return f"SqlQuery({masked(self.url)!r}, {self.query!r}, cursor={self.cursor!r})"


def is_sql(url: str) -> bool:
    """Whether the address is that of a database which can be read here."""
    return "://" in url and scheme_of(url) in _DATABASES


def read_sql(query: SqlQuery, *, after: Any = None, block_rows: int = 200_000, root: Path) -> Generator[pl.DataFrame]:
    """The answer in blocks of up to so many rows; at least one, which may have columns and no rows.

    Nothing is connected before the first block is asked for, and the connection is closed after the last one, or when
    the iterator is closed.

    Args:
        query: what to read.
        after: a value of the cursor as an earlier block had it, also after a round trip through JSON. Rows from it on
            are read, those with that very value included; rows whose cursor is null are then left out.
        block_rows: how many rows are held at a time.
        root: the folder at which relative paths start.

    Returns:
        Blocks in the order of the cursor, or the database's own if there is none.

    Raises:
        ConfigError: if the URL, the login, the database or the cursor is wrong.
        DataError: if the query is; `StorageError` if the database can't be reached or is lost half way;
            `MissingExtraError` if its driver isn't installed.
    """
    if block_rows < 1:
        raise ConfigError(f"block_rows is {block_rows}", hint="at least 1", field="block_rows")
    if after is not None and query.cursor is None:
        raise ConfigError("there is no cursor to read from a value on", hint="name a cursor column", field="cursor")
    with _session(query, root) as (session, rows, columns):
        select = after_first(session.dialect, rows, columns, query.cursor, after is not None)
        with closing(session.frames(select, columns, query.cursor, after, block_rows)) as frames:
            for frame in frames:
                if query.cursor is not None and frame.schema[query.cursor] == pl.Binary:
                    refuse_bytes(query.cursor)
                yield frame


def newest(query: SqlQuery, root: Path) -> Any:
    """The cursor's greatest value now; None if there are no rows.

    Raises:
        NoriaError: as `read_sql`.
    """
    if query.cursor is None:
        raise ConfigError("only a cursor has a newest value", hint="name a cursor column", field="cursor")
    with _session(query, root) as (session, rows, columns):
        only = {query.cursor: columns[query.cursor]}
        select = newest_first(session.dialect, rows, only, query.cursor)
        frames = list(session.frames(select, only, None, None, 1))
        return python_values(frames[0].to_series())[0] if len(frames[0]) else None


@contextmanager
def _session(query: SqlQuery, root: Path) -> Iterator[tuple[Session, str, dict[str, str]]]:
    """An open connection, the rows that are asked for as a `SELECT`, and their columns."""
    database = _database(query.url, root)
    try:
        with database.session() as session:
            rows = rows_of(session.dialect, query.query)
            yield session, rows, _checked(query, session.columns(rows))
    except Failure as failure:
        names = _tables(database) if failure.kind == "table" else []
        raise to_noria(failure, query.url, query.query, names, table_of(query.query)) from None


def _database(url: str, root: Path) -> Database:
    scheme = scheme_of(url)
    if scheme not in _DATABASES:
        raise ConfigError(
            f"{masked(url)} is no database that can be read", hint=allowed([f"{s}://" for s in _DATABASES]), field="url"
        )
    return _DATABASES[scheme](url, root)


def _checked(query: SqlQuery, columns: list[tuple[str, str]]) -> dict[str, str]:
    names = [name for name, _ in columns]
    twice = sorted({name for name in names if names.count(name) > 1})
    where = f"the answer of {masked(query.url)} to {query.query.strip()!r}"
    if twice:
        raise DataError(
            f"{where} has more than one column {twice[0]!r}", hint="give each a name of its own with AS", field="query"
        )
    if query.cursor is not None and query.cursor not in names:
        raise ConfigError(f"{where} has no column {query.cursor!r}", hint=allowed(names, query.cursor), field="cursor")
    return dict(columns)


def _tables(database: Database) -> list[str]:
    """What tables there are, for people who have misspelt one; the session that failed may be of no use any more."""
    try:
        with database.session() as session:
            return session.tables()
    except (Failure, NoriaError):
        return []
