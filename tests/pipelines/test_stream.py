from __future__ import annotations

import io
import json
import random
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from real_servers import tansu_broker

import noria as nr
from noria.core import ConfigError, Settings, StorageError
from noria.features.feed import feeds
from noria.pipelines.event_formats import Arrow, Json
from noria.pipelines.json_events import read_json_events
from noria.pipelines.json_lines import read_json_lines
from noria.pipelines.online_sinks import LatestRow, Totals, _lateness
from noria.pipelines.quarantine import summarize
from noria.pipelines.stream import Stream
from noria.pipelines.stream_processor import StreamProcessor, StreamResult
from noria.pipelines.stream_rows import apply_counted
from noria.storage import Put, Workspace
from noria.telemetry import MetricsCollector
from noria.testing import ManualClock

SCHEMA = {"user": "int64", "amount": "float64?", "kind": "str?", "at": nr.Timestamp("s")}
TOTALS = Totals("user", sums=["amount"])


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace.open(Settings(tmp_path), ManualClock(1_000_000_000)) as opened:
        yield opened


def stream(**options: Any) -> Stream:
    return Stream("clicks", **{"schema": SCHEMA, **options})


def event(user: Any, amount: Any = 1.0, kind: Any = "a", at: Any = 1) -> bytes:
    return json.dumps({"user": user, "amount": amount, "kind": kind, "at": at}).encode()


def send(workspace: Workspace, *events: bytes, keys: list[bytes] | None = None, partitions: int = 1) -> None:
    workspace.log.create("clicks", partitions)
    workspace.log.append("clicks", list(events), keys)


def process(workspace: Workspace, made: Stream | None = None, **options: Any) -> StreamResult:
    with StreamProcessor(made or stream(), workspace, **options) as processor:
        result = processor.run_to_end()
    assert result.rows_in == result.rows_out + result.quarantined + result.filtered
    return result


def test_events_come_to_the_table_and_bad_ones_to_quarantine(workspace: Workspace) -> None:
    send(
        workspace, event(1), b"{", event("x"), event(2, -5), event(3, at=None), event(4, kind=""), b'{"user":5,"at":9}'
    )
    result = process(workspace, stream(checks=[nr.between("amount", 0, 10)], where=nr.col("user") != 4))
    assert (result.rows_in, result.rows_out, result.quarantined, result.filtered) == (7, 2, 4, 1)
    assert workspace.table("clicks").read().select("user", "amount", "kind").rows() == [(1, 1.0, "a"), (5, None, None)]
    bad = workspace.table("clicks__quarantine").read()
    assert bad.select("file", "position").rows() == [("clicks/0", offset) for offset in (1, 2, 3, 4)]
    assert bad["row"].to_list() == ["{", event("x").decode(), event(2, -5).decode(), event(3, at=None).decode()]
    assert [reasons[0] for reasons in bad["reasons"]][1:] == [
        "user: 'x' is not int64",
        "amount between 0 and 10",
        "at: missing",
    ]
    assert summarize(workspace, "clicks").rows == 4
    assert process(workspace).rows_in == 0
    send(workspace, event(6))
    assert process(workspace).rows_in == 1


def test_the_online_store_has_the_newest_row_and_totals(workspace: Workspace) -> None:
    latest, made = LatestRow("user"), TOTALS
    both = stream(online=[latest, made])
    send(workspace, event(1, 2.0, "old", 5), event(1, 3.0, "new", 9), event(1, None, "late", 7), event(2, 1.0, "b", 1))
    process(workspace, both)
    rows = latest.read(workspace.online, both, [1, 2, 3])
    assert rows == [
        {"user": 1, "amount": 3.0, "kind": "new", "at": 9_000_000},
        {"user": 2, "amount": 1.0, "kind": "b", "at": 1_000_000},
        None,
    ]
    send(workspace, event(1, 0.5, "later", 8), event(2, 1.5, "same time", 1))
    process(workspace, both)
    assert [row and row["kind"] for row in latest.read(workspace.online, both, [1, 2])] == ["new", "same time"]
    assert made.read(workspace.online, both, [1, 2, 3]) == [
        {"count": 4, "amount": 5.5},
        {"count": 2, "amount": 2.5},
        {"count": 0, "amount": 0.0},
    ]


