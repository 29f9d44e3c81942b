"""Blocks of rows from real PostgreSQL, MariaDB, SQLite and DuckDB."""

from __future__ import annotations

import json
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from databases import PASSWORD, Server, free_port, mariadb, postgresql

from noria.core import ConfigError, DataError, MissingExtraError, NoriaError, NotFoundError, StorageError
from noria.pipelines.sql import mysql as sql_mysql
from noria.pipelines.sql.reading import SqlQuery, is_sql, masked, newest, read_sql

KINDS = ["postgresql", "mariadb", "sqlite", "duckdb"]
SECRETS = (PASSWORD, "s3cret")


@dataclass
class Shop:
    """A database of a kind, and a way to write into it."""

    kind: str
    url: str
    root: Path
    execute: Callable[..., None]

    def read(self, query: str, cursor: str | None = None, **options: Any) -> pl.DataFrame:
        return pl.concat(self.blocks(query, cursor, **options))

    def blocks(self, query: str, cursor: str | None = None, **options: Any) -> list[pl.DataFrame]:
        return list(read_sql(SqlQuery(self.url, query, cursor), root=self.root, **options))


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, Server]]:
    pytest.importorskip("adbc_driver_postgresql")
    pytest.importorskip("pymysql")
    with postgresql() as one, mariadb() as other:
        yield {"postgresql": one, "mariadb": other}


def in_postgresql(url: str, *statements: str) -> None:
    from adbc_driver_postgresql import dbapi

    with closing(dbapi.connect(url, autocommit=True)) as connection, closing(connection.cursor()) as cursor:
        for statement in statements:
            cursor.execute(statement)


