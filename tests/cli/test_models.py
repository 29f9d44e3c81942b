"""`noria models`, `noria audit` and `noria reproduce` on a small project whose model was trained twice."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from noria.cli import main
from noria.registry import ModelRegistry

SYSTEM = """
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeClassifier
import noria as nr

events = nr.Source("events", "data/*.csv", schema={{"shop": "str", "amount": "float64", "paid": "bool", "at": nr.Timestamp("s")}})
paid = nr.ModelTrainingPipeline("paid", labels=events, target="paid", features=["amount", "shop"], steps=[nr.Encode()],
    model={model}, metrics=["roc_auc", "accuracy"], promote={promote}, gates=[{gates}])
system = nr.System("shop", [events, paid])
"""

Call = Callable[..., str]


def write(folder: Path, model: str, gates: str = 'nr.better("roc_auc", by=0.002)', promote: bool = True) -> None:
    (folder / "system.py").write_text(SYSTEM.format(model=model, gates=gates, promote=promote))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    random = np.random.default_rng(1)
    (folder / "data").mkdir()
    for part in range(2):
        amount = random.normal(10, 3, 300)
        pl.DataFrame(
            {
                "shop": [f"s{i % 3}" for i in range(300)],
                "amount": amount,
                "paid": amount + random.normal(0, 2, 300) > 10,
                "at": np.arange(300) * 600 + part * 180_000,
            }
        ).write_csv(folder / "data" / f"{part}.csv")
    write(folder, "LogisticRegression()")
    assert main(["run", "--project", str(folder)]) == 0
    write(folder, "DecisionTreeClassifier(max_depth=4, random_state=0)")
    assert main(["run", "--project", str(folder)]) == 0
    return folder


@pytest.fixture
def project(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = Path(shutil.copytree(trained, tmp_path / "shop"))
    monkeypatch.chdir(made)
    return made


@pytest.fixture
def call(project: Path, capsys: pytest.CaptureFixture[str]) -> Call:
    def run(*words: str, status: int = 0) -> str:
        capsys.readouterr()
        assert main(words) == status, capsys.readouterr()
        said = capsys.readouterr()
        return said.err if status and not said.out else said.out

    return run


def test_a_version_is_a_page(call: Call) -> None:
    page = call("models", "show", "paid@2")
    assert page.startswith("paid@2  registered\n")
    assert all(len(line) <= 100 for line in page.splitlines())
    assert len(page.splitlines()) < 45
    for words in (
        "roc_auc", "failed  better in roc_auc by 0.002: 0.", "DecisionTreeClassifier  ", "max_depth 4", "steps",
        "amount float64", "events version 0", "scikit-learn", "refuse champion by", "noria reproduce paid@2",
    ):  # fmt: skip
        assert words in page
    whole = json.loads(call("models", "show", "paid@2", "--json"))
    assert (whole["version"], whole["state"], whole["verdicts"][0]["passed"]) == (2, "registered", False)


def test_a_search_is_a_table_of_its_best_trials(call: Call, project: Path) -> None:
    pytest.importorskip("optuna")
    space = "{'max_depth': nr.integer(1, 30)}, trials=10, pruning=False"
    write(project, f"nr.tune(DecisionTreeClassifier(max_depth=1, random_state=0), {space})")
    call("run")
    page = call("models", "show", "paid@3")
    assert "trials  10 complete; " in page
    assert "\n  best    max_depth " in page
    assert "  and 2 more: --json" in page
    assert "history" not in page.partition("made of")[0]
    shown = page.partition("seconds  parameters\n")[2].splitlines()[:8]
    scores = [float(line.split()[1]) for line in shown]
    assert scores == sorted(scores, reverse=True)


def test_without_a_champion_the_versions_are_told(call: Call, project: Path) -> None:
    ModelRegistry("sqlite:///.noria/records.db").register("new", {"a": b"1"}, servable="tabular", run_id="r")
    said = call("models", "show", "new", status=1)
    assert "its versions are 1 to 1: new@1" in said
    assert "(none)" not in said


def test_standard_output_has_the_result_alone(project: Path) -> None:
    """What a component or a library of C prints while it runs goes to standard error."""
    file = project / "system.py"
    noisy = """
