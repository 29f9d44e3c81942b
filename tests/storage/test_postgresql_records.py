"""Records in a real PostgreSQL: also one that hangs, is killed, or is cut off in the middle of a commit."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from databases import PASSWORD, Server, postgresql
from real_servers import free_port, running
from wire_cutter import WireCutter

from noria.core import ConfigError, ConflictError, StorageError
from noria.storage import ABSENT, Put, Records, open_records
from noria.testing import RecordsConformance

psycopg = pytest.importorskip("psycopg")
from noria.storage import postgresql_records  # noqa: E402
from noria.storage.postgresql_records import PostgresqlRecords  # noqa: E402

_numbers = count()
COMMIT = b"COMMIT\0"
"""As it is sent; BEGIN's READ COMMITTED is something else."""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with postgresql() as server:
        yield server


@pytest.fixture
def url(server: Server) -> str:
    """A new, empty database."""
    name = f"records{next(_numbers)}"
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return server.url_of(database=name)


@pytest.fixture
def records(url: str) -> Iterator[Records]:
    records = open_records(url)
    yield records
    records.close()


class TestPostgresqlRecords(RecordsConformance):
    @pytest.fixture(autouse=True)
    def _opened(self, records: Records) -> None:
        self.records = records

    def store(self) -> Records:
        return self.records


def processes_of(url: str) -> int:
    """End every other connection to the database, as a restart of the server does; returns how many."""
    with psycopg.connect(url, autocommit=True) as connection:
        found = connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        ).fetchall()
    return len(found)


def test_a_lost_connection_is_replaced(url: str, records: Records) -> None:
    records.commit(Put("c", "k", {"n": 1}))
    for work in (
        lambda: records.get("c", "k"),
        lambda: records.list("c"),
        lambda: records.commit(Put("c", "k", {"n": 2})),
    ):
        assert processes_of(url) == 1
        work()
    record = records.get("c", "k")
    assert record is not None
    assert (record.revision, record.data) == (2, {"n": 2})


@pytest.mark.parametrize("heard", [True, False], ids=["the commit was heard", "the commit was not heard"])
def test_a_commit_whose_answer_is_lost_happens_once(server: Server, url: str, heard: bool) -> None:
    with WireCutter(server.port) as cutter:
        through = server.url_of(database=url.rpartition("/")[2], port=cutter.port)
        records = open_records(f"{through}?sslmode=disable")
        records.commit(Put("c", "k", {}))
        cutter.cut(COMMIT, deliver=heard)
        records.commit(Put("c", "k", {"once": True}), Put("c", "new", {}, ABSENT))
        assert cutter.cuts == 1
        record = records.get("c", "k")
        assert record is not None
        assert (record.revision, record.data) == (2, {"once": True})
        cutter.cut(COMMIT, deliver=heard)
        records.commit(Put("c", "k", {"twice": True}, expect=2))
        assert cutter.cuts == 2
        assert [(one.key, one.revision) for one in records.list("c")] == [("k", 3), ("new", 1)]
        records.close()


def test_a_commit_of_which_nobody_knows_says_so(server: Server, url: str) -> None:
    with WireCutter(server.port) as cutter:
        records = open_records(f"{server.url_of(database=url.rpartition('/')[2], port=cutter.port)}?sslmode=disable")
        cutter.cut(COMMIT, deliver=True, for_ever=True)
        with pytest.raises(StorageError, match="nobody knows if the last change was made"):
            records.commit(Put("c", "k", {}))
        with pytest.raises(StorageError) as caught:
            records.get("c", "k")
        assert "nobody knows" not in str(caught.value)
        records.close()


def test_a_server_that_is_away_is_named_without_the_password(server: Server) -> None:
    with pytest.raises(StorageError, match="can't be used") as caught:
        open_records(server.url_of(port=free_port()))
    assert "s3cret" not in str(caught.value)
    assert quote("s3cret:@/%pass", safe="") not in str(caught.value)
    assert "is the database server running?" in caught.value.hint


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"password": "wrong"}, "check the user and the password"),
        ({"user": "nobody"}, "check the user and the password"),
        ({"database": "nowhere"}, "createdb"),
    ],
)
def test_what_is_wrong_with_the_address_is_told(server: Server, parts: dict[str, Any], said: str) -> None:
    with pytest.raises(StorageError) as caught:
        open_records(server.url_of(**parts))
    assert said in caught.value.hint


