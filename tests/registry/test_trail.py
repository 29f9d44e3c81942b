"""The audit trail: entries are only added, and what else is done to them is found."""

from __future__ import annotations

import re
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from noria.core import ConfigError, ConflictError, IntegrityError
from noria.registry import Deployments, ModelRegistry, Variant
from noria.registry.trail import AUDIT, HEADS
from noria.storage import ABSENT, Put
from noria.storage.sqlite_records import SqliteRecords
from noria.testing import ManualClock


class Watched(SqliteRecords):
    """Records that remember what is done to the trail."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.written: list[Put] = []

    def commit(self, *changes: Put) -> None:
        super().commit(*changes)
        self.written += [put for put in changes if put.collection == AUDIT]


@pytest.fixture
def records(tmp_path: Path) -> Watched:
    return Watched(tmp_path / "registry.db")


@pytest.fixture
def registry(records: Watched, tmp_path: Path) -> ModelRegistry:
    return ModelRegistry(records, tmp_path / "blobs", clock=ManualClock(1_000_000))


def everything(registry: ModelRegistry, records: Watched) -> None:
    """Each kind of thing that can be done to a model."""
    tried = Deployments(records, registry, ManualClock(2_000_000))
    for run in "abcd":
        registry.register("late", {"m": b"x"}, servable="tabular", run_id=run, who="ada")
    registry.promote("late", 1, who="ada", why="first")
    registry.promote("late", 2, who="bob", verdicts=[{"gate": "better", "passed": True, "why": "0.8 against 0.7"}])
    registry.rollback("late")
    registry.alias("late", 4, "blue")
    registry.unalias("late", "blue")
    registry.reject("late", 3)
    registry.restore("late", 3)
    registry.retire("late", 4)
    tried.start("late", [Variant("canary", 2, 0.1)])
    tried.pause("late")
    tried.resume("late")
    tried.finish("late")
    tried.start("late", [Variant("canary", 3, 0.1)])
    tried.rollback("late")


def test_entries_are_only_added(registry: ModelRegistry, records: Watched) -> None:
    """Each is written on condition that it isn't there; afterwards all are as they were when they were written."""
    everything(registry, records)
    assert len(records.written) > 15
    assert all(put.expect == ABSENT for put in records.written)
    kept = {record.key: (record.revision, record.data) for record in records.list(AUDIT)}
    assert kept == {put.key: (1, put.data) for put in records.written}
    with pytest.raises(ConflictError):
        records.commit(records.written[0])


def test_the_chain_is_whole(registry: ModelRegistry, records: Watched) -> None:
    everything(registry, records)
    found = registry.trail.check("late")
    assert found.wrong == ()
    assert found.entries == len(records.written)
    assert found.digest == registry.audit("late")[0].digest
    assert [one.number for one in registry.audit("late")] == list(range(found.entries, 0, -1))


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("DELETE FROM records WHERE collection = 'audit' AND key = :second", "entry 2 is gone"),
        ("DELETE FROM records WHERE collection = 'audit' AND key >= :second", "entries 2 to 19 are gone"),
        ("DELETE FROM records WHERE collection = 'audit'", "entries 1 to 19 are gone"),
        ("UPDATE records SET data = :forged WHERE key = :second", "entry 2 .* isn't what was written"),
        ("INSERT INTO records VALUES ('audit', '9', 1, :forged)", "more than one entry 2"),
        ("DELETE FROM records WHERE collection IN ('audit', 'audit_heads')", "all entries are gone"),
    ],
)
def test_what_is_done_by_other_means_is_found(
    registry: ModelRegistry, records: Watched, tmp_path: Path, statement: str, said: str
) -> None:
    everything(registry, records)
    second = records.written[1]
    forged = msgspec.json.encode({**second.data, "who": "nobody"})
    with sqlite3.connect(tmp_path / "registry.db") as file:
        file.execute(statement, {"second": second.key, "forged": forged})
    file.close()
    wrong = registry.trail.check("late").wrong
    assert any(re.search(said, one) for one in wrong), wrong


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        (
            'UPDATE records SET data = replace(data, \'"servable":"tabular"\', \'"servable":"other"\') '
            "WHERE collection = 'versions' AND key = 'late@00000003'",
            "the record of version 3 isn't what was registered",
        ),
        (
            "DELETE FROM records WHERE collection = 'versions' AND key = 'late@00000003'",
            "the record of version 3 is gone",
        ),
        ("DELETE FROM records WHERE collection = 'models'", "the record of the model is gone"),
        (
            "UPDATE records SET data = replace(data, '\"champion\":2', '\"champion\":4') WHERE collection = 'models'",
            "the champion isn't version 2, which was made it last",
        ),
        (
            "UPDATE records SET data = replace(data, '\"latest\":4', '\"latest\":3') WHERE collection = 'models'",
            "the model's newest version isn't 3: 4 was registered",
        ),
    ],
)
def test_the_chain_vouches_for_versions(
    registry: ModelRegistry, records: Watched, tmp_path: Path, statement: str, said: str
) -> None:
    everything(registry, records)
    with sqlite3.connect(tmp_path / "registry.db") as file:
        file.execute(statement)
    file.close()
    assert registry.trail.check("late").wrong == (said,)
    assert registry.trail.models() == ["late"]


