"""Records in PostgreSQL: for several machines that share one registry.

psycopg without SQLAlchemy: there is one table with four statements, and whatever SQLAlchemy would write for us we would
have to say in PostgreSQL's own words all the same (`ON CONFLICT`, an order of bytes, row comparisons). Measured side by
side, a `get` takes 0.25 ms here and 0.4 to 0.6 ms through SQLAlchemy's engine, whose import costs 0.2 s and 30 MB more.

**Commits are serializable.** Each condition of a commit is about a row that the same commit writes, and is checked by
the statement that locks this row until the end. So two commits that touch one document come one after the other, and
there is nothing else that either could have read. Rows are locked in the order of their keys: no deadlock.

**A commit happens once**, also if the connection breaks while the server makes it durable, when nobody knows if it did.
Every commit writes its number into its writer's row; the repeated commit finds the number there, or not. Where the
first one is still under way, the repeated one waits for the lock on that row.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec

from noria.core import ConfigError, MissingExtraError, StorageError
from noria.storage.database_lines import Line, Lines
from noria.storage.records import ABSENT, Put, Record, conflict, record
from noria.storage.records_schema import missing
from noria.storage.urls import shown

try:
    import psycopg
    from psycopg.conninfo import conninfo_to_dict
except ImportError as cause:
    raise MissingExtraError("psycopg", "postgresql", "storage.records = 'postgresql://…'") from cause

STEPS = (
    # Keys are in the order of their bytes, as in SQLite, whatever the database's language.
    """
    CREATE TABLE noria_records (
        collection text COLLATE "C" NOT NULL, key text COLLATE "C" NOT NULL, revision bigint NOT NULL,
        data text NOT NULL, PRIMARY KEY (collection, key)
    );
    CREATE TABLE noria_commits (
        writer text PRIMARY KEY, number bigint NOT NULL, at timestamptz NOT NULL DEFAULT now()
    );
    """,
)
"""What makes each version of the schema of the one before; see `records_schema`."""

ANSWER_SECONDS = 20.0
"""A server that says nothing for so long is taken for lost."""
_LOCK_SECONDS = 10
_OPTIONS = {
    "connect_timeout": 5,
    "keepalives_idle": 30,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "application_name": "noria",
    "client_encoding": "utf8",
}
_SCHEMA_LOCK = 7_814_201_103_462_317_569
"""The number of the advisory lock under which the schema is changed; any will do that is always the same."""
# Not `to_regclass`: it answers from a cache, in which a table that another process has just made is missing.
_IS_HERE = (
    "SELECT count(*) > 0, current_setting('server_encoding') FROM pg_class "
    "WHERE relname = 'noria_schema' AND pg_table_is_visible(oid)"
)

_BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED"
# A machine that dies in the middle of a commit must not keep others from its rows for longer than this.
_LIMITS = (
    f"SELECT set_config('lock_timeout', '{_LOCK_SECONDS}s', true), "
    f"set_config('idle_in_transaction_session_timeout', '{_LOCK_SECONDS}s', true)"
)
_ONCE = (
    "INSERT INTO noria_commits AS known (writer, number) VALUES (%s, %s) "
    "ON CONFLICT (writer) DO UPDATE SET number = EXCLUDED.number, at = now() WHERE known.number < EXCLUDED.number"
)
_FORGET = (
    "DELETE FROM noria_commits WHERE writer IN (SELECT writer FROM noria_commits "
    "WHERE at < now() - interval '1 day' FOR UPDATE SKIP LOCKED)"
)
_INSERT = "INSERT INTO noria_records AS r (collection, key, revision, data) VALUES (%s, %s, 1, %s) ON CONFLICT "
_UPSERT = _INSERT + "(collection, key) DO UPDATE SET revision = r.revision + 1, data = EXCLUDED.data"
_ADD = _INSERT + "DO NOTHING"
_REPLACE = (
    "UPDATE noria_records SET revision = revision + 1, data = %s WHERE collection = %s AND key = %s AND revision = %s"
)
_GET = "SELECT key, revision, data FROM noria_records WHERE collection = %s AND key = %s"
# Whole rows are compared: so the planner goes along the primary key also while it has no statistics of the table.
_LIST = (
    "SELECT key, revision, data FROM noria_records WHERE (collection, key) >= (%s, %s) AND (collection, key) < (%s, %s)"
    " ORDER BY collection {0}, key {0} LIMIT %s"
)

_LOST = ("08", "57P", "25006")
"""SQLSTATEs of a server that goes away; 25006: it has become another's read-only copy."""
_HINTS = {
    "28": "check the user and the password in storage.records",
    "3D": "make the database first: createdb NAME",
    "42501": "the user must be allowed to make tables, once: GRANT CREATE ON SCHEMA public TO …",
    "53100": "the server's disk is full",
    "53300": "raise max_connections in postgresql.conf, or put a pooler such as PgBouncer before the server",
    "55P03": "another process holds the documents: try again",
}

