"""A backfill is the training set as a table; a kill costs the partitions that weren't done, and nothing else."""

from __future__ import annotations

import subprocess
import sys
import uuid
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import noria as nr
from noria.core import BusyError, ConfigError, DataError, NotFoundError, Settings, exclusive
from noria.features import partitions
from noria.features.asked import Work
from noria.storage import Workspace
from noria.storage.digest import digest

DAY = 86_400_000_000
SCHEMA = {"user": "int64", "price": "float64?", "shop": "str", "at": nr.Timestamp("us")}
SOURCE = nr.Source("buys", "buys.csv", schema=SCHEMA)
FEATURES = {
    "n": nr.count(window="7d"),
    "spent": nr.sum("price"),
    "shops": nr.top_k("shop", k=2),
    "each": nr.derived(nr.col("spent") / nr.col("n")),
}
LABELS = {"user": pl.Int64, "when": pl.Datetime("us", "UTC"), "n": pl.Int64}


def habits(**options: Any) -> nr.FeatureGroup:
    return nr.FeatureGroup("habits", **{"entity": "user", "source": SOURCE, "features": FEATURES, **options})


def buys(count: int = 3000, seed: int = 1) -> pl.DataFrame:
    random = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "user": random.integers(0, 200, count),
            "price": random.normal(10, 3, count),
            "shop": [f"s{n}" for n in random.integers(0, 9, count)],
            "at": random.integers(0, 90, count) * DAY,
        }
    ).with_columns(pl.col("at").cast(pl.Datetime("us", "UTC")))


def asked(count: int = 1000) -> pl.DataFrame:
    random = np.random.default_rng(2)
    rows = {"user": random.integers(0, 220, count), "when": random.integers(0, 95, count) * DAY, "n": np.arange(count)}
    return pl.DataFrame(rows).cast({"when": LABELS["when"]})


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    monkeypatch.setattr(partitions, "PARTITION", 20_000)
    with Workspace.open(Settings(tmp_path)) as opened:
        opened.table("buys").write(buys(), run_id="a")
        opened.table("asked").write(asked(), run_id="a")
        yield opened


def test_it_is_the_training_set_as_a_table(workspace: Workspace) -> None:
    store = nr.FeatureStore(workspace)
    done = store.backfill(habits(ttl="20d"), "past", labels="asked", time="when")
    expected = store.training_set(asked(), [habits(ttl="20d")], time="when")
    made = workspace.table("past").read()
    assert done.partitions == done.computed > 5
    assert (done.rows, done.versions, done.version) == (1000, {"buys": 0, "asked": 0}, 0)
    assert digest(made.sort("n")) == digest(expected)
    from_frame = store.backfill(habits(ttl="20d"), "past2", labels=asked(), time="when")
    assert from_frame.versions == {"buys": 0}
    assert workspace.table("past2").read().equals(made)
    assert store.catalog.latest("habits").group().to_dict() == habits(ttl="20d").to_dict()


def test_snapshots_are_what_was_online_then(workspace: Workspace) -> None:
    store, instants = nr.FeatureStore(workspace), [n * DAY for n in (0, 3, 30, 89)]
    done = store.backfill(habits(), "daily", instants=instants)
    made = workspace.table("daily").read()
    assert done.rows == len(made) > 400
    for instant in instants:
        store.materialize(habits(), as_of=instant)
        mine = made.filter(pl.col("as_of").dt.timestamp("us") == instant)
        online = store.get_online(habits(), list(range(200)))
        assert sorted(mine["user"]) == [user for user, found in enumerate(online.found) if found]
        for name in FEATURES:
            values = dict(zip(mine["user"], mine[f"habits.{name}"].to_list(), strict=True))
            assert all(values[user] == online.columns[f"habits.{name}"][user] for user in values)


