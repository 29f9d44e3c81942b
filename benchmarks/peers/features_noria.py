"""noria's side of the features' benchmark: `ROOT frames|table|windows REPEATS`, or `ROOT online URL USERS`.

The online half materializes, then reads. `ROOT project FOLDER` materializes into a project in that folder.
"""

import json
import resource
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import lmdb
import numpy as np
import polars as pl
from features_shared import USERS_READ, check, check_windows, percentiles, timed

import noria as nr
from noria.core import StorageSettings
from noria.features import OnlineReader
from noria.features.online import OnlineSpec
from noria.storage import OnlineStore

root, what = Path(sys.argv[1]), sys.argv[2]
NAMES = [f"f{n}" for n in range(20)]
SCHEMA = {"user": "int64", "at": nr.Timestamp("us"), **dict.fromkeys(NAMES, "float64")}
SOURCE = nr.Source("events", "events.parquet", schema=SCHEMA)
LATEST = nr.FeatureGroup("g", "user", SOURCE, {name: nr.latest(name) for name in NAMES})
WINDOWS = nr.FeatureGroup(
    "w",
    "user",
    SOURCE,
    {
        "count7": nr.count(window="7d"),
        "sum30": nr.sum("f0", window="30d"),
        "mean90": nr.mean("f0", window="90d"),
        "sum": nr.sum("f1"),
        "last": nr.last("f0", n=10),
    },
)


def join(store: nr.FeatureStore, group: nr.FeatureGroup, repeats: int) -> None:
    labels, columns = pl.read_parquet(root / "labels.parquet"), ["user", "at", "f0", "f1"]
    events = None
    if what != "table":
        events = {"events": pl.read_parquet(root / "events.parquet", columns=columns if group is WINDOWS else None)}
    seconds, made = timed(lambda: store.training_set(labels, [group], time="when", events=events), repeats)
    made = made.rename({name: name.partition(".")[2] for name in made.columns if "." in name})
    print(
        json.dumps(
            {"seconds": seconds, "rows": len(made), "check": (check if group is LATEST else check_windows)(made)}
        )
    )


def read(workspace: nr.Workspace) -> dict[str, list[float]]:
    spec = LATEST.online_spec()
    reader, rng = OnlineReader(workspace.online, [spec]), np.random.default_rng(1)
    found: dict[str, list[float]] = {}
    for size, calls in USERS_READ.items():
        questions = [rng.integers(0, int(sys.argv[4]), size).tolist() for _ in range(calls)]
        ways = {
            "noria": (lambda ids: reader.read("g", ids), questions),
            "bare": bare(workspace.online, spec, questions),
        }
        for name, result in percentiles(ways).items():
            found[f"{name} {size}"] = result
    return found


def bare(store: OnlineStore, spec: OnlineSpec, questions: list[list[int]]) -> object:
    """The store's own client, asked for the same values by names that are ready made."""
    names = [[spec.key(user) for user in users] for users in questions]
    if sys.argv[3].startswith("redis"):
        from redis import Redis

        names = [[f"noria:values:{spec.place}\0".encode() + key for key in keys] for keys in names]
        client = Redis.from_url(sys.argv[3], protocol=2)
        if len(names[0]) == 1:
            return client.get, [name for (name,) in names]
        return client.mget, names
    # A process must not open an LMDB file twice, so this is the one that noria has opened.
    environment: lmdb.Environment = store._environment  # type: ignore[attr-defined]
    names = [[f"{spec.place}\0".encode() + key for key in keys] for keys in names]

    def get(keys: list[bytes]) -> list[bytes]:
        with environment.begin() as transaction:
            return [transaction.get(key) for key in keys]

    return get, names


# Each run has a folder of its own; the table, which all of them read, was written before.
online = sys.argv[3] if what == "online" else "lmdb://online"
storage = StorageSettings(tables=f"file://{root / 'tables'}", online=online)
with (
    tempfile.TemporaryDirectory(dir=root) as folder,
    nr.Workspace.open(nr.Settings(Path(folder), storage=storage)) as w,
):
    store = nr.FeatureStore(w)
    if what == "project":  # for a server
        with nr.Workspace.open(nr.Settings(Path(sys.argv[3]))) as project:
            nr.FeatureStore(project).materialize(LATEST, events=w.table("events").read())
    elif what == "online":
        began = time.perf_counter()
        store.materialize(LATEST)
        seconds, peak = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        began = time.perf_counter()
        store.materialize(replace(LATEST, name="again"))
        again = time.perf_counter() - began
        print(json.dumps({"seconds": seconds, "again": again, "peak": peak, **read(w)}))
    else:
        join(store, WINDOWS if what == "windows" else LATEST, int(sys.argv[3]))
