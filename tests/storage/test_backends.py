"""Every backend passes the suite of its contract."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from noria.core import ConfigError, IntegrityError, StorageError
from noria.storage import FileBlobs, open_blobs, open_online, open_records, open_table
from noria.storage.delta_tables import DeltaLakeTable
from noria.storage.lmdb_online import LmdbOnline
from noria.storage.sqlite_records import SqliteRecords
from noria.testing import BlobStoreConformance, OnlineStoreConformance, RecordsConformance, TableConformance


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
            with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
                assert process.stdout is not None
                process.stdout.readline()
                time.sleep(0.05 + attempt * 0.04)
                process.kill()
            store = LmdbOnline(folder)
            values = set(store.read("g", [b"%d" % i for i in range(500)]))
            assert len(values) == 1
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


class TestDeltaLakeTable(TableConformance):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.path = tmp_path

    def table(self, name: str) -> DeltaLakeTable:
        return DeltaLakeTable(name, self.path / name)

    def test_two_processes_append_and_nothing_is_lost(self) -> None:
        code = (
            "import sys, polars as pl; from noria.storage.delta_tables import DeltaLakeTable\n"
            f"table = DeltaLakeTable('t', {str(self.path / 't')!r})\n"
            "for i in range(10): table.write(pl.DataFrame({'n': [i]}), run_id=f'{sys.argv[1]}-{i}')\n"
        )
        processes = [subprocess.Popen([sys.executable, "-c", code, str(n)]) for n in range(2)]
        assert [process.wait() for process in processes] == [0, 0]
        assert sorted(self.table("t").read()["n"].to_list()) == sorted([*range(10), *range(10)])


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
