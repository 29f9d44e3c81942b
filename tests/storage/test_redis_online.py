from __future__ import annotations

import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from real_servers import free_port, redis_server

from noria.core import ConfigError, StorageError
from noria.storage import OnlineStore, open_online
from noria.storage.online import Mark
from noria.storage.redis_online import RedisOnline
from noria.testing import OnlineStoreConformance

pytest.importorskip("redis")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with redis_server(tmp_path_factory.mktemp("redis")) as url:
        yield url


class TestRedisOnline(OnlineStoreConformance):
    @pytest.fixture(autouse=True)
    def _empty(self, server: str) -> Iterator[None]:
        import redis

        client = redis.Redis.from_url(server)
        client.flushall()
        client.close()
        self.url = server
        self.opened: list[OnlineStore] = []
        yield
        for store in self.opened:
            store.close()

    def store(self) -> OnlineStore:
        self.opened.append(open_online(self.url))
        return self.opened[-1]

    def test_names_with_signs_of_patterns_are_names(self) -> None:
        store = self.store()
        for group in ("a*", "a?", "a[b]", "ab", "a\\"):
            store.write(group, [b"k*"], [1], [group.encode()])
        store.drop("a*")
        store.drop("a[b]")
        assert [store.count(group) for group in ("a*", "a?", "a[b]", "ab", "a\\")] == [0, 1, 0, 1, 1]

    def test_the_server_frees_what_may_be_forgotten_unless_it_is_written_again(self) -> None:
        store = self.store()
        store.write("g", [b"a", b"b", b"c"], [1, 1, 1], [b"A", b"B", b"C"])
        store.expire("g", [b"a", b"b"], 1)
        store.write("g", [b"b"], [2], [b"B2"])
        deadline = time.monotonic() + 10
        while store.count("g") > 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert store.read("g", [b"a", b"b", b"c"]) == [None, (2, b"B2"), (1, b"C")]

    def test_a_server_that_forgot_its_scripts_is_told_them_again(self) -> None:
        import redis

        store, client = self.store(), redis.Redis.from_url(self.url)
        keys = [b"%d" % number for number in range(25_000)]  # more than one script: a transaction of several
        for turn in range(3):
            client.script_flush()
            assert store.write("g", keys, [turn] * 25_000, keys, mark=Mark("m", turn - 1, turn)) == 25_000
            client.script_flush()
            store.update("g", keys[:10], lambda old: ([9] * 10, [b"new"] * 10))
            client.script_flush()
            store.drop("g", older_than=9)
            assert store.count("g") == 10
            store.drop("g")
        client.close()

    def test_processes_count_together(self) -> None:
        code = (
            "import sys; from noria.storage import open_online\n"
            "store = open_online(sys.argv[1]); keys = [b'%d' % n for n in range(200)]\n"
            "for turn in range(40):\n"
            "    store.update('g', keys, lambda old: ([1] * 200, [b'%d' % (int(v.value) + 1 if v else 1) for v in old]))\n"
        )
        counting = [subprocess.Popen([sys.executable, "-c", code, self.url]) for _ in range(3)]
        assert [process.wait() for process in counting] == [0, 0, 0]
        assert {value and value.value for value in self.store().read("g", [b"%d" % n for n in range(200)])} == {b"120"}

    def test_what_is_perhaps_done_is_not_sent_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import redis

        store = self.store()
        assert isinstance(store, RedisOnline)
        sent = store._evaluate

        def cut(*words: Any) -> Any:
            sent(*words)
            raise redis.ConnectionError("the answer is lost")

        monkeypatch.setattr(store, "_evaluate", cut)
        with pytest.raises(StorageError, match="lost"):
            store.update("g", [b"a"], lambda old: ([1], [b"%d" % (int(old[0].value) + 1 if old[0] else 1)]))
        with pytest.raises(StorageError, match="lost"):
            store.write("g", [b"b"], [1], [b"B"], mark=Mark("m", -1, 1))
        assert store.read("g", [b"a", b"b"]) == [(1, b"1"), (1, b"B")]
        assert store.marks() == {"m": 1}


def test_a_server_that_comes_back_is_found_by_the_next_call(tmp_path: Path) -> None:
    port = free_port()
    with redis_server(tmp_path, port) as url:
        store = open_online(url)
        store.write("g", [b"a"], [1], [b"A"])
    with pytest.raises(StorageError, match="can't be used"):
        store.read("g", [b"a"])
    with redis_server(tmp_path, port):
        store.update("g", [b"a"], lambda old: ([2], [b"B"]), mark=Mark("m", -1, 1))
        assert store.read("g", [b"a"]) == [(2, b"B")]
    with redis_server(tmp_path, port):  # gone and back between two calls
        assert store.read("g", [b"a"]) == [None]
        store.write("g", [b"a"], [1], [b"A"], mark=Mark("m", -1, 1))
    store.close()


def test_a_server_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("noria.storage.redis_online.ANSWER_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        store = open_online(f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        began = time.monotonic()
        with pytest.raises(StorageError, match="can't be used"):
            store.update("g", [b"a"], lambda old: ([1], [b""]))
        assert time.monotonic() - began < 3
        store.close()


def test_a_dead_server_is_named_in_time_and_its_password_is_not() -> None:
    store = open_online(f"redis://user:topsecret@127.0.0.1:{free_port()}/0")
    began = time.monotonic()
    with pytest.raises(StorageError, match=r"127\.0\.0\.1") as caught:
        store.read("g", [b"a"])
    assert time.monotonic() - began < 10
    assert "topsecret" not in str(caught.value)
    store.close()


@pytest.mark.parametrize(
    "url",
    [
        "redis://:topsecret@h:port/0",
        "redis://u:x/topsecret@h/0",
        "redis://u:a@topsecret@h:x/0",
        "redis://topsecret@h:x",
        "redis://h:x/?password=topsecret",
    ],
)
def test_no_error_shows_a_password(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_online(url)
    assert "topsecret" not in "".join(traceback.format_exception(caught.value)).replace(repr(url), "")


def test_an_unknown_scheme_lists_those_that_there_are() -> None:
    with pytest.raises(ConfigError) as caught:
        open_online("reddis://x")
    assert "did you mean 'redis://'" in caught.value.hint
