"""What Kafka's brokers tell of topics: their partitions, and where those begin and end."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from noria.core import NotFoundError, allowed
from noria.storage.kafka_clients import ANSWER_SECONDS, KafkaClients


class KafkaTopics:
    """The topics that the brokers know; how many partitions one has is asked once."""

    def __init__(self, clients: KafkaClients) -> None:
        self._clients = clients
        self._counts: dict[str, int] = {}
        self._asking = threading.Lock()

    def all(self) -> dict[str, int]:
        """The topics that there are now, with how many partitions each has."""
        found = self._clients.metadata().topics
        self._counts = {
            n: len(t.partitions) for n, t in sorted(found.items()) if not n.startswith("__") and not t.error
        }
        return dict(self._counts)

    def count(self, topic: str) -> int:
        """How many partitions a topic has."""
        if topic not in self._counts and topic not in self.all():
            raise NotFoundError(f"there is no topic {topic!r}", hint=allowed(self._counts, topic))
        return self._counts[topic]

    def bounds(self, topic: str, partitions: Sequence[int]) -> dict[int, tuple[int, int]]:
        """Of each partition the first offset, and where reading comes to an end.

        A broker may say too little when it is asked for the end (tansu says the second offset of the last batch): so
        we read on from there until the end is met, which costs one more answer.
        """
        with self._asking:
            clients, asker = self._clients, self._clients.asker()
            found: dict[int, tuple[int, int]] = {}
            for partition in partitions:
                place = clients.kafka.TopicPartition(topic, partition)
                answer = clients.run(partial(asker.get_watermark_offsets, place, timeout=ANSWER_SECONDS))
                if answer is None:
                    raise clients.error(f"no answer within {ANSWER_SECONDS:.0f} s")
                found[partition] = (max(0, answer[0]), max(0, answer[1]))
            places = [clients.kafka.TopicPartition(topic, partition, end) for partition, (_, end) in found.items()]
            clients.run(lambda: asker.assign(places))
            open_ends = set(found)
            deadline = time.monotonic() + 1.0  # if so much comes that there is no end, what has come will do
            while open_ends and time.monotonic() < deadline:
                message = clients.run(lambda: asker.poll(0.1))
                if message is not None and (message.error() is None or is_end(message)):
                    partition, ended = message.partition(), is_end(message)
                    start, end = found[partition]
                    found[partition] = (start, max(end, message.offset() + (0 if ended else 1)))
                    if ended:
                        open_ends.discard(partition)
            clients.run(asker.unassign)
        return found


def is_end(message: Any) -> bool:
    """Whether it is no message, but says that its partition has no more."""
    error = message.error()
    return error is not None and bool(error.code() == error._PARTITION_EOF)
