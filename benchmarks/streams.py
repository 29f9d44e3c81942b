"""Streams: appending to the log, and counting a million events per user from the log into the online store."""

from __future__ import annotations

import os
import random
import re
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import polars as pl

import noria as nr
from benchmarks.measure import environment, markdown, measure, median
from noria.core import StorageSettings
from noria.pipelines import Stream
from noria.storage.event_log import EventLog
from noria.storage.segment_log import SegmentLog

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "storage"))

PEERS = Path(__file__).parent / "peers"
QUIX = ("quixstreams==3.28.1", "redis==8.1.0")
EVENTS = 1_000_000
QUIX_EVENTS = 200_000
TURNS = 3
QUIX_TURNS = 2
USERS = 10_000
SCHEMA = {
    "user_id": "int64",
    "item_id": "int64",
    "amount": "float64",
    "ts": nr.Timestamp("ms"),
    "kind": "str",
}
TOTALS = nr.Totals("user_id")
STREAM = Stream("clicks", SCHEMA, online=[TOTALS])
HAND, BARE, PEER = "by hand, Kafka's protocol into Redis", "bare consumer", "Quix Streams, Kafka's protocol into Redis"


def run(events: int = EVENTS) -> str:
    values = example(events)
    with tempfile.TemporaryDirectory(prefix="noria-bench-") as folder:
        return "\n\n".join([_append(Path(folder), values), _count(Path(folder), values)])


def example(count: int) -> list[bytes]:
    """JSON events of about 81 bytes."""
    rng = random.Random(0)
    form = b'{"user_id":%d,"item_id":%d,"amount":%.2f,"ts":%d,"kind":"click"}'
    return [
        form % (rng.randrange(USERS), rng.randrange(100_000), rng.random() * 100, 1_700_000_000_000 + n)
        for n in range(count)
    ]


def _append(root: Path, values: list[bytes]) -> str:
    bare, durable = [], []
    size = sum(map(len, values))
    for turn in range(TURNS):
        log = SegmentLog(root / f"append-{turn}")
        log.create("t")
        durable.append(_seconds(lambda log=log: send(log, "t", values, 1_000)))
        log.close()
        bare.append(_seconds(lambda turn=turn: _bare(root / f"bare-{turn}", values)))
    ours, disk = median(durable), median(bare)
    return markdown(
        "Appending to `log://`",
        ("way", "events/s", "MB/s", "of the disk's own rate"),
        [
            ("write and fdatasync of the same bytes", f"{len(values) / disk:,.0f}", f"{size / disk / 1e6:.0f}", "1.00"),
            ("noria", f"{len(values) / ours:,.0f}", f"{size / ours / 1e6:.0f}", f"{disk / ours:.2f}"),
        ],
        "Batches of 1,000, each on the disk before the next. Bars: 300,000 events/s, half of the disk's rate.",
    )


def _bare(file: Path, values: list[bytes]) -> None:
    with file.open("wb", buffering=0) as stream:
        for start in range(0, len(values), 1_000):
            stream.write(b"".join(values[start : start + 1_000]))
            os.fdatasync(stream.fileno())


def send(log: EventLog, topic: str, values: list[bytes], size: int, keys: Sequence[bytes] | None = None) -> None:
    for start in range(0, len(values), size):
        part = slice(start, start + size)
        log.append(topic, values[part], None if keys is None else keys[part])


