"""The event log in Kafka, or in what speaks its protocol; by confluent-kafka (librdkafka).

`kafka://host:9092,other:9092?security.protocol=SASL_SSL&sasl.mechanism=PLAIN&…`: what stands behind the question mark
is passed on to librdkafka as it is, and never shown. The producer is idempotent and waits for all replicas; a batch
that another process has sent before can't be known here, so a producer that repeats a batch after its own death may
write it twice.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from noria.core import ConfigError, ConflictError, NotFoundError, allowed
from noria.storage.event_log import Events
from noria.storage.kafka_clients import ANSWER_SECONDS, KafkaClients
from noria.storage.kafka_reader import KafkaReader, events_of
from noria.storage.kafka_topics import KafkaTopics, is_end


class KafkaLog:
    """`EventLog` at a `kafka://` URL."""

    def __init__(self, url: str) -> None:
        self._clients = KafkaClients(url)
        self._topics = KafkaTopics(self._clients)

    def create(self, topic: str, partitions: int = 1) -> None:
        if topic not in self.topics():
            clients, kafka = self._clients, self._clients.kafka
            new = kafka.admin.NewTopic(topic, num_partitions=partitions, replication_factor=-1)
            future = clients.run(lambda: clients.admin().create_topics([new], operation_timeout=ANSWER_SECONDS)[topic])
            try:
                future.result(ANSWER_SECONDS)
            except kafka.KafkaException as error:
                if error.args[0].code() != kafka.KafkaError.TOPIC_ALREADY_EXISTS:
                    raise clients.error(error) from error
            deadline = time.monotonic() + ANSWER_SECONDS
            while topic not in self.topics() and time.monotonic() < deadline:
                time.sleep(0.02)
        present = self.topics().get(topic, partitions)
        if present != partitions:
            raise ConflictError(
                f"topic {topic!r} has {present} partitions, not {partitions}",
                hint="events with one key must stay in one partition: make a new topic, and copy the events",
            )

    def topics(self) -> dict[str, int]:
        return self._topics.all()

    def append(
        self,
        topic: str,
        values: Sequence[bytes],
        keys: Sequence[bytes | None] | None = None,
        *,
        producer: tuple[str, int] | None = None,
        durable: bool = True,
    ) -> int:
        self._topics.count(topic)
        sender, failed = self._clients.producer(), list[Any]()
        done = 0

        def delivered(error: Any, message: Any) -> None:
            nonlocal done
            done += 1
            if error is not None:
                failed.append(error)

        def send() -> None:
            for value, key in zip(values, keys or [None] * len(values), strict=True):
                while True:
                    try:
                        sender.produce(topic, value=value, key=key, on_delivery=delivered)
                        break
                    except BufferError:  # more than the library keeps: wait for some to be delivered
                        sender.poll(0.1)
            sender.poll(0)

        self._clients.run(send)
        deadline = time.monotonic() + ANSWER_SECONDS
        while durable and done < len(values) and time.monotonic() < deadline:
            sender.flush(0.5)
        if failed or (durable and done < len(values)):
            why = failed[0] if failed else f"no answer within {ANSWER_SECONDS:.0f} s"
            raise self._clients.error(why)
        return len(values)

    def read(self, topic: str, partition: int, offset: int, limit: int) -> Events:
        if not 0 <= partition < self._topics.count(topic):
            raise NotFoundError(f"topic {topic!r} has no partition {partition}")
        start, end = self._topics.bounds(topic, [partition])[partition]
        if max(offset, start) >= end:
            return events_of(partition, [])
        reader = self._clients.consumer(
            f"noria-read-{secrets.token_hex(4)}", "earliest", {"enable.partition.eof": True}
        )
        found: list[Any] = []
        ended = False
        try:
            place = self._clients.kafka.TopicPartition(topic, partition, max(offset, start))
            self._clients.run(lambda: reader.assign([place]))
            heard = time.monotonic()
            while len(found) < limit and not ended:
                some = self._clients.run(partial(reader.consume, limit - len(found), 0.05))
                new = [message for message in some if message.error() is None]
                found += new
                ended = any(map(is_end, some)) or (bool(found) and found[-1].offset() + 1 >= end)
                heard = time.monotonic() if new else heard
                if time.monotonic() - heard > ANSWER_SECONDS:
                    raise self._clients.error(f"no answer within {ANSWER_SECONDS:.0f} s")
        finally:
            reader.close()
        return events_of(partition, found)

    def identity(self, topic: str) -> str:
        return ""  # not every broker gives topics an id

    def bounds(self, topic: str) -> dict[int, tuple[int, int]]:
        return self._topics.bounds(topic, range(self._topics.count(topic)))

    def reader(self, topic: str, group: str, *, start: str = "earliest") -> KafkaReader:
        if start not in ("earliest", "latest"):
            raise ConfigError(f"a reader can't start at {start!r}", hint=allowed(["earliest", "latest"], start))
        self._topics.count(topic)
        consumer = self._clients.consumer(group, start)
        return KafkaReader(self._clients, self._topics, topic, consumer, from_end=start == "latest")

    def close(self) -> None:
        self._clients.close()
