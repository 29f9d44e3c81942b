"""Takes messages from the broker and does nothing with them: the limit of whatever reads with this client."""

import sys
import time

from confluent_kafka import Consumer

broker, topic, name, events = sys.argv[1:]
consumer = Consumer({"bootstrap.servers": broker, "group.id": name, "auto.offset.reset": "earliest"})
consumer.subscribe([topic])
left = int(events) - len(consumer.consume(1, 30))
began = time.perf_counter()
while left:
    left -= len(consumer.consume(min(10_000, left), 30))
print(time.perf_counter() - began)
consumer.close()
