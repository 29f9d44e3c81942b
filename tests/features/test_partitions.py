"""By partitions, everything is what it is in memory, to the bit."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import noria as nr
from noria.core import DataError, Settings, StorageError
from noria.features import joins, partitions
from noria.features.partitions import Wanted, hash_ids, partition_of, partitioned
from noria.storage import Workspace
from noria.storage.digest import digest

START = datetime(2024, 1, 1, tzinfo=UTC)
SCHEMA: dict[str, Any] = {
    "who": "int32?", "where": "str?", "x": "float64?", "i": "int16?", "s": "str?", "at": nr.Timestamp("us"),
}  # fmt: skip
FEATURES = {
    "n": nr.count(),
    "n_3h": nr.count(window="3h", where=nr.col("x") > 0),
    "total": nr.sum("x"),
    "mean": nr.mean("x", window="5h"),
    "std": nr.std("i"),
    "low": nr.min("i", window="3h"),
    "newest": nr.latest("s"),
    "first": nr.first("s"),
    "last": nr.last("i", n=3),
    "kinds": nr.distinct("s", window="5h"),
    "top": nr.top_k("s", k=2),
    "fading": nr.decayed_sum("x", half_life="2h"),
    "ratio": nr.derived(nr.col("total") / nr.col("n")),
}
TYPES = {
    "who": pl.Int32, "where": pl.String, "x": pl.Float64, "i": pl.Int16, "s": pl.String, "at": pl.Datetime("us", "UTC"),
}  # fmt: skip
EVENTS = st.lists(
    st.tuples(
        st.none() | st.integers(1, 6),
        st.none() | st.sampled_from("pq"),
        st.none() | st.floats(-1e6, 1e6) | st.just(float("nan")),
        st.none() | st.integers(-9, 9),
        st.none() | st.sampled_from("abc"),
        st.integers(0, 12).map(lambda hour: START + timedelta(hours=hour)),
    ),
    max_size=40,
)
LABELS = st.lists(
    st.tuples(
        st.none() | st.integers(1, 8) | st.just(2**40),
        st.none() | st.sampled_from("pqr"),
        st.integers(0, 14).map(lambda hour: START + timedelta(hours=hour)),
    ),
    max_size=20,
)


def groups() -> list[nr.FeatureGroup]:
    source = nr.Source("events", "events.csv", schema=SCHEMA)
    few = {name: FEATURES[name] for name in ("n", "newest")}
    return [
        nr.FeatureGroup("g", entity="who", source=source, features=FEATURES),
        nr.FeatureGroup("both", entity=("where", "who"), source=source, features=FEATURES),
        nr.FeatureGroup("mortal", entity="who", source=source, features=few, ttl="2h"),
    ]


@settings(max_examples=60, deadline=None)
@given(EVENTS, LABELS, st.integers(1, 9), st.integers(1, 4000))
def test_a_join_by_partitions_is_the_join_in_memory(
    events: list[Any], labels: list[Any], batch: int, partition: int
) -> None:
    frame = pl.DataFrame(events, schema=TYPES, orient="row")
    asked = pl.DataFrame(labels, schema={"who": pl.Int64, "where": pl.String, "when": TYPES["at"]}, orient="row")
    asked = asked.with_row_index()
    with tempfile.TemporaryDirectory() as folder, Workspace.open(Settings(Path(folder))) as workspace:
        workspace.table("events").write(frame, run_id="a")
        store = nr.FeatureStore(workspace)
        expected = store.training_set(asked, groups(), time="when")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(partitions, "IN_MEMORY", 0)
            patch.setattr(partitions, "PARTITION", partition)
            patch.setattr(partitions, "BATCH", batch)
            patch.setattr(partitions, "_BUFFER", 200)
            made = store.training_set(asked, groups(), time="when")
        assert made.schema == expected.schema
        assert made.equals(expected)
        assert digest(made) == digest(expected)
        assert not list(Path(folder).glob(".noria/scratch/joins/*"))


def test_every_row_comes_back_once_in_its_partition_and_in_its_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "_BUFFER", 10_000)
    random = np.random.default_rng(1)
    rows = pl.DataFrame({"who": random.integers(0, 500, 5000), "n": np.arange(5000), "s": ["text"] * 5000})
    types = pl.Schema({"who": pl.Int64()})
    frames = [rows.slice(start, 300) for start in range(0, 5000, 300)]
    with partitioned(frames, types, 7, tmp_path, schema=rows.schema) as parts:
        found = [parts.read(number) for number in range(7)]
        assert len(parts.runs) > 5
    assert parts.rows == 5000
    assert pl.concat(found).sort("n").equals(rows)
    for number, frame in enumerate(found):
        assert frame["n"].is_sorted()
        assert set(partition_of(hash_ids(frame, types), 7).tolist()) == {number}
        assert 300 < len(frame) < 1200
    only = np.array([number == 3 for number in range(7)])
    with partitioned(frames, types, 7, tmp_path, schema=rows.schema, only=only) as parts:
        assert [len(parts.read(number)) for number in range(7)] == [len(found[3]) if n == 3 else 0 for n in range(7)]


def test_rows_of_entities_that_nobody_asks_for_are_left_out(tmp_path: Path) -> None:
    rows = pl.DataFrame({"who": np.arange(100_000)})
    types = pl.Schema({"who": pl.Int64()})
    wanted = Wanted(hash_ids(rows.head(100), types))
    with partitioned([rows], types, 3, tmp_path, schema=rows.schema, wanted=wanted) as parts:
        left = pl.concat([parts.read(number) for number in range(3)])["who"]
    assert set(range(100)) <= set(left)
    assert len(left) < 20_000


def test_an_event_without_a_time_is_an_error_there_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partitions, "IN_MEMORY", 0)
    frame = pl.DataFrame([(1, "p", 1.0, 1, "a", None)], schema=TYPES, orient="row")
    labels = pl.DataFrame({"who": [1], "where": ["p"], "when": [START]})
    with (
        Workspace.open(Settings(tmp_path)) as workspace,
        pytest.raises(DataError, match="1 events of 'events' have no"),
    ):
        nr.FeatureStore(workspace).training_set(labels, groups(), time="when", events={"events": frame})


def test_a_folder_that_can_not_be_written_to_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partitions, "_BUFFER", 0)
    (tmp_path / "file").touch()
    rows = pl.DataFrame({"who": [1, 2]})
    with (
        pytest.raises(StorageError, match="rows can't be put aside"),
        partitioned([rows, rows], rows.schema, 2, tmp_path / "file" / "in", schema=rows.schema),
    ):
        pass


def test_a_damaged_table_is_told_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = pl.DataFrame([(1, "p", 1.0, 1, "a", START)] * 9, schema=TYPES, orient="row")
    labels = pl.DataFrame({"who": [1], "where": ["p"], "when": [START]})
    with Workspace.open(Settings(tmp_path)) as workspace:
        workspace.table("events").write(frame, run_id="a")
        for file in tmp_path.glob(".noria/tables/events/*.parquet"):
            file.unlink()
        for budget in (joins.partitions.IN_MEMORY, 0):
            monkeypatch.setattr(partitions, "IN_MEMORY", budget)
            with pytest.raises(StorageError, match="table 'events' can't be read"):
                nr.FeatureStore(workspace).training_set(labels, groups(), time="when")