def test_done_again_it_does_nothing_until_something_has_changed(workspace: Workspace) -> None:
    store = nr.FeatureStore(workspace)

    def fill(group: nr.FeatureGroup, **options: Any) -> tuple[int, bool]:
        done = store.backfill(group, "past", labels="asked", time="when", **options)
        return done.version, done.computed > 0

    assert [fill(habits()), fill(habits())] == [(0, True), (0, False)]
    assert fill(habits(ttl="9d")) == (1, True)
    workspace.table("buys").write(buys(100, seed=3), run_id="b")
    assert [fill(habits(ttl="9d")), fill(habits(ttl="9d"))] == [(2, True), (2, False)]
    before = workspace.table("past").read(1)
    assert fill(habits(ttl="9d"), versions={"buys": 0}) == (3, True)
    assert workspace.table("past").read().equals(before)
    assert len(workspace.table("past").read()) == 1000


KILLED = """
import os, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_backfill as t
from noria.features.asked import Work
t.partitions.PARTITION = 20_000
stage, left = Work.__call__, [7]
def dying(self, item):
    left[0] -= 1
    if left[0] < 0:
        os.kill(os.getpid(), 9)
    return stage(self, item)
Work.__call__ = dying
with t.Workspace.open(t.Settings(Path({root!r}))) as workspace:
    t.nr.FeatureStore(workspace).backfill(t.habits(), "past", labels="asked", time="when")
"""


