"""Feature groups of a stream, through the real log, table and stores."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from real_servers import redis_server

import noria as nr
from noria.core import ConfigError, ConflictError, IntegrityError, Settings
from noria.features.feed import Feed, feeds
from noria.pipelines import StreamProcessor
from noria.pipelines.stream_sinks import OnlineSink, StreamRows
from noria.storage import Workspace
from noria.storage.online import Mark

SCHEMA: dict[str, Any] = {"user": "int64?", "shop": "str", "amount": "float64?", "at": nr.Timestamp("s")}
VISITS = nr.Stream("visits", schema=SCHEMA, key="user", partitions=2)
FEATURES = {
    "n": nr.count(),
    "n_1h": nr.count(window="1h"),
    "spent": nr.sum("amount"),
    "mean_2h": nr.mean("amount", window="2h"),
    "shops": nr.last("shop", n=3),
    "top": nr.top_k("shop", k=2, window="3h"),
    "fading": nr.decayed_sum("amount", half_life="1h"),
}
HABITS = nr.FeatureGroup("habits", entity="user", source=VISITS, features=FEATURES)
USERS = list(range(60))


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace.open(Settings(tmp_path)) as opened:
        yield opened


def send(workspace: Workspace, seed: int, count: int = 500, newest: int = 20_000) -> None:
    chance = np.random.default_rng(seed)
    users, shops = chance.integers(0, 50, count).tolist(), chance.choice(list("abcd"), count).tolist()
    times, amounts = chance.integers(0, newest, count).tolist(), chance.integers(0, 9, count).tolist()
    rows = zip(users, shops, amounts, times, strict=True)
    events = [dict(zip(("user", "shop", "amount", "at"), row, strict=True)) for row in rows]
    events[7]["user"] = None
    workspace.log.create("visits", 2)
    keys = [b"%d" % (event["user"] or 0) for event in events]
    workspace.log.append("visits", [json.dumps(event).encode() for event in events], keys)


def process(workspace: Workspace, *groups: nr.FeatureGroup, **options: Any) -> None:
    made = feeds(VISITS, workspace, groups)
    with StreamProcessor(VISITS, workspace, keeps=made, **options) as processor:
        processor.run_to_end()


def agrees(workspace: Workspace, group: nr.FeatureGroup = HABITS) -> int:
    """Checks that what is online is what a training set of the table has at that instant, and gives the instant."""
    store = nr.FeatureStore(workspace)
    online = store.get_online(group, USERS)
    assert online.as_of is not None
    when = pl.Series("when", [online.as_of] * len(USERS)).cast(pl.Datetime("us", "UTC"))
    offline = store.training_set(pl.DataFrame([pl.Series("user", USERS), when]), [group], time="when")
    for name in group.features:
        expected = offline[f"{group.name}.{name}"].to_list()
        got = online.columns[f"{group.name}.{name}"]
        assert [
            None if e is None else pytest.approx(e, rel=1e-12) if isinstance(e, float) else e for e in expected
        ] == got
    return online.as_of


def test_what_is_in_the_log_is_online(workspace: Workspace) -> None:
    send(workspace, 1)
    process(workspace, HABITS)
    assert agrees(workspace) <= 20_000_000_000
    send(workspace, 2, newest=40_000)
    process(workspace, HABITS, batch=50)
    assert agrees(workspace) > 20_000_000_000
    found = nr.FeatureStore(workspace).get_online(HABITS, [0, 59])
    assert found.found == [True, False]


def test_features_may_look_at_the_entity_itself(workspace: Workspace) -> None:
    features = {
        "n": nr.count(where=nr.col("shop") == "a"),
        "n_1h": nr.count(window="1h", where=nr.col("user") > 7),
        "me": nr.latest("user"),
    }
    group = nr.FeatureGroup("g", entity=("user", "shop"), source=VISITS, features=features)
    ids = [(user, shop) for user in USERS for shop in "abcd"]
    for seed in (1, 2):
        send(workspace, seed)
        process(workspace, group)
    store = nr.FeatureStore(workspace)
    online = store.get_online(group, ids)
    labels = pl.DataFrame(ids, {"user": pl.Int64, "shop": pl.String}, orient="row").with_columns(
        pl.lit(online.as_of).cast(pl.Datetime("us", "UTC")).alias("when")
    )
    offline = store.training_set(labels, [group], time="when")
    assert {name: offline[name].to_list() for name in online.columns} == online.columns


def test_a_group_that_comes_later_begins_with_what_the_table_has(workspace: Workspace) -> None:
    send(workspace, 1)
    process(workspace)
    later = replace(HABITS, name="later", ttl="90d")
    process(workspace, HABITS, later)
    agrees(workspace)
    process(workspace, HABITS, later)  # nothing is applied twice
    agrees(workspace)
    send(workspace, 2)
    process(workspace, HABITS)
    agrees(workspace)


def test_one_that_began_and_died_is_replaced(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    send(workspace, 1)
    process(workspace)
    with monkeypatch.context() as broken:
        broken.setattr("noria.features.feed.statistics.keep", lambda *_: 1 / 0)  # all is written but the note of it
        with pytest.raises(ZeroDivisionError):
            Feed(HABITS, VISITS, workspace).prepare(VISITS)
    assert not Feed(HABITS, VISITS, workspace).has_begun()
    monkeypatch.setattr("noria.features.feed._PATIENCE", 0.2)
    process(workspace, HABITS)
    agrees(workspace)


def test_a_feed_whose_end_was_cut_short_counts_nothing_twice(workspace: Workspace) -> None:
    send(workspace, 1)
    process(workspace, HABITS)
    name = f"feed/{HABITS.online_spec().place}"
    workspace.online.write("x", [], [], [], mark=Mark(name, workspace.online.marks(name)[name], -1))  # killed after it
    send(workspace, 2)
    with StreamProcessor(VISITS, workspace) as processor:  # the table goes on alone
        processor.run_to_end()
    process(workspace, HABITS)
    agrees(workspace)


def test_one_that_was_believed_dead_applies_nothing_to_what_began_anew(workspace: Workspace) -> None:
    send(workspace, 1)
    process(workspace)
    feed = Feed(HABITS, VISITS, workspace)
    sleeper = OnlineSink(feed, VISITS, workspace.online)
    begun = [sleeper.begin(partition, 0) for partition in (0, 1)]
    send(workspace, 2)
    process(workspace, HABITS)
    feed.end()
    process(workspace, HABITS)
    frame = workspace.table("visits").read()
    for partition, offset in enumerate(begun):
        offsets = np.arange(offset, offset + len(frame))
        with pytest.raises(ConflictError):
            sleeper.write(StreamRows(partition, frame, offsets, int(offsets[-1]) + 1), StreamRows.__new__(StreamRows))
    agrees(workspace)


def test_nobody_begins_before_the_end_is_through(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    send(workspace, 1)
    process(workspace, HABITS)
    feed, drop, began = Feed(HABITS, VISITS, workspace), type(workspace.online).drop, threading.Event()

    def slow(store: Any, group: str, **options: Any) -> None:
        if not began.is_set():
            began.set()
            time.sleep(0.5)
        drop(store, group, **options)

    monkeypatch.setattr(type(workspace.online), "drop", slow)
    ending = threading.Thread(target=feed.end)
    ending.start()
    began.wait()
    Feed(HABITS, VISITS, workspace).prepare(VISITS)
    ending.join()
    agrees(workspace)


def test_one_that_reads_for_long_gives_signs_of_life(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    send(workspace, 1)
    process(workspace)
    monkeypatch.setattr("noria.features.feed._PATIENCE", 0.3)
    monkeypatch.setattr("noria.features.claims._SIGN", 0.05)
    read, times = Feed._table, list[int]()

    def slow(self: Feed, stream: nr.Stream) -> Any:
        times.append(1)
        time.sleep(1.0)
        return read(self, stream)

    monkeypatch.setattr(Feed, "_table", slow)
    both = [threading.Thread(target=Feed(HABITS, VISITS, workspace).prepare, args=[VISITS]) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert len(times) == 1
    agrees(workspace)


def test_what_left_the_log_without_a_row_is_not_waited_for(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(workspace, 1)
    process(workspace)
    workspace.log.append("visits", [b"{}"] * 9, [b"1"] * 9)  # broken: the table's mark stays before them
    process(workspace)
    ends = workspace.log.bounds("visits")
    monkeypatch.setattr(
        type(workspace.log), "bounds", lambda self, topic: {p: (end, end) for p, (_, end) in ends.items()}
    )
    Feed(HABITS, VISITS, workspace).prepare(VISITS)
    monkeypatch.setattr(Feed, "_table", lambda *_: 1 / 0)
    Feed(HABITS, VISITS, workspace).prepare(VISITS)  # it doesn't begin again
    monkeypatch.undo()
    send(workspace, 2)
    process(workspace, HABITS)
    agrees(workspace)


def test_a_store_that_was_lost_begins_anew(workspace: Workspace) -> None:
    send(workspace, 1)
    process(workspace, HABITS)
    workspace.close()
    shutil.rmtree(workspace.settings.state_dir / "online")
    with Workspace.open(workspace.settings) as again:
        send(again, 2)
        process(again, HABITS)
        agrees(again)


def lose_table(workspace: Workspace) -> None:
    for folder in workspace.settings.state_dir.glob("**/visits"):
        if (folder / "_delta_log").exists():
            shutil.rmtree(folder)


def test_a_table_that_was_lost_is_made_from_the_log(workspace: Workspace) -> None:
    send(workspace, 1)
    process(workspace, HABITS)
    lose_table(workspace)
    process(workspace, HABITS)
    assert len(workspace.table("visits").read()) == 500
    agrees(workspace)
    with StreamProcessor(VISITS, workspace, keeps=feeds(VISITS, workspace)) as processor:
        send(workspace, 2)
        processor.run_to_end()
        lose_table(workspace)  # while it is at work
        send(workspace, 3)
        with pytest.raises(ConflictError):
            processor.run_to_end()
    process(workspace)
    assert len(workspace.table("visits").read()) == 1500
    agrees(workspace)


def test_events_that_left_the_log_unapplied_come_from_the_table(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(workspace, 1)
    process(workspace, HABITS)
    send(workspace, 2)
    process_without = feeds(replace(VISITS, name="other"), workspace)
    assert process_without == []
    with StreamProcessor(VISITS, workspace) as processor:
        processor.run_to_end()
    ends = workspace.log.bounds("visits")
    monkeypatch.setattr(
        type(workspace.log), "bounds", lambda self, topic: {p: (end, end) for p, (_, end) in ends.items()}
    )
    process(workspace, HABITS)
    monkeypatch.undo()
    agrees(workspace)


def test_materializing_disturbs_no_stream(workspace: Workspace) -> None:
    store = nr.FeatureStore(workspace)
    stop = threading.Event()

    def stream() -> None:
        with Workspace.open(workspace.settings) as own:
            made = feeds(VISITS, own, [HABITS])
            with StreamProcessor(VISITS, own, keeps=made, flush_seconds=0.05) as processor:
                processor.run(stop)

    send(workspace, 0)
    process(workspace, HABITS)
    thread = threading.Thread(target=stream)
    thread.start()
    for turn in range(1, 8):
        send(workspace, turn, newest=20_000 + turn * 1000)
        done = store.materialize(HABITS)
        assert done.entities == 50
    stop.set()
    thread.join()
    process(workspace, HABITS)
    assert len(workspace.table("visits").read()) == 4000
    agrees(workspace)


def test_what_a_stream_keeps_up_is_not_made_from_anything_else(workspace: Workspace) -> None:
    send(workspace, 1)
    process(workspace, HABITS)
    store, frame = nr.FeatureStore(workspace), workspace.table("visits").read().head(20)
    with pytest.raises(
        ConfigError, match="'habits' is kept up by stream 'visits': its values can't be made from a frame"
    ):
        store.materialize(HABITS, events=frame)
    with pytest.raises(ConfigError, match="as of another instant"):
        store.materialize(HABITS, as_of=5)
    send(workspace, 2)
    process(workspace, HABITS)
    agrees(workspace)


def test_damaged_values_are_built_anew_when_all_is(workspace: Workspace) -> None:
    send(workspace, 1)
    process(workspace, HABITS)
    place = HABITS.online_spec().place
    keys = [b"\xfe" + key for key in HABITS.online_spec().encode(USERS)]
    workspace.online.write(place, keys, [2**62] * len(keys), [b"\xc1"] * len(keys))
    send(workspace, 2)
    with pytest.raises(IntegrityError, match="events of feature group 'habits' is damaged") as failed:
        process(workspace, HABITS)
    assert failed.value.hint == "build it from the stream's table: noria run habits --full"
    report = nr.System("shop", [VISITS, HABITS]).run(workspace, only="habits", full=True)
    assert not report.failed, report.failed[0].error
    agrees(workspace)


def test_an_event_from_the_future_empties_no_window_but_its_own(workspace: Workspace) -> None:
    now = workspace.clock.now() // 1_000_000
    rows = [(1, now - 60), (1, now - 30), (2, now - 30), (3, 9_000_000_000), (3, now - 5)]
    events = [json.dumps({"user": user, "shop": "a", "amount": 1, "at": at}).encode() for user, at in rows]
    workspace.log.create("visits", 2)
    workspace.log.append("visits", events)
    process(workspace, HABITS)
    found = nr.FeatureStore(workspace).get_online(HABITS, [1, 2])
    assert found.columns["habits.n_1h"] == [2, 1]
    assert nr.FeatureStore(workspace).get_online(HABITS, [3]).columns["habits.n"] == [2]
    Feed(HABITS, VISITS, workspace).end()
    process(workspace, HABITS)  # from the table it is the same
    found = nr.FeatureStore(workspace).get_online(HABITS, [1, 2])
    assert found.columns["habits.n_1h"] == [2, 1]
    assert nr.FeatureStore(workspace).get_online(HABITS, [3]).columns["habits.n"] == [2]


def test_a_definition_that_comes_back_begins_anew(workspace: Workspace) -> None:
    send(workspace, 1)
    process(workspace, HABITS)
    changed = replace(HABITS, features={"n": nr.count(window="3h")})
    process(workspace, changed)
    agrees(workspace, changed)
    assert workspace.online.count(HABITS.online_spec().place) == 0  # nobody reads it
    send(workspace, 2)
    process(workspace, changed)
    process(workspace, HABITS)
    agrees(workspace)


def test_what_a_source_of_the_same_name_forgot_begins_anew(workspace: Workspace) -> None:
    send(workspace, 1)
    process(workspace, HABITS)
    files = nr.Source("visits", "visits.csv", schema=SCHEMA)
    store, other = nr.FeatureStore(workspace), replace(HABITS, source=files, features={"n": nr.count(window="3h")})
    store.materialize(other)
    assert store.keep_up(other) == []
    assert workspace.online.count(HABITS.online_spec().place) == 0
    send(workspace, 2)
    process(workspace, HABITS)
    agrees(workspace)


def test_a_run_catches_up(workspace: Workspace) -> None:
    system = nr.System("shop", [VISITS, HABITS])
    send(workspace, 1)
    assert not system.run(workspace).failed
    agrees(workspace)
    send(workspace, 2)
    assert [step.status for step in system.run(workspace).steps.values()] == ["succeeded", "succeeded"]
    agrees(workspace)
    assert [step.status for step in system.status(workspace)] == ["fresh", "fresh"]


def test_only_groups_of_streams_catch_up(workspace: Workspace) -> None:
    group = replace(HABITS, source=nr.Source("visits", "visits.csv", schema=SCHEMA))
    with pytest.raises(ConfigError, match="reads 'visits', which is no stream"):
        nr.FeatureStore(workspace).catch_up(group)


def test_steps_must_leave_the_columns(workspace: Workspace) -> None:
    workspace.log.create("visits", 2)
    source = nr.Source("visits_before", "visits.csv", schema=SCHEMA, steps=[nr.Drop(["amount"])])
    (workspace.settings.root / "visits.csv").write_text("user,shop,amount,at\n1,a,2,3\n")
    assert not nr.System("s", [source]).run(workspace).failed
    stream = replace(VISITS, steps_from=source)
    with pytest.raises(ConfigError, match="the events have no column 'amount'"):
        StreamProcessor(stream, workspace, keeps=[Feed(replace(HABITS, source=stream), stream, workspace)])


def test_redis_keeps_the_same(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        settings = Settings(tmp_path)
        settings = replace(settings, storage=replace(settings.storage, online=url))
        with Workspace.open(settings) as workspace:
            send(workspace, 1)
            process(workspace, HABITS, batch=100)
            agrees(workspace)
            send(workspace, 2, newest=50_000)
            process(workspace, HABITS)
            agrees(workspace)
