"""Every backend passes the suite of its contract."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import polars as pl
import pytest
from deltalake import write_deltalake

from noria.core import ConfigError, IntegrityError, StorageError
from noria.storage import FileBlobs, Put, open_blobs, open_online, open_records, open_table
from noria.storage.delta_tables import DeltaLakeTable
from noria.storage.lmdb_online import LmdbOnline
from noria.storage.sqlite_records import SqliteRecords
from noria.testing import BlobStoreConformance, OnlineStoreConformance, RecordsConformance, TableConformance


def together(code: str, count: int = 2) -> list[str]:
    """What some processes print that do the same at once, each with its number in `who`."""
    command = [sys.executable, "-c", "import sys; who = int(sys.argv[1])\n" + code]
    processes = [subprocess.Popen([*command, str(who)], stdout=subprocess.PIPE, text=True) for who in range(count)]
    printed = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * count
    return printed


def killed(code: str, seconds: float) -> None:
    """Run code that prints a line when it begins its endless work, and kill it some time after."""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(seconds)
        process.kill()
    assert process.returncode == -9


class TestLmdbOnline(OnlineStoreConformance):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path):
        self.opened: list[LmdbOnline] = []
        self.path = tmp_path
        yield
        for store in self.opened:
            store.close()

    def store(self) -> LmdbOnline:
        self.opened.append(LmdbOnline(self.path / f"online{len(self.opened)}"))
        return self.opened[-1]

    def test_one_folder_opened_twice_is_one_store(self) -> None:
        one, two = LmdbOnline(self.path / "same"), LmdbOnline(self.path / "same")
        one.write("g", [b"a"], [1], [b"x"])
        one.close()
        assert two.read("g", [b"a"]) == [(1, b"x")]
        two.close()
        two.close()

    def test_a_write_that_is_killed_leaves_all_or_nothing(self) -> None:
        folder = self.path / "killed"
        code = (
            "from noria.storage.lmdb_online import LmdbOnline\n"
            f"store = LmdbOnline({str(folder)!r})\n"
            "keys = [b'%d' % i for i in range(500)]\nprint('ready', flush=True)\n"
            "for n in range(1, 10**6): store.write('g', keys, [n] * 500, [b'%d' % n] * 500)\n"
        )
        for attempt in range(4):
            killed(code, 0.05 + attempt * 0.04)
            store = LmdbOnline(folder)
            values = set(store.read("g", [b"%d" % i for i in range(500)]))
            assert len(values) == 1
            store.close()

    def test_two_processes_write_and_the_newer_event_time_wins(self) -> None:
        together(
            "from noria.storage.lmdb_online import LmdbOnline\n"
            f"store = LmdbOnline({str(self.path / 'shared')!r})\n"
            "for i in range(50):\n"
            "    store.write('g', [b'shared', b'%d-%d' % (who, i)], [i * 2 + who, 1], [b'%d' % who, b'x'])\n"
        )
        store = LmdbOnline(self.path / "shared")
        assert store.read("g", [b"shared"]) == [(99, b"1")]
        assert store.count("g") == 101
        store.close()


class TestSqliteRecords(RecordsConformance):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path):
        self.opened: list[SqliteRecords] = []
        self.path = tmp_path
        yield
        for store in self.opened:
            store.close()

    def store(self) -> SqliteRecords:
        self.opened.append(SqliteRecords(self.path / f"records{len(self.opened)}.db"))
        return self.opened[-1]

    def test_what_was_moved_away_is_not_made_anew_for_a_server(self) -> None:
        store = self.store()
        store.commit(Put("c", "k", {"n": 2}))
        store.close()
        file, away = store._path, self.path / "a%20way?"
        file.rename(away)
        with pytest.raises(StorageError, match="there is no records store"):
            SqliteRecords(file, make=False)
        assert not file.exists()
        again = SqliteRecords(away, make=False)
        assert [record.data for record in again.list("c")] == [{"n": 2}]
        again.close()

    def test_what_is_committed_survives_a_kill(self) -> None:
        code = (
            "import os, signal; from noria.storage.sqlite_records import SqliteRecords; from noria.storage import Put\n"
            f"store = SqliteRecords({str(self.path / 'killed.db')!r})\n"
            "store.commit(Put('c', 'k', {'n': 1}))\n"
            "store._connection.execute('BEGIN'); store._put(Put('c', 'k', {'n': 2}))\n"
            "os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
        store = SqliteRecords(self.path / "killed.db")
        record = store.get("c", "k")
        assert record is not None
        assert record.data == {"n": 1}
        store.close()
        with pytest.raises(StorageError, match="is closed"):
            store.get("c", "k")

    def test_processes_make_one_file_and_count_together(self) -> None:
        together(
            "from noria.core import ConflictError; from noria.storage import Put\n"
            "from noria.storage.sqlite_records import SqliteRecords\n"
            f"store = SqliteRecords({str(self.path / 'shared.db')!r})\n"
            "done = 0\n"
            "while done < 20:\n"
            "    record = store.get('c', 'n')\n"
            "    try:\n"
            "        n = record.data['n'] + 1 if record else 1\n"
            "        store.commit(Put('c', 'n', {'n': n}, record.revision if record else 0))\n"
            "        done += 1\n"
            "    except ConflictError: pass\n",
            count=4,
        )
        store = SqliteRecords(self.path / "shared.db")
        record = store.get("c", "n")
        assert record is not None
        assert (record.data, record.revision) == ({"n": 80}, 80)
        store.close()

    def test_a_file_that_another_process_is_making_is_waited_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def hold(name: str) -> sqlite3.Connection:
            holder = sqlite3.connect(self.path / name, isolation_level=None, check_same_thread=False)
            holder.execute("CREATE TABLE t (x)")
            holder.execute("BEGIN IMMEDIATE")
            return holder

        holder = hold("held.db")
        release = threading.Timer(0.2, lambda: holder.execute("COMMIT"))
        release.start()
        SqliteRecords(self.path / "held.db").close()
        release.join()
        holder.close()
        monkeypatch.setattr("noria.storage.sqlite_records._BUSY_SECONDS", 0.05)
        holder = hold("kept.db")
        with pytest.raises(StorageError, match="locked") as caught:
            SqliteRecords(self.path / "kept.db")
        assert "another process has been writing" in caught.value.hint
        holder.close()


class TestDeltaLakeTable(TableConformance):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.path = tmp_path

    def table(self, name: str) -> DeltaLakeTable:
        return DeltaLakeTable(name, self.path / name)

    @pytest.mark.parametrize("foreign", [False, True])
    def test_old_versions_outlive_the_checkpoints_after_which_delta_forgets_them(self, foreign: bool) -> None:
        table, folder = self.table("t"), self.path / "t"
        if foreign:  # a table without our configuration
            write_deltalake(folder, pl.DataFrame({"n": [0]}))
        for n in range(1 if foreign else 0, 101):
            table.write(pl.DataFrame({"n": [n]}), run_id=str(n))
        assert list(folder.glob("_delta_log/*.checkpoint.parquet"))
        for file in folder.glob("_delta_log/*"):
            os.utime(file, (0, 0))
        for n in range(101, 202):
            table.write(pl.DataFrame({"n": [n]}), run_id=str(n))
        assert len(list(folder.glob("_delta_log/*.checkpoint.parquet"))) > 1
        assert sorted(table.read(3)["n"]) == [0, 1, 2, 3]

    def test_a_pinned_version_stays_it_while_other_threads_read_the_newest(self) -> None:
        table = self.table("t")
        table.write(pl.DataFrame({"n": [0]}), run_id="0")
        done = threading.Event()

        def write() -> None:
            for n in range(1, 60):
                table.write(pl.DataFrame({"n": [n]}), run_id=str(n))
            done.set()

        thread = threading.Thread(target=write)
        thread.start()
        while not done.is_set():
            version = table.version()
            assert version is not None
            assert table.scan(version).select(pl.len()).collect().item() == version + 1
        thread.join()

    def test_two_processes_append_and_nothing_is_lost(self) -> None:
        code = (
            "import sys, polars as pl; from noria.storage.delta_tables import DeltaLakeTable\n"
            f"table = DeltaLakeTable('t', {str(self.path / 't')!r})\n"
            "for i in range(10): table.write(pl.DataFrame({'n': [i]}), run_id=f'{sys.argv[1]}-{i}')\n"
        )
        processes = [subprocess.Popen([sys.executable, "-c", code, str(n)]) for n in range(2)]
        assert [process.wait() for process in processes] == [0, 0]
        assert sorted(self.table("t").read()["n"].to_list()) == sorted([*range(10), *range(10)])

    @pytest.mark.parametrize("mode", ["append", "overwrite"])
    def test_one_run_in_several_processes_at_once_writes_once(self, mode: str) -> None:
        printed = together(
            "import polars as pl; from noria.storage.delta_tables import DeltaLakeTable\n"
            f"table = DeltaLakeTable('t', {str(self.path / 't')!r})\n"
            f"print(table.write(pl.DataFrame({{'n': [1]}}), run_id='same', mode={mode!r}))\n",
            count=3,
        )
        assert printed == ["0\n"] * 3
        assert self.table("t").read()["n"].to_list() == [1]

    def test_a_write_that_is_killed_leaves_the_old_or_the_new(self) -> None:
        code = (
            "import itertools, polars as pl; from noria.storage.delta_tables import DeltaLakeTable\n"
            f"table = DeltaLakeTable('t', {str(self.path / 't')!r})\n"
            "for n in itertools.count(table.version() or 0):\n"
            "    table.write(pl.DataFrame({'n': [n] * 50_000}), run_id=str(n), mode='overwrite')\n"
            "    if not n or table.version() == n: print('ready', flush=True)\n"
        )
        for seconds in (0.0, 0.013, 0.029):
            killed(code, seconds)
            rows = self.table("t").read()
            assert (len(rows), rows["n"].n_unique()) == (50_000, 1)


class TestFileBlobs(BlobStoreConformance):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.path = tmp_path

    def store(self) -> FileBlobs:
        return FileBlobs(self.path / "blobs")

    def test_a_changed_byte_is_noticed_and_mended_by_writing_again(self) -> None:
        store = self.store()
        blob = store.write(b"weights")
        file = store.path(blob.digest)
        file.chmod(0o600)
        file.write_bytes(b"Weights")
        with pytest.raises(IntegrityError, match="corrupt"):
            store.read(blob.digest)
        store.write(b"weights")
        assert store.read(blob.digest) == b"weights"
        assert not list((self.path / "blobs").rglob(".writing-*"))

    def test_a_write_that_is_killed_leaves_the_whole_or_nothing(self) -> None:
        code = (
            f"from noria.storage import FileBlobs; store = FileBlobs({str(self.path / 'blobs')!r})\n"
            "print('ready', flush=True)\n"
            "for n in range(10**6): store.write(b'%d' % n * 200_000)\n"
        )
        for seconds in (0.02, 0.05, 0.09):
            killed(code, seconds)
            folders = (folder for folder in (self.path / "blobs").glob("*") if folder.is_dir())
            for file in (file for folder in folders for file in folder.iterdir() if file.name[0] != "."):
                self.store().read(file.parent.name + file.name)

    def test_two_processes_write_one_blob(self) -> None:
        printed = together(
            f"from noria.storage import FileBlobs; store = FileBlobs({str(self.path / 'blobs')!r})\n"
            "for n in range(30): print(store.write(b'%d' % n * 1000).digest)\n"
        )
        assert printed[0] == printed[1]
        for digest in printed[0].split():
            self.store().read(digest)


@pytest.mark.parametrize(
    ("part", "opened"),
    [
        ("tables", lambda url, root: open_table(url, "t", root)),
        ("online", open_online),
        ("records", open_records),
        ("blobs", open_blobs),
    ],
)
def test_a_url_without_a_backend_lists_those_that_have_one(part, opened, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"storage.{part} = 'gopher://x': there is no backend") as caught:
        opened("gopher://x", tmp_path)
    assert "allowed:" in caught.value.hint
    with pytest.raises(ConfigError, match="names no path"):
        opened({"online": "lmdb", "records": "sqlite"}.get(part, "file") + "://", tmp_path)


def test_relative_paths_start_at_the_project_and_absolute_ones_do_not(tmp_path: Path) -> None:
    open_records("sqlite:///state/r.db", tmp_path).close()
    open_records(f"sqlite:////{tmp_path}/abs.db", "/nowhere").close()
    open_records("plain.db", tmp_path).close()
    assert {"state", "abs.db", "plain.db"} <= {path.name for path in tmp_path.iterdir()}


def test_a_file_where_a_folder_should_be_is_a_storage_error(tmp_path: Path) -> None:
    import polars as pl

    (tmp_path / "file").write_text("not a folder")
    for open_it in (
        lambda: open_online("lmdb://file", tmp_path),
        lambda: open_records("sqlite:///file/r.db", tmp_path),
        lambda: open_records("sqlite:///file", tmp_path),
        lambda: open_blobs("file://file", tmp_path).write(b"x"),
        lambda: open_table("file://file", "t", tmp_path).write(pl.DataFrame({"a": [1]}), run_id="r"),
    ):
        with pytest.raises(StorageError) as caught:
            open_it()
        assert caught.value.hint
