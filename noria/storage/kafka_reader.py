"""Reading from Kafka as a member of a group, and turning its messages into events."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from noria.core import ConflictError
from noria.storage.event_log import Change, Events
from noria.storage.kafka_clients import ANSWER_SECONDS, KafkaClients
from noria.storage.kafka_topics import KafkaTopics

_SLICE = 0.005
"""How long events are gathered once the first is there: enough to make batches, too short to be noticed."""
_GATHER = 0.25
_DENSE = 500
"""Events in such a slice that mean that there is a backlog: then larger batches cost nobody time."""
_PIECE = 2_000
"""Messages that are objects at a time: a hundred thousand outgrow the cache, and take 1.6 times as long to read."""
_FINAL = ("_ALL_BROKERS_DOWN", "TOPIC_AUTHORIZATION_FAILED", "GROUP_AUTHORIZATION_FAILED")
"""Errors that reading doesn't get over by itself."""


class KafkaReader:
    """`EventReader` of Kafka: a consumer of a group, whose partitions the brokers divide."""

    def __init__(
        self, clients: KafkaClients, topics: KafkaTopics, topic: str, consumer: Any, *, from_end: bool = False
    ) -> None:
        self._clients = clients
        self._topics = topics
        self._topic = topic
        self._consumer = consumer
        self._from_end = from_end
        self._given: Change = _nobody
        self._taken: Change = _nobody
        self._assigned: set[int] = set()
        self._joined = False
        self._places: dict[int, int] | None = None  # while partitions are being given: where to begin
        self._failure: Exception | None = None
        clients.run(
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
            some = self._clients.run(partial(self._consumer.consume, min(limit - count, _PIECE), _SLICE))
            if self._failure is not None:
                failure, self._failure = self._failure, None
                raise failure
            mine = [message for message in some if message.error() is None]
            self._raise_errors(some)
            if mine and not count:
                began = time.monotonic()
            elif not count:
                self._clients.raise_refused(self._consumer)
            count += len(mine)
            for partition, messages in _by_partition(mine).items():
                pieces.setdefault(partition, []).append(events_of(partition, messages))
            now = time.monotonic()
            if (count and (len(mine) < _DENSE or now - began > _GATHER)) or (not count and now >= deadline):
                break
        return [_joined(found) for partition, found in sorted(pieces.items()) if partition in self._assigned]

    def _raise_errors(self, messages: list[Any]) -> None:
        for message in messages:
            error = message.error()
            if error is not None and (error.fatal() or error.name() in _FINAL):
                raise self._clients.error(error)

    def seek(self, partition: int, offset: int) -> None:
        if self._places is not None:
            self._places[partition] = offset
            return
        place = self._clients.kafka.TopicPartition(self._topic, partition, offset)
        self._clients.run(lambda: self._consumer.seek(place))

    def commit(self, offsets: Mapping[int, int]) -> None:
        for partition in offsets:
            if partition not in self._assigned:
                raise ConflictError(f"partition {partition} is not this member's any more", hint="poll again")
        kafka = self._clients.kafka
        places = [kafka.TopicPartition(self._topic, partition, offset) for partition, offset in offsets.items()]
        try:
            self._consumer.commit(offsets=places, asynchronous=False)
        except kafka.KafkaException as error:
            lost = ("ILLEGAL_GENERATION", "UNKNOWN_MEMBER_ID", "REBALANCE_IN_PROGRESS", "FENCED_INSTANCE_ID")
            if error.args[0].name() in lost:
                raise ConflictError(
                    f"the group of topic {self._topic!r} has been divided anew", hint="poll again"
                ) from error
            raise self._clients.error(error) from error

    def committed(self) -> dict[int, int]:
        kafka = self._clients.kafka
        places = [kafka.TopicPartition(self._topic, number) for number in range(self._topics.count(self._topic))]
        found = self._clients.run(lambda: self._consumer.committed(places, timeout=ANSWER_SECONDS))
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
        return {p: end for p, (_, end) in self._topics.bounds(self._topic, new).items()} if new else {}

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


def events_of(partition: int, messages: list[Any]) -> Events:
    """Messages of one partition as events."""
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
