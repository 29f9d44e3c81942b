"""MySQL and MariaDB, through PyMySQL's unbuffered cursor; Polars turns the protocol's text into values, by columns."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import polars as pl

from noria.core import ConfigError, MissingExtraError, allowed
from noria.pipelines.sql.errors import Failure, Kind
from noria.pipelines.sql.mysql_values import FLOAT, bindable, column
from noria.pipelines.sql.session import CONNECT_SECONDS, Dialect
from noria.pipelines.sql.text import typed
from noria.pipelines.sql.url import Address, address

_AFTER = "/*noria:after*/"

# A FLOAT is sent with six digits, a DOUBLE with all.
DIALECT = Dialect("`", {str(FLOAT): "({} + 0e0)"}, "{}", _AFTER)

_OPTIONS = ("unix_socket", "ssl_ca", "ssl_cert", "ssl_key")

_KINDS: dict[int, Kind] = {
    1044: "login", 1045: "login", 1698: "login", 1251: "login", 1049: "database", 1046: "database",
    1146: "table", 1792: "writes", 1290: "writes", 1142: "rights", 1143: "rights", 1227: "rights",
    2006: "lost", 2013: "lost", 2014: "lost", 1053: "lost", 1927: "lost", 1077: "lost", 1158: "lost", 1160: "lost",
}  # fmt: skip

# The server gives up on a reader that is busy with the block before for longer than this.
_SLOWEST_READER_SECONDS = 24 * 3600


class MySql:
    """A database of a MySQL or MariaDB server."""

    def __init__(self, url: str, root: Path) -> None:
        self._address = address(url)
        for name in self._address.options:
            if name not in _OPTIONS:
                raise ConfigError(
                    f"{name!r} is no option of a MySQL address", hint=allowed(_OPTIONS, name), field="url"
                )

    @contextmanager
    def session(self) -> Iterator[MySqlSession]:
        try:
            import pymysql
        except ImportError as error:
            raise MissingExtraError("PyMySQL", "mysql", "reading a MySQL or MariaDB database") from error
        connection = _connected(self._address)
        try:
            # A server that accepts and then says nothing has been noticed by now; a long query is waited for.
            connection._read_timeout = None
            yield MySqlSession(connection)
        except (pymysql.Error, OSError, UnicodeDecodeError) as error:
            raise Failure(_kind(error), _words(error)) from None
        finally:
            _abandon(connection)


class MySqlSession:
    """One transaction that can't write and sees one state of the database."""

    dialect = DIALECT

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._run(f"SET SESSION time_zone = '+00:00', SESSION net_write_timeout = {_SLOWEST_READER_SECONDS}")
        self._run("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        self._run("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")

    def columns(self, rows: str) -> list[tuple[str, str]]:
        with closing(self._connection.cursor()) as cursor:
            cursor.execute(typed(rows))
            return [(str(described[0]), str(described[1])) for described in cursor.description]

    def frames(
        self, select: str, columns: dict[str, str], cursor: str | None, after: Any, block_rows: int
    ) -> Generator[pl.DataFrame]:
        bound = None
        if after is not None and cursor is not None:
            select, bound = select.replace("%", "%%").replace(_AFTER, "%s"), (bindable(after, int(columns[cursor])),)
        answer = self._connection.cursor()
        try:
            answer.execute(select, bound)
            yield from _blocks(answer, block_rows)
        finally:
            _abandon(self._connection)

    def tables(self) -> list[str]:
        return [str(row[0]) for row in self._run("SHOW TABLES")]

    def _run(self, text: str) -> list[tuple[Any, ...]]:
        with closing(self._connection.cursor()) as cursor:
            cursor.execute(text)
            return list(cursor.fetchall())


def _blocks(answer: Any, block_rows: int) -> Iterator[pl.DataFrame]:
    kinds = [(str(described[0]), int(described[1])) for described in answer.description]
    first = True
    while (rows := answer.fetchmany(block_rows)) or first:
        values = zip(*rows, strict=True) if rows else ((),) * len(kinds)
        yield pl.DataFrame([column(name, kind, found) for (name, kind), found in zip(kinds, values, strict=True)])
        first = False


def _connected(where: Address) -> Any:
    import pymysql
    from pymysql.converters import encoders
    from pymysql.cursors import SSCursor

    options: dict[str, Any] = {name: value for name, value in where.options.items() if value}
    try:
        return pymysql.connect(
            host=where.host or "127.0.0.1",
            port=where.port or 3306,
            user=where.user or None,
            password=where.password,
            database=where.database or None,
            charset="utf8mb4",
            conv=encoders,
            cursorclass=SSCursor,
            connect_timeout=CONNECT_SECONDS,
            read_timeout=CONNECT_SECONDS,
            **options,
        )
    except (pymysql.Error, OSError) as error:
        kind = _kind(error)
        raise Failure("down" if kind in ("lost", "query") else kind, _words(error)) from None
    except RuntimeError as error:  # MySQL 8's way of logging in needs TLS, or another library
        if "cryptography" not in str(error):
            raise
        raise MissingExtraError("cryptography", "mysql", "logging in to this MySQL server without TLS") from None


def _abandon(connection: Any) -> None:
    """Close without reading what is left: PyMySQL would, and that may be millions of rows."""
    result = getattr(connection, "_result", None)
    if result is not None:
        result.unbuffered_active = False
    with contextlib.suppress(Exception):
        connection.close()


def _kind(error: BaseException) -> Kind:
    if isinstance(error, UnicodeDecodeError):
        return "values"
    code = error.args[0] if error.args else None
    if isinstance(error, OSError):
        return "lost"
    if code == 2003 or code == 2002:
        return "down"
    return _KINDS.get(code, "query") if isinstance(code, int) else "lost"


def _words(error: BaseException) -> str:
    return str(error.args[1]) if len(error.args) > 1 and isinstance(error.args[0], int) else str(error)
