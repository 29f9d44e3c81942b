"""Events and labels as Parquet, and the events as a table of noria's: `ROOT EVENTS LABELS EVENTS_PER_ENTITY FEATURES`.

A tenth of the labels' users is unknown.
"""

import sys
from pathlib import Path

import numpy as np
import polars as pl

from noria.storage.urls import open_table

root, (events, labels, each, features) = Path(sys.argv[1]), map(int, sys.argv[2:])
rng, users = np.random.default_rng(0), max(events // each, 1)


def times(count: int) -> pl.Series:
    micros = 1_700_000_000_000_000 + rng.integers(0, 90 * 86_400_000_000, count)
    return pl.Series(micros).cast(pl.Datetime("us", "UTC"))


root.mkdir()
columns = {f"f{n}": rng.normal(size=events) for n in range(features)}
frame = pl.DataFrame({"user": rng.integers(0, users, events), "at": times(events), **columns})
frame.write_parquet(root / "events.parquet", compression="uncompressed")
open_table(f"file://{root / 'tables'}", "events").write(frame, run_id="example")
asked = pl.DataFrame({"user": rng.integers(0, int(users * 1.1), labels), "when": times(labels)})
asked.write_parquet(root / "labels.parquet")
