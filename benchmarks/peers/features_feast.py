"""Feast's side of the features' benchmark: `ROOT join duckdb|dask REPEATS`, or `ROOT online sqlite|HOST:PORT,… USERS`.

The online half materializes, then reads.
"""

import json
import resource
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Float64
from features_shared import USERS_READ, check, percentiles, timed

NAMES = [f"f{n}" for n in range(20)]
FEATURES = [f"g:{name}" for name in NAMES]
root, what, backend, count = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])


def repo(folder: str) -> FeatureStore:
    online: dict[str, str] = {"type": "sqlite", "path": f"{folder}/online.db"}
    if what == "online" and backend != "sqlite":
        online = {"type": "redis", "connection_string": backend}
    store = FeatureStore(
        config=RepoConfig(
            project="bench",
            provider="local",
            registry=f"{folder}/registry.db",
            online_store=online,
            offline_store={"type": backend if what == "join" else "dask"},
            entity_key_serialization_version=3,
        )
    )
    user = Entity(name="user", join_keys=["user"], value_type=ValueType.INT64)
    view = FeatureView(
        name="g",
        entities=[user],
        ttl=timedelta(0),
        schema=[Field(name=name, dtype=Float64) for name in NAMES],
        source=FileSource(name="events", path=str(root / "events.parquet"), timestamp_field="at"),
        online=True,
    )
    store.apply([user, view])
    return store


def join(store: FeatureStore) -> None:
    labels = pd.read_parquet(root / "labels.parquet").rename(columns={"when": "event_timestamp"})
    seconds, made = timed(lambda: store.get_historical_features(labels, FEATURES).to_arrow(), count)
    frame = pl.DataFrame(pl.from_arrow(made)).rename({"event_timestamp": "when"})
    frame = frame.with_columns(pl.col("when").cast(pl.Datetime("us", "UTC")))
    print(json.dumps({"seconds": seconds, "rows": len(frame), "check": check(frame)}))


def online(store: FeatureStore) -> None:
    began = time.perf_counter()
    store.materialize(datetime(2023, 1, 1, tzinfo=UTC), datetime(2025, 1, 1, tzinfo=UTC))
    found: dict[str, object] = {"seconds": time.perf_counter() - began}
    found["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rng = np.random.default_rng(1)
    for size, calls in USERS_READ.items():
        users = [rng.integers(0, count, size).tolist() for _ in range(calls // 10)]
        questions = [[{"user": user} for user in some] for some in users]
        ways = {"feast": (lambda rows: store.get_online_features(FEATURES, rows).to_dict(), questions)}
        found[f"feast {size}"] = percentiles(ways)["feast"]
    print(json.dumps(found))


with tempfile.TemporaryDirectory(dir=root) as folder:
    (join if what == "join" else online)(repo(folder))