def test_late_events_come_to_the_table_and_are_skipped_online_if_so_wished(workspace: Workspace) -> None:
    skipping = Totals("user", late="skip")
    made = stream(online=[skipping, TOTALS], lateness="10s")
    send(workspace, *(event(1, at=at) for at in (100, 90, 89, 120, 105, 110)))
    assert process(workspace, made).late == 2
    send(workspace, event(1, at=109), event(1, at=110))  # what came before is remembered
    assert process(workspace, made).late == 1
    assert len(workspace.table("clicks").read()) == 8
    assert skipping.read(workspace.online, made, [1])[0]["count"] == 5
    assert TOTALS.read(workspace.online, made, [1])[0]["count"] == 8


@given(st.lists(st.integers(-50, 50), max_size=30), st.lists(st.integers(0, 30), max_size=4), st.integers(0, 20))
def test_lateness_does_not_depend_on_where_batches_are_cut(times: list[int], cuts: list[int], allowed: int) -> None:
    whole = _lateness(np.array(times, np.int64), None, allowed)
    bounds = [0, *sorted(cut for cut in cuts if cut < len(times)), len(times)]
    latest, late = None, []
    for start, stop in pairwise(bounds):
        if start < stop:
            latest, part = _lateness(np.array(times[start:stop], np.int64), latest, allowed)
            late += part.tolist()
    assert late == whole[1].tolist()
    assert late == [any(t < earlier - allowed for earlier in times[:n]) for n, t in enumerate(times)]


def test_the_steps_are_those_that_the_source_was_fitted_with(workspace: Workspace) -> None:
    (workspace.settings.root / "past.csv").write_text("user,amount,kind,at\n1,1.0,a,1\n2,3.0,c,1\n3,,a,2\n")
    past = nr.Source("past", "past.csv", SCHEMA, steps=[nr.Impute(["amount"]), nr.Encode(["kind"])])
    with pytest.raises(ConfigError, match="never loaded"):
        process(workspace, stream(steps_from=past))
    nr.BatchProcessor(past, workspace).run()
    send(workspace, event(7, None, "c"), event(8, 5.0, "new"))
    made = stream(steps_from=past)
    assert made.dependencies == ("past",)
    process(workspace, made)
    assert workspace.table("clicks").read().select("amount", "kind").rows() == [(2.0, 1.0), (5.0, -1.0)]


def test_small_batches_are_as_one(workspace: Workspace) -> None:
    chance = random.Random(1)
    events = [event(chance.randrange(20), chance.randrange(100), "a", n) for n in range(500)]
    send(workspace, *events, keys=[b"%d" % (n % 7) for n in range(500)], partitions=3)
    made = stream(online=[TOTALS])
    process(workspace, made, batch=7, flush_seconds=0.0)
    rows = workspace.table("clicks").read()
    expected = [json.loads(text) for text in events]
    assert sorted(rows["amount"].to_list()) == sorted(float(e["amount"]) for e in expected)
    counts = Counter(e["user"] for e in expected)
    assert {u: TOTALS.read(workspace.online, made, [u])[0]["count"] for u in range(20)} == {
        u: counts[u] for u in range(20)
    }


def test_two_processors_share_and_one_takes_over(workspace: Workspace) -> None:
    made = stream(online=[TOTALS])
    send(workspace, *(event(n % 50) for n in range(1000)), keys=[b"%d" % (n % 50) for n in range(1000)], partitions=4)
    stop, first_stop = threading.Event(), threading.Event()
    with Workspace.open(workspace.settings) as other:

        def work(own: Workspace, until: threading.Event) -> None:
            with StreamProcessor(made, own, batch=50, flush_seconds=0.1) as processor:
                processor.run(until)

        threads = [
            threading.Thread(target=work, args=(workspace, first_stop)),
            threading.Thread(target=work, args=(other, stop)),
        ]
        for thread in threads:
            thread.start()
        for turn in range(20):
            workspace.log.append("clicks", [event(n % 50) for n in range(100)], [b"%d" % (n % 50) for n in range(100)])
            time.sleep(0.05)
            if turn == 10:
                first_stop.set()
        deadline = time.monotonic() + 20
        while len(other.table("clicks").read()) < 3000 and time.monotonic() < deadline:
            time.sleep(0.1)
        stop.set()
        for thread in threads:
            thread.join()
    assert len(workspace.table("clicks").read()) == 3000
    assert [TOTALS.read(workspace.online, made, [n])[0]["count"] for n in range(50)] == [60] * 50


