"""Many that register and promote at once, in threads and in processes: nothing is lost, and losers are told."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path

import pytest
from databases import Server, postgresql

from noria.registry import ModelRegistry
from noria.storage import open_records

_numbers = count()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    pytest.importorskip("psycopg")
    with postgresql() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/r.db"
    import psycopg

    server: Server = request.getfixturevalue("server")
    name = f"registry{next(_numbers)}"
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")  # type: ignore[arg-type]
    return server.url_of(database=name)


@pytest.fixture
def registry(url: str, tmp_path: Path) -> Iterator[ModelRegistry]:
    with closing(open_records(url)) as records:
        yield ModelRegistry(records, tmp_path / "blobs")


REGISTER = """
import sys, threading
from noria.registry import ModelRegistry
url, blobs, who, threads = *sys.argv[1:4], int(sys.argv[4])
registry = ModelRegistry(url, blobs)
print("ready", flush=True)
sys.stdin.readline()
def work(number):
    run = f"{who}-{number}"
    made = registry.register("late", {"own": run.encode(), "same": b"same"}, servable="x", run_id=run)
    assert registry.register("late", {"own": run.encode(), "same": b"same"}, servable="x", run_id=run) == made
workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
for worker in workers: worker.start()
for worker in workers: worker.join()
registry._records.close()
"""

PROMOTE = """
import sys
from noria.core import ConflictError
from noria.registry import ModelRegistry
registry, version = ModelRegistry(sys.argv[1], sys.argv[2]), int(sys.argv[3])
commit = registry._records.commit
def slowly(*changes):  # both have read before either writes
    print("ready", flush=True)
    sys.stdin.readline()
    commit(*changes)
registry._records.commit = slowly
try:
    registry.promote("late", version, why=f"by {version}")
    print("won")
except ConflictError as error:
    print(error.message)
registry._records.close()
"""


def at_once(code: str, words: list[list[str]]) -> list[str]:
    """What processes say that begin their work at the same time."""
    processes = [
        subprocess.Popen([sys.executable, "-c", code, *each], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for each in words
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    said = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(words)
    return said


def test_fifty_registrations_from_processes_and_threads(registry: ModelRegistry, url: str, tmp_path: Path) -> None:
    at_once(REGISTER, [[url, str(tmp_path / "blobs"), str(who), "10"] for who in range(5)])
    versions = registry.versions("late")
    assert [version.version for version in versions] == list(range(50, 0, -1))
    assert {version.run_id for version in versions} == {f"{who}-{n}" for who in range(5) for n in range(10)}
    for version in versions:
        assert registry.files(version)["own"].read_bytes() == version.run_id.encode()
    assert len(registry.audit("late")) == 50


def test_one_run_that_registers_many_times_at_once_registers_once(registry: ModelRegistry) -> None:
    made: list[int] = []

    def work() -> None:
        made.append(registry.register("late", {"m": b"x"}, servable="x", run_id="same").version)

    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [1] * 12
    assert [version.version for version in registry.versions("late")] == [1]


def test_of_two_processes_that_promote_at_once_one_wins(registry: ModelRegistry, url: str, tmp_path: Path) -> None:
    for run in "abc":
        registry.register("late", {"m": b"x"}, servable="x", run_id=run)
    registry.promote("late", 1)
    said = at_once(PROMOTE, [[url, str(tmp_path / "blobs"), version] for version in ("2", "3")])
    assert sorted(said)[1] == "won\n"
    assert "was pointed at version" in sorted(said)[0]
    winner = 2 if said[0] == "won\n" else 3
    assert registry.get("late").version == winner
    assert [entry.why for entry in registry.audit("late")][:1] == [f"by {winner}"]
    assert registry.rollback("late").version == 1
