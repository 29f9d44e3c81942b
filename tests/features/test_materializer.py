"""Materializing in full, by partitions, and only what has changed, comes to the same."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import noria as nr
from noria.core import Settings
from noria.features import partitions
from noria.features.materializer import Materializer
from noria.storage import Workspace
from noria.testing import ManualClock
from tests.features.test_parity import EVENTS, FEATURES, SCHEMA, START, Event, frame

HOUR = 3_600_000_000
SOURCE = nr.Source("events", "events.csv", schema=SCHEMA)
GROUP = nr.FeatureGroup("g", "who", SOURCE, FEATURES)
START_MICROS = int(START.timestamp()) * 1_000_000
NOW = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace.open(Settings(tmp_path), ManualClock(NOW)) as opened:
        yield opened


def everyone(workspace: Workspace, group: nr.FeatureGroup = GROUP, count: int = 200) -> dict[str, list[Any]]:
    return nr.FeatureStore(workspace).get_online(group, list(range(count))).columns


def some(chance: np.random.Generator, count: int, low: int, high: int) -> list[Event]:
    return [
        Event(int(who), float(x), int(i), "abc"[i % 3], None, None, int(hour))
        for who, x, i, hour in zip(
            chance.integers(low, high, count),
            chance.normal(size=count),
            chance.integers(0, 9, count),
            chance.integers(0, 12, count),
            strict=True,
        )
    ]


def test_only_entities_with_new_rows_are_computed(workspace: Workspace) -> None:
    chance, store, table = np.random.default_rng(1), nr.FeatureStore(workspace), workspace.table("events")
    table.write(frame(some(chance, 2000, 0, 150)), run_id="a")
    assert store.materialize(GROUP).full
    again = store.materialize(GROUP)
    assert (again.full, again.entities) == (False, 0)
    new = [*some(chance, 60, 140, 160), replace(some(chance, 1, 3, 4)[0], hour=20)]
    table.write(frame(new), run_id="b")
    done = store.materialize(GROUP)
    assert (done.full, done.entities) == (False, len({event.who for event in new}))
    assert done.as_of == int((START + timedelta(hours=20)).timestamp()) * 1_000_000 + 1
    found = everyone(workspace)
    assert store.materialize(GROUP, full=True).full
    assert everyone(workspace) == found
    assert len(found["g.n"]) == 200


@settings(max_examples=60, deadline=None)
@given(st.lists(EVENTS, min_size=2, max_size=4))
def test_step_by_step_comes_to_the_same_as_at_once(
    tmp_path_factory: pytest.TempPathFactory, parts: list[list[Event]]
) -> None:
    with Workspace.open(Settings(tmp_path_factory.mktemp("w")), ManualClock(NOW)) as workspace:
        store, table = nr.FeatureStore(workspace), workspace.table("events")
        others = [Event(who, 1.0, 1, "a", 1.0, None, 1) for who in range(10, 30)]  # so that few entities have changed
        for number, events in enumerate(([*others, *parts[0]], *parts[1:])):
            table.write(frame(events), run_id=str(number))
            store.materialize(GROUP)
        found = everyone(workspace, count=30)
        store.materialize(GROUP, full=True)
        assert everyone(workspace, count=30) == found


def test_what_makes_it_compute_everything(workspace: Workspace) -> None:
    clock = workspace.clock
    assert isinstance(clock, ManualClock)
    chance, store, table = np.random.default_rng(1), nr.FeatureStore(workspace), workspace.table("events")
    table.write(frame(some(chance, 1000, 0, 100)), run_id="a")
    store.materialize(GROUP)
    assert not store.materialize(GROUP).full
    assert store.materialize(GROUP, as_of=START_MICROS + 3 * HOUR).full  # another instant
    assert store.materialize(GROUP).full  # that instant was an earlier one
    clock.advance(25 * HOUR)
    assert store.materialize(GROUP).full  # statistics are a day old
    table.write(frame(some(chance, 1000, 0, 100)), run_id="b")
    assert store.materialize(GROUP).full  # everybody has changed
    table.write(frame(some(chance, 10, 0, 100)), run_id="c", mode="overwrite")
    assert store.materialize(GROUP).full  # rows went
    assert sum(n > 0 for n in everyone(workspace)["g.n"]) <= 10
    workspace.online.drop(GROUP.online_spec().place)
    assert store.materialize(GROUP).full  # the values were lost


def test_of_two_at_once_none_leaves_old_values(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    chance, store, table = np.random.default_rng(1), nr.FeatureStore(workspace), workspace.table("events")
    table.write(frame(some(chance, 1000, 0, 100)), run_id="a")
    store.materialize(GROUP)
    write, note, reached, go = Materializer._write, Materializer._note, threading.Event(), threading.Event()

    def wait(*args: Any) -> None:
        if threading.current_thread() is slow and not reached.is_set():
            reached.set()
            go.wait()
        write(*args)

    def let(*args: Any) -> None:
        if threading.current_thread() is not slow:
            go.set()
            slow.join()
        note(*args)

    monkeypatch.setattr(Materializer, "_write", wait)
    monkeypatch.setattr(Materializer, "_note", let)
    slow = threading.Thread(target=lambda: store.materialize(GROUP, full=True))
    slow.start()
    reached.wait()  # it has read the table
    table.write(frame([replace(some(chance, 1, 7, 8)[0], hour=0)]), run_id="late")
    store.materialize(GROUP)
    monkeypatch.undo()
    found = everyone(workspace)
    store.materialize(GROUP, full=True)
    assert found == everyone(workspace)


def test_what_was_never_noted_is_forgotten_with_its_rows(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    chance, store, table = np.random.default_rng(1), nr.FeatureStore(workspace), workspace.table("events")
    table.write(frame(some(chance, 500, 0, 100)), run_id="a")
    store.materialize(GROUP)
    table.write(frame([replace(some(chance, 1, 7, 8)[0], hour=999)]), run_id="wrong")
    with monkeypatch.context() as killed:
        killed.setattr(Materializer, "_note", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            store.materialize(GROUP)
    right = [*some(chance, 500, 0, 100), replace(some(chance, 1, 3, 4)[0], hour=50)]
    table.write(frame(right), run_id="b", mode="overwrite")
    done = store.materialize(GROUP)
    assert store.get_online(GROUP, [7]).as_of == done.as_of
    found = everyone(workspace)
    store.materialize(replace(GROUP, name="h"))
    assert list(everyone(workspace, replace(GROUP, name="h")).values()) == list(found.values())


def test_by_partitions_it_is_the_same(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    chance, store = np.random.default_rng(1), nr.FeatureStore(workspace)
    workspace.table("events").write(frame(some(chance, 3000, 0, 150)), run_id="a")
    store.materialize(GROUP)
    found, known = everyone(workspace), store.get_online(GROUP, [1]).as_of
    monkeypatch.setattr(partitions, "IN_MEMORY", 10_000)
    monkeypatch.setattr(partitions, "PARTITION", 30_000)
    monkeypatch.setattr(partitions, "_BUFFER", 50_000)
    other = replace(GROUP, name="h")
    done = store.materialize(other)
    assert (done.events, done.entities) == (3000, 150)
    assert store.get_online(other, [1]).as_of == known
    assert list(everyone(workspace, other).values()) == list(found.values())


def test_without_rows_there_is_nobody(workspace: Workspace) -> None:
    workspace.table("events").write(frame([]), run_id="a")
    done = nr.FeatureStore(workspace).materialize(GROUP)
    assert (done.events, done.entities, done.as_of) == (0, 0, 0)
    assert pl.Series(everyone(workspace)["g.n"]).sum() == 0