def test_killed_again_and_again_it_goes_on_where_it_was_on_what_it_began_with(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = KILLED.format(tests=str(Path(__file__).parent), root=str(workspace.settings.root))
    store = nr.FeatureStore(workspace)
    expected = store.training_set(asked(), [habits()], time="when")
    for _ in range(3):
        killed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert killed.returncode == -9, killed.stderr
        assert workspace.table("past").version() is None
        workspace.table("buys").write(buys(200, seed=7), run_id=f"more{_}")  # meanwhile, more comes in
        workspace.table("asked").write(asked(5), run_id=f"more{_}")
    done = store.backfill(habits(), "past", labels="asked", time="when")
    assert 0 < done.computed < done.partitions - 6
    assert done.versions == {"buys": 0, "asked": 0}
    assert digest(workspace.table("past").read().sort("n")) == digest(expected)
    assert not list(workspace.settings.root.glob(".noria/scratch/**/*.arrow"))
    again = store.backfill(habits(), "past", labels="asked", time="when")  # what came in meanwhile
    assert again.versions == {"buys": 3, "asked": 3}
    assert again.rows == 1015


@pytest.mark.parametrize("place", ["commit", "note"])
def test_cut_off_around_the_commit_it_is_committed_once(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    store = nr.FeatureStore(workspace)
    table = type(workspace.table("past"))
    commit = table.commit

    def cut_off(self: Any, *words: Any, **options: Any) -> int:
        if place == "note":
            commit(self, *words, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(table, "commit", cut_off)
        with pytest.raises(KeyboardInterrupt):
            store.backfill(habits(), "past", labels="asked", time="when")
    done = store.backfill(habits(), "past", labels="asked", time="when")
    assert (done.version, done.computed, done.rows) == (0, 0, 1000)
    assert len(workspace.table("past").read()) == 1000


def test_another_question_leaves_what_was_begun(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    store, call = nr.FeatureStore(workspace), Work.__call__

    def cut_off(self: Work, item: Any) -> Any:
        if item[0] >= 2:
            raise KeyboardInterrupt
        return call(self, item)

    with monkeypatch.context() as patch:
        patch.setattr(Work, "__call__", cut_off)
        with pytest.raises(KeyboardInterrupt):
            store.backfill(habits(), "past", labels="asked", time="when")
    done = store.backfill(habits(ttl="5d"), "past", labels="asked", time="when")
    assert done.computed == done.partitions
    expected = store.training_set(asked(), [habits(ttl="5d")], time="when")
    assert digest(workspace.table("past").read().sort("n")) == digest(expected)


def test_without_any_row_there_is_an_empty_table(workspace: Workspace) -> None:
    store = nr.FeatureStore(workspace)
    assert store.backfill(habits(), "none", labels=asked(5).clear(), time="when").rows == 0
    made = workspace.table("none").read()
    assert made.schema == store.training_set(asked(5), [habits()], time="when").schema
    assert store.backfill(habits(), "none2", instants=[0]).rows == 0
    assert workspace.table("none2").read().columns == ["user", "as_of", *(f"habits.{name}" for name in FEATURES)]


def test_mistakes_are_told_before_any_work(workspace: Workspace) -> None:
    store = nr.FeatureStore(workspace)
    cases: list[tuple[type[Exception], str, dict[str, Any]]] = [
        (ConfigError, "labels and their time, or instants", {}),
        (ConfigError, "labels and their time, or instants", {"labels": "asked", "time": "when", "instants": [1]}),
        (ConfigError, "did you mean 'when'", {"labels": "asked", "time": "wen"}),
        (ConfigError, "no column 'user'", {"labels": asked().drop("user"), "time": "when"}),
        (DataError, "1 labels have no 'when'", {"labels": asked(1).with_columns(when=pl.lit(None, LABELS["when"])), "time": "when"}),
        (NotFoundError, "never been written", {"labels": "akked", "time": "when"}),
        (NotFoundError, "no version 7", {"labels": "asked", "time": "when", "versions": {"asked": 7}}),
        (ConfigError, "a version of 'sales' is given", {"labels": "asked", "time": "when", "versions": {"sales": 7}}),
        (ConfigError, "2 instants", {"instants": [5, 5]}),
    ]  # fmt: skip
    for error, message, options in cases:
        with pytest.raises(error, match=message):
            store.backfill(habits(), "past", **options)
        assert workspace.table("past").version() is None
    with pytest.raises(ConfigError, match="no backfill made it"):
        store.backfill(habits(), "buys", labels="asked", time="when")
    with (
        exclusive(workspace.settings.state_dir / "backfill-past.lock", "it"),
        pytest.raises(BusyError, match="backfill of 'past' is already going on"),
    ):
        store.backfill(habits(), "past", labels="asked", time="when")


@pytest.mark.filterwarnings("default")  # Ray's own
def test_on_ray_the_table_is_the_same_to_the_bit(workspace: Workspace) -> None:
    ray = pytest.importorskip("ray")
    there = replace(workspace, settings=replace(workspace.settings, compute="ray"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            nr.FeatureStore(there).backfill(habits(ttl="20d"), "there", labels="asked", time="when")
        finally:
            ray.shutdown()
    nr.FeatureStore(workspace).backfill(habits(ttl="20d"), "here", labels="asked", time="when")
    assert digest(workspace.table("there").read()) == digest(workspace.table("here").read())


def test_a_uuid_is_one_entity_however_the_labels_write_it(workspace: Workspace) -> None:
    texts = [str(uuid.UUID(int=n)) for n in range(50)]
    source = nr.Source("visits", "visits.csv", schema={"id": "uuid", "at": nr.Timestamp("us")})
    group = nr.FeatureGroup("seen", entity="id", source=source, features={"n": nr.count()})
    at = pl.Series("at", [0] * 50, LABELS["when"])
    workspace.table("visits").write(pl.DataFrame({"id": texts, "at": at}), run_id="a")
    labels = pl.DataFrame({"id": [text.upper().replace("-", "") for text in texts], "when": at.dt.offset_by("1d")})
    store = nr.FeatureStore(workspace)
    assert store.training_set(labels, [group], time="when")["seen.n"].to_list() == [1] * 50
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(partitions, "IN_MEMORY", 0)
        patch.setattr(partitions, "PARTITION", 500)
        assert store.training_set(labels, [group], time="when")["seen.n"].to_list() == [1] * 50
        assert store.backfill(group, "seen_then", labels=labels, time="when").partitions > 5
    assert workspace.table("seen_then").read()["seen.n"].to_list() == [1] * 50
