from __future__ import annotations

import signal
import threading
import time
from pathlib import Path

import pytest
from real_servers import free_port, redis_program, running

from noria.core import StorageError
from noria.storage import OnlineValue, open_online
from noria.storage.impatient import ImpatientOnline
from noria.storage.online import UnreachableError
from noria.testing import OnlineStoreConformance


class Answering:
    """A store that is there or isn't, and counts who asks it."""

    def __init__(self) -> None:
        self.error: StorageError | None = None
        self.asked: list[str] = []
        self.probed = threading.Event()
        self.write = self.count = self.expire = self.drop = self.update = self.marks = None

    def read(self, group: str, keys: list[bytes]) -> list[OnlineValue | None]:
        self.asked.append(group)
        if not group:
            self.probed.set()
        if self.error is not None:
            raise self.error
        return [OnlineValue(1, b"A")] * len(keys)

    def close(self) -> None:
        self.error = UnreachableError("closed")


class TestImpatientOnline(OnlineStoreConformance):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def store(self) -> ImpatientOnline:
        return ImpatientOnline(open_online(f"lmdb://{self.folder}/online"))


def test_one_read_finds_out_and_the_others_fail_at_once_until_it_answers() -> None:
    inner = Answering()
    store = ImpatientOnline(inner, pause=0.01)  # type: ignore[arg-type]
    assert store.read("g", [b"a"]) == [(1, b"A")]
    inner.error = UnreachableError("no answer")
    for _ in range(100):
        with pytest.raises(UnreachableError, match="no answer"):
            store.read("g", [b"a"])
    assert inner.asked.count("g") == 2
    assert inner.probed.wait(10)
    inner.error = None
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            assert store.read("g", [b"a"]) == [(1, b"A")]
            break
        except UnreachableError:
            time.sleep(0.01)
    assert inner.asked.count("g") == 3
    store.close()


def test_an_error_of_a_server_that_is_there_concerns_one_read() -> None:
    inner = Answering()
    store = ImpatientOnline(inner, pause=0.01)  # type: ignore[arg-type]
    inner.error = StorageError("wrong type")
    for _ in range(3):
        with pytest.raises(StorageError, match="wrong type"):
            store.read("g", [b"a"])
    assert inner.asked == ["g"] * 3


def test_a_server_that_hangs_costs_one_timeout(tmp_path: Path) -> None:
    pytest.importorskip("redis")
    port = free_port()
    with running([redis_program(), "--port", str(port), "--dir", str(tmp_path), "--save", ""], port) as server:
        store = open_online(f"redis://127.0.0.1:{port}/0", impatient=True)
        store.write("g", [b"a"], [1], [b"A"])
        assert store.read("g", [b"a"]) == [(1, b"A")]
        server.send_signal(signal.SIGSTOP)
        try:
            began = time.monotonic()
            for _ in range(50):
                with pytest.raises(UnreachableError):
                    store.read("g", [b"a"])
            assert time.monotonic() - began < 5  # 50 timeouts would be 15 s
        finally:
            server.send_signal(signal.SIGCONT)
        deadline = time.monotonic() + 20
        while True:
            try:
                assert store.read("g", [b"a"]) == [(1, b"A")]
                break
            except UnreachableError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        store.close()