def in_mariadb(url: str, *statements: str) -> None:
    import pymysql

    port = int(url.rpartition(":")[2].partition("/")[0])
    login = {"host": "127.0.0.1", "port": port, "user": "noria", "password": PASSWORD, "database": "shop"}
    with closing(pymysql.connect(**login, autocommit=True)) as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def in_sqlite(file: Path, *statements: str) -> None:
    with closing(sqlite3.connect(file)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def in_duckdb(file: Path, *statements: str) -> None:
    import duckdb

    with closing(duckdb.connect(str(file))) as connection:
        for statement in statements:
            connection.execute(statement)


def shop_of(kind: str, request: pytest.FixtureRequest, folder: Path) -> Shop:
    if kind in ("postgresql", "mariadb"):
        url = request.getfixturevalue("servers")[kind].url
        execute = {"postgresql": in_postgresql, "mariadb": in_mariadb}[kind]
        return Shop(kind, url, folder, lambda *statements: execute(url, *statements))
    if kind == "duckdb":
        pytest.importorskip("duckdb")
    in_file = {"sqlite": in_sqlite, "duckdb": in_duckdb}[kind]
    file = folder / f"shop.{kind}"
    in_file(file)
    return Shop(kind, f"{kind}:///{file.name}", folder, lambda *statements: in_file(file, *statements))


@pytest.fixture(params=KINDS)
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Shop:
    return shop_of(request.param, request, tmp_path)


def one_of(kind: str) -> Any:
    @pytest.fixture
    def fixture(request: pytest.FixtureRequest, tmp_path: Path) -> Shop:
        return shop_of(kind, request, tmp_path)

    return fixture


postgres_shop, mariadb_shop, sqlite_shop, duckdb_shop = map(one_of, KINDS)


def fill(shop: Shop, rows: int = 5) -> None:
    """Rows 1 to `rows` with an id, a text and a price."""
    values = ", ".join(f"({number}, 'name {number}', {number}.5)" for number in range(1, rows + 1))
    shop.execute(
        "DROP TABLE IF EXISTS items",
        "CREATE TABLE items (id bigint, name varchar(100), price double precision)",
        f"INSERT INTO items VALUES {values}",
    )


# ruff: noqa: DTZ001 (columns without a time zone have values without one)

# What arrives


def test_a_table_and_a_select_arrive_whole_and_in_blocks(shop: Shop) -> None:
    fill(shop)
    for query in ("items", " items\n", "SELECT * FROM items;", "SELECT * FROM items -- all", "WITH a AS (SELECT * FROM items) SELECT * FROM a"):  # fmt: skip
        blocks = shop.blocks(query, block_rows=2)
        assert [len(block) for block in blocks] == [2, 2, 1]
        assert pl.concat(blocks).sort("id").rows() == [(n, f"name {n}", n + 0.5) for n in range(1, 6)]
    assert [len(block) for block in shop.blocks("SELECT * FROM items WHERE id < 5", block_rows=2)] == [2, 2]


def test_an_empty_answer_has_columns_and_no_rows(shop: Shop) -> None:
    fill(shop)
    (block,) = shop.blocks("SELECT id, name FROM items WHERE id > 99", "id", after=7)
    assert (block.columns, len(block)) == (["id", "name"], 0)
    assert newest(SqlQuery(shop.url, "SELECT * FROM items WHERE id > 99", "id"), shop.root) is None


def test_names_are_quoted_and_percent_signs_are_kept(shop: Shop) -> None:
    mark = "`" if shop.kind == "mariadb" else '"'
    name = f"{mark}a {mark * 2} % 'ü order{mark}"
    shop.execute("DROP TABLE IF EXISTS odd", f"CREATE TABLE odd ({name} bigint, t varchar(9))")
    shop.execute("INSERT INTO odd VALUES (1, '%s'), (2, 'b%'), (3, NULL)")
    column = f"a {mark} % 'ü order"
    frame = shop.read(f"SELECT * FROM {mark}odd{mark} WHERE t LIKE '%' OR t IS NULL", column, after=2)
    assert frame.rows() == [(2, "b%"), (3, None)]
    assert shop.read(f"{mark}odd{mark}", column)[column].to_list() == [1, 2, 3]


def test_any_text_arrives(shop: Shop) -> None:
    texts = ["", " ", "ü🎬𝄞", "a\tb\nc\\d'e\"f", "NULL", "\u202e", "x" * 100_000, None]
    fill(shop)
    shop.execute("DROP TABLE IF EXISTS texts", f"CREATE TABLE texts (id bigint, t {'longtext' if shop.kind == 'mariadb' else 'text'})")  # fmt: skip
    for number, text in enumerate(texts):
        sql = "NULL" if text is None else "'" + text.replace("'", "''") + "'"
        shop.execute(f"INSERT INTO texts VALUES ({number}, {sql.replace(chr(92), chr(92) * 2) if shop.kind == 'mariadb' else sql})")  # fmt: skip
    assert shop.read("texts", "id")["t"].to_list() == texts


def test_postgresql_types_arrive_exactly(postgres_shop: Shop) -> None:
    frame = postgres_shop.read(
        """SELECT 9223372036854775807 AS big, (-32768)::smallint AS small, 123456789012345678901234567890.123456789 AS n,
        'NaN'::numeric AS nan, 0.1::float4 AS f, 1e-320::float8 AS d, true AS yes, date '0001-01-01' AS day,
        timestamp '2024-02-29 23:59:59.999999' AS ts, timestamptz '2024-01-01 00:00:00.000001+02' AS tz,
        '\\x00ff'::bytea AS b, '{"a": 1.10,  "a": 2}'::json AS j, '[1, null]'::jsonb AS jb,
        '6f1c0a50-0000-4000-8000-000000000001'::uuid AS u, interval '1 day' AS i, ARRAY[1, NULL] AS l,
        time '01:02:03.000004' AS t, 'ab '::char(4) AS c, NULL::int AS none, NULL AS unknown"""
    )
    assert frame.schema["tz"] == pl.Datetime("us", "UTC")
    assert frame.schema["none"] == pl.Int32
    assert frame.row(0) == (
        2**63 - 1, -32768, "123456789012345678901234567890.123456789", "NaN", pytest.approx(0.1, rel=1e-7), 1e-320,
        True, date(1, 1, 1), datetime(2024, 2, 29, 23, 59, 59, 999999), datetime(2023, 12, 31, 22, 0, 0, 1, tzinfo=UTC),
        b"\x00\xff", '{"a": 1.10,  "a": 2}', "[1, null]", "6f1c0a50-0000-4000-8000-000000000001", "1 day", "{1,NULL}",
        "01:02:03.000004", "ab", None, None,
    )  # fmt: skip


def test_mariadb_types_arrive_exactly(mariadb_shop: Shop) -> None:
    mariadb_shop.execute(
        "DROP TABLE IF EXISTS typed",
        """CREATE TABLE typed (u bigint unsigned, t tinyint(1), n decimal(40, 10), f float, d double, day date,
        dt datetime(6), ts timestamp(6) NULL, b varbinary(9), j json, bits bit(9), l varchar(9) CHARACTER SET latin1,
        tm time(6), e enum('x', 'y'), y year, z int(6) zerofill)""",
        """INSERT INTO typed VALUES (18446744073709551615, -3, 123456789012345678901234567890.0123456789, 16777217, 0.1,
        '2024-02-29', '2024-02-29 23:59:59.999999', '2024-01-01 00:00:00.000001', x'00ff', '{"a": 1}', b'100000001',
        'é', '-838:59:59', 'y', 2024, 7)""",
        "INSERT INTO typed (u) VALUES (NULL)",
    )
    frame = mariadb_shop.read("typed")
    assert frame.schema["u"] == pl.UInt64
    assert frame.row(0) == (
        2**64 - 1, -3, "123456789012345678901234567890.0123456789", 16777216.0, 0.1, date(2024, 2, 29),
        datetime(2024, 2, 29, 23, 59, 59, 999999), datetime(2024, 1, 1, 0, 0, 0, 1, tzinfo=UTC), b"\x00\xff",
        '{"a": 1}', 257, "é", "-838:59:59.000000", "y", 2024, 7,
    )  # fmt: skip
    assert set(frame.row(1)) <= {None}


def test_zero_dates_make_their_column_text_and_cost_no_row(mariadb_shop: Shop) -> None:
    mariadb_shop.execute(
        "DROP TABLE IF EXISTS zeros",
        "CREATE TABLE zeros (id int, day date, at datetime)",
        "INSERT INTO zeros VALUES (1, '2024-01-01', '2024-01-01 10:00:00'), (2, 0, 0), (3, NULL, NULL)",
    )
    assert mariadb_shop.read("zeros", "id").rows() == [
        (1, "2024-01-01", "2024-01-01 10:00:00"), (2, "0000-00-00", "0000-00-00 00:00:00"), (3, None, None),
    ]  # fmt: skip


def test_sqlite_columns_of_mixed_types_are_text(sqlite_shop: Shop) -> None:
    sqlite_shop.execute(
        "CREATE TABLE mixed (id integer, n integer, r, big, b)",
        f"INSERT INTO mixed VALUES (1, 7, 1, {2**63 - 1}, x'00ff'), (2, 'seven', 2.5, 0.5, x''), (3, NULL, NULL, 1, NULL)",
        "INSERT INTO mixed VALUES (4, CAST(x'ff41' AS TEXT), 3, 2, x'01')",
    )
    frame = sqlite_shop.read("mixed", "id")
    assert frame["n"].to_list() == ["7", "seven", None, "\\xffA"]
    assert frame["r"].to_list() == [1.0, 2.5, None, 3.0]
    assert frame["big"].to_list() == [str(2**63 - 1), "0.5", "1", "2"]
    assert frame["b"].to_list() == [b"\x00\xff", b"", None, b"\x01"]


def test_duckdb_types_arrive_exactly(duckdb_shop: Shop) -> None:
    frame = duckdb_shop.read(
        """SELECT 18446744073709551615::ubigint AS u, 170141183460469231731687303715884105727::hugeint AS h,
        1234567890123456789012345.12345::decimal(38, 5) AS n, 0.1::float AS f, true AS yes, date '2024-02-29' AS day,
        timestamp '2024-02-29 23:59:59.999999' AS ts, timestamptz '2024-01-01 00:00:00.000001+02' AS tz,
        '\\x00\\xff'::blob AS b, '{"a": 1.10}'::json AS j, '6f1c0a50-0000-4000-8000-000000000001'::uuid AS id,
        [1, NULL] AS l, NULL AS unknown"""
    )
    assert frame.row(0) == (
        2**64 - 1, "170141183460469231731687303715884105727", "1234567890123456789012345.12345",
        pytest.approx(0.1, rel=1e-7), True, date(2024, 2, 29), datetime(2024, 2, 29, 23, 59, 59, 999999),
        datetime(2023, 12, 31, 22, 0, 0, 1, tzinfo=UTC), b"\x00\xff", '{"a": 1.10}',
        "6f1c0a50-0000-4000-8000-000000000001", "[1, NULL]", None,
    )  # fmt: skip


# From where the last load ended


@pytest.mark.parametrize(
    ("kind_of_column", "values"),
    [
        ("bigint", [1, 2**53 + 1, 2**53 + 2, 2**63 - 1]),
        ("double precision", [0.1, 0.30000000000000004, 1.5, 1e300]),
        ("decimal(38, 5)", ["12345678901234567890.00001", "12345678901234567890.00002", "12345678901234567891.00000"]),
        ("varchar(40)", ["a'; DROP TABLE later; --", "b\\'", "c%s", "ü"]),
        ("date", ["2023-12-31", "2024-01-01", "2024-02-29"]),
        ("timestamp", ["2024-01-01T00:00:00.000001", "2024-01-01T00:00:00.000002", "2024-01-01T00:00:01"]),
    ],
)
def test_rows_from_a_value_on_also_after_json(shop: Shop, kind_of_column: str, values: list[Any]) -> None:
    if shop.kind == "sqlite" and kind_of_column in ("decimal(38, 5)",):
        pytest.skip("SQLite has no decimals")
    column = {"mariadb": {"timestamp": "datetime(6)"}, "sqlite": {"timestamp": "text", "date": "text"}}
    shop.execute(
        "DROP TABLE IF EXISTS later",
        f"CREATE TABLE later (c {column.get(shop.kind, {}).get(kind_of_column, kind_of_column)})",
    )
    for value in values:
        text = value.replace("'", "''") if isinstance(value, str) else repr(value)
        text = text.replace("\\", "\\\\") if shop.kind == "mariadb" else text
        shop.execute(f"INSERT INTO later VALUES ({text if not isinstance(value, str) else chr(39) + text + chr(39)})")
    whole = shop.read("later", "c")["c"].to_list()
    assert len(whole) == len(values)
    for number, value in enumerate(whole):
        plain = value.isoformat() if isinstance(value, date) else value
        stored = json.loads(json.dumps(plain))
        for after in (value, stored):
            assert shop.read("later", "c", after=after)["c"].to_list() == whole[number:]
    assert newest(SqlQuery(shop.url, "later", "c"), shop.root) == whole[-1]


def test_instants_with_a_zone_are_a_cursor(postgres_shop: Shop) -> None:
    postgres_shop.execute(
        "DROP TABLE IF EXISTS zoned", "CREATE TABLE zoned (at timestamptz)",
        "INSERT INTO zoned VALUES ('2024-01-01 00:00:00.000001+00'), ('2024-01-01 00:00:00.000002+00')",
    )  # fmt: skip
    last = newest(SqlQuery(postgres_shop.url, "zoned", "at"), postgres_shop.root)
    assert last == datetime(2024, 1, 1, 0, 0, 0, 2, tzinfo=UTC)
    assert postgres_shop.read("zoned", "at", after=last.isoformat())["at"].to_list() == [last]


def test_rows_without_a_cursor_value_come_with_the_first_load_only(shop: Shop) -> None:
    fill(shop, 2)
    shop.execute("INSERT INTO items VALUES (NULL, 'none', 1)")
    assert len(shop.read("items", "id")) == 3
    assert len(shop.read("items", "id", after=0)) == 2
    assert newest(SqlQuery(shop.url, "items", "id"), shop.root) == 2


# One state of the database, little memory


def test_rows_written_while_reading_are_not_seen(shop: Shop) -> None:
    if shop.kind in ("sqlite", "duckdb"):
        pytest.skip("no one can write to the file while it is read")
    shop.execute("DROP TABLE IF EXISTS many", "CREATE TABLE many (id bigint)")
    numbers = ", ".join(f"({n})" for n in range(1000))
    shop.execute(f"INSERT INTO many VALUES {numbers}", *["INSERT INTO many SELECT id FROM many"] * 5)
    blocks = read_sql(SqlQuery(shop.url, "many"), block_rows=100, root=shop.root)
    first = next(blocks)
    shop.execute(f"INSERT INTO many VALUES {numbers}")
    assert len(first) + sum(map(len, blocks)) == 32_000


def test_reading_can_end_early(shop: Shop) -> None:
    fill(shop, 100)
    rows = "SELECT a.* FROM items a, items b, items c, items d"
    started = time.monotonic()
    blocks = read_sql(SqlQuery(shop.url, rows), block_rows=10, root=shop.root)
    assert len(next(blocks)) == 10
    blocks.close()  # type: ignore[attr-defined]
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("kind", KINDS)
def test_memory_stays_flat(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    shop = shop_of(kind, request, tmp_path)
    fill(shop, 1000)
    program = (
        "import sys, resource; from pathlib import Path; from noria.pipelines.sql.reading import *\n"
        "peaks = []\n"
        "for limit in (20_000, 500_000):\n"
        "    query = f'SELECT a.id, a.name, b.name AS n2, a.price FROM items a, items b LIMIT {limit}'\n"
        "    n = sum(map(len, read_sql(SqlQuery(sys.argv[1], query), block_rows=20_000, root=Path(sys.argv[2]))))\n"
        "    assert n == limit\n"
        "    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)\n"
        "print(peaks[1] - peaks[0])\n"
    )
    done = subprocess.run([sys.executable, "-c", program, shop.url, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 100


# Mistakes


def mistake(shop: Shop, kinds: type[NoriaError], query: str, cursor: str | None = None, url: str | None = None) -> str:
    with pytest.raises(kinds) as caught:
        list(read_sql(SqlQuery(url or shop.url, query, cursor), root=shop.root))
    text = f"{caught.value} {caught.value!r} {caught.value.__cause__!r}"
    assert not any(secret in text for secret in SECRETS), text
    assert shop.kind in text
    return text


def test_a_missing_table_is_answered_with_those_that_exist(shop: Shop) -> None:
    fill(shop)
    assert "did you mean 'items'?" in mistake(shop, NotFoundError, "itemz")
    assert "items" in mistake(shop, NotFoundError, "SELECT * FROM nothing_like_it")


def test_a_wrong_query_is_answered_in_the_databases_words(shop: Shop) -> None:
    fill(shop)
    assert "selec" in mistake(shop, DataError, "selec 1").lower()
    assert "nope" in mistake(shop, DataError, "SELECT nope FROM items")
    with pytest.raises(ConfigError, match="empty"):
        shop.read(" ; ")
    mistake(shop, DataError, "SELECT 1 AS a; SELECT 2 AS b")
    if shop.kind in ("postgresql", "mariadb"):  # the others give the second one another name
        assert "'id'" in mistake(shop, DataError, "SELECT a.id, b.id FROM items a, items b")


def test_a_missing_cursor_is_answered_with_the_columns(shop: Shop) -> None:
    fill(shop)
    text = mistake(shop, ConfigError, "items", cursor="idd")
    assert "did you mean 'id'? allowed: id, name, price" in text
    with pytest.raises(ConfigError, match="name a cursor"):
        newest(SqlQuery(shop.url, "items"), shop.root)
    with pytest.raises(ConfigError, match="no cursor"):
        shop.read("items", after=3)


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO items VALUES (9, 'x', 1)",
        "DELETE FROM items",
        "DROP TABLE items",
        "CREATE TABLE more (id bigint)",
        "WITH gone AS (DELETE FROM items RETURNING id) SELECT * FROM gone",
        "SELECT 1) AS x; DELETE FROM items; SELECT * FROM (SELECT 1",
        "COMMIT; DELETE FROM items",
    ],
)
def test_nothing_is_written(shop: Shop, statement: str) -> None:
    fill(shop)
    mistake(shop, NoriaError, statement)
    assert len(shop.read("items")) == 5


@pytest.mark.parametrize("kind", ["postgresql", "duckdb"])
def test_a_row_that_cannot_be_computed_is_named(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    shop = shop_of(kind, request, tmp_path)
    fill(shop, 1000)
    rows = "SELECT a.id, CAST(CASE WHEN a.id = 1000 AND b.id = 1000 THEN 'x' ELSE '1' END AS integer) AS n FROM items a, items b"
    assert "value that can't be read" in mistake(shop, DataError, rows)


def test_functions_that_write_are_refused(postgres_shop: Shop) -> None:
    postgres_shop.execute("DROP SEQUENCE IF EXISTS counter", "CREATE SEQUENCE counter")
    assert "only read here" in mistake(postgres_shop, ConfigError, "SELECT nextval('counter')")


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_a_wrong_login_or_database_is_named(kind: str, servers: dict[str, Server], tmp_path: Path) -> None:
    shop, server = Shop(kind, servers[kind].url, tmp_path, lambda *_: None), servers[kind]
    assert "let us in" in mistake(shop, ConfigError, "items", url=server.url_of(password="s3cret wrong"))
    assert "let us in" in mistake(shop, ConfigError, "items", url=server.url_of(user="stranger"))
    assert "no such database" in mistake(shop, NotFoundError, "items", url=server.url_of(database="shopp"))


@pytest.mark.parametrize("kind", ["postgresql", "mysql"])
def test_a_server_that_is_down_or_silent_is_named_in_time(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip({"postgresql": "adbc_driver_postgresql", "mysql": "pymysql"}[kind])
    shop = Shop(kind, "", tmp_path, lambda *_: None)
    assert "can't be reached" in mistake(shop, StorageError, "t", url=f"{kind}://me:s3cret@127.0.0.1:{free_port()}/x")
    monkeypatch.setattr(sql_mysql, "CONNECT_SECONDS", 2)
    monkeypatch.setattr("noria.pipelines.sql.postgresql.CONNECT_SECONDS", 2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        url = f"{kind}://me:s3cret@127.0.0.1:{silent.getsockname()[1]}/x"
        assert "can't be reached" in mistake(shop, StorageError, "t", url=url)
        assert time.monotonic() - started < 6


@pytest.mark.parametrize(("kind", "start"), [("postgresql", postgresql), ("mariadb", mariadb)])
def test_a_server_that_dies_half_way_is_a_storage_error(kind: str, start: Any, tmp_path: Path) -> None:
    pytest.importorskip({"postgresql": "adbc_driver_postgresql", "mariadb": "pymysql"}[kind])
    with start() as server:
        in_server = {"postgresql": in_postgresql, "mariadb": in_mariadb}[kind]
        shop = Shop(kind, server.url, tmp_path, lambda *statements: in_server(server.url, *statements))
        fill(shop, 1000)
        rows = "SELECT a.*, b.name AS other FROM items a, items b, items c"
        blocks = read_sql(SqlQuery(server.url, rows), block_rows=1000, root=tmp_path)
        next(blocks)
        server.kill()
        with pytest.raises(StorageError, match="was lost") as caught:
            for _ in blocks:
                pass
        assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("kind", ["sqlite", "duckdb"])
def test_files_that_are_missing_or_no_database_are_named(kind: str, tmp_path: Path) -> None:
    if kind == "duckdb":
        pytest.importorskip("duckdb")
    shop = Shop(kind, "", tmp_path, lambda *_: None)
    assert "no database file" in mistake(shop, NotFoundError, "t", url=f"{kind}:///none.db")
    assert not (tmp_path / "none.db").exists()
    (tmp_path / "text.db").write_text("not a database at all" * 1000)
    mistake(shop, StorageError, "t", url=f"{kind}:///{tmp_path}/text.db")


def test_a_locked_duckdb_file_is_named(duckdb_shop: Shop, tmp_path: Path) -> None:
    program = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", program, str(tmp_path / "shop.duckdb")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        try:
            assert "locked" in mistake(duckdb_shop, StorageError, "items")
        finally:
            other.kill()


@pytest.mark.parametrize(
    ("kind", "statement"),
    [
        ("duckdb", "COPY (SELECT 1) TO '{file}'"),
        ("duckdb", "ATTACH '{file}' AS other"),
        ("sqlite", "ATTACH '{file}' AS other"),
        ("sqlite", "VACUUM INTO '{file}'"),
        ("mariadb", "SELECT 1 INTO OUTFILE '{file}'"),
        ("postgresql", "COPY items TO '{file}'"),
    ],
)
def test_no_other_file_is_written(kind: str, statement: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    shop = shop_of(kind, request, tmp_path)
    fill(shop)
    folder = Path(tempfile.mkdtemp(prefix="noria-out-"))  # pytest's own folders are closed to the servers' users
    folder.chmod(0o777)
    try:
        mistake(shop, NoriaError, statement.format(file=folder / "out"))
        assert not list(folder.iterdir())
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("module", ["adbc_driver_postgresql", "pymysql", "duckdb"])
def test_a_missing_driver_is_answered_with_how_to_install_it(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / "x.db").touch()
    scheme = {"adbc_driver_postgresql": "postgresql", "pymysql": "mysql", "duckdb": "duckdb"}[module]
    url = f"duckdb:///{tmp_path}/x.db" if scheme == "duckdb" else f"{scheme}://a@127.0.0.1/b"
    with pytest.raises(MissingExtraError, match=rf"noria\[{scheme}\]"):
        next(read_sql(SqlQuery(url, "t"), root=tmp_path))


# URLs


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:s3cret@h/d", "postgresql://me:***@h/d"),
        ("postgresql://me:s3@c/r:e?t#@h:5/d", "postgresql://me:***@h:5/d"),
        ("postgresql://:s3cret@h/d", "postgresql://:***@h/d"),
        ("postgresql://h/d?password=s3cret&sslmode=require", "postgresql://h/d?password=***&sslmode=require"),
        ("mysql://me@h/d", "mysql://me@h/d"),
        ("sqlite:///a.db", "sqlite:///a.db"),
    ],
)
def test_passwords_are_masked(url: str, shown: str) -> None:
    assert masked(url) == shown
    assert shown in repr(SqlQuery(url, "t"))
    assert "s3" not in repr(SqlQuery(url, "t"))


def test_only_databases_that_can_be_read_are(tmp_path: Path) -> None:
    assert is_sql("PostgreSQL://h/d")
    assert not is_sql("s3://bucket/key")
    assert not is_sql("sqlite.csv")
    with pytest.raises(ConfigError, match="duckdb://"):
        next(read_sql(SqlQuery("oracle://a:s3cret@h/d", "t"), root=tmp_path))
    with pytest.raises(ConfigError, match="allowed: ssl_ca"):
        next(read_sql(SqlQuery("mysql://a:s3cret@h/d?ssl=1", "t"), root=tmp_path))
    with pytest.raises(ConfigError, match="block_rows"):
        next(read_sql(SqlQuery("mysql://h/d", "t"), block_rows=0, root=tmp_path))