def test_lag_and_delay_are_metrics(workspace: Workspace) -> None:
    metrics = MetricsCollector()
    send(workspace, event(1, at=400), b"{")
    process(workspace, metrics=metrics)
    text = metrics.exposition()
    assert 'noria_stream_events_total{outcome="quarantined",stream="clicks"} 1' in text
    assert 'noria_stream_lag_events{stream="clicks"} 0' in text
    assert 'noria_stream_watermark_delay_seconds{stream="clicks"} 4200' in text


def test_arrow_events_hold_many_rows_and_bad_ones_cost_no_neighbour(workspace: Workspace) -> None:
    def arrow(**columns: Any) -> bytes:
        buffer = io.BytesIO()
        pl.DataFrame(columns).write_ipc_stream(buffer)
        return buffer.getvalue()

    good = arrow(user=[1, 2], amount=[1.0, None], kind=["a", None], at=[1, 2])
    send(
        workspace,
        good,
        b"\0nonsense",
        arrow(user=["3", "x"], amount=[1, 2], kind=["a", "b"], at=[3, 4]),
        b"",
        good[:-20],
    )
    result = process(workspace, stream(format=Arrow()))
    assert workspace.table("clicks").read()["user"].to_list()[:3] == [1, 2, 3]
    assert result.quarantined >= 3
    positions = workspace.table("clicks__quarantine").read()["position"].to_list()
    assert set(positions) <= {1, 2, 3, 4}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"checks": [nr.unique("user")]}, "uniqueness can't be checked"),
        ({"online": [Totals("none")]}, "no column 'none'"),
        ({"online": [Totals("user", sums=["kind"])]}, "not a number"),
        ({"online": [Totals("user", late="drop")]}, "late='drop'"),
        ({"key": "none"}, "no column 'none'"),
        ({"partitions": 0}, "at least 1"),
        ({"lateness": "soon"}, "duration"),
        ({"checks": [nr.between("kind", 0, 1)]}, "not a number"),
    ],
)
def test_wrong_definitions_are_refused_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        stream(**options)
    assert message in str(caught.value)


VALUE = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=3)
)
EVENT = (
    st.dictionaries(st.sampled_from(["user", "amount", "kind", "at", "more"]), VALUE).map(json.dumps).map(str.encode)
)
DIRTY = EVENT | st.binary(max_size=20) | EVENT.map(lambda e: e[:-1]) | EVENT.map(lambda e: e.replace(b" ", b"\n"))


@settings(max_examples=200, deadline=None)
@given(st.lists(DIRTY, max_size=6))
def test_events_decoded_at_once_are_as_each_alone(events: list[bytes]) -> None:
    schema = nr.Schema.of({**SCHEMA, "more": "bool?"})
    from noria.pipelines.contract import POSITION, judge

    whole = judge(read_json_events(events, schema), schema, ())
    good, bad = [], []
    for number, text in enumerate(events, 1):
        made = judge(read_json_events([text], schema), schema, ())
        good += made.good.rows()
        bad += [(number, *row[1:]) for row in made.bad.rows()]
    assert whole.good.rows() == good
    assert whole.bad.sort(POSITION).select(POSITION, "__reasons__").rows() == [row[:2] for row in bad]


def test_halves_of_an_event_are_not_put_together() -> None:
    events = [b'{"user":"a"},{"user":"b"}', b'{"user":"c"', b'"kind":"d"}']  # with commas between, three good events
    found = read_json_events(events, nr.Schema.of({"user": "str", "kind": "str?"}))
    assert found.frame.is_empty()
    assert [row.position for row in found.broken] == [1, 2, 3]


def test_events_decoded_in_pieces_are_all_there_in_order() -> None:
    events = [b'{"user":"a","amount":%d}' % number for number in range(12_345)]
    schema = nr.Schema.of({"user": "str", "amount": "int64"})
    assert read_json_events(events, schema).frame["amount"].to_list() == list(range(12_345))
    events[11_000] = b'{"user":'
    found = read_json_events(events, schema)
    assert [row.position for row in found.broken] == [11_001]
    assert len(found.frame) == 12_344
    assert read_json_events([], schema).frame.schema == {"user": pl.String, "amount": pl.Int64}


