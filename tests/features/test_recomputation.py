from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import polars as pl
import pytest

import noria as nr
from noria.core import Settings
from noria.features import OnlineReader
from noria.features import store as store_module
from noria.features.catalog import Catalog
from noria.features.definitions import derived
from noria.features.feed import feeds
from noria.features.online import pack
from noria.features.parity import Parity, likeness
from noria.features.reads import GroupRead, Read
from noria.features.recomputation import Asked, check_parity
from noria.pipelines import StreamProcessor
from noria.storage import Workspace
from noria.testing import ManualClock

DAY = 86_400
HOUR = 3_600_000_000
SCHEMA = {
    "user": "int64?",
    "shop": "str?",
    "price": "float64?",
    "small": "float32?",
    "day": "date?",
    "at": nr.Timestamp("s"),
}
ROWS = [
    (1, "a", 0.1, 1.5, "2024-01-01", 10 * DAY),
    (1, "b", 0.2, 2.5, "2024-01-02", 11 * DAY),
    (2, "a", None, None, None, 11 * DAY + 7),
    (1, "a", 0.3, 0.1, "2024-01-03", 12 * DAY),
    (None, None, 5.0, 1.0, "2024-01-03", 12 * DAY + 5),
]
FEATURES = {
    "n_1d": nr.count(window="1d"),
    "spent": nr.sum("price"),
    "small": nr.latest("small"),
    "last": nr.last("price", n=2),
    "shops": nr.top_k("shop", k=2),
    "day": nr.latest("day"),
    "at": nr.latest("at"),
    "fading": nr.decayed_sum("price", half_life="5h"),
    "rate": derived(nr.col("spent") / nr.col("n_1d")),
}


def csv(rows: list[tuple[Any, ...]]) -> str:
    lines = [",".join(SCHEMA), *(",".join("" if v is None else str(v) for v in row) for row in rows)]
    return "\n".join(lines) + "\n"


class Shop:
    """A small project, with a log in memory."""

    def __init__(self, workspace: Workspace, clock: ManualClock) -> None:
        self.workspace, self.clock = workspace, clock
        self.source = nr.Source("buys", "buys.csv", schema=SCHEMA)
        self.habits = nr.FeatureGroup("habits", "user", self.source, FEATURES)
        self.pair = nr.FeatureGroup("pair", ("user", "shop"), self.source, {"n": nr.count()}, ttl="3d")
        self.asked: list[Asked] = []

    def run(self, rows: list[tuple[Any, ...]]) -> None:
        (self.workspace.settings.root / "buys.csv").write_text(csv(rows))
        self.clock.advance(HOUR)
        report = nr.System("shop", [self.source, self.habits, self.pair]).run(self.workspace)
        assert not report.failed, report.failed[0].error
        self.clock.advance(HOUR)

    def read(self, group: nr.FeatureGroup, ids: list[Any]) -> None:
        spec = group.online_spec()
        found = OnlineReader(self.workspace.online, [spec], self.clock).read(group.name, ids)
        kept = msgspec.json.decode(msgspec.json.encode(GroupRead.of(Read(spec, ids, found))), type=GroupRead)
        self.asked.append(Asked(f"p{len(self.asked)}", self.clock.now(), 1000, kept))

    def check(self) -> Parity:
        return check_parity(self.asked, self.workspace)

    def tamper(self, group: nr.FeatureGroup, key: Any, *values: Any) -> None:
        spec = group.online_spec()
        (there,) = self.workspace.online.read(spec.place, [spec.key(key)])
        assert there is not None
        self.workspace.online.write(spec.place, [spec.key(key)], [there.time], [pack(there.time - 1, values)])


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    clock = ManualClock(12 * DAY * 1_000_000 + 24 * HOUR)
    with Workspace.open(Settings(tmp_path), clock) as workspace:
        made = Shop(workspace, clock)
        made.run(ROWS)
        yield made


def outcomes(parity: Parity) -> dict[str, int]:
    found = {name: parity.total(name) for name in ("equal", "late", "different", "unknown")}  # type: ignore[arg-type]
    return {name: count for name, count in found.items() if count}


def test_values_of_every_type_are_equal(shop: Shop) -> None:
    shop.read(shop.habits, [1, 2, 99])
    shop.read(shop.habits, [99])  # nobody is found
    shop.read(shop.pair, [[1, "a"], [1, "b"], [7, "a"]])
    assert shop.asked[1].read.as_of == shop.asked[0].read.as_of  # windows are read with the time of their source
    parity = shop.check()
    assert outcomes(parity) == {"equal": 4 * len(FEATURES) + 3}
    assert (parity.vectors, parity.total("close"), parity.examples) == (7, 0, [])


