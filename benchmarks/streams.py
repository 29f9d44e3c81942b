"""Streams: appending to the log, and counting a million events per user from the log into the online store."""

from __future__ import annotations

import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import noria as nr
from benchmarks.measure import markdown, median
from noria.core import StorageSettings
from noria.pipelines import Stream
from noria.storage.event_log import EventLog
from noria.storage.segment_log import SegmentLog

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "storage"))

EVENTS = 1_000_000
TURNS = 3
SCHEMA = {
    "user_id": "int64",
    "item_id": "int64",
    "amount": "float64",
    "ts": nr.Timestamp("ms"),
    "kind": "str",
}


def run(events: int = EVENTS) -> str:
    values = example(events)
    with tempfile.TemporaryDirectory(prefix="noria-bench-") as folder:
        return "\n\n".join([_append(Path(folder), values), _count(Path(folder), values)])


def example(count: int) -> list[bytes]:
    """JSON events of about 81 bytes."""
    rng = random.Random(0)
    form = b'{"user_id":%d,"item_id":%d,"amount":%.2f,"ts":%d,"kind":"click"}'
    return [
        form % (rng.randrange(10_000), rng.randrange(100_000), rng.random() * 100, 1_700_000_000_000 + n)
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


def send(log: EventLog, topic: str, values: list[bytes], size: int) -> None:
    for start in range(0, len(values), size):
        log.append(topic, values[start : start + size])


def _count(root: Path, values: list[bytes]) -> str:
    from real_servers import noida_broker, redis_server

    stream = Stream("clicks", SCHEMA, online=[nr.Totals("user_id")])
    rows = []
    with noida_broker(root / "kafka") as kafka, redis_server(root) as redis:
        ways = {
            "`log://` into LMDB": StorageSettings(),
            "`log://` into Redis": StorageSettings(online=redis),
            "Kafka's protocol into LMDB": StorageSettings(log=kafka),
            "Kafka's protocol into Redis": StorageSettings(log=kafka, online=redis),
        }
        for name, storage in ways.items():
            rates = []
            for turn in range(TURNS):
                settings = nr.Settings(root / f"{len(rows)}-{turn}", storage=storage)
                made = replace(stream, topic=f"clicks-{len(rows)}-{turn}")
                with nr.Workspace.open(settings) as workspace:
                    workspace.log.create(made.topic_name)
                    send(workspace.log, made.topic_name, values, 10_000)
                    with nr.StreamProcessor(made, workspace) as processor:
                        rates.append(len(values) / _seconds(processor.run_to_end))
                        assert processor.result.rows_out == len(values)
            rows.append((name, f"{median(rates):,.0f}", f"{min(rates):,.0f} to {max(rates):,.0f}"))
    return markdown(
        "Counting a million events per user",
        ("way", "events/s", "in all runs"),
        rows,
        "81 bytes of JSON each: decoded, checked, counted by user in the online store, written to the table, committed, "
        "each exactly once. Bars: 400,000 from `log://` into LMDB, 200,000 from Kafka's protocol (broker: noida-db).",
    )


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