@settings(max_examples=100, deadline=None)
@given(st.lists(EVENT, min_size=1, max_size=5))
def test_typed_events_and_lines_of_text_give_the_same_rows(events: list[bytes]) -> None:
    from noria.pipelines.contract import judge

    schema = nr.Schema.of({**SCHEMA, "more": "bool?"})
    typed = judge(read_json_events(events, schema), schema, ())
    lines = judge(read_json_lines(b"\n".join(events), schema, first=False), schema, ())
    assert typed.good.equals(lines.good)
    assert typed.bad.equals(lines.bad)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=30) | DIRTY, max_size=8))
def test_no_bytes_stop_the_processor_or_take_their_neighbours(workspace: Workspace, events: list[bytes]) -> None:
    before = len(workspace.table("clicks").read()) if workspace.table("clicks").version() is not None else 0
    send(workspace, event(1, kind="first"), *events, event(2, kind="last"))
    result = process(workspace, stream(format=Json()))
    assert result.rows_in == len(events) + 2
    kinds = workspace.table("clicks").read()["kind"].to_list()[before:]
    assert kinds[0] == "first"
    assert kinds[-1] == "last"


PROCESSOR = """
import sys, threading
import noria as nr
from noria.core import Settings
from noria.storage import Workspace
from noria.pipelines.stream import Stream
from noria.pipelines.online_sinks import LatestRow, Totals
from noria.pipelines.stream_processor import StreamProcessor
from noria.features.feed import feeds
made = Stream("clicks", {"user": "int64", "amount": "float64?", "kind": "str?", "at": nr.Timestamp("s")},
              online=[Totals("user", sums=["amount"]), LatestRow("user")])
habits = nr.FeatureGroup("habits", entity="user", source=made, features={
    "n": nr.count(), "spent": nr.sum("amount"), "n_9s": nr.count(window="9s"), "last": nr.last("amount", n=3)})
with Workspace.open(Settings.load(sys.argv[1])) as workspace:
    keeps = feeds(made, workspace, [habits])
    with StreamProcessor(made, workspace, batch=2_000, flush_seconds=0.1, keeps=keeps) as processor:
        print("ready", flush=True)
        processor.run(threading.Event())
"""
PRODUCER = """
import sys
from noria.core import Settings
from noria.storage.urls import open_log
log = open_log(Settings.load(sys.argv[1]).storage.log, sys.argv[1])
start, stop = int(sys.argv[2]), int(sys.argv[3])
print("ready", flush=True)
for turn in range(start, stop):
    users = [(turn * 7 + n) % 500 for n in range(500)]
    events = [b'{"user":%d,"amount":%d,"kind":"k","at":%d}' % (u, n % 10, turn) for n, u in enumerate(users)]
    events[3] = b"not an event %d" % turn
    log.append("clicks", events, [b"%d" % u for u in users], producer=("p", turn))
    print(turn, flush=True)
"""


