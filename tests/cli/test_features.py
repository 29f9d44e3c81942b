"""`noria features` in a small project."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from noria.cli import main

SYSTEM = """
import noria as nr

buys = nr.Source("buys", "buys.csv", schema={{"user": "str", "price": "float64", "at": nr.Timestamp("us")}})
habits = nr.FeatureGroup("habits", entity="user", source=buys, owner="ann", features={{
    "spent": {spent},
    "orders": nr.count(window="7d", where=nr.col("price") > 1),
}})
system = nr.System("shop", [buys, habits])
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "buys.csv").write_text("user,price,at\nann,2.5,1000\nbob,1,2000\nann,4,3000\n")
    define(tmp_path, 'nr.sum("price")')
    return tmp_path


def define(project: Path, spent: str) -> None:
    (project / "system.py").write_text(SYSTEM.format(spent=spent))


def test_versions_and_statistics_are_shown(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["features"]) == 0
    assert "no features yet" in capsys.readouterr().out
    assert main(["run"]) == 0
    define(project, 'nr.mean("price", window="30d")')
    assert main(["run"]) == 0
    capsys.readouterr()

    assert main(["features"]) == 0
    assert "habits@2  user           2  ann    1970-01-01T00:00:00" in capsys.readouterr().out
    assert main(["features", "show", "habits", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["statistics"]["features"]["spent"]["count"] == 2
    assert shown["features"]["spent"] == {"kind": "mean", "column": "price", "window": "30d"}
    assert main(["features", "show", "habits@1"]) == 0
    assert "sum of price" in capsys.readouterr().out
    for words in (["history", "habits"], ["diff", "habits@1", "habits@2"]):
        assert main(["features", *words]) == 0
        assert "spent: sum of price -> mean of price, window 30d" in capsys.readouterr().out


def test_a_named_entity_is_shown(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = SYSTEM.format(spent='nr.sum("price")')
    named = written.replace('entity="user"', 'entity=nr.Entity("customer", keys="user")')
    (project / "system.py").write_text(named)
    assert main(["run"]) == 0
    for words in ([], ["show", "habits"]):
        assert main(["features", *words]) == 0
        assert "customer (user)" in capsys.readouterr().out
    assert main(["features", "list", "--json"]) == 0
    (shown,) = json.loads(capsys.readouterr().out)
    assert (shown["entity"], shown["entity_name"]) == ("user", "customer")


def test_mistakes_say_what_there_is(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run"]) == 0
    assert main(["features", "show", "habit"]) == 1
    assert "did you mean 'habits'" in capsys.readouterr().err
    assert main(["features", "show", "habits@9"]) == 1
    assert "has no version 9" in capsys.readouterr().err


def test_outside_of_a_project_nothing_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["features"]) == 1
    assert "there is no system.py" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
