"""Counts per user in Redis with a loop written by hand: whole batches, a compiled decoder, one pipeline a batch."""

import sys
import time
from collections import Counter

import msgspec
from confluent_kafka import Consumer
from redis import Redis

broker, topic, store, name, events = sys.argv[1:]


class Event(msgspec.Struct, gc=False):
    user_id: int
    item_id: int
    amount: float
    ts: int
    kind: str


decode = msgspec.json.Decoder(Event).decode
redis = Redis.from_url(store)
consumer = Consumer(
    {"bootstrap.servers": broker, "group.id": name, "auto.offset.reset": "earliest", "enable.auto.commit": False}
)
consumer.subscribe([topic])
messages = consumer.consume(1, 30)
began = time.perf_counter()
left = int(events)
while messages:
    counts = Counter(decode(message.value()).user_id for message in messages)
    with redis.pipeline(transaction=False) as pipeline:
        for user, count in counts.items():
            pipeline.incrby(f"{name}:{user}", count)
        pipeline.execute()
    consumer.commit(asynchronous=False)
    left -= len(messages)
    messages = consumer.consume(min(10_000, left), 30) if left else []
print(time.perf_counter() - began)
consumer.close()
