"""Sources in real databases: PostgreSQL, MariaDB, SQLite, DuckDB."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from databases import PASSWORD, free_port
from databases import mariadb as mariadb_server
from databases import postgresql as postgresql_server

import noria as nr
from noria.core import ConfigError, DataError, NoriaError, NotFoundError, Settings, StorageError
from noria.pipelines import BatchResult
from noria.storage import Workspace

SCHEMA = {"id": "int64", "name": "str?", "price": "float64?", "seen": nr.Timestamp("iso")}
Execute = Callable[..., None]


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, str]]:
    with postgresql_server() as one, mariadb_server() as other:
        yield {"postgresql": one.url, "mariadb": other.url}


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace.open(Settings(tmp_path)) as opened:
        yield opened


def postgresql(url: str, *statements: str) -> None:
    from adbc_driver_postgresql import dbapi

    with closing(dbapi.connect(url, autocommit=True)) as connection, closing(connection.cursor()) as cursor:
        for statement in ("SET lock_timeout = '10s'", *statements):  # a reader that was left open has locks
            cursor.execute(statement)


def mariadb(url: str, *statements: str) -> None:
    import pymysql

    parts = urlsplit(url)
    with closing(
        pymysql.connect(
            host=parts.hostname, port=parts.port, user=parts.username, password=unquote(parts.password or ""),
            database="shop", autocommit=True,
        )
    ) as connection, connection.cursor() as cursor:  # fmt: skip
        for statement in statements:
            cursor.execute(statement)


def sqlite(url: str, *statements: str) -> None:
    with closing(sqlite3.connect(url)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def duckdb(url: str, *statements: str) -> None:
    import duckdb as library

    with closing(library.connect(url)) as connection:
        for statement in statements:
            connection.execute(statement)


@pytest.fixture(params=["postgresql", "mariadb", "sqlite", "duckdb"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str, Execute]:
    """A kind of database, its URL, and a function that executes statements there."""
    kind = request.param
    if kind in ("postgresql", "mariadb"):
        url = request.getfixturevalue("servers")[kind]
        execute = {"postgresql": postgresql, "mariadb": mariadb}[kind]
        return kind, url, lambda *statements: execute(url, *statements)
    if kind == "duckdb":
        pytest.importorskip("duckdb")
    file = str(tmp_path / f"shop.{kind}")
    execute = {"sqlite": sqlite, "duckdb": duckdb}[kind]
    return kind, f"{kind}:///shop.{kind}", lambda *statements: execute(file, *statements)


def load(workspace: Workspace, url: str, query: str = "items", **options: Any) -> BatchResult:
    options = {"schema": SCHEMA, **options}
    return nr.BatchProcessor(nr.Source("rows", url, query=query, **options), workspace).run()


def make(execute: Execute, kind: str) -> None:
    stamp = "timestamp" if kind != "mariadb" else "datetime(6)"
    execute(
        "DROP TABLE IF EXISTS items",
        f"CREATE TABLE items (id bigint, name varchar(100), price double precision, seen {stamp})",
        "INSERT INTO items VALUES (1, 'a''b', 1.5, '2024-01-01 00:00:00.000001'), (2, NULL, NULL, '2001-02-03'), "
        f"({2**63 - 1}, 'ü🎬', -0.1, '1999-12-31 23:59:59')",
    )


def test_all_rows_come_exactly(workspace: Workspace, database: tuple[str, str, Execute]) -> None:
    kind, url, execute = database
    make(execute, kind)
    result = load(workspace, url)
    assert (result.rows_in, result.rows_out) == (3, 3)
    assert workspace.table("rows").read().sort("id").rows() == [
        (1, "a'b", 1.5, datetime(2024, 1, 1, 0, 0, 0, 1, tzinfo=UTC)),
        (2, None, None, datetime(2001, 2, 3, tzinfo=UTC)),
        (2**63 - 1, "ü🎬", -0.1, datetime(1999, 12, 31, 23, 59, 59, tzinfo=UTC)),
    ]
    empty = load(workspace, url, "SELECT * FROM items WHERE id < 0;")
    assert (empty.rows_in, len(workspace.table("rows").read())) == (0, 0)


def test_a_cursor_reads_what_is_new_and_loses_no_row_of_the_same_value(
    workspace: Workspace, database: tuple[str, str, Execute]
) -> None:
    kind, url, execute = database
    make(execute, kind)
    execute("DELETE FROM items", "INSERT INTO items VALUES (1, 'a', 1, '2024-01-01'), (2, 'b', 2, '2024-01-02')")
    for cursor in ("id", "seen"):
        options = {"cursor": cursor}
        assert load(workspace, url, **options).mode == "overwrite"
        version = workspace.table("rows").version()
        load(workspace, url, **options)
        assert workspace.table("rows").version() == version
        execute("INSERT INTO items VALUES (2, 'c', 3, '2024-01-02'), (3, 'd', 4, '2024-01-03 10:00:00.5')")
        new = load(workspace, url, **options)
        assert (new.mode, new.rows_in) == ("append", 2)
        same = "INSERT INTO items VALUES (3, 'e', 4, '2024-01-03 10:00:00.5')"
        for _ in range(2):  # a row that equals one that was read is another row all the same
            execute(same)
            assert load(workspace, url, **options).rows_in == 1
        load(workspace, url, **options)
        assert sorted(workspace.table("rows").read()["name"].to_list()) == ["a", "b", "c", "d", "e", "e"]
        execute("DELETE FROM items WHERE name IN ('c', 'd', 'e')")


def test_bad_rows_go_to_quarantine_with_their_number(workspace: Workspace, database: tuple[str, str, Execute]) -> None:
    kind, url, execute = database
    make(execute, kind)
    result = load(workspace, url, "SELECT * FROM items ORDER BY id", checks=[nr.between("price", 0, 10)])
    assert (result.rows_out, result.quarantined) == (2, 1)
    bad = workspace.table("rows__quarantine").read()
    assert bad["position"].to_list() == [3]
    assert PASSWORD not in bad["file"][0]
    assert "s3cret" not in bad["file"][0]


def test_mistakes_say_what_to_do_and_show_no_password(workspace: Workspace, database: tuple[str, str, Execute]) -> None:
    kind, url, execute = database
    make(execute, kind)
    mistakes: list[tuple[type[NoriaError], str, dict[str, Any]]] = [
        (NotFoundError, "did you mean 'items'", {"query": "itemz"}),
        (DataError, "refuses the query", {"query": "SELEC 1"}),
        (ConfigError, "nope", {"cursor": "nope", "schema": {**SCHEMA, "nope": "int64"}}),
        (NoriaError, "SELECT", {"query": "INSERT INTO items VALUES (9, 'x', 1, NULL)"}),
        (NoriaError, "'none'", {"schema": {"none": "int64"}}),
    ]
    errors = []
    for error, message, options in mistakes:
        with pytest.raises(error) as caught:
            load(workspace, url, **options)
        assert message in str(caught.value)
        assert "s3cret" not in str(caught.value)
        errors.append(caught)
    assert load(workspace, url).rows_in == 3  # nothing was written there
    make(execute, kind)  # no connection is open any more, though the errors are alive


@pytest.mark.parametrize("kind", ["postgresql", "mysql"])
def test_a_server_that_is_not_there_is_named(workspace: Workspace, kind: str) -> None:
    pytest.importorskip({"postgresql": "adbc_driver_postgresql", "mysql": "pymysql"}[kind])
    with pytest.raises(StorageError, match="can't be reached") as caught:
        load(workspace, f"{kind}://me:topsecret@127.0.0.1:{free_port()}/shop")
    assert "topsecret" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(workspace: Workspace) -> None:
    with pytest.raises(NotFoundError, match=r"there is no database file .*none\.db"):
        load(workspace, "sqlite:///none.db")


def test_sqlite_keeps_what_it_was_given_and_the_contract_judges_it(workspace: Workspace) -> None:
    file = str(workspace.settings.root / "s.db")
    sqlite(file, "CREATE TABLE t (id integer, x)", "INSERT INTO t VALUES (1, 1), (2, 'text'), (3, NULL), (4, 2.5)")
    result = load(workspace, "sqlite:///s.db", "t", schema={"id": "int64", "x": "float64?"})
    assert (result.rows_out, result.by_rule) == (3, {"x: not float64": 1})


@pytest.mark.parametrize(
    ("kind", "type_", "schema", "values"),
    [
        ("sqlite", "real", "float64?", ["NULL", "NULL"]),
        ("sqlite", "real", "float64?", ["1.5", "9e999"]),
        ("duckdb", "double", "float64?", ["1.5", "'infinity'"]),
        ("duckdb", "double", "float64?", ["1.5", "'nan'"]),
        ("duckdb", "timestamptz", nr.Timestamp("iso"), ["'2024-01-01'", "'infinity'"]),
        ("duckdb", "timestamp", nr.Timestamp("iso"), ["'2024-01-01'", "'infinity'"]),
        ("duckdb", "date", "date?", ["'2024-01-01'", "'infinity'"]),
    ],
)
def test_a_cursor_without_a_value_to_read_on_from_reads_all_rows_once(
    workspace: Workspace, kind: str, type_: str, schema: Any, values: list[str]
) -> None:
    if kind == "duckdb":
        pytest.importorskip("duckdb")
    execute = {"sqlite": sqlite, "duckdb": duckdb}[kind]
    file, url = str(workspace.settings.root / "c.db"), f"{kind}:///c.db"
    options: dict[str, Any] = {"schema": {"n": "int64", "c": schema}, "cursor": "c"}
    made = nr.Source("rows", url, query="t", **options)
    execute(file, f"CREATE TABLE t (n integer, c {type_})", f"INSERT INTO t VALUES (1, {values[0]})")
    load(workspace, url, "t", **options)
    execute(file, f"INSERT INTO t VALUES (2, {values[1]})")
    for count in (2, 2, 3):
        if count == 3:
            execute(file, f"INSERT INTO t VALUES (3, {values[0]})")
        made.inputs(workspace.settings)
        load(workspace, url, "t", **options)
        kept = len(workspace.table("rows").read()) + len(workspace.table("rows__quarantine").read())
        assert kept == (2 if count == 2 else 3)


def test_a_cursor_of_nanoseconds_loses_and_repeats_no_row(workspace: Workspace) -> None:
    pytest.importorskip("duckdb")
    file, url = str(workspace.settings.root / "c.db"), "duckdb:///c.db"
    options = {"schema": {"n": "int64", "c": "str"}, "cursor": "c"}
    duckdb(file, "CREATE TABLE t (n integer, c timestamp_ns)")
    for number, nanoseconds in enumerate(("123456788", "123456789", "123456789", "123456790", "123457000")):
        duckdb(file, f"INSERT INTO t VALUES ({number}, '2024-01-01 00:00:00.{nanoseconds}')")
        load(workspace, url, "t", **options)
        assert workspace.table("rows").read()["n"].to_list() == list(range(number + 1))


@pytest.mark.parametrize("other", ["x'02'", "'text'", "7"])
def test_bytes_are_no_cursor(workspace: Workspace, other: str) -> None:
    file = str(workspace.settings.root / "s.db")
    sqlite(file, "CREATE TABLE t (id, x)", f"INSERT INTO t VALUES (x'01', 1), ({other}, 2)")
    with pytest.raises(ConfigError, match="the cursor 'id' has bytes in it"):
        load(workspace, "sqlite:///s.db", "t", schema={"id": "str", "x": "float64?"}, cursor="id")


def test_many_rows_come_in_blocks(workspace: Workspace, servers: dict[str, str]) -> None:
    url = servers["postgresql"]
    postgresql(
        url, "DROP TABLE IF EXISTS many", "CREATE TABLE many AS SELECT i AS id FROM generate_series(1, 450000) i"
    )
    result = load(workspace, url, "many", schema={"id": "int64"}, cursor="id")
    assert result.rows_out == 450_000
    assert len(list((workspace.settings.root / ".noria/tables/rows").glob("*.parquet"))) == 3


def test_a_database_needs_a_query_and_files_take_none() -> None:
    with pytest.raises(ConfigError, match="names a database and nothing in it"):
        nr.Source("rows", "sqlite:///x.db", schema={"id": "int64"})
    with pytest.raises(ConfigError, match="go with a database"):
        nr.Source("rows", "x.csv", schema={"id": "int64"}, query="t")
    assert "secret" not in str(nr.Source("rows", "mysql://a:secret@b/c", {"id": "int64"}, query="t").to_dict())


def test_two_sources_of_one_database_load_at_once(workspace: Workspace, database: tuple[str, str, Execute]) -> None:
    kind, url, execute = database
    make(execute, kind)
    together, results = threading.Barrier(3), []

    def work(number: int) -> None:
        source = nr.Source(f"rows{number}", url, query="items", schema=SCHEMA)
        together.wait()
        for _ in range(3):
            results.append(nr.BatchProcessor(source, workspace).run(full=True).rows_out)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [3] * 9