def campaign(root: Path, turns: int, kills: int, seed: int, *, producers: bool = True) -> tuple[int, int]:
    """Events pass while processors, and `producers`, are killed at random; returns kills and events."""
    chance = random.Random(seed)
    with Workspace.open(Settings.load(root)) as workspace:
        workspace.log.create("clicks", 4)
    producing, killed, deadline = 0, 0, time.monotonic() + 600

    def start(code: str, *words: object) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", code, str(root), *map(str, words)], stdout=subprocess.PIPE)

    def end(process: subprocess.Popen[bytes]) -> None:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()

    processors = [start(PROCESSOR), start(PROCESSOR)]
    while (producing < turns or killed < kills) and time.monotonic() < deadline:
        producer = start(PRODUCER, producing, min(turns, producing + max(1, turns // 6))) if producing < turns else None
        time.sleep(0.6 + chance.random() * 0.8)
        for _ in range(2):
            if killed < kills:
                victim = chance.randrange(2)
                end(processors[victim])
                killed += 1
                processors[victim] = start(PROCESSOR)
                time.sleep(chance.random() * 0.8)
        if producer is not None:
            if producers and killed < kills and chance.random() < 0.5:
                producer.kill()
                killed += 1
            assert producer.stdout is not None
            said = producer.stdout.read().split()[1:]
            end(producer)
            producing = int(said[-1]) + 1 if said else producing
    for processor in processors:
        end(processor)
    return killed, turns * 500


def check_features(workspace: Workspace, users: pl.Series) -> None:
    """What the group has online is what a batch over the table's events gives."""
    store = nr.FeatureStore(workspace)
    group = store.catalog.latest("habits").group()
    online = store.get_online(group, users.to_list())
    when = pl.Series("when", [online.as_of] * len(users)).cast(pl.Datetime("us", "UTC"))
    offline = store.training_set(pl.DataFrame([users.alias("user"), when]), [group], time="when")
    for name in group.features:
        assert online.columns[f"habits.{name}"] == offline[f"habits.{name}"].to_list(), name


def check_campaign(root: Path, turns: int) -> None:
    """Counts and sums equal those of a batch over the same events."""
    made = Stream("clicks", SCHEMA, online=[TOTALS, LatestRow("user")])
    with Workspace.open(Settings.load(root)) as workspace:
        with StreamProcessor(made, workspace, keeps=feeds(made, workspace)) as processor:
            processor.run_to_end(patience=30)
        users = [((turn * 7 + n) % 500, n % 10, n) for turn in range(turns) for n in range(500)]
        clean = pl.DataFrame(users, schema=["user", "amount", "n"], orient="row").filter(pl.col("n") != 3)
        expected = (
            clean.group_by("user").agg(pl.len().alias("count"), pl.col("amount").sum().cast(pl.Float64)).sort("user")
        )
        rows = workspace.table("clicks").read()
        found = rows.group_by("user").agg(pl.len().alias("count"), pl.col("amount").sum()).sort("user")
        assert found.equals(expected)
        totals = TOTALS.read(workspace.online, made, expected["user"].to_list())
        assert totals == expected.drop("user").to_dicts()
        check_features(workspace, expected["user"])
        bad = workspace.table("clicks__quarantine").read()
        assert sorted(bad["row"].to_list()) == sorted(f"not an event {turn}" for turn in range(turns))


def test_kill_9_of_producer_and_processors_counts_every_event_once(tmp_path: Path) -> None:
    killed, _ = campaign(tmp_path, turns=60, kills=8, seed=1)
    assert killed == 8
    check_campaign(tmp_path, 60)


def test_kill_9_of_processors_over_kafka_counts_every_event_once(tmp_path: Path) -> None:
    # Its producers live: there a batch that one repeats after its death may be twice. On tansu, since noida-db never
    # takes a dead member out of its group, whatever the client's timeouts are.
    pytest.importorskip("confluent_kafka")
    with tansu_broker() as url:
        (tmp_path / "noria.toml").write_text(f'[storage]\nlog = "{url}"\n')
        killed, _ = campaign(tmp_path, turns=30, kills=5, seed=1, producers=False)
        assert killed == 5
        check_campaign(tmp_path, 30)


@pytest.mark.soak
def test_a_million_events_pass_while_everything_is_killed_again_and_again(tmp_path: Path) -> None:
    killed, events = campaign(tmp_path, turns=2_000, kills=60, seed=2)
    check_campaign(tmp_path, 2_000)
    print(f"\n{killed} kills, {events:,} events, differences: 0")
    assert killed == 60


def test_avro_events(workspace: Workspace) -> None:
    fastavro = pytest.importorskip("fastavro")
    schema = {
        "type": "record",
        "name": "Click",
        "fields": [
            {"name": "user", "type": "long"},
            {"name": "amount", "type": ["null", "double"]},
            {"name": "kind", "type": "string"},
            {"name": "at", "type": "long"},
        ],
    }

    def avro(record: dict[str, Any]) -> bytes:
        buffer = io.BytesIO()
        fastavro.schemaless_writer(buffer, fastavro.parse_schema(schema), record)
        return b"\0\0\0\0\7" + buffer.getvalue()

    good = [{"user": n, "amount": None if n else 1.5, "kind": "k", "at": n} for n in range(3)]
    send(workspace, avro(good[0]), b"\0\0\0\0\7\xff", avro(good[1]), b"", avro(good[2])[:-1], avro(good[2]))
    result = process(workspace, stream(format=nr.Avro(schema, header=5)))
    assert (result.rows_out, result.quarantined) == (3, 3)
    assert workspace.table("clicks").read().select("user", "amount").rows() == [(0, 1.5), (1, None), (2, None)]
    assert workspace.table("clicks__quarantine").read()["position"].to_list() == [1, 3, 4]


def test_an_idle_partition_does_not_hold_the_watermark_back(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = MetricsCollector()
    delay = metrics.gauge("noria_stream_watermark_delay_seconds", "From the watermark to now.", stream="clicks")
    key = {crc: b"%d" % n for n in range(20) for crc in [__import__("zlib").crc32(b"%d" % n) % 2]}
    with StreamProcessor(stream(partitions=2, lateness="1s"), workspace, metrics=metrics) as processor:
        workspace.log.append("clicks", [event(1, at=100), event(2, at=900)], [key[0], key[1]])
        processor.run_to_end()
        assert delay.value == 901.0
        monkeypatch.setattr("noria.pipelines.stream_processor.IDLE_SECONDS", 0.2)
        time.sleep(0.3)
        workspace.log.append("clicks", [event(2, at=950)], [key[1]])
        processor.run_to_end()
        assert delay.value == 51.0


def killed_before_commit(workspace: Workspace, made: Stream) -> None:
    """Process what is there, and die when everything is durable but the group's offset."""
    processor = StreamProcessor(made, workspace)

    def kill(_: object) -> None:
        raise RuntimeError("killed")

    processor._reader.commit = kill  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="killed"):
        processor.run_to_end()
    processor._reader.close()


@pytest.mark.parametrize("step", [nr.DropMissing(["kind"]), nr.Filter(nr.col("kind").is_not_null())])
def test_events_that_steps_drop_are_filtered_and_cost_no_other_after_a_crash(workspace: Workspace, step: Any) -> None:
    (workspace.settings.root / "past.csv").write_text("user,amount,kind,at\n1,1.0,a,1\n")
    past = nr.Source("past", "past.csv", SCHEMA, steps=[nr.Impute(["amount"]), step, nr.Encode(["kind"])])
    nr.BatchProcessor(past, workspace).run()
    made = stream(steps_from=past, online=[TOTALS])
    send(workspace, event(1), event(2, kind=None), event(3, kind=None), event(4))
    result = process(workspace, made)
    assert (result.rows_in, result.rows_out, result.filtered) == (4, 2, 2)
    assert result.by_rule == {"dropped by steps": 2}
    send(workspace, event(10, kind=None), event(11, kind=None), event(12, kind=None), event(13))
    killed_before_commit(workspace, made)
    send(workspace, event(14, kind=None), event(15), event(16))
    process(workspace, made)
    assert workspace.table("clicks").read()["user"].to_list() == [1, 4, 13, 15, 16]
    counts = [TOTALS.read(workspace.online, made, [user])[0]["count"] for user in (1, 2, 4, 12, 13, 14, 15, 16)]
    assert counts == [1, 0, 1, 0, 1, 0, 1, 1]


class OnlyUsers:
    """A step that drops rows, and all columns that it doesn't name."""

    by_row = True

    def apply(self, frame: pl.DataFrame) -> pl.DataFrame:
        return frame.filter(pl.col("user") > 1).select("user")

    def row(self, schema: pl.Schema) -> Any:
        return lambda row: row["user"] > 1


def test_a_step_that_loses_columns_is_asked_row_by_row_which_rows_stay() -> None:
    made, stayed = apply_counted([OnlyUsers()], pl.DataFrame({"user": [1, 2, 1, 3], "kind": list("abcd")}))  # type: ignore[list-item]
    assert made["user"].to_list() == [2, 3]
    assert stayed.tolist() == [1, 3]


@pytest.mark.parametrize(("events", "known"), [(1, True), (1, False), (12, True)])
def test_a_log_that_was_lost_and_made_anew_is_an_error(workspace: Workspace, events: int, known: bool) -> None:
    send(workspace, *(event(user) for user in range(10)))
    process(workspace, stream(online=[TOTALS]))
    settings = workspace.settings
    workspace.log.close()
    shutil.rmtree(settings.root / ".noria/log")
    with Workspace.open(settings) as again:
        send(again, *(event(100 + number) for number in range(events)))
        if not known:  # as with brokers that give topics no id
            again.records.commit(
                Put("stream_topics", "clicks", {"topic": "clicks", "identity": again.log.identity("clicks")})
            )
        with pytest.raises(StorageError) as caught:
            process(again, stream(online=[TOTALS]))
        assert (
            "'clicks': events of topic 'clicks', partition 0, were processed up to offset 10; "
            f"now topic 'clicks' is another one, or was cut, and ends at {events}"
        ) in str(caught.value)
        assert "another name" in str(caught.value.hint)
        named = nr.Stream("more", SCHEMA, topic="clicks")
        assert process(again, named).rows_in == events


def test_a_topic_without_events_may_be_made_anew(workspace: Workspace) -> None:
    process(workspace)
    settings = workspace.settings
    workspace.log.close()
    shutil.rmtree(settings.root / ".noria/log")
    with Workspace.open(settings) as again:
        send(again, event(1))
        assert process(again).rows_in == 1


def test_another_topic_is_not_read_from_where_the_first_was(workspace: Workspace) -> None:
    send(workspace, event(1), event(2))
    process(workspace)
    workspace.log.create("visits")
    with pytest.raises(StorageError, match="'visits' is another one"):
        process(workspace, stream(topic="visits"))


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (nr.Rename({"user": "who"}), "Totals of stream 'clicks' needs 'user', which the steps drop or rename"),
        (nr.Drop(["at"]), "needs 'at', which the steps drop or rename"),
        (nr.Drop(["amount"]), "needs 'amount', which the steps drop or rename"),
        (nr.Normalize(["user"]), "needs 'user' as Int64, and the steps make it Float"),
        (nr.Cast({"at": "str"}), "needs 'at' as Datetime"),
        (nr.Cast({"amount": "str"}), "needs 'amount' as a number, and the steps make it String"),
        (nr.Normalize(["amount"]), ""),
        (nr.Cast({"user": "int32"}), ""),
    ],
)
def test_sinks_need_the_columns_that_the_steps_leave(workspace: Workspace, step: Any, message: str) -> None:
    (workspace.settings.root / "past.csv").write_text("user,amount,kind,at\n1,1.0,a,1\n2,3.0,c,1\n")
    past = nr.Source("past", "past.csv", SCHEMA, steps=[step])
    nr.BatchProcessor(past, workspace).run()
    made = stream(steps_from=past, online=[TOTALS, LatestRow("user")])
    send(workspace, event(7))
    if not message:
        process(workspace, made)
        assert TOTALS.read(workspace.online, made, [7])[0]["count"] == 1
        return
    with pytest.raises(ConfigError) as caught:
        process(workspace, made)
    assert message in str(caught.value)
    assert "after the steps there are: " in str(caught.value.hint)


def test_a_sink_that_is_added_later_has_every_event_of_the_log_once(workspace: Workspace) -> None:
    send(workspace, event(1, 1), event(1, 2), b"bad", event(2, 0, at="never"))
    process(workspace)
    send(workspace, event(1, 4))
    made = stream(online=[TOTALS])
    killed_before_commit(workspace, made)
    process(workspace, made)
    assert TOTALS.read(workspace.online, made, [1]) == [{"count": 3, "amount": 7.0}]
    assert workspace.table("clicks").read()["amount"].to_list() == [1, 2, 4]
    assert summarize(workspace, "clicks").rows == 2
    both = stream(online=[TOTALS, LatestRow("user")])
    process(workspace, both)
    assert TOTALS.read(workspace.online, both, [1]) == [{"count": 3, "amount": 7.0}]
    assert LatestRow("user").read(workspace.online, both, [1])[0]["amount"] == 4.0  # type: ignore[index]
    assert workspace.table("clicks").read()["amount"].to_list() == [1, 2, 4]


def test_a_sink_that_never_had_a_row_does_not_begin_anew_each_time(workspace: Workspace) -> None:
    made = stream(online=[TOTALS])
    send(workspace, b"bad", b"worse")
    assert process(workspace, made).rows_in == 2
    assert process(workspace, made).rows_in == 0
    send(workspace, event(1))
    assert process(workspace, made).rows_in == 1
    assert TOTALS.read(workspace.online, made, [1])[0]["count"] == 1
