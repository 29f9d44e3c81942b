from __future__ import annotations

from pathlib import Path

import pytest

import noria as nr
from noria.core import Settings
from noria.features import history
from noria.features.history import Note, around, noted, notes_of
from noria.storage import Workspace


def test_notes_are_kept_in_their_order_and_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "_KEPT", 3)
    with Workspace.open(Settings(tmp_path)) as workspace:
        for at in range(10):
            workspace.records.commit(
                noted(workspace.records, "g@1", Note(at, at * 10, (at, at + 1) if at % 2 else None))
            )
        assert notes_of(workspace.records, "g@1") == [Note(7, 70, (7, 8)), Note(8, 80, None), Note(9, 90, (9, 10))]
        workspace.records.commit(noted(workspace.records, "g@1", Note(11, 90, (9, 10))))
        assert notes_of(workspace.records, "g@1")[-1].at == 9
        assert notes_of(workspace.records, "h@1") == []


def test_the_one_in_force_and_the_one_after_it() -> None:
    notes = [Note(10, 1, None), Note(20, 2, None)]
    assert around(notes, 8, 9) == (None, [notes[0]])
    assert around(notes, 9, 10) == (None, notes)
    assert around(notes, 11, 12) == (notes[0], [notes[1]])
    assert around(notes, 11, 20) == (notes[0], [notes[1]])
    assert around(notes, 21, 25) == (notes[1], [])
    assert around([], 21, 25) == (None, [])


def test_materializing_notes_the_version_of_the_table(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("user,at\n1,10\n")
    rows = nr.Source("rows", "r.csv", schema={"user": "int64", "at": nr.Timestamp("s")})
    group = nr.FeatureGroup("g", "user", rows, {"n": nr.count()})
    with Workspace.open(Settings(tmp_path)) as workspace:
        assert not nr.System("s", [rows, group]).run(workspace).failed
        (note,) = notes_of(workspace.records, group.online_spec().place)
        version = workspace.table("rows").version()
        assert (note.as_of, note.versions) == (10_000_001, (version, version))
        nr.FeatureStore(workspace).materialize(group, events=workspace.table("rows").read())
        assert notes_of(workspace.records, group.online_spec().place)[-1].versions is None
