"""Older stores are brought up to date when they are opened, once; newer ones are refused."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from databases import postgresql

from noria.core import StorageError
from noria.registry import ModelRegistry
from noria.storage import Put, open_records, sqlite_records

HERE = Path(__file__).parent


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A file as it was made before schemas had a number."""
    file = tmp_path / "old.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript((HERE / "records_0.sqlite.sql").read_text("utf-8"))
    return file


def version(file: Path) -> int:
    with closing(sqlite3.connect(file)) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


def check_registry(records: Any, tmp_path: Path) -> None:
    registry = ModelRegistry(records, tmp_path / "blobs")
    assert registry.models() == {"late": {"champion": 2}}
    assert [one.version for one in registry.versions("late")] == [2, 1]
    assert registry.get("late@1").metrics == {"f1": [0.5, 0.4, 0.6]}
    assert {entry.why for entry in registry.audit()} == {"größer", "run b", "run a"}
    assert registry.register("late", {"m": b""}, servable="x", run_id="c").version == 3


@pytest.mark.parametrize("make", [True, False])
def test_a_file_without_a_number_gets_one_and_keeps_everything(old: Path, tmp_path: Path, make: bool) -> None:
    assert version(old) == 0
    with closing(open_records(f"sqlite:///{old}", make=make)) as records:
        check_registry(records, tmp_path)
    assert version(old) == len(sqlite_records.STEPS)


def test_a_newer_file_is_refused_and_left_alone(old: Path) -> None:
    with closing(sqlite3.connect(old)) as connection:
        connection.execute("PRAGMA user_version = 99")
    before = old.read_bytes()
    with pytest.raises(StorageError, match="by a newer noria: its schema is version 99") as caught:
        open_records(f"sqlite:///{old}")
    assert "upgrade noria" in caught.value.hint
    assert version(old) == 99
    assert old.read_bytes()[100:] == before[100:]  # what stands before is SQLite's own


STEP = "ALTER TABLE records ADD COLUMN note TEXT"
"""Fails when it is done twice."""


def test_of_several_that_open_an_older_file_one_migrates(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_records(f"sqlite:///{old}").close()
    monkeypatch.setattr(sqlite_records, "STEPS", (*sqlite_records.STEPS, STEP))
    at_once(lambda: open_records(f"sqlite:///{old}").close())
    assert version(old) == 2


def test_a_step_that_fails_changes_nothing(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_records, "STEPS", (*sqlite_records.STEPS, STEP, "ALTER TABLE gone ADD COLUMN x"))
    with pytest.raises(StorageError, match="no such table: gone"):
        open_records(f"sqlite:///{old}")
    with closing(sqlite3.connect(old)) as connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(records)")]
    assert (version(old), columns) == (0, ["collection", "key", "revision", "data"])


def at_once(work: Callable[[], object], count: int = 6) -> None:
    failed: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=guarded) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    pytest.importorskip("psycopg")
    with postgresql() as server:
        yield server.url


@pytest.fixture
def emptied(url: str) -> str:
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    return url


def run_sql(url: str, text: Any) -> None:
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(text)


def test_a_database_of_version_1_is_read(emptied: str, tmp_path: Path) -> None:
    run_sql(emptied, (HERE / "records_1.postgresql.sql").read_text("utf-8"))
    with closing(open_records(emptied)) as records:
        check_registry(records, tmp_path)


def test_of_several_that_make_or_migrate_a_database_one_does(emptied: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from noria.storage import postgresql_records

    at_once(lambda: open_records(emptied).close())
    with closing(open_records(emptied)) as records:
        records.commit(Put("c", "k", {"n": 1}))
    step = "ALTER TABLE noria_records ADD COLUMN note text"
    monkeypatch.setattr(postgresql_records, "STEPS", (*postgresql_records.STEPS, step))
    at_once(lambda: open_records(emptied).close())
    with closing(open_records(emptied, make=False)) as records:
        assert [record.data for record in records.list("c")] == [{"n": 1}]
    monkeypatch.undo()
    with pytest.raises(StorageError, match="its schema is version 2, this one knows 1"):
        open_records(emptied)


def test_a_step_that_fails_changes_nothing_in_a_database(emptied: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from noria.storage import postgresql_records

    open_records(emptied).close()
    steps = ("ALTER TABLE noria_records ADD COLUMN note text", "ALTER TABLE nothing ADD COLUMN x text")
    monkeypatch.setattr(postgresql_records, "STEPS", (*postgresql_records.STEPS, *steps))
    with pytest.raises(StorageError, match='"nothing" does not exist'):
        open_records(emptied)
    monkeypatch.undo()
    open_records(emptied).close()


def test_a_database_that_cannot_keep_every_text_is_refused(url: str) -> None:
    run_sql(url, "CREATE DATABASE narrow ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    with pytest.raises(StorageError, match="its encoding is LATIN1") as caught:
        open_records(url.rpartition("/")[0] + "/narrow")
    assert "UTF8" in caught.value.hint
