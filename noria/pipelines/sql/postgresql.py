"""PostgreSQL, through ADBC: a binary `COPY` that streams into Arrow, all in one read-only snapshot."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from datetime import date, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import polars as pl

from noria.core import MissingExtraError
from noria.pipelines.sql.errors import Failure, Kind
from noria.pipelines.sql.session import CONNECT_SECONDS, BrokenStreamError, Dialect, arrow_frames, in_blocks
from noria.pipelines.sql.text import typed
from noria.pipelines.sql.url import address

_AS_IT_IS = (
    "smallint", "integer", "bigint", "real", "double precision", "text", "character varying", "boolean", "date",
    "timestamp without time zone", "timestamp with time zone", "bytea",
)  # fmt: skip

# `COPY` takes no parameters, and without it the whole answer would be held: the value is bound to a setting of the
# transaction, and the query reads that.
DIALECT = Dialect('"', dict.fromkeys(_AS_IT_IS, "{}"), "{}::text", "current_setting('noria.after')::{type}")

_KINDS: dict[str, Kind] = {
    "42P01": "table", "3F000": "table", "25006": "writes", "42501": "rights", "28": "login", "3D000": "database",
    "08": "lost", "57": "lost", "40": "lost", "53": "lost", "58": "lost", "22": "values", "42": "query", "0A": "query",
}  # fmt: skip

_WHEN_CONNECTING: dict[str, Kind] = {
    "password": "login", "authentication": "login", "role": "login", "pg_hba": "login", "database": "database",
}  # fmt: skip

# A server that dies without a word is noticed within a minute; one that works at a long query is waited for.
_KEEPALIVE = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}


class PostgreSql:
    """A database of a PostgreSQL server."""

    def __init__(self, url: str, root: Path) -> None:
        self._address = address(url)

    @contextmanager
    def session(self) -> Iterator[PostgreSqlSession]:
        try:
            from adbc_driver_manager import Error
            from adbc_driver_postgresql import dbapi
        except ImportError as error:
            raise MissingExtraError("adbc-driver-postgresql", "postgresql", "reading a PostgreSQL database") from error
        try:
            connection = dbapi.connect(self._libpq())
        except Error as error:
            text = str(error)
            said = text.rpartition("FATAL:")[2].lower() if "FATAL:" in text else ""
            raise Failure(next((k for word, k in _WHEN_CONNECTING.items() if word in said), "down"), text) from None
        with closing(connection):
            try:
                yield PostgreSqlSession(connection)
            except Error as error:
                raise Failure(_kind(error), _words(error)) from None
            except BrokenStreamError as error:
                raise Failure(_kind_half_way(str(error)), _words(error)) from None

    def _libpq(self) -> str:
        where = self._address
        login = quote(where.user, safe="") + (f":{quote(where.password, safe='')}" if where.password else "")
        host = f"[{where.host}]" if ":" in where.host else quote(where.host, safe="")
        port = f":{where.port}" if where.port is not None else ""
        options = {"connect_timeout": CONNECT_SECONDS, **_KEEPALIVE, "client_encoding": "UTF8", **where.options}
        start = f"postgresql://{login}@{host}" if login else f"postgresql://{host}"
        return f"{start}{port}/{quote(where.database, safe='')}?{urlencode(options, quote_via=quote)}"


class PostgreSqlSession:
    """One transaction that can't write and sees one state of the database."""

    dialect = DIALECT

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        # An `options` parameter would say the same when connecting, and poolers such as PgBouncer refuse it.
        self._run("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        self._run("SET LOCAL TimeZone = 'UTC'")
        self._run("SET LOCAL DateStyle = 'ISO'")

    def columns(self, rows: str) -> list[tuple[str, str]]:
        names = self._names(typed(rows))
        if len(set(names)) < len(names) or not names:
            return [(name, "") for name in names]
        # A null knows its type too, so that no row has to be read to learn it.
        kinds = ", ".join(f"pg_typeof(q.{DIALECT.quoted(name)})::text AS c{n}" for n, name in enumerate(names))
        found = self._run(f"SELECT {kinds} FROM (SELECT 1) AS one LEFT JOIN ({typed(rows)}) AS q ON true")
        return list(zip(names, found.row(0), strict=True))

    def frames(
        self, select: str, columns: dict[str, str], cursor: str | None, after: Any, block_rows: int
    ) -> Generator[pl.DataFrame]:
        if after is not None:
            self._run("SELECT set_config('noria.after', $1, true)", [_as_text(after)])
        with closing(self._connection.cursor()) as cursor_:
            cursor_.execute(select)
            yield from in_blocks(arrow_frames(cursor_.fetch_arrow()), block_rows)

    def tables(self) -> list[str]:
        found = self._run(
            "SELECT table_schema::text, table_name::text FROM information_schema.tables "
            "WHERE table_schema NOT IN ('pg_catalog', 'information_schema')"
        )
        return [name if schema == "public" else f"{schema}.{name}" for schema, name in found.rows()]

    def _names(self, text: str) -> list[str]:
        import arro3.core

        with closing(self._connection.cursor()) as cursor:
            cursor.execute(text)
            return list(arro3.core.RecordBatchReader.from_stream(cursor.fetch_arrow()).schema.names)

    def _run(self, text: str, values: list[Any] | None = None) -> pl.DataFrame:
        with closing(self._connection.cursor()) as cursor:
            cursor.execute(text, values)
            return pl.DataFrame(cursor.fetch_arrow())


def _as_text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return value.isoformat() if isinstance(value, (date, datetime)) else str(value)


def _kind(error: Any) -> Kind:
    """By SQLSTATE, the longest prefix first; none at all means that the connection broke."""
    state = error.sqlstate or ""
    for length in (5, 3, 2):
        if state[:length] in _KINDS:
            return _KINDS[state[:length]]
    return "query" if state else "lost"


def _kind_half_way(text: str) -> Kind:
    """What ended a `COPY` that had begun, of which only words tell: a row that can't be computed, or the server."""
    if "read-only transaction" in text:
        return "writes"
    ended = "ERROR:" not in text or "terminating connection" in text or "canceling statement" in text
    return "lost" if ended else "values"


def _words(error: Any) -> str:
    """The server's words without the driver's own, and without the text of our query."""
    return str(error).partition("ERROR:")[2].partition("Query was:")[0] or str(error)
