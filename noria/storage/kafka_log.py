"""The event log in Kafka, or in what speaks its protocol; by confluent-kafka (librdkafka).

`kafka://host:9092,other:9092?security.protocol=SASL_SSL&sasl.mechanism=PLAIN&…`: what stands behind the question mark
is passed on to librdkafka as it is, and never shown. The producer is idempotent and waits for all replicas; a batch
that another process has sent before can't be known here, so a producer that repeats a batch after its own death may
write it twice.
"""

from __future__ import annotations

import re
import secrets
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import numpy as np

from noria.core import ConfigError, ConflictError, MissingExtraError, NoriaError, NotFoundError, StorageError, allowed
from noria.storage.event_log import Change, Events

_SECONDS = 10.0
"""How long a broker may take to answer, and a batch to be written."""
_FIRST_TRY = 2.0
"""How long to wait before looking whether we have been refused: then waiting on is of no use."""
_RETRY_SECONDS = 15.0
"""More than librdkafka waits between two tries to connect: a refusal older than that is over."""
_SLICE = 0.005
"""How long events are gathered once the first is there: enough to make batches, too short to be noticed."""
_GATHER = 0.25
_DENSE = 500
"""Events in such a slice that mean that there is a backlog: then larger batches cost nobody time."""
_PIECE = 2_000
"""Messages that are objects at a time: a hundred thousand outgrow the cache, and take 1.6 times as long to read."""

_SECRET = re.compile(r"password|secret|token|jaas|\.pem$|oauthbearer\.config", re.IGNORECASE)
"""Settings whose values no message may have."""
_FINAL = ("_ALL_BROKERS_DOWN", "TOPIC_AUTHORIZATION_FAILED", "GROUP_AUTHORIZATION_FAILED")
"""Errors that reading doesn't get over by itself."""
_PROBE_SECONDS = 2.0

T = TypeVar("T")


