from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from noria.core import ConfigError, StorageError
from noria.storage import OnlineStore, open_online
from noria.testing import OnlineStoreConformance

sys.path.insert(0, str(Path(__file__).parent))
from real_servers import free_port, redis_server

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


def test_a_dead_server_is_named_in_time_and_its_password_is_not() -> None:
    store = open_online(f"redis://user:topsecret@127.0.0.1:{free_port()}/0")
    began = time.monotonic()
    with pytest.raises(StorageError, match=r"127\.0\.0\.1") as caught:
        store.read("g", [b"a"])
    assert time.monotonic() - began < 10
    assert "topsecret" not in str(caught.value)
    store.close()


def test_an_unknown_scheme_lists_those_that_there_are() -> None:
    with pytest.raises(ConfigError) as caught:
        open_online("reddis://x")
    assert "did you mean 'redis://'" in caught.value.hint
