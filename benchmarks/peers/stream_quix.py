"""Counts per user with Quix Streams, as its documentation has it: state by the message's key, its own sink for Redis."""

import sys
import time
from urllib.parse import urlsplit

from quixstreams import Application, State
from quixstreams.sinks.community.redis import RedisSink

broker, topic, store, name, events, folder = sys.argv[1:]
began = 0.0


def count(event: dict[str, object], state: State) -> int:
    global began
    began = began or time.perf_counter()
    seen = state.get("count", 0) + 1
    state.set("count", seen)
    return seen


redis = urlsplit(store)
app = Application(
    broker,
    consumer_group=name,
    auto_offset_reset="earliest",
    state_dir=folder,
    loglevel="WARNING",
)
frame = app.dataframe(app.topic(topic, key_deserializer="str", value_deserializer="json"))
frame = frame.apply(count, stateful=True)
frame.sink(
    RedisSink(redis.hostname, redis.port, 0, password=redis.password, key_serializer=lambda user, _: f"{name}:{user}")
)
app.run(count=int(events), timeout=30, collect=False)  # it has committed when this returns
print(time.perf_counter() - began)