class KafkaLog:
    """`EventLog` at a `kafka://` URL."""

    def __init__(self, url: str) -> None:
        servers, _, query = url.removeprefix("kafka://").partition("?")
        if "@" in servers:  # nothing of it is shown: it has a password
            raise ConfigError(
                "storage.log has a user before its broker, where Kafka knows none",
                hint="kafka://HOST:9092?security.protocol=SASL_SSL&sasl.mechanism=PLAIN"
                "&sasl.username=…&sasl.password=…",
                field="storage.log",
            )
        self._servers = servers
        self._shown = f"kafka://{servers}"
        if not re.fullmatch(r"[^,/\s]+(:\d+)?(,[^,/\s]+(:\d+)?)*", servers):
            raise ConfigError(f"storage.log = {self._shown!r} names no broker", hint="kafka://HOST:9092,OTHER:9092")
        try:
            import confluent_kafka
            import confluent_kafka.admin
        except ImportError as error:
            raise MissingExtraError("confluent-kafka", "kafka", f"the event log {self._shown}") from error
        self._kafka: Any = confluent_kafka
        # A + is a +, as in many a password, and not a blank as in forms.
        settings = dict(parse_qsl(query.replace("+", "%2B"), keep_blank_values=True))
        self._secrets = [value for name, value in settings.items() if value and _SECRET.search(name)]
        self._tls = settings.get("security.protocol", "").upper().endswith("SSL")
        self._common: dict[str, Any] = {
            "bootstrap.servers": servers,
            "socket.connection.setup.timeout.ms": 5_000,
            "log_level": 0,
            **settings,
            "error_cb": self._hear,
        }
        self._heard: tuple[float, str] | None = None
        self._refusal: _Refusal | None = None
        self._lock = threading.Lock()
        self._asking = threading.Lock()
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
        found = self._metadata().topics
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
        start, end = self._bounds(topic, [partition])[partition]
        if max(offset, start) >= end:
            return _events(partition, [])
        reader = self._consumer(f"noria-read-{secrets.token_hex(4)}", "earliest", {"enable.partition.eof": True})
        found: list[Any] = []
        ended = False
        try:
            place = self._kafka.TopicPartition(topic, partition, max(offset, start))
            self._run(lambda: reader.assign([place]))
            heard = time.monotonic()
            while len(found) < limit and not ended:
                some = self._run(partial(reader.consume, limit - len(found), 0.05))
                new = [message for message in some if message.error() is None]
                found += new
                ended = any(map(self._is_end, some)) or (bool(found) and found[-1].offset() + 1 >= end)
                heard = time.monotonic() if new else heard
                if time.monotonic() - heard > _SECONDS:
                    raise self._error(f"no answer within {_SECONDS:.0f} s")
        finally:
            reader.close()
        return _events(partition, found)

    def identity(self, topic: str) -> str:
        return ""  # not every broker gives topics an id

    def bounds(self, topic: str) -> dict[int, tuple[int, int]]:
        return self._bounds(topic, range(self._count(topic)))

    def _bounds(self, topic: str, partitions: Sequence[int]) -> dict[int, tuple[int, int]]:
        """Of each partition the first offset, and where reading comes to an end.

        A broker may say too little when it is asked for the end (tansu says the second offset of the last batch): so
        we read on from there until the end is met, which costs one more answer.
        """
        with self._asking:
            asker = self._asker()
            found: dict[int, tuple[int, int]] = {}
            for partition in partitions:
                place = self._kafka.TopicPartition(topic, partition)
                answer = self._run(partial(asker.get_watermark_offsets, place, timeout=_SECONDS))
                if answer is None:
                    raise self._error(f"no answer within {_SECONDS:.0f} s")
                found[partition] = (max(0, answer[0]), max(0, answer[1]))
            places = [self._kafka.TopicPartition(topic, partition, end) for partition, (_, end) in found.items()]
            self._run(lambda: asker.assign(places))
            open_ends = set(found)
            deadline = time.monotonic() + 1.0  # if so much comes that there is no end, what has come will do
            while open_ends and time.monotonic() < deadline:
                message = self._run(lambda: asker.poll(0.1))
                if message is not None and (message.error() is None or self._is_end(message)):
                    partition, ended = message.partition(), self._is_end(message)
                    start, end = found[partition]
                    found[partition] = (start, max(end, message.offset() + (0 if ended else 1)))
                    if ended:
                        open_ends.discard(partition)
            self._run(asker.unassign)
        return found

    def _is_end(self, message: Any) -> bool:
        error = message.error()
        return error is not None and bool(error.code() == error._PARTITION_EOF)

    def reader(self, topic: str, group: str, *, start: str = "earliest") -> KafkaReader:
        if start not in ("earliest", "latest"):
            raise ConfigError(f"a reader can't start at {start!r}", hint=allowed(["earliest", "latest"], start))
        self._count(topic)
        return KafkaReader(self, topic, self._consumer(group, start), from_end=start == "latest")

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
        return self._once("admin", lambda: self._client(self._kafka.admin.AdminClient, {}))

    def _asker(self) -> Any:
        settings = {"enable.partition.eof": True, "fetch.wait.max.ms": 1}
        return self._once("asker", lambda: self._consumer(f"noria-ask-{secrets.token_hex(4)}", "earliest", settings))

    def _producer(self) -> Any:
        settings = {
            "enable.idempotence": True,
            "acks": "all",
            "linger.ms": 2,
            "queue.buffering.max.messages": 1_000_000,
            "message.timeout.ms": int(_SECONDS * 1000),
        }
        return self._once("producer", lambda: self._client(self._kafka.Producer, settings))

    def _consumer(self, group: str, start: str, more: Mapping[str, Any] | None = None) -> Any:
        settings = {
            "group.id": group,
            "enable.auto.commit": False,
            "auto.offset.reset": start,
            "max.poll.interval.ms": 3_600_000,  # a slow sink is no dead member
            "session.timeout.ms": 10_000,
            "fetch.wait.max.ms": 100,
            **(more or {}),
        }
        return self._client(self._kafka.Consumer, settings)

    def _client(self, kind: Callable[[dict[str, Any]], Any], settings: Mapping[str, Any]) -> Any:
        try:
            return kind({**self._common, **settings})
        except self._kafka.KafkaException as error:  # not the cause of ours: it may repeat a value
            raise ConfigError(
                f"storage.log = {self._shown!r} has settings that can't be used: {self._without_secrets(error)}",
                hint="what is behind its question mark are librdkafka's settings, with the files that they name",
                field="storage.log",
            ) from None

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

    def _metadata(self) -> Any:
        """What the brokers tell of themselves; it is the first that a log asks for."""
        began = time.monotonic()
        for patience in (_FIRST_TRY, max(_FIRST_TRY, _SECONDS - _FIRST_TRY)):
            try:
                return self._admin().list_topics(timeout=patience)
            except self._kafka.KafkaException as error:
                failure = error
            self._admin().poll(0)  # it is here that the library calls `_hear`
            if self._refusal is not None and self._refusal.last >= began:
                break
        raise self._error(failure) from failure

    def _hear(self, error: Any) -> None:
        """Of a client's connections, whose calls only time out."""
        if error.code() in (error._AUTHENTICATION, error._SSL):
            now, before = time.monotonic(), self._refusal
            since = before.since if before is not None and now - before.last < _RETRY_SECONDS else now
            self._refusal = _Refusal(since, now, error.str(), tls=error.code() == error._SSL)
        elif error.code() != error._ALL_BROKERS_DOWN:  # that isn't why
            self._heard = (time.monotonic(), error.str())

    def _refused(self) -> _Refusal | None:
        """The refusal that still holds, if there is one."""
        now = time.monotonic()
        return self._refusal if self._refusal is not None and now - self._refusal.last < _RETRY_SECONDS else None

    def _error(self, error: Any) -> NoriaError:
        """For an exception of the library, an error of it, or words."""
        if isinstance(error, self._kafka.KafkaException):
            error = error.args[0]
        kinds = self._kafka.KafkaError
        name = error.name() if isinstance(error, kinds) else ""
        text = error.str() if isinstance(error, kinds) else str(error)
        what = "can't be used"
        hint = "is the broker up, and does storage.log name its host, port and security settings?"
        refusal = self._refused()
        if name in ("", "_TRANSPORT", "_TIMED_OUT", "_MSG_TIMED_OUT", "_ALL_BROKERS_DOWN", "_AUTHENTICATION", "_SSL"):
            if refusal is not None and refusal.tls:
                what, text = "can't be reached by TLS", refusal.text
                hint = (
                    "ssl.ca.location in storage.log must name the certificate that the broker's is signed with, "
                    "and the broker's must be for this host and still be valid"
                )
            elif refusal is not None:
                what, text = "doesn't let us in", refusal.text
                hint = (
                    "are sasl.mechanism, sasl.username and sasl.password in storage.log the broker's? In a URL, "
                    "characters such as & and % of a password are written %26 and %25"
                )
            else:
                if self._heard is not None and time.monotonic() - self._heard[0] < _RETRY_SECONDS:
                    text = self._heard[1]
                hint = _diagnosis(self._servers, self._tls) or hint
        return StorageError(f"the event log {self._shown} {what}: {self._without_secrets(text)}", hint=hint)

    def _without_secrets(self, text: object) -> str:
        shown = str(text)
        for secret in sorted(self._secrets, key=len, reverse=True):
            shown = shown.replace(secret, "***")
        return shown