@pytest.mark.parametrize(
    "password", ["s3cret%zz", "s3cret@rest", "a/s3cret", "12/s3cret", "s3cret?x=1", "a#s3cret", "[s3cret"]
)
def test_a_url_that_is_none_is_refused_without_its_password(password: str) -> None:
    with pytest.raises((ConfigError, StorageError)) as caught:
        open_records(f"postgresql://me:{password}@127.0.0.1:1/db")
    for part in ("s3cret", "rest"):
        assert part not in str(caught.value)


def test_a_server_that_hangs_holds_nobody_up_for_long(
    server: Server, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql_records, "ANSWER_SECONDS", 2.0)
    records.commit(Put("c", "k", {}))
    (backend,) = _children(server.process.pid, "noria")
    os.kill(backend, signal.SIGSTOP)
    try:
        records.get("c", "k")  # over another connection
    finally:
        os.kill(backend, signal.SIGCONT)
    silent = _listening()
    with pytest.raises(StorageError):
        PostgresqlRecords(f"postgresql://me@127.0.0.1:{silent.getsockname()[1]}/x?connect_timeout=2")
    silent.close()


def _listening() -> Any:
    import socket

    silent = socket.socket()
    silent.bind(("127.0.0.1", 0))
    silent.listen()
    return silent


def _children(parent: int, word: str) -> list[int]:
    """The server's processes that work for clients of that name."""
    found = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(parent)], capture_output=True, text=True, check=True
    )
    return [int(line.split()[0]) for line in found.stdout.splitlines() if f"postgres: {word} " in line]


def test_a_store_works_on_both_sides_of_a_fork(records: Records) -> None:
    records.commit(Put("c", "k", {"n": 0}))
    child = os.fork()
    if child == 0:
        try:
            for number in range(20):
                records.commit(Put("c", f"child{number:02d}", {}))
                assert records.get("c", f"child{number:02d}") is not None
            os._exit(0)
        except BaseException:
            os._exit(1)
    for number in range(20):
        records.commit(Put("c", f"parent{number:02d}", {}))
        assert records.get("c", f"parent{number:02d}") is not None
    assert os.waitpid(child, 0)[1] == 0
    assert records.get("c", "k") is not None
    assert len(records.list("c")) == 41


