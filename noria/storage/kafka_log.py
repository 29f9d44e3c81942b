"""The event log in Kafka, or in what speaks its protocol; by confluent-kafka (librdkafka).

`kafka://host:9092,other:9092?security.protocol=SASL_SSL&sasl.mechanism=PLAIN&…`: what stands behind the question mark
is passed on to librdkafka as it is. The producer is idempotent and waits for all replicas; a batch that another process
has sent before can't be known here, so a producer that repeats a batch after its own death may write it twice.
"""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import numpy as np

from noria.core import ConfigError, ConflictError, MissingExtraError, NotFoundError, StorageError, allowed
from noria.storage.event_log import Change, Events

_SECONDS = 10.0
"""How long a broker may take to answer, and a batch to be written."""
_SLICE = 0.005
"""How long events are gathered once the first is there: enough to make batches, too short to be noticed."""
_GATHER = 0.25
_DENSE = 500
"""Events in such a slice that mean that there is a backlog: then larger batches cost nobody time."""

T = TypeVar("T")


class KafkaLog:
    """`EventLog` at a `kafka://` URL."""

    def __init__(self, url: str) -> None:
        servers, _, query = url.removeprefix("kafka://").partition("?")
        self._shown = f"kafka://{servers}"
        if not re.fullmatch(r"[^,/\s]+(:\d+)?(,[^,/\s]+(:\d+)?)*", servers):
            raise ConfigError(f"storage.log = {self._shown!r} names no broker", hint="kafka://HOST:9092,OTHER:9092")
        try:
            import confluent_kafka
            import confluent_kafka.admin
        except ImportError as error:
            raise MissingExtraError("confluent-kafka", "kafka", f"the event log {self._shown}") from error
        self._kafka: Any = confluent_kafka
        self._common: dict[str, Any] = {
            "bootstrap.servers": servers,
            "socket.connection.setup.timeout.ms": 5_000,
            "log_level": 0,
            **dict(parse_qsl(query)),
        }
        self._lock = threading.Lock()
        self._made: dict[str, Any] = {}
        self._counts: dict[str, int] = {}

    def create(self, topic: str, partitions: int = 1) -> None:
        if topic not in self.topics():
            new = self._kafka.admin.NewTopic(topic, num_partitions=partitions, replication_factor=-1)
            future = self._run(lambda: self._admin().create_topics([new], operation_timeout=_SECONDS)[topic])
            try:
                future.result(_SECONDS)
            except self._kafka.KafkaException as error:
                if error.args[0].code() != self._kafka.KafkaError.TOPIC_ALREADY_EXISTS:
                    raise self._error(error) from error
            deadline = time.monotonic() + _SECONDS
            while topic not in self.topics() and time.monotonic() < deadline:
                time.sleep(0.02)
        present = self.topics().get(topic, partitions)
        if present != partitions:
            raise ConflictError(
                f"topic {topic!r} has {present} partitions, not {partitions}",
                hint="events with one key must stay in one partition: make a new topic, and copy the events",
            )

    def topics(self) -> dict[str, int]:
        found = self._run(lambda: self._admin().list_topics(timeout=_SECONDS)).topics
        self._counts = {
            n: len(t.partitions) for n, t in sorted(found.items()) if not n.startswith("__") and not t.error
        }
        return dict(self._counts)

    def append(
        self,
        topic: str,
        values: Sequence[bytes],
        keys: Sequence[bytes | None] | None = None,
        *,
        producer: tuple[str, int] | None = None,
        durable: bool = True,
    ) -> int:
        self._count(topic)
        sender, failed = self._producer(), list[Any]()
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

        self._run(send)
        deadline = time.monotonic() + _SECONDS
        while durable and done < len(values) and time.monotonic() < deadline:
            sender.flush(0.5)
        if failed or (durable and done < len(values)):
            why = failed[0] if failed else f"no answer within {_SECONDS:.0f} s"
            raise self._error(why)
        return len(values)

    def read(self, topic: str, partition: int, offset: int, limit: int) -> Events:
        if not 0 <= partition < self._count(topic):
            raise NotFoundError(f"topic {topic!r} has no partition {partition}")
        start, end = self._bounds(topic, partition)
        reader = self._consumer(f"noria-read-{secrets.token_hex(4)}", "earliest")
        found: list[Any] = []
        try:
            place = self._kafka.TopicPartition(topic, partition, max(offset, start))
            self._run(lambda: reader.assign([place]))
            idle = time.monotonic()
            # A broker may say too late where the end is, so it isn't only the end that is waited for.
            while len(found) < limit and time.monotonic() - idle < (2.0 if max(offset, start) < end else 0.3):
                messages = self._run(partial(reader.consume, limit - len(found), 0.05))
                some = [message for message in messages if message.error() is None]
                found += some
                idle = time.monotonic() if some else idle
                if found and found[-1].offset() + 1 >= end:
                    break
        finally:
            reader.close()
        return _events(partition, found)

    def bounds(self, topic: str) -> dict[int, tuple[int, int]]:
        return {partition: self._bounds(topic, partition) for partition in range(self._count(topic))}

    def _bounds(self, topic: str, partition: int) -> tuple[int, int]:
        place = self._kafka.TopicPartition(topic, partition)
        start, end = self._run(lambda: self._asker().get_watermark_offsets(place, timeout=_SECONDS))
        return max(0, start), max(0, end)

    def reader(self, topic: str, group: str, *, start: str = "earliest") -> KafkaReader:
        if start not in ("earliest", "latest"):
            raise ConfigError(f"a reader can't start at {start!r}", hint=allowed(["earliest", "latest"], start))
        self._count(topic)
        return KafkaReader(self, topic, self._consumer(group, start))

    def close(self) -> None:
        with self._lock:
            for name, made in self._made.items():
                if name == "asker":
                    made.close()
                elif name == "producer":
                    made.flush(_SECONDS)
            self._made = {}

    def _count(self, topic: str) -> int:
        if topic not in self._counts and topic not in self.topics():
            raise NotFoundError(f"there is no topic {topic!r}", hint=allowed(self._counts, topic))
        return self._counts[topic]

    def _admin(self) -> Any:
        return self._once("admin", lambda: self._kafka.admin.AdminClient(self._common))

    def _asker(self) -> Any:
        return self._once("asker", lambda: self._consumer(f"noria-ask-{secrets.token_hex(4)}", "earliest"))

    def _producer(self) -> Any:
        settings = {
            **self._common,
            "enable.idempotence": True,
            "acks": "all",
            "linger.ms": 2,
            "queue.buffering.max.messages": 1_000_000,
            "message.timeout.ms": int(_SECONDS * 1000),
        }
        return self._once("producer", lambda: self._kafka.Producer(settings))

    def _consumer(self, group: str, start: str) -> Any:
        settings = {
            **self._common,
            "group.id": group,
            "enable.auto.commit": False,
            "auto.offset.reset": start,
            "max.poll.interval.ms": 3_600_000,  # a slow sink is no dead member
            "session.timeout.ms": 10_000,
            "fetch.wait.max.ms": 100,
        }
        return self._run(lambda: self._kafka.Consumer(settings))

    def _once(self, name: str, make: Callable[[], Any]) -> Any:
        with self._lock:
            if name not in self._made:
                self._made[name] = make()
            return self._made[name]

    def _run(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except self._kafka.KafkaException as error:
            raise self._error(error) from error

    def _error(self, error: Any) -> StorageError:
        return StorageError(
            f"the event log {self._shown} can't be used: {error}",
            hint="is the broker up, and does storage.log name its host, port and security settings?",
        )


class KafkaReader:
    """`EventReader` of Kafka: a consumer of a group, whose partitions the brokers divide."""

    def __init__(self, log: KafkaLog, topic: str, consumer: Any) -> None:
        self._log = log
        self._topic = topic
        self._consumer = consumer
        self._given: Change = _nobody

        self._taken: Change = _nobody
        self._assigned: set[int] = set()
        self._places: dict[int, int] | None = None  # while partitions are being given: where to begin
        self._failure: Exception | None = None
        log._run(
            lambda: consumer.subscribe([topic], on_assign=self._assign, on_revoke=self._revoke, on_lost=self._lose)
        )

    @property
    def assigned(self) -> tuple[int, ...]:
        return tuple(sorted(self._assigned))

    def on_change(self, given: Change, taken: Change) -> None:
        self._given, self._taken = given, taken

    def poll(self, limit: int, timeout: float) -> list[Events]:
        deadline = time.monotonic() + timeout
        found: list[Any] = []
        began = 0.0
        while len(found) < limit:
            some = self._log._run(partial(self._consumer.consume, limit - len(found), _SLICE))
            if self._failure is not None:
                failure, self._failure = self._failure, None
                raise failure
            mine = [message for message in some if message.error() is None]
            self._raise_errors(some)
            if mine and not found:
                began = time.monotonic()
            found += mine
            now = time.monotonic()
            if (found and (len(mine) < _DENSE or now - began > _GATHER)) or (not found and now >= deadline):
                break
        by_partition: dict[int, list[Any]] = {}
        for message in found:
            by_partition.setdefault(message.partition(), []).append(message)
        return [_events(p, messages) for p, messages in sorted(by_partition.items()) if p in self._assigned]

    def _raise_errors(self, messages: list[Any]) -> None:
        for message in messages:
            error = message.error()
            if error is not None and (error.fatal() or error.code() == error._ALL_BROKERS_DOWN):
                raise self._log._error(error)

    def seek(self, partition: int, offset: int) -> None:
        if self._places is not None:
            self._places[partition] = offset
            return
        place = self._log._kafka.TopicPartition(self._topic, partition, offset)
        self._log._run(lambda: self._consumer.seek(place))

    def commit(self, offsets: Mapping[int, int]) -> None:
        for partition in offsets:
            if partition not in self._assigned:
                raise ConflictError(f"partition {partition} is not this member's any more", hint="poll again")
        kafka = self._log._kafka
        places = [kafka.TopicPartition(self._topic, partition, offset) for partition, offset in offsets.items()]
        try:
            self._consumer.commit(offsets=places, asynchronous=False)
        except kafka.KafkaException as error:
            lost = ("ILLEGAL_GENERATION", "UNKNOWN_MEMBER_ID", "REBALANCE_IN_PROGRESS", "FENCED_INSTANCE_ID")
            if error.args[0].name() in lost:
                raise ConflictError(
                    f"the group of topic {self._topic!r} has been divided anew", hint="poll again"
                ) from error
            raise self._log._error(error) from error

    def committed(self) -> dict[int, int]:
        kafka = self._log._kafka
        places = [kafka.TopicPartition(self._topic, number) for number in range(self._log._count(self._topic))]
        found = self._log._run(lambda: self._consumer.committed(places, timeout=_SECONDS))
        return {place.partition: place.offset for place in found if place.offset >= 0}

    def close(self) -> None:
        self._consumer.close()

    def _assign(self, consumer: Any, places: list[Any]) -> None:
        new = [place.partition for place in places]
        self._assigned |= set(new)
        self._places = {}
        try:
            self._given(new)
            for place in places:
                place.offset = self._places.get(place.partition, place.offset)
            consumer.assign(places)
        except Exception as error:  # the library would print it and go on: it is raised from `poll`
            self._failure = error
        finally:
            self._places = None

    def _revoke(self, consumer: Any, places: list[Any]) -> None:
        gone = [place.partition for place in places]
        try:
            self._taken(gone)
        except Exception as error:
            self._failure = error
        self._assigned -= set(gone)

    def _lose(self, consumer: Any, places: list[Any]) -> None:
        # Others have them already: too late to finish anything.
        self._assigned -= {place.partition for place in places}
        self._revoke(consumer, places)


def _events(partition: int, messages: list[Any]) -> Events:
    return Events(
        partition,
        np.fromiter((message.offset() for message in messages), np.int64, len(messages)),
        np.fromiter((message.timestamp()[1] * 1_000 for message in messages), np.int64, len(messages)),
        [message.key() for message in messages],
        [message.value() or b"" for message in messages],
    )


def _nobody(partitions: Sequence[int]) -> None:
    """Nobody has asked to be told."""
        self._joined = False
    @property
    def joined(self) -> bool:
        return self._joined

        self._joined = True  # also if nothing is left for us