def test_late_rows_explain_what_was_read_before_them(shop: Shop) -> None:
    shop.read(shop.habits, [1, 2, 99])
    shop.read(shop.habits, [99])
    shop.run([*ROWS, (1, "c", 7.0, 1.0, None, 12 * DAY - 5), (99, "c", 1.0, 1.0, None, 11 * DAY)])
    shop.read(shop.habits, [1, 2, 99])
    parity = shop.check()
    assert set(outcomes(parity)) == {"equal", "late"}
    assert parity.features["habits.spent"].late == 3  # of users 1 and twice 99
    assert parity.features["habits.day"].late == 0
    assert {e.prediction for e in parity.examples} == {"p0", "p1"}
    spent = next(e for e in parity.examples if (e.feature, e.entity) == ("habits.spent", 1))
    assert (spent.outcome, spent.offline) == ("late", pytest.approx(7.6))


def test_newer_rows_change_nothing_of_what_was_read(shop: Shop) -> None:
    shop.read(shop.habits, [1, 2, 99])
    shop.run([*ROWS, (1, "c", 7.0, 1.0, None, 20 * DAY), (99, "c", 1.0, 1.0, None, 21 * DAY)])
    assert set(outcomes(shop.check())) == {"equal"}


def test_a_value_that_nothing_explains_is_different(shop: Shop) -> None:
    shop.tamper(shop.pair, (1, "a"), 41)
    shop.read(shop.pair, [[1, "a"], [1, "b"]])
    shop.run([*ROWS, (1, "a", 7.0, 1.0, None, 12 * DAY - 5)])
    parity = shop.check()
    assert outcomes(parity) == {"equal": 1, "different": 1}
    (example,) = parity.examples
    assert (example.entity, example.online, example.offline) == ([1, "a"], 41, 3)
    assert example.as_of == shop.asked[0].read.as_of


def test_what_had_expired_is_expected_to_be_missing(shop: Shop) -> None:
    shop.clock.advance(36 * HOUR)
    shop.read(shop.pair, [[1, "a"], [1, "b"]])
    assert shop.asked[0].read.expired == [False, True]
    assert outcomes(shop.check()) == {"equal": 2}
    read = shop.asked[0].read
    shop.asked[0] = replace(
        shop.asked[0], read=msgspec.structs.replace(read, values={"pair.n": [None, 1]}, expired=[True, False])
    )
    assert outcomes(shop.check()) == {"different": 2}


def test_a_version_of_a_definition_is_compared_by_that_version(shop: Shop) -> None:
    shop.read(shop.habits, [1])
    shop.habits = nr.FeatureGroup("habits", "user", shop.source, {"spent": nr.max("price")})
    shop.run(ROWS)
    shop.read(shop.habits, [1])
    assert len(Catalog(shop.workspace.records, shop.clock).versions("habits")) == 2
    parity = shop.check()
    assert outcomes(parity) == {"equal": len(FEATURES) + 1}


def test_what_can_not_be_told_is_unknown_with_its_reason(shop: Shop) -> None:
    shop.read(shop.pair, [[1, "a"]])
    shop.asked[0] = replace(shop.asked[0], read=msgspec.structs.replace(shop.asked[0].read, place="pair@gone", as_of=5))
    parity = shop.check()
    assert (outcomes(parity), list(parity.reasons)) == (
        {"unknown": 1},
        ["their definition isn't registered in this project"],
    )
    frame = shop.workspace.table("buys").read().head(1)
    nr.FeatureStore(shop.workspace).materialize(shop.pair, events=frame, as_of=13 * DAY * 1_000_000)
    shop.clock.advance(HOUR)
    shop.asked.clear()
    shop.read(shop.pair, [[1, "a"]])
    parity = shop.check()
    assert (outcomes(parity), list(parity.reasons)) == (
        {"unknown": 1},
        ["they were made from a frame, not from the table"],
    )
    shop.asked[0] = replace(shop.asked[0], at=5, read=msgspec.structs.replace(shop.asked[0].read, ids=[[1, "zz"]]))
    parity = shop.check()
    assert list(parity.reasons) == ["they were made before materializations were noted"]


