"""SQLite, with the standard library: it hands over what is there, where a faster driver would stop at a text among
numbers."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from datetime import date, datetime
from pathlib import Path
from typing import Any

import polars as pl

from noria.pipelines.sql.errors import Failure, Kind
from noria.pipelines.sql.session import CONNECT_SECONDS, Dialect, refuse_bytes
from noria.pipelines.sql.text import typed
from noria.pipelines.sql.url import file_of

DIALECT = Dialect('"', {}, "{}", ":noria_after")

_EXACT = 2**53
"""Up to here every integer is a float."""


class Sqlite:
    """A SQLite file."""

    def __init__(self, url: str, root: Path) -> None:
        self._file = file_of(url, root)

    @contextmanager
    def session(self) -> Iterator[SqliteSession]:
        try:
            address = f"{self._file.resolve().as_uri()}?mode=ro"
            with closing(sqlite3.connect(address, uri=True, timeout=CONNECT_SECONDS)) as connection:
                yield SqliteSession(connection)
        except sqlite3.Error as error:
            raise Failure(_kind(error), str(error)) from None


class SqliteSession:
    """One read transaction on the file."""

    dialect = DIALECT

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        # Bytes that are no UTF-8 are shown as \xff: the row arrives, and they stay visible.
        connection.text_factory = lambda data: data.decode("utf-8", "backslashreplace")
        connection.execute("BEGIN")

    def columns(self, rows: str) -> list[tuple[str, str]]:
        return [(described[0], "") for described in self._connection.execute(typed(rows)).description]

    def frames(
        self, select: str, columns: dict[str, str], cursor: str | None, after: Any, block_rows: int
    ) -> Generator[pl.DataFrame]:
        bound = after.isoformat(sep=" ") if isinstance(after, datetime) else after
        bound = bound.isoformat() if isinstance(bound, date) else bound
        with closing(self._connection.execute(select, {} if after is None else {"noria_after": bound})) as answer:
            first = True
            while (rows := answer.fetchmany(block_rows)) or first:
                values = dict(zip(columns, zip(*rows, strict=True) if rows else ((),) * len(columns), strict=True))
                if cursor is not None and bytes in map(type, values[cursor]):  # perhaps beside others, as text then
                    refuse_bytes(cursor)
                yield pl.DataFrame([_column(name, found) for name, found in values.items()])
                first = False

    def tables(self) -> list[str]:
        found = self._connection.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")
        return [str(row[0]) for row in found]


def _column(name: str, values: tuple[Any, ...]) -> pl.Series:
    """Values as what they are; as text where they are several things."""
    kinds = set(map(type, values)) - {type(None)}
    if not kinds:
        return pl.Series(name, values, pl.Null)
    if len(kinds) == 1:
        kind = kinds.pop()
        return pl.Series(
            name, values, {int: pl.Int64(), float: pl.Float64(), bytes: pl.Binary()}.get(kind, pl.String())
        )
    if kinds == {int, float} and all(abs(value) <= _EXACT for value in values if type(value) is int):
        return pl.Series(name, [None if value is None else float(value) for value in values], pl.Float64)
    return pl.Series(name, [_text(value) for value in values], pl.String)


def _text(value: Any) -> str | None:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return None if value is None else str(value)


def _kind(error: sqlite3.Error) -> Kind:
    text = str(error)
    if "no such table" in text:
        return "table"
    if "readonly" in text:
        return "writes"
    if "locked" in text or "unable to open" in text or "not a database" in text or "malformed" in text or "I/O" in text:
        return "file"
    return "query"
