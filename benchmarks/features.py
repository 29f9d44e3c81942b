"""Features: joins as of each label's time, window aggregates, materializing, and reads from the online store."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from benchmarks.measure import environment, markdown, measure, median
from noria.gateway.ports import free_port

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "storage"))

PEERS = Path(__file__).parent / "peers"
FEAST = ("feast[duckdb,redis]==0.67.0", "polars")
EVENTS, LABELS = 1_000_000, 100_000
LARGE_EVENTS, LARGE_LABELS = 10_000_000, 1_000_000
EACH = 10
"""Events per entity."""
MANY = 100
"""And in the second table of windows: the more there are, the more a group-by has to look at for each label."""
TURNS = 3
MORE = 1000
"""And in the third."""
FRAMES, TABLE, POLARS, DUCKDB, POLARS_FILES, DUCKDB_FILES = (
    "noria, from frames",
    "noria, from the table",
    "Polars `join_asof`",
    "DuckDB `ASOF JOIN`",
    "Polars, from the table's files",
    "DuckDB, from the table's files",
)
RAW = (POLARS, DUCKDB)
RAW_FILES = (POLARS_FILES, DUCKDB_FILES)


@dataclass
class Runs:
    """What the processes of one way have printed.

    Attributes:
        first: seconds of each process's first call.
        warm: seconds of the calls after it.
        peak: MiB, at most.
        rows: that came back.
        check: numbers by which the results can be told apart.
    """

    first: list[float] = field(default_factory=list)
    warm: list[float] = field(default_factory=list)
    peak: float = 0.0
    rows: int = 0
    check: list[float] = field(default_factory=list)


def run(scale: float = 1.0) -> str:
    """All sections; a `scale` below 1 makes everything smaller, for a quick look."""
    feast, why = environment("feast", FEAST, "feast")
    sizes = [int(n * scale) for n in (EVENTS, LABELS, LARGE_EVENTS, LARGE_LABELS)]
    with tempfile.TemporaryDirectory(prefix="noria-bench-") as folder:
        small = example(Path(folder) / "small", sizes[0], sizes[1], EACH)
        sections = [_join(small, sizes[0], sizes[1], feast, why), *_online(small, sizes[0] // EACH, feast, why)]
        large = example(Path(folder) / "large", sizes[2], sizes[3], EACH)
        sections.insert(1, _large_join(large, sizes[2], sizes[3], feast, why))
        many = {each: example(Path(folder) / str(each), sizes[2], sizes[3], each, features=2) for each in (MANY, MORE)}
        sections.insert(2, _windows({EACH: large, **many}, sizes[2], sizes[3], feast, why))
        sections += [_feed(sizes[0]), _over_http(small, sizes[0] // EACH)]
    return "\n\n".join(sections)


def example(root: Path, events: int, labels: int, each: int, features: int = 20) -> Path:
    """A folder with the data. A process of its own makes it: a child's peak memory begins with its parent's."""
    script = [sys.executable, str(PEERS / "features_data.py"), str(root)]
    measure([*script, *map(str, (events, labels, each, features))])
    return root


def _noria(root: Path, *words: object) -> list[str]:
    return [sys.executable, str(PEERS / "features_noria.py"), str(root), *map(str, words)]


def _raw(python: str | None, root: Path, *words: object) -> list[str] | None:
    return None if python is None else [python, str(PEERS / "features_raw.py"), str(root), *map(str, words)]


def _feast(python: str | None, root: Path, *words: object) -> list[str] | None:
    return None if python is None else [python, str(PEERS / "features_feast.py"), str(root), *map(str, words)]


def _in_turns(ways: dict[str, list[str] | None], turns: int, once: tuple[str, ...] = ()) -> dict[str, Runs]:
    """Run each way's process so often, in turns, so that a slow minute of the machine is everybody's."""
    found: dict[str, Runs] = {}
    for turn in range(turns):
        for name, command in ways.items():
            if command is None or (turn and name in once):
                continue
            used = measure(command)
            said, runs = json.loads(used.output.splitlines()[-1]), found.setdefault(name, Runs())
            runs.first.append(said["seconds"][0])
            runs.warm += said["seconds"][1:]
            runs.peak = max(runs.peak, used.peak_mib)
            runs.rows, runs.check = said["rows"], said["check"]
    for name, runs in found.items():
        expected = next(iter(found.values())).check
        assert np.allclose(runs.check, expected, rtol=1e-6), f"{name} has other results: {runs.check}, not {expected}"
    return found


def _joins(root: Path, feast: str | None, repeats: int) -> dict[str, list[str] | None]:
    return {
        FRAMES: _noria(root, "frames", repeats),
        POLARS: _raw(sys.executable, root, "polars", repeats),
        DUCKDB: _raw(feast, root, "duckdb", repeats),
        TABLE: _noria(root, "table", repeats),
        POLARS_FILES: _raw(sys.executable, root, "polars-files", repeats),
        DUCKDB_FILES: _raw(feast, root, "duckdb-files", repeats),
    }


def _join(root: Path, events: int, labels: int, feast: str | None, why: str) -> str:
    feasts = {"Feast, DuckDB": "duckdb", "Feast, files (dask)": "dask"}
    ways = {
        **_joins(root, feast, 3),
        **{name: _feast(feast, root, "join", backend, 2) for name, backend in feasts.items()},
    }
    found = _in_turns(ways, TURNS, once=tuple(feasts))
    return markdown(
        "Features as of each label's time",
        ("way", "first call, s", "then, s", "peak MiB", "rows back", "times the best raw join"),
        _seconds(ways, found, why, rows=True),
        f"{events:,} events of {events // EACH:,} entities with 20 features, {labels:,} labels, a tenth of them of unknown "
        "entities; only what was strictly before a label counts, and the labels' order stays. The best raw join is that of "
        "Polars or DuckDB with the events where noria has them: in memory, or in files that each call reads, as Feast does. "
        f"Medians; {TURNS} processes each (of Feast one), whose memory includes the input. All give the same sums. Bar: 1.2 "
        "times the best raw join.",
    )


def _large_join(root: Path, events: int, labels: int, feast: str | None, why: str) -> str:
    ways = _joins(root, feast, 1)
    found = _in_turns(ways, 1)
    return markdown(
        "The same with ten times as much",
        ("way", "first call, s", "then, s", "peak MiB", "times the best raw join"),
        _seconds(ways, found, why),
        f"{events:,} events, {labels:,} labels; one process of 2 calls each. Bar: 1.2 times the best raw join.",
    )


def _windows(roots: dict[int, Path], events: int, labels: int, feast: str | None, why: str) -> str:
    noria, numpy, duckdb = "noria", "NumPy by hand, prefix sums", "DuckDB, a group-by for each"
    rows = []
    for each, root in roots.items():
        ways = {
            noria: _noria(root, "windows", 2),
            numpy: _raw(sys.executable, root, "numpy-windows", 2),
            duckdb: _raw(feast, root, "duckdb-windows", 0),
        }
        found = _in_turns(ways, 1)
        took = {name: median(runs.warm or runs.first) for name, runs in found.items()}
        for name in ways:
            if name not in found:
                rows.append((each, name, f"not installed ({why})", "-", "-", "-"))
                continue
            faster = f"{took[duckdb] / took[name]:.1f}" if duckdb in took else "-"
            peak = f"{found[name].peak:.0f}"
            rows.append((each, name, f"{took[name]:.2f}", peak, f"{took[name] / took[numpy]:.2f}", faster))
    return markdown(
        "Five window aggregates",
        ("events per entity", "way", "seconds", "peak MiB", "times NumPy", "times faster than group-bys"),
        rows,
        f"count of 7 days, sum of 30, mean of 90, sum of all time and the last 10 values, for {labels:,} labels over "
        f"{events:,} events in memory. NumPy's last values stay an array with offsets, the others make lists. Medians of "
        "two warm calls, DuckDB's first and only one. All give the same sums. Bars: 2 times NumPy, 10 times faster than the group-bys.",
    )


def _seconds(
    ways: dict[str, list[str] | None], found: dict[str, Runs], why: str, *, rows: bool = False
) -> list[list[str]]:
    best = {names: min(median(found[name].warm) for name in names if name in found) for names in (RAW, RAW_FILES)}
    lines = []
    for name in ways:
        if name not in found:
            lines.append([name, f"not installed ({why})", *["-"] * (4 if rows else 3)])
            continue
        runs, warm = found[name], median(found[name].warm)
        came = [f"{runs.rows:,}"] if rows else []
        lines.append(
            [
                *(name, f"{median(runs.first):.2f}", f"{warm:.2f}", f"{runs.peak:.0f}", *came),
                f"{warm / best[RAW if name in (FRAMES, *RAW) else RAW_FILES]:.2f}",
            ]
        )
    return lines


def _online(root: Path, users: int, feast: str | None, why: str) -> list[str]:
    from real_servers import redis_server

    found: dict[str, list[dict[str, Any]]] = {}
    (root / "redis").mkdir()
    with redis_server(root / "redis") as url:
        parts = urlsplit(url)
        ways = {
            "noria, LMDB": _noria(root, "online", "lmdb://online", users),
            "noria, Redis": _noria(root, "online", url, users),
            "Feast, SQLite": _feast(feast, root, "online", "sqlite", users),
            "Feast, Redis": _feast(
                feast, root, "online", f"{parts.hostname}:{parts.port},password={parts.password}", users
            ),
        }
        for turn in range(TURNS):
            for name, command in ways.items():
                if command is not None and not (turn and name.startswith("Feast")):
                    _empty(url)
                    found.setdefault(name, []).append(json.loads(measure(command).output.splitlines()[-1]))
    return [_reads(ways, found, why), _materialize(ways, found, users, why)]


def _empty(url: str) -> None:
    from redis import Redis

    with Redis.from_url(url) as client:
        client.flushall()


def _reads(ways: dict[str, Any], found: dict[str, list[dict[str, Any]]], why: str) -> str:
    rows = []
    for size in (1, 100):
        for name in ways:
            if name not in found:
                rows.append([size, name, f"not installed ({why})", "-", "-"])
                continue
            key = "feast" if name.startswith("Feast") else "noria"
            middle, late = _percentiles(found[name], f"{key} {size}")
            if key == "feast":
                rows.append([size, name, f"{middle:,.0f}", f"{late:,.0f}", "-"])
                continue
            bare, bare_late = _percentiles(found[name], f"bare {size}")
            client = "lmdb" if "LMDB" in name else "redis " + ("`GET`" if size == 1 else "`MGET`")
            rows.append([size, name, f"{middle:.1f}", f"{late:.1f}", f"{middle / bare:.2f}"])
            rows.append([size, f"bare {client} of the same bytes", f"{bare:.1f}", f"{bare_late:.1f}", "1.00"])
    return markdown(
        "Online reads",
        ("entities", "way", "p50 µs", "p99 µs", "times bare"),
        rows,
        "20 features of each entity, in process. Bare is the store's own client, which doesn't decode; it takes turns with "
        f"noria in the same process. noria: medians of {TURNS} processes. Bars for p50: 8 µs of one and 250 µs of 100 with "
        "LMDB, 1.3 times the bare client with Redis.",
    )


def _percentiles(found: list[dict[str, Any]], key: str) -> tuple[float, float]:
    return median([said[key][0] for said in found]), median([said[key][1] for said in found])


def _materialize(ways: dict[str, Any], found: dict[str, list[dict[str, Any]]], users: int, why: str) -> str:
    column: Callable[[str, str], list[float]] = lambda name, key: [said[key] for said in found[name]]  # noqa: E731
    rows = []
    for name in ways:
        if name in found:
            rows.append([name, f"{median(column(name, 'seconds')):.2f}", f"{max(column(name, 'peak')):.0f}"])
        else:
            rows.append([name, f"not installed ({why})", "-"])
    return markdown(
        "Materializing",
        ("way", "seconds", "peak MiB"),
        rows,
        f"{users * EACH:,} rows of {users:,} entities with 20 features, from files into an empty online store; the first "
        f"call of a process. noria: medians of {TURNS}. Bars: 1 s into LMDB, 3 s into Redis, 500 MB.",
    )


def _feed(events: int) -> str:
    """A group with windows, kept up by a stream."""
    rows = []
    for batch in (1_000, 100_000):
        command = [sys.executable, str(PEERS / "features_feed.py"), str(min(events, batch * 200)), str(batch)]
        found = [json.loads(measure(command).output.splitlines()[-1]) for _ in range(TURNS)]
        rate = median([said["events"] / said["seconds"] for said in found])
        rows.append(
            (f"{batch:,}", f"{rate:,.0f}", f"{batch / rate * 1000:.0f}", f"{median([s['read'] for s in found]):.1f}")
        )
    return markdown(
        "Features that a stream keeps up",
        ("events in a batch", "events/s", "ms for a batch", "then one read, p50 µs"),
        rows,
        "Nine features of 50,000 users, five of them over windows of an hour or a day, into LMDB with the histories that the "
        f"next batch needs, each batch durable. Events are decoded before. Medians of {TURNS}.",
    )


def _over_http(root: Path, users: int) -> str:
    """`POST /features` of one server."""
    from benchmarks.http import SECONDS, wrk

    body = {"groups": ["g"], "entities": {"user": [users // 2]}}
    with features_server(root) as url:
        wrk(f"{url}/features", body, 1)
        loads = [wrk(f"{url}/features", body, SECONDS) for _ in range(TURNS)]
    values = [median([getattr(load, name) for load in loads]) for name in ("rate", "p50", "p99", "errors")]
    return markdown(
        "Features over HTTP",
        ("requests/s", "p50 ms", "p99 ms", "errors"),
        [(f"{values[0]:,.0f}", f"{values[1]:.2f}", f"{values[2]:.2f}", int(values[3]))],
        f"One entity with 20 features from LMDB, one server process on one core, wrk with 32 connections on another, "
        f"{SECONDS} s, medians of {TURNS}. Feast's own server answered 831 requests/s on one core of this machine when "
        "it was measured. Bar: 20,000.",
    )


@contextmanager
def features_server(root: Path) -> Iterator[str]:
    """One server process that reads the example's group, materialized before."""
    with tempfile.TemporaryDirectory(dir=root) as folder:
        measure(_noria(root, "project", folder))
        port = free_port()
        command = [sys.executable, "-m", "noria.serving", "--project", folder, "--features", "--port", str(port)]
        process = subprocess.Popen(["taskset", "-c", "0", *command], stderr=subprocess.DEVNULL)
        try:
            url = f"http://127.0.0.1:{port}"
            for _ in range(200):
                try:
                    if urllib.request.urlopen(f"{url}/health/ready").status == 200:
                        break
                except OSError:
                    time.sleep(0.1)
            yield url
        finally:
            process.terminate()
            process.wait()