import ctypes
print("loaded")
class Noisy(DecisionTreeClassifier):
    def fit(self, *given, **options):
        print("from Python")
        ctypes.CDLL(None).puts(b"from C")
        return super().fit(*given, **options)
"""
    write(project, "Noisy(max_depth=2)")
    file.write_text(file.read_text().replace("events = ", f"{noisy}\nevents = ", 1))
    (project / "noria.toml").write_text("[registry]\ntrust_pickles = true\n")
    done = subprocess.run([sys.executable, "-m", "noria", "run", "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["components"][1]["status"] == "succeeded"
    for words in ("loaded", "from Python", "from C"):
        assert words in done.stderr


def test_a_missing_module_is_named(project: Path, call: Call) -> None:
    (project / "system.py").write_text("import lightgbmm\n")
    said = call("status", status=1)
    assert "system.py:1: there is no module 'lightgbmm' in " in said
    assert "installed where noria is?" in said


def test_a_failure_is_counted(project: Path, call: Call) -> None:
    write(project, "DecisionTreeClassifier(max_depth=-1)")
    assert "1 of 2 components in " in (said := call("run", status=1))
    assert ", 1 failed; longest: paid" in said


def test_versions_are_listed_with_their_states(call: Call) -> None:
    call("models", "alias", "paid@2", "blue", "--why", "for Lyon")
    lines = call("models", "list").splitlines()
    assert lines[1].split()[:3] == ["paid@2", "registered", "blue"]
    assert lines[2].split()[:2] == ["paid@1", "champion"]
    assert [one["state"] for one in json.loads(call("models", "list", "--json"))] == ["registered", "champion"]
    assert call("models") == call("models", "list")


def test_what_makes_two_versions_different(call: Call) -> None:
    told = call("models", "diff", "paid@1", "2")
    assert re.search(r"roc_auc +0\.\d+ +0\.\d+ +[+-]0\.\d{4}", told)
    assert re.search(r"model\.parameters\.max_depth +- +4\n", told)
    assert "model.skops" in told
    assert "inputs\n" not in told
    assert json.loads(call("models", "diff", "paid@1", "2", "--json"))["parameters"]["model.parameters.C"] == [
        1.0,
        None,
    ]
    assert "are the same in all but number" in call("models", "diff", "paid@1", "paid@1")


def test_gates_keep_a_version_out_unless_it_is_forced(call: Call) -> None:
    refused = call("models", "promote", "paid@2", status=1)
    assert "paid@2 doesn't pass its gates: better in roc_auc by 0.002: 0." in refused
    assert "--force --why REASON" in refused
    assert "doesn't pass its gates" in call("deploy", "paid@2", status=1)
    assert "add --why" in call("models", "promote", "paid@2", "--force", status=1)
    forced = call("models", "promote", "paid@2", "--force", "--why", "the tree can be explained")
    assert "failed  better in roc_auc" in forced
    trail = call("audit", "paid@2", "--action", "promote")
    assert "the tree can be explained; better in roc_auc by 0.002: 0." in trail
    assert "is the champion already" in call("models", "promote", "paid@2")
    passed = json.loads(call("models", "promote", "paid@1", "--json"))
    assert passed["verdicts"][0]["passed"] is True


def test_without_system_py_the_gates_of_the_training_count(call: Call, project: Path) -> None:
    (project / "system.py").unlink()
    assert "doesn't pass its gates: better in roc_auc by 0.002" in call("models", "promote", "paid@2", status=1)
    (project / "system.py").write_text("x = (")
    assert "doesn't pass its gates: better in roc_auc by 0.002" in call("models", "promote", "paid@2", status=1)
    write(project, "LogisticRegression()", gates='nr.size_under("5MB")')
    assert "passed  size under 5 MB" in call("models", "promote", "paid@2")


def test_both_rollbacks_do_the_same(call: Call) -> None:
    call("models", "promote", "paid@2", "--force", "--why", "x")
    call("deploy", "paid@1", "--canary", "10%")
    assert "canary paid/1 is taken back; paid@2 alone answers" in call("models", "rollback", "paid")
    assert "paid@1 is the champion again" in call("models", "rollback", "paid", "--why", "worse")
    assert "no earlier version" in call("models", "rollback", "paid", status=1)


def test_decisions_and_their_trail(call: Call) -> None:
    call("models", "alias", "paid@2", "challenger")
    assert "doesn't pass its gates" in call("models", "promote", "paid@challenger", status=1)
    assert "paid@2 is retired; its files are kept" in call("models", "retire", "paid@challenger", "--why", "too plain")
    assert "it can become registered (noria models restore paid@2)" in call("models", "promote", "paid@2", status=1)
    assert "paid@1 is champion and can't become rejected" in call("models", "reject", "paid@1", status=1)
    call("models", "restore", "paid@2")
    call("models", "reject", "paid@2")
    assert "no alias may point at it" in call("models", "alias", "paid@2", "blue", status=1)
    assert "'late-' names no" in call("models", "alias", "late-", "x", status=1)
    actions = [one["action"] for one in json.loads(call("audit", "--json", "--limit", "4"))]
    assert actions == ["reject", "restore", "retire", "refuse champion"]
    assert [one["why"] for one in json.loads(call("audit", "--json", "--action", "retire"))] == ["too plain"]
    assert call("audit", "--who", "nobody") == "nothing of that was done\n"
    assert call("audit", "--since", "1h") == call("audit")
    assert call("audit", "--until", "2020-01-01") == "nothing of that was done\n"
    assert "--until 'x' is no time" in call("audit", "--until", "x", status=1)


def test_a_changed_trail_is_found(call: Call, project: Path) -> None:
    assert "all as they were written" in call("audit", "--verify")
    with sqlite3.connect(project / ".noria" / "records.db") as file:
        file.execute("DELETE FROM records WHERE collection = 'audit' AND CAST(data AS TEXT) LIKE '%refuse%'")
    file.close()
    assert "paid: 3 entries, entry 4 is gone" in call("audit", "--verify", status=1)


def test_lineage_goes_both_ways(call: Call) -> None:
    origin = call("models", "lineage", "paid@1")
    assert "table events, version 0" in origin
    assert re.search(r"data/1\.csv +300 +[0-9a-f]{16}", origin)
    digest = re.findall(r"data/1\.csv +300 +([0-9a-f]{16})", origin)[0]
    fed = call("models", "lineage", "--source", "events")
    assert [line.split()[:2] for line in fed.splitlines()[1:]] == [["paid@2", "registered"], ["paid@1", "champion"]]
    for file in ("data/1.csv", "1.csv", digest):
        assert "paid@1" in call("models", "lineage", "--file", file)
    assert "no model was made of the file '3.csv'" in call("models", "lineage", "--file", "3.csv")
    assert "did you mean 'events'" in call("models", "lineage", "--source", "event", status=1)
    assert "one way at a time" in call("models", "lineage", status=1)


def test_files_that_came_later_are_not_told(call: Call, project: Path) -> None:
    (project / "data" / "2.csv").write_text("shop,amount,paid,at\n" + "".join(f"s1,{n},true,{n}\n" for n in range(9)))
    write(project, "LogisticRegression(C=2.0)")
    assert main(["run"]) == 0
    assert "data/2.csv" not in call("models", "lineage", "paid@1")
    assert "data/2.csv" in call("models", "lineage", "paid@3")
    assert [line.split()[0] for line in call("models", "lineage", "--file", "2.csv").splitlines()[1:]] == ["paid@3"]


def test_it_is_made_again_when_nothing_is_left_but_the_stores(call: Call, project: Path) -> None:
    (project / "system.py").unlink()
    shutil.rmtree(project / "data")
    told = call("reproduce", "paid@1", "--exact")
    assert "paid@1  identical: every prediction has the same bits" in told
    assert "fitted again from registry" in told
    assert json.loads(call("reproduce", "paid@2", "--json"))["outcome"] == "identical"
    shutil.rmtree(project / ".noria" / "tables" / "events")
    assert "a table's version is gone" in call("reproduce", "paid@1", status=1)
