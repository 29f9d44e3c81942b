"""A feature group that a stream keeps up: `EVENTS BATCH`."""

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

import noria as nr
from noria.features import OnlineReader
from noria.features.feed import Feed
from noria.pipelines.stream_sinks import StreamRows
from noria.storage.online import Mark

events, batch = map(int, sys.argv[1:])
USERS, DAYS = 50_000, 5 * 86_400_000_000
STREAM = nr.Stream(
    "visits", schema={"user": "int64", "shop": "str", "amount": "float64", "at": nr.Timestamp("us")}, key="user"
)
GROUP = nr.FeatureGroup(
    "habits",
    "user",
    STREAM,
    {
        "n": nr.count(),
        "n_1h": nr.count(window="1h"),
        "n_24h": nr.count(window="24h"),
        "spent": nr.sum("amount"),
        "spent_24h": nr.sum("amount", window="24h"),
        "mean_24h": nr.mean("amount", window="24h"),
        "most_24h": nr.max("amount", window="24h"),
        "last": nr.last("amount", n=5),
        "shop": nr.latest("shop"),
    },
)
rng = np.random.default_rng(1)
frame = pl.DataFrame(
    {
        "user": rng.integers(0, USERS, events),
        "shop": rng.choice(list("abcd"), events),
        "amount": rng.random(events),
        "at": pl.Series(np.sort(rng.integers(0, DAYS, events))).cast(pl.Datetime("us", "UTC")),
    }
)
with tempfile.TemporaryDirectory() as folder, nr.Workspace.open(nr.Settings(Path(folder))) as workspace:
    feed = Feed(GROUP, STREAM, workspace)
    feed.prepare(STREAM)
    mark, seconds = -1, 0.0
    for start in range(0, events, batch):
        part = frame[start : start + batch]
        after = start + len(part)
        began = time.perf_counter()
        rows = StreamRows(0, part, np.arange(start, after), after)
        feed.write(workspace.online, STREAM, rows, Mark("bench", mark, after))
        seconds, mark = seconds + time.perf_counter() - began, after
    reader, took = OnlineReader(workspace.online, [GROUP.online_spec()]), []
    for user in rng.integers(0, USERS, 2_000).tolist():
        began = time.perf_counter_ns()
        reader.read("habits", [user])
        took.append(time.perf_counter_ns() - began)
print(json.dumps({"events": events, "seconds": seconds, "read": float(np.median(took)) / 1000}))