def test_a_seal_that_was_computed_anew_is_found(registry: ModelRegistry, records: Watched) -> None:
    everything(registry, records)
    forged = replace(registry.get("late@3"), metrics={"f1": 1.0})
    for data in (forged.to_record(), forged.to_dict()):
        records.commit(Put("versions", "late@00000003", data))
        assert registry.get("late@3").metrics == {"f1": 1.0}
        assert registry.trail.check("late").wrong == ("the record of version 3 isn't what was registered",)


@pytest.mark.parametrize("head", [{}, {"number": "7", "digest": ""}])
def test_a_last_entry_that_is_none_is_told(registry: ModelRegistry, records: Watched, head: dict[str, Any]) -> None:
    everything(registry, records)
    records.commit(Put(HEADS, "late", head))
    for act in (lambda: registry.trail.check("late"), lambda: registry.promote("late", 3)):
        with pytest.raises(IntegrityError, match="the last entry of the audit trail of 'late' is damaged"):
            act()


def test_an_entry_whose_key_tells_no_time_is_told(registry: ModelRegistry, records: Watched) -> None:
    everything(registry, records)
    records.commit(Put(AUDIT, "zzz", records.written[0].data))
    with pytest.raises(IntegrityError, match="the entry zzz of the audit trail"):
        registry.trail.check("late")


@pytest.mark.parametrize("start", [-5, -2_000_000_000_000_000])
def test_a_clock_before_1970(tmp_path: Path, start: int) -> None:
    clock = ManualClock(start)
    registry = ModelRegistry(f"sqlite:///{tmp_path}/registry.db", clock=clock)
    for run in "ab":
        registry.register("late", {"m": b"x"}, servable="tabular", run_id=run)
        clock.advance(1)
    assert registry.trail.check("late").wrong == ()
    assert [one.version for one in registry.audit("late")] == [2, 1]
    assert [one.version for one in registry.audit(since=start + 1)] == [2]


def test_a_clock_that_is_put_back(tmp_path: Path) -> None:
    """The newest entry of a model is the last one that was written, and whoever was late is told who came first."""
    clock = ManualClock(2_000_000_000_000_000)
    registry = ModelRegistry(f"sqlite:///{tmp_path}/registry.db", clock=clock)
    for run in "abc":
        registry.register("late", {"m": b"x"}, servable="tabular", run_id=run)
    registry.promote("late", 1, who="ada")
    clock.advance(-365 * 86_400_000_000)
    registry.promote("late", 2, who="bob", why="the newer one")
    assert registry.audit("late", limit=1)[0].who == "bob"
    assert [one.number for one in registry.audit("late")] == [5, 4, 3, 2, 1]
    assert registry.trail.check("late").wrong == ()
    with pytest.raises(ConflictError, match="pointed at version 2 by bob"):
        registry.promote("late", 3, before=1)


@pytest.mark.parametrize("data", [b"{", b"[]", b"{}", b'{"at": null}'])
def test_an_entry_that_is_none_any_more_is_found(
    registry: ModelRegistry, records: Watched, tmp_path: Path, data: bytes
) -> None:
    everything(registry, records)
    with sqlite3.connect(tmp_path / "registry.db") as file:
        file.execute("UPDATE records SET data = ? WHERE key = ?", (data, records.written[1].key))
    file.close()
    with pytest.raises(IntegrityError, match=re.escape(records.written[1].key)):
        registry.trail.check("late")


def test_a_reason_that_is_no_text_is_kept_as_it_can_be(registry: ModelRegistry) -> None:
    """Python gives bytes of a command line that aren't UTF-8 as surrogates."""
    registry.register("late", {"m": b"x"}, servable="tabular", run_id="a")
    registry.promote("late", 1, why="caf\udce9", who="\udcff")
    assert [(one.why, one.who) for one in registry.audit("late", limit=1)] == [("caf\\udce9", "\\udcff")]
    assert registry.trail.check("late").wrong == ()


def test_filters(registry: ModelRegistry, records: Watched) -> None:
    everything(registry, records)
    assert {one.action for one in registry.audit("late", action="promote")} == {"promote champion"}
    assert [one.version for one in registry.audit(who="bob")] == [2]
    assert registry.audit(who="bob")[0].verdicts[0]["why"] == "0.8 against 0.7"
    assert len(registry.audit(limit=3)) == 3
    assert {one.action for one in registry.audit("late", version=4)} == {
        "register",
        "alias blue",
        "unalias blue",
        "retire",
    }
    assert all("canary" in one.action for one in registry.audit(since=2_000_000))
    assert registry.audit(until=1_000_000) == []
    assert registry.verdicts("late", 2)[0]["gate"] == "better"


def test_entries_from_before_the_chain_are_read(registry: ModelRegistry, records: Watched) -> None:
    old: dict[str, Any] = {
        "at": "2026-01-01T00:00:00Z",
        "who": "ada",
        "action": "register",
        "model": "late",
        "version": 1,
    }
    records.commit(Put(AUDIT, "00000000000000000001-aaaa", {**old, "why": ""}))
    registry.register("late", {"m": b"x"}, servable="tabular", run_id="a")
    assert [one.number for one in registry.audit("late")] == [1, 0]
    assert registry.trail.check("late").wrong == ()


def test_a_refused_decision_leaves_no_entry(registry: ModelRegistry) -> None:
    registry.register("late", {"m": b"x"}, servable="tabular", run_id="a")
    with pytest.raises(ConfigError):
        registry.unalias("late", "champion")
    assert len(registry.audit()) == 1