@dataclass(frozen=True)
class _Refusal:
    """Brokers that refuse us, from one time to another, and what the last one said."""

    since: float
    last: float
    text: str
    tls: bool


class KafkaReader:
    """`EventReader` of Kafka: a consumer of a group, whose partitions the brokers divide."""

    def __init__(self, log: KafkaLog, topic: str, consumer: Any, *, from_end: bool = False) -> None:
        self._log = log
        self._topic = topic
        self._consumer = consumer
        self._from_end = from_end
        self._given: Change = _nobody

        self._taken: Change = _nobody
        self._assigned: set[int] = set()
        self._joined = False
        self._places: dict[int, int] | None = None  # while partitions are being given: where to begin
        self._failure: Exception | None = None
        log._run(
            lambda: consumer.subscribe([topic], on_assign=self._assign, on_revoke=self._revoke, on_lost=self._lose)
        )

    @property
    def assigned(self) -> tuple[int, ...]:
        return tuple(sorted(self._assigned))

    @property
    def joined(self) -> bool:
        return self._joined

    def on_change(self, given: Change, taken: Change) -> None:
        self._given, self._taken = given, taken

    def poll(self, limit: int, timeout: float) -> list[Events]:
        deadline = time.monotonic() + timeout
        pieces: dict[int, list[Events]] = {}
        count, began = 0, 0.0
        while count < limit:
            some = self._log._run(partial(self._consumer.consume, min(limit - count, _PIECE), _SLICE))
            if self._failure is not None:
                failure, self._failure = self._failure, None
                raise failure
            mine = [message for message in some if message.error() is None]
            self._raise_errors(some)
            if mine and not count:
                began = time.monotonic()
            elif not count:
                self._raise_refused()
            count += len(mine)
            for partition, messages in _by_partition(mine).items():
                pieces.setdefault(partition, []).append(_events(partition, messages))
            now = time.monotonic()
            if (count and (len(mine) < _DENSE or now - began > _GATHER)) or (not count and now >= deadline):
                break
        return [_joined(found) for partition, found in sorted(pieces.items()) if partition in self._assigned]

    def _raise_errors(self, messages: list[Any]) -> None:
        for message in messages:
            error = message.error()
            if error is not None and (error.fatal() or error.name() in _FINAL):
                raise self._log._error(error)

    def _raise_refused(self) -> None:
        """When the brokers have been refusing us for so long that it isn't one of them that starts anew."""
        refusal = self._log._refused()
        if refusal is not None and refusal.last - refusal.since > _SECONDS:
            self._log._run(lambda: self._consumer.list_topics(timeout=_FIRST_TRY))
            self._log._refusal = None  # others let us in

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
        self._joined = True  # also if nothing is left for us
        self._assigned |= set(new)
        self._places = {}
        try:
            if self._from_end:
                self._places = self._ends(new)
            self._given(new)
            for place in places:
                place.offset = self._places.get(place.partition, place.offset)
            consumer.assign(places)
        except Exception as error:  # the library would print it and go on: it is raised from `poll`
            self._failure = error
        finally:
            self._places = None

    def _ends(self, partitions: Sequence[int]) -> dict[int, int]:
        """Where those end that the group has never read: the broker itself may not know it well."""
        known = self.committed()
        new = [partition for partition in partitions if partition not in known]
        return {p: end for p, (_, end) in self._log._bounds(self._topic, new).items()} if new else {}

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


