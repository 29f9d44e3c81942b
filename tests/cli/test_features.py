"""`noria features` in a small project."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from noria.cli import main
from noria.core import Settings
from noria.storage import Workspace

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
    assert "habits@2  user           2  ann    1970-01-01T00:00:00  -\n" in capsys.readouterr().out
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


def test_a_backfill_fills_a_table(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run"]) == 0
    define(project, 'nr.mean("price")')
    capsys.readouterr()
    words = ["features", "backfill", "habits", "--out", "past"]
    assert main([*words, "--labels", "buys"]) == 0
    assert capsys.readouterr().out == "table past version 0: 3 rows in 1 partition, made of buys version 0\n"
    assert main([*words, "--labels", "buys"]) == 0
    assert "it was complete, nothing to do" in capsys.readouterr().out
    with Workspace.open(Settings(project)) as workspace:
        assert workspace.table("past").read()["habits.spent"].to_list() == [None, None, 2.5]
    days = ["--every", "1s", "--from", "1970-01-01T00:00:00", "--until", "1970-01-01T00:00:02"]
    assert main(["features", "backfill", "habits@1", "--out", "daily", *days, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 2
    with Workspace.open(Settings(project)) as workspace:
        assert sorted(workspace.table("daily").read()["habits.spent"]) == [1, 6.5]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["habit", "--labels", "buys"], "did you mean 'habits'"),
        (["habits", "--labels", "sales"], "the system has no source 'sales'"),
        (["habits"], "--labels SOURCE, or --every"),
        (["habits", "--every", "1d", "--from", "2024-01-01"], "--labels SOURCE, or --every"),
        (["habits", "--every", "1d", "--from", "yesterday", "--until", "2024-01-02"], "'yesterday' is no instant"),
        (["habits", "--every", "1d", "--from", "2024-01-03", "--until", "2024-01-02"], "are 0 instants"),
        (["habits", "--every", "1s", "--from", "2024-01-01", "--until", "2025-01-02"], "there must be 1 to 100,000"),
        (["habits", "--labels", "buys", "--out", "buys"], "'buys' is a component of the system"),
        (["habits", "--labels", "buys", "--every", "1d"], "leave one out: --labels, or --every"),
        (["habits", "--labels", "buys", "--out", "../past"], "'../past' can't be the name of a table"),
    ],
)
def test_what_a_backfill_can_not_do_is_told(
    project: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(["run"]) == 0
    assert main(["features", "backfill", "--out", "past", *words]) == 1
    assert message in capsys.readouterr().err