def test_one_request_may_see_old_and_new_values(shop: Shop) -> None:
    shop.read(shop.pair, [[1, "a"], [1, "b"]])
    old = shop.asked.pop()
    shop.run([*ROWS, (1, "b", 1.0, 1.0, None, 12 * DAY - 5), (1, "a", 1.0, 1.0, None, 13 * DAY)])
    shop.read(shop.pair, [[1, "a"], [1, "b"]])
    new = shop.asked.pop()
    values = {"pair.n": [new.read.values["pair.n"][0], old.read.values["pair.n"][1]]}
    assert values == {"pair.n": [3, 1]}
    shop.asked.append(replace(old, read=msgspec.structs.replace(new.read, values=values)))
    assert outcomes(shop.check()) == {"equal": 1, "late": 1}


def test_a_stream_is_a_source_too(tmp_path: Path) -> None:
    clock = ManualClock(20 * DAY * 1_000_000)
    visits = nr.Stream("visits", {"user": "int64", "at": nr.Timestamp("s")}, time="at")
    group = nr.FeatureGroup("seen", "user", visits, {"n": nr.count(window="1d")})  # type: ignore[arg-type]
    with Workspace.open(Settings(tmp_path), clock) as workspace:
        shop = Shop(workspace, clock)
        workspace.log.create("visits")
        for times in ([10 * DAY, 10 * DAY + 5], [10 * DAY + 2]):
            workspace.log.append("visits", [json.dumps({"user": 1, "at": at}).encode() for at in times])
            assert not nr.System("s", [visits, group]).run(workspace).failed
            clock.advance(HOUR)
            shop.read(group, [1, 2])
        assert outcomes(shop.check()) == {"equal": 3, "late": 1}


VISITS = nr.Stream("visits", {"user": "int32", "shop": "str", "x": "float64", "at": nr.Timestamp("s")}, key="user")
FED = [
    nr.FeatureGroup(
        "users", "user", VISITS, {"n": nr.count(window="1h"), "spent": nr.sum("x"), "shops": nr.last("shop", n=3)}
    ),
    nr.FeatureGroup("shops", "shop", VISITS, {"n": nr.count(), "top": nr.max("x")}),  # no windows, several partitions
]


def asked(workspace: Workspace, group: nr.FeatureGroup, ids: list[Any]) -> Asked:
    began, spec = workspace.clock.now(), group.online_spec()
    found = OnlineReader(workspace.online, [spec]).read(group.name, ids)
    now = workspace.clock.now()
    return Asked(f"p{now}", now, now - began + 1, GroupRead.of(Read(spec, ids, found)))


def visit(workspace: Workspace, *rows: tuple[int, str, float, int]) -> None:
    events = [dict(zip(("user", "shop", "x", "at"), row, strict=True)) for row in rows]
    workspace.log.create("visits", 2)
    workspace.log.append("visits", [json.dumps(e).encode() for e in events], [b"%d" % e["user"] for e in events])


def test_what_a_stream_had_applied_before_its_table_had_it_is_explained(tmp_path: Path) -> None:
    with Workspace.open(Settings(tmp_path)) as workspace:
        visit(workspace, (1, "a", 1.0, 1000), (2, "a", 2.0, 1000))
        keeps, reads = feeds(VISITS, workspace, FED), list[Asked]()
        with StreamProcessor(VISITS, workspace, keeps=keeps, flush_seconds=1e9) as processor:

            def step() -> None:
                while processor.step(0.1):
                    pass
                reads.extend(
                    asked(workspace, group, ids) for group, ids in zip(FED, ([1, 2, 3], ["a", "b"]), strict=True)
                )

            step()
            waiting = check_parity(reads, workspace)
            assert list(waiting.reasons) == [
                "the stream's table doesn't have the newest events yet: compare again later"
            ]
            assert set(outcomes(waiting)) == {"equal", "unknown"}
            for rows in ([(1, "b", 3.0, 2000)], [(1, "a", 9.0, 1500), (3, "b", 1.0, 900)], [(2, "a", 5.0, 1999)]):
                visit(workspace, *rows)  # type: ignore[arg-type]
                step()
            processor.flush()
            visit(workspace, (1, "a", 50.0, 1100))
            step()
        parity = check_parity(reads, workspace)
        assert set(outcomes(parity)) == {"equal", "late"}, parity.examples
        assert parity.features["users.spent"].late > 3
        values = {**reads[2].read.values, "users.spent": [77.0, 2.0, None]}
        reads[2] = replace(reads[2], read=msgspec.structs.replace(reads[2].read, values=values))
        (example,) = [one for one in check_parity(reads, workspace).examples if one.outcome == "different"]
        assert (example.entity, example.online) == (1, 77.0)