def _by_partition(messages: list[Any]) -> dict[int, list[Any]]:
    found: dict[int, list[Any]] = {}
    for message in messages:
        found.setdefault(message.partition(), []).append(message)
    return found


def _joined(pieces: list[Events]) -> Events:
    """Events of one partition as one."""
    return Events(
        pieces[0].partition,
        np.concatenate([piece.offsets for piece in pieces]),
        np.concatenate([piece.times for piece in pieces]),
        [key for piece in pieces for key in piece.keys],
        [value for piece in pieces for value in piece.values],
    )


def _nobody(partitions: Sequence[int]) -> None:
    """Nobody has asked to be told."""


def _diagnosis(servers: str, tls: bool) -> str:
    """What to do about brokers that don't answer, from what the first one's port does.

    A client without TLS at a port with TLS, or the other way round, hears nothing that would tell it so.
    """
    host, _, port = servers.partition(",")[0].rpartition(":")
    where = (host.strip("[]"), int(port)) if host else (port, 9092)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # nothing is sent: only whether it is TLS
    try:
        with socket.create_connection(where, _PROBE_SECONDS) as plain:
            try:
                context.wrap_socket(plain).close()
                answers = True
            except OSError:  # ssl.SSLError is one
                answers = False
    except OSError:
        return ""  # nothing listens: the library has said so
    if answers and not tls:
        return "its port wants TLS: add security.protocol=SSL to storage.log (SASL_SSL if it asks for a user)"
    if not answers and tls:
        return "its port doesn't answer by TLS: name the port that does, or take the SSL out of security.protocol"
    return ""