T = TypeVar("T")

logging.getLogger("psycopg").addHandler(logging.NullHandler())  # what it says there, we say in our errors


class _Connection(psycopg.Connection[Any]):
    """One whose server has to answer within a time: a machine that hangs must not hang those that ask it."""

    _pool = None  # so that psycopg doesn't mind one that is open when a process, or a fork of it, ends

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        return super().wait(gen, interval, ANSWER_SECONDS if timeout is None else timeout)


class PostgresqlRecords:
    """`Records` in the database at `url`; its tables are made when they are missing, unless `make` is false."""

    def __init__(self, url: str, *, make: bool = True) -> None:
        self._name = f"the records store {shown(url)}"
        self._parts = {**_OPTIONS, **_parts(url)}
        self._lines = Lines(self._connect, self._name)
        try:
            self._run(lambda line: self._prepare(line.connection, make))
        except BaseException:
            self.close()
            raise

    def _connect(self) -> psycopg.Connection[Any]:
        # No prepared statements: poolers give each transaction another connection of the server's.
        return _Connection.connect(**self._parts, autocommit=True, prepare_threshold=None)

    def _prepare(self, connection: Any, make: bool) -> None:
        if not missing(self._version(connection, make), STEPS, self._name):
            return
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (_SCHEMA_LOCK,))
            for step in missing(self._version(connection, make), STEPS, self._name):
                connection.execute(step)
            connection.execute("CREATE TABLE IF NOT EXISTS noria_schema (version integer NOT NULL)")
            connection.execute("DELETE FROM noria_schema")
            connection.execute("INSERT INTO noria_schema VALUES (%s)", (len(STEPS),))

    def _version(self, connection: Any, make: bool) -> int:
        """The version of the schema that is there; 0 where there is none and it may be made."""
        here, encoding = connection.execute(_IS_HERE).fetchone()
        if encoding != "UTF8":
            raise StorageError(
                f"{self._name} can't keep every text: its encoding is {encoding}",
                hint="make it anew: createdb --encoding UTF8 --template template0 NAME",
            )
        if here:
            return int(connection.execute("SELECT version FROM noria_schema").fetchone()[0])
        if not make:
            raise StorageError(
                f"there are no records in {self._name.removeprefix('the records store ')}",
                hint="is it the right database? noria run makes the tables",
            )
        return 0

    def get(self, collection: str, key: str) -> Record | None:
        row = self._run(lambda line: line.connection.execute(_GET, (collection, key)).fetchone())
        return record(row) if row else None

    def list(
        self, collection: str, prefix: str = "", *, newest_first: bool = False, limit: int | None = None
    ) -> list[Record]:
        query = _LIST.format("DESC" if newest_first else "ASC")
        bounds = (collection, prefix, collection, prefix + "\U0010ffff", limit)
        return [record(row) for row in self._run(lambda line: line.connection.execute(query, bounds).fetchall())]

    def commit(self, *changes: Put) -> None:
        if not changes:
            return
        puts = sorted(changes, key=lambda change: (change.collection, change.key))

        def begin(line: Line) -> None:
            line.number += 1

        self._run(lambda line: self._write(line, puts), begin)

    def _write(self, line: Line, puts: Sequence[Put]) -> None:
        connection = line.connection
        with connection.pipeline():  # one journey for all
            for statement in (_BEGIN, _LIMITS, *([_FORGET] if line.number == 1 else [])):
                connection.execute(statement)
            first = connection.execute(_ONCE, (line.writer, line.number))
            made = [connection.execute(*_statement(put)) for put in puts]
        if not first.rowcount:  # this is the second time, and the first one was heard
            connection.execute("ROLLBACK")
            return
        refused = next((put for put, cursor in zip(puts, made, strict=True) if not cursor.rowcount), None)
        if refused is not None:
            row = connection.execute(_GET, (refused.collection, refused.key)).fetchone()
            connection.execute("ROLLBACK")
            raise conflict(refused, row[1] if row else ABSENT)
        line.sent = True
        connection.execute("COMMIT")

    def close(self) -> None:
        self._lines.close()

    def _run(self, work: Callable[[Line], T], begin: Callable[[Line], None] = lambda line: None) -> T:
        """Do it, and once more on a new connection if the first is lost: reading twice, or committing by one number."""
        with self._lines.taken() as line:
            line.sent = False
            begin(line)
            try:
                return work(line)
            except psycopg.Error as error:
                away = line.idle  # it couldn't even be opened
                line.drop()
                if away or not _is_lost(error):
                    raise self._error(error, line) from None
            self._lines.drop_idle()
            try:
                return work(line)
            except psycopg.Error as error:
                line.drop()
                raise self._error(error, line) from None

    def _error(self, error: psycopg.Error, line: Line) -> StorageError:
        state = error.sqlstate or ""
        said = str(error).strip().partition("\n")[0].removeprefix("connection failed: ")
        unknown = "; nobody knows if the last change was made" if line.sent and _is_lost(error) else ""
        hint = next((_HINTS[state[:n]] for n in (5, 3, 2) if state[:n] in _HINTS), "")
        hint = hint or next((text for word, text in _WORDS.items() if word in said), "is the database server running?")
        return StorageError(f"{self._name} can't be used: {said[:300]}{unknown}", hint=hint)