@pytest.mark.soak
def test_all_reads_amid_a_running_stream_are_explained(tmp_path: Path) -> None:
    random, done, reads = Random(3), threading.Event(), list[Asked]()
    with Workspace.open(Settings(tmp_path)) as workspace:

        def work() -> None:
            with Workspace.open(Settings(tmp_path)) as own:
                keeps = feeds(VISITS, own, FED)
                with StreamProcessor(VISITS, own, keeps=keeps, flush_seconds=0.4) as processor:
                    processor.run(done)

        visit(workspace, (1, "a", 1.0, 1000))
        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        end, at = time.monotonic() + 4, 10_000
        while time.monotonic() < end:
            at += 60
            times = [at - random.randrange(5000) for _ in range(random.randrange(8))]
            visit(workspace, *((random.randrange(20), random.choice("abcd"), random.uniform(0, 9), t) for t in times))
            for group, ids in zip(FED, (list(range(21)), list("abcde")), strict=True):
                reads.append(asked(workspace, group, random.sample(ids, 3)))
            time.sleep(random.uniform(0, 0.02))
        running = check_parity(reads[-40:], workspace)
        assert set(outcomes(running)) <= {"equal", "late", "unknown"}, running.examples
        done.set()
        for thread in threads:
            thread.join()
        with StreamProcessor(VISITS, workspace) as processor:
            processor.run_to_end()
        parity = check_parity(reads, workspace)
        assert set(outcomes(parity)) == {"equal", "late"}


@pytest.mark.parametrize(
    ("one", "other", "like"),
    [
        (1, 1.0, "unlike"),
        (True, 1, "unlike"),
        (0.0, -0.0, "close"),
        (None, None, "same"),
        (1e22, 1e22 * (1 + 1e-12), "close"),
        (1.0, 1.0 + 1e-6, "unlike"),
        ([1.0], [1.0 + 1e-12], "close"),
        (["a"], ["b"], "unlike"),
        ([1], [1, 2], "unlike"),
        ("a", None, "unlike"),
    ],
)
def test_likeness(one: Any, other: Any, like: str) -> None:
    assert likeness(one, other) == likeness(other, one) == like


@pytest.mark.soak
def test_reads_amid_materializations_and_late_rows_are_all_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "_BATCH", 50)  # values become visible in many small transactions
    random, base = Random(1), 20_000 * DAY
    source = nr.Source("events", "e.csv", schema={"user": "int64", "x": "float64", "at": nr.Timestamp("s")})
    group = nr.FeatureGroup("g", "user", source, {"n": nr.count(window="1h"), "sum": nr.sum("x")})

    def rows(count: int, until: int) -> pl.DataFrame:
        ids, values = [random.randrange(1500) for _ in range(count)], [random.uniform(0, 9) for _ in range(count)]
        times = [(until - random.randrange(18_000)) * 1_000_000 for _ in range(count)]
        frame = pl.DataFrame({"user": ids, "x": values, "at": times})
        return frame.with_columns(pl.col("at").cast(pl.Datetime("us", "UTC")))

    with Workspace.open(Settings(tmp_path)) as workspace:
        table, store, spec = workspace.table("events"), nr.FeatureStore(workspace), group.online_spec()
        table.write(rows(5000, base), run_id="0")
        store.materialize(group)
        asked: list[Asked] = []
        done = threading.Event()

        def read() -> None:
            reader, ids = OnlineReader(workspace.online, [spec]), Random(2)
            while not done.wait(0.004):
                began = time.monotonic()
                wanted = [ids.randrange(1520) for _ in range(6)]
                kept = GroupRead.of(Read(spec, wanted, reader.read("g", wanted)))
                latency = int((time.monotonic() - began) * 1e6) + 1
                asked.append(Asked(str(len(asked)), workspace.clock.now(), latency, kept))

        def write() -> None:
            number = 0
            while not done.wait(0.05):
                number += 1
                table.write(rows(50, base + 40 * number), run_id=f"more-{number}")

        threads = [threading.Thread(target=work) for work in (read, write)]
        for thread in threads:
            thread.start()
        end = time.monotonic() + 10
        while time.monotonic() < end:
            store.materialize(group)
        done.set()
        for thread in threads:
            thread.join()
        found = outcomes(check_parity(asked, workspace))
        assert set(found) == {"equal", "late"}, found
