"""The event log over Kafka's protocol, against a real broker on loopback."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

import pytest
from real_servers import free_port, noida_broker, tansu_broker

from noria.core import ConfigError, StorageError
from noria.storage.event_log import EventLog
from noria.storage.urls import open_log
from noria.testing.event_log import EventLogConformance

pytest.importorskip("confluent_kafka")
_numbers = itertools.count()


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with noida_broker(tmp_path_factory.mktemp("kafka")) as url:
        yield url


@pytest.fixture
def topic() -> str:
    return f"events-{next(_numbers)}"


class TestKafkaLog(EventLogConformance):
    removes_repeated = False

    @pytest.fixture(autouse=True)
    def _broker(self, broker: str) -> Iterator[None]:
        self.made = [open_log(broker)]
        yield
        for log in self.made:
            log.close()

    def log(self) -> EventLog:
        return self.made[0]


@pytest.fixture(scope="module")
def tansu() -> Iterator[str]:
    with tansu_broker() as url:
        yield url


class TestKafkaLogOnTansu(EventLogConformance):
    removes_repeated = False

    @pytest.fixture(autouse=True)
    def _broker(self, tansu: str) -> Iterator[None]:
        self.made = [open_log(tansu)]
        yield
        for log in self.made:
            log.close()

    def log(self) -> EventLog:
        return self.made[0]


def test_a_dead_broker_is_named_in_time_and_secrets_are_not() -> None:
    port = free_port()
    log = open_log(f"kafka://127.0.0.1:{port}?sasl.password=topsecret&sasl.username=me")
    began = time.monotonic()
    with pytest.raises(StorageError, match=f"127.0.0.1:{port}") as caught:
        log.topics()
    assert time.monotonic() - began < 15
    assert "topsecret" not in str(caught.value)
    log.close()


def test_a_url_without_a_broker_is_refused() -> None:
    with pytest.raises(ConfigError, match="names no broker"):
        open_log("kafka://")


def test_a_poll_of_many_pieces_keeps_the_order_of_each_partition(broker: str, topic: str) -> None:
    log = open_log(broker)
    log.create(topic, 3)
    values = [b"%d" % number for number in range(9_001)]
    log.append(topic, values, [value[-1:] for value in values])
    found: dict[int, list[tuple[int, bytes | None, bytes]]] = {}
    reader = log.reader(topic, "many")
    deadline = time.monotonic() + 20
    while sum(map(len, found.values())) < len(values) and time.monotonic() < deadline:
        polled = reader.poll(5_000, 0.1)
        assert sum(map(len, polled)) <= 5_000
        for events in polled:
            rows = zip(events.offsets.tolist(), events.keys, events.values, strict=True)
            found.setdefault(events.partition, []).extend(rows)
    reader.close()
    log.close()
    assert len(found) == 3
    for rows in found.values():
        assert [offset for offset, _, _ in rows] == list(range(len(rows)))
        assert [int(value) for _, _, value in rows] == sorted(int(value) for _, _, value in rows)
        assert all(key == value[-1:] for _, key, value in rows)
    assert sorted(int(value) for rows in found.values() for _, _, value in rows) == list(range(9_001))