def test_a_child_that_ends_leaves_its_parents_connection_alone(url: str) -> None:
    code = (
        "import os, sys; from noria.storage import Put, open_records\n"
        "records = open_records(sys.argv[1]); records.commit(Put('c', 'k', {}))\n"
        "before = records._lines._free[-1].connection\n"
        "child = os.fork()\n"
        "if not child: records.get('c', 'k'); sys.exit(0)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
        "assert records.get('c', 'k') and records._lines._free[-1].connection is before\n"
        "records.close()\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code, url], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_threads_share_a_bounded_number_of_connections(url: str, records: Records) -> None:
    def work(number: int) -> None:
        for turn in range(10):
            records.commit(Put("c", f"{number}-{turn}", {}))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(records.list("c")) == 160
    assert 1 <= processes_of(url) <= 4


def test_commits_that_touch_the_same_documents_in_any_order_do_not_block_each_other(records: Records) -> None:
    def work(keys: list[str]) -> None:
        for _ in range(50):
            records.commit(*(Put("c", key, {}) for key in keys))

    threads = [threading.Thread(target=work, args=(keys,)) for keys in (["a", "b", "c"], ["c", "b", "a"]) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [record.revision for record in records.list("c")] == [200] * 3


def test_one_document_twice_in_a_commit_is_written_in_that_order(records: Records) -> None:
    records.commit(Put("c", "k", {"n": 1}, ABSENT), Put("c", "k", {"n": 2}, 1))
    record = records.get("c", "k")
    assert record is not None
    assert (record.revision, record.data) == (2, {"n": 2})


def test_a_closed_store_says_so(url: str) -> None:
    records = open_records(url)
    records.close()
    with pytest.raises(StorageError, match="is closed"):
        records.get("c", "k")


def test_a_key_that_postgresql_cannot_keep_is_told(records: Records) -> None:
    with pytest.raises(StorageError, match="NUL") as caught:
        records.commit(Put("c", "a\0b", {}))
    assert "this character" in caught.value.hint
    records.commit(Put("c", "k", {"text": "a\0b"}))
    record = records.get("c", "k")
    assert record is not None
    assert record.data == {"text": "a\0b"}


def test_a_killed_writer_leaves_all_or_nothing(url: str, records: Records) -> None:
    code = (
        "import sys, itertools; from noria.storage import Put, open_records\n"
        "records = open_records(sys.argv[1]); print('ready', flush=True)\n"
        "for n in itertools.count(): records.commit(*(Put('c', str(i), {'n': n}) for i in range(5)))\n"
    )
    for seconds in (0.01, 0.05, 0.1):
        with subprocess.Popen([sys.executable, "-c", code, url], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(seconds)
            process.kill()
        deadline = time.monotonic() + 60
        while len({record.data["n"] for record in records.list("c")}) > 1:
            assert time.monotonic() < deadline
        records.commit(*(Put("c", str(i), {"n": -1}) for i in range(5)))  # nothing is locked any more


def test_a_store_that_is_not_there_is_not_made_for_a_server(url: str) -> None:
    with pytest.raises(StorageError, match="there are no records in postgresql"):
        open_records(url, make=False)
    open_records(url).close()
    open_records(url, make=False).close()


def test_a_loser_is_told_the_revision(records: Records) -> None:
    records.commit(Put("c", "k", {}))
    with pytest.raises(ConflictError, match=r"revision 1, expected 7"):
        records.commit(Put("c", "other", {}), Put("c", "k", {}, 7))
    with pytest.raises(ConflictError, match=r"revision 0, expected 1"):
        records.commit(Put("c", "none", {}, 1))
    assert [record.key for record in records.list("c")] == ["k"]


def test_the_server_dies_and_comes_back(tmp_path: Path) -> None:
    with postgresql() as server:
        records = open_records(server.url)
        records.commit(Put("c", "k", {"n": 1}))
        server.kill()

        def read_on() -> None:  # a connection's own process outlives the server by a moment
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline:
                records.get("c", "k")
                time.sleep(0.05)

        with pytest.raises(StorageError, match="can't be used"):
            read_on()
        with pytest.raises(StorageError, match="can't be used"):
            records.commit(Put("c", "k", {"n": 2}))
        records.close()


@contextmanager
def pooler(server: Server, folder: Path) -> Iterator[int]:
    """PgBouncer, which gives every transaction any of two connections; yields its port."""
    program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        pytest.skip("no PgBouncer: apt-get install -y pgbouncer")
    port = free_port()
    (folder / "users.txt").write_text(f'"noria" "{PASSWORD}"\n')
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\nshop = host=127.0.0.1 port={server.port} dbname=shop\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
        f"listen_port = {port}\nauth_type = scram-sha-256\nauth_file = {folder}/users.txt\npool_mode = transaction\n"
        "default_pool_size = 2\nunix_socket_dir =\n"
    )
    words = [program, "-q", str(folder / "pgbouncer.ini")]
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres")
        words = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *words]
    with running(words, port):
        yield port


def test_behind_a_pooler_that_mixes_connections(server: Server) -> None:
    with tempfile.TemporaryDirectory() as name, pooler(server, Path(name)) as port:
        stores = [open_records(server.url_of(port=port)) for _ in range(3)]

        def work(number: int) -> None:
            for turn in range(10):
                stores[number % 3].commit(Put("pooled", f"{number}-{turn}", {}, ABSENT))
                assert stores[turn % 3].get("pooled", f"{number}-{turn}") is not None

        threads = [threading.Thread(target=work, args=(number,)) for number in range(9)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(stores[0].list("pooled")) == 90
        for store in stores:
            store.close()