def _count(root: Path, values: list[bytes]) -> str:
    from real_servers import noida_broker, redis_server

    users = [re.findall(rb"\d+", value)[0] for value in values]
    quix, why = environment("quix", QUIX, "quixstreams")
    rates: dict[str, list[float]] = {}
    with noida_broker(root / "kafka") as kafka, redis_server(root) as redis:
        ways = {
            "noria, `log://` into LMDB": StorageSettings(),
            "noria, `log://` into Redis": StorageSettings(online=redis),
            "noria, Kafka's protocol into LMDB": StorageSettings(log=kafka),
            "noria, Kafka's protocol into Redis": StorageSettings(log=kafka, online=redis),
        }
        with nr.Workspace.open(nr.Settings(root / "sender", storage=StorageSettings(log=kafka))) as workspace:
            workspace.log.create("clicks")
            send(workspace.log, "clicks", values, 10_000, users)
        broker, count = kafka.removeprefix("kafka://"), len(values)
        for turn in range(TURNS):  # in turns, so that a slow minute of the machine is everybody's
            for number, (way, storage) in enumerate(ways.items()):
                rate = _noria(root / f"{number}-{turn}", f"clicks-{number}-{turn}", storage, values)
                rates.setdefault(way, []).append(rate)
            by_hand = [sys.executable, str(PEERS / "stream_hand.py"), broker, "clicks", redis, f"hand-{turn}"]
            rates.setdefault(HAND, []).append(_peer([*by_hand, str(count)], count))
            _verify(redis, f"hand-{turn}", count)
            bare = [sys.executable, str(PEERS / "stream_bare.py"), broker, "clicks", f"bare-{turn}"]
            rates.setdefault(BARE, []).append(_peer([*bare, str(count)], count))
            if quix is not None and turn < QUIX_TURNS:
                some = min(QUIX_EVENTS, count)
                script = [quix, str(PEERS / "stream_quix.py"), broker, "clicks", redis, f"quix-{turn}"]
                rates.setdefault(PEER, []).append(_peer([*script, str(some), str(root / f"quix-{turn}")], some))
                _verify(redis, f"quix-{turn}", some)
    return _table(rates, why)


def _table(rates: dict[str, list[float]], why: str) -> str:
    middle = {way: median(found) for way, found in rates.items()}
    rows = [
        (
            way,
            f"{rate:,.0f}",
            f"{min(rates[way]):,.0f} to {max(rates[way]):,.0f}",
            f"{rate / middle[PEER]:.1f}" if PEER in middle else "-",
            f"{rate / middle[BARE]:.2f}",
        )
        for way, rate in middle.items()
    ]
    if PEER not in middle:
        rows.append((PEER, f"not installed ({why})", "-", "-", "-"))
    client, redis = metadata.version("confluent-kafka"), metadata.version("redis")
    return markdown(
        "Counting a million events per user",
        ("way", "events/s", "in all runs", "times Quix Streams", "times the bare consumer"),
        rows,
        "81 bytes of JSON each, counted by user. noria decodes, checks, counts in the online store, writes the table, "
        "commits, each event exactly once, and its clock also counts joining the group (with Kafka about a second). "
        "The others count and commit at least once, check nothing and write no table; their clocks run from the first "
        "message to the last commit. Of all, the counts are added up afterwards. By hand: batches of 10,000, one "
        f"pipeline each (confluent-kafka {client}, redis {redis} with hiredis); the bare consumer only takes the "
        f"messages. {', '.join(QUIX).replace('==', ' ')}: {QUIX_EVENTS:,} events, with its defaults (changelog topic, "
        "commits every 5 s) and its own sink for Redis. Messages have the user as key, so that Quix need not group "
        f"them anew. Broker: noida-db {metadata.version('noida-db')}. Medians of {TURNS}, of Quix {QUIX_TURNS}. "
        "Bars: 400,000 from `log://` into LMDB, 200,000 from Kafka's protocol into Redis.",
    )


def _noria(folder: Path, name: str, storage: StorageSettings, values: list[bytes]) -> float:
    """Events a second. The name is new each time: what one run has counted in a shared store, the next would skip."""
    stream = replace(STREAM, name=name, topic="clicks")
    with nr.Workspace.open(nr.Settings(folder, storage=storage)) as workspace:
        if "clicks" not in workspace.log.topics():
            workspace.log.create("clicks")
            send(workspace.log, "clicks", values, 10_000)
        with nr.StreamProcessor(stream, workspace) as processor:
            rate = len(values) / _seconds(processor.run_to_end)
        assert workspace.table(name).scan().select(pl.len()).collect().item() == len(values)
        totals = TOTALS.read(workspace.online, stream, range(USERS))
        assert sum(total["count"] for total in totals) == len(values)
    return rate


def _peer(command: list[str], events: int) -> float:
    """Events a second, by the seconds that the script prints."""
    return events / float(measure(command).output)


def _verify(url: str, name: str, events: int) -> None:
    """That the counts in Redis add up."""
    from redis import Redis

    with Redis.from_url(url) as redis:
        counts = redis.mget(list(set(redis.scan_iter(f"{name}:*", count=10_000))))
    assert sum(map(int, counts)) == events, f"{name}: {sum(map(int, counts))} of {events} events in Redis"


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