# What is said while a connection is made comes without a SQLSTATE.
_WORDS = {
    "password": _HINTS["28"],
    "authentication": _HINTS["28"],
    "role": _HINTS["28"],
    "pg_hba": _HINTS["28"],
    "too many": _HINTS["53300"],
    "remaining connection slots": _HINTS["53300"],
    "does not exist": _HINTS["3D"],
    "NUL": "keys and documents of records can't have this character",
}


def _parts(url: str) -> dict[str, Any]:
    """What libpq reads in the URL; its own complaints would tell parts of a password that isn't escaped."""
    try:
        found: dict[str, Any] = conninfo_to_dict(url)
    except psycopg.Error:
        found = {"port": "?"}
    port, places = str(found.get("port", "")), f"{found.get('host', '')}{found.get('dbname', '')}"
    if "@" in places or (port and not port.replace(",", "0").isdigit()):
        raise ConfigError(
            f"storage.records = {shown(url)!r} is not a database's address",
            hint="postgresql://user:password@host:port/database; in the password write %40 for @, %2F for /, %3A for :",
            field="storage.records",
        )
    return found


def _statement(put: Put) -> tuple[str, tuple[Any, ...]]:
    data = msgspec.json.encode(put.data).decode()
    if put.expect is None or put.expect == ABSENT:
        return _UPSERT if put.expect is None else _ADD, (put.collection, put.key, data)
    return _REPLACE, (data, put.collection, put.key, put.expect)


def _is_lost(error: psycopg.Error) -> bool:
    return error.sqlstate.startswith(_LOST) if error.sqlstate else isinstance(error, psycopg.OperationalError)
