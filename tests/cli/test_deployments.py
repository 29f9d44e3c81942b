"""`noria deploy` and its kin, on a registry of small versions, with what servers would have written."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest

from noria.cli.deploy_options import share, variants
from noria.cli.main import main
from noria.core import ConfigError, Settings, to_iso
from noria.monitoring.rollout import tend
from noria.registry import ModelRegistry, Variant
from noria.serving.exposures import FOLDER, TALLIES, Exposure, Tally, tally_key
from noria.serving.prediction_files import Segments
from noria.storage import Put, Workspace
from noria.testing import ManualClock

SYSTEM = """\
import noria as nr

purchases = nr.Stream("purchases", {"user": "str", "amount": "float64", "at": nr.Timestamp("us"), "note": "str?"})
ratings = nr.Source("ratings", "ratings.csv", {"user": "str", "seen": nr.Timestamp("s"), "at": nr.Timestamp("s")}, time="at")
system = nr.System("shop", [purchases, ratings])
"""

Call = Callable[..., str]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "system.py").write_text(SYSTEM)
    with Workspace.open(Settings.load(tmp_path)) as workspace:
        registry = ModelRegistry.of(workspace)
        for run in "abcd":
            registry.register("late", {"model": run.encode()}, servable="doubler", run_id=run)
        registry.promote("late", 3, why="the best so far")
    return tmp_path


@pytest.fixture
def call(project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    monkeypatch.chdir(project)

    def run(*words: str, status: int = 0) -> str:
        assert main(words) == status
        said = capsys.readouterr()
        return said.err if status else said.out

    return run


def usual(requests: int, errors: int = 0, **more: int) -> Tally:
    n = requests - errors
    return Tally(requests, errors, n * math.log(0.05), n * (math.log(0.05) ** 2 + 0.2), **more)


def counted(project: Path, number: int, **tallies: Tally) -> None:
    with Workspace.open(Settings.load(project)) as workspace:
        data = {"variants": msgspec.to_builtins(tallies)}
        workspace.records.commit(Put(TALLIES, tally_key("late", number, "server-1"), data))


def shown(call: Call) -> dict[str, Any]:
    return dict(json.loads(call("deployment", "show", "late", "--json")))


def test_without_options_it_is_promoted_at_once(call: Call) -> None:
    assert "late@4 is the champion, at once and for everybody" in call("deploy", "late@4", "--why", "sure")
    assert "late@3 is the champion again" in call("rollback", "late", "--why", "not so sure")
    trail = json.loads(call("audit", "late", "--json", "--limit", "2"))
    assert [(one["action"], one["version"], one["why"]) for one in trail] == [
        ("rollback champion", 3, "not so sure"),
        ("promote champion", 4, "sure"),
    ]
    assert json.loads(call("deploy", "late@4", "--json")) == {"model": "late", "version": 4, "promoted": True}


def test_a_canary_from_start_to_end(call: Call, project: Path) -> None:
    assert "nothing is tried" in call("deployment")
    said = call("deploy", "late@4", "--canary", "10%", "--max-errors", "0.5%", "--why", "try it")
    assert "late/1: canary 4 answers 10%, champion 3 answers 90%" in said
    assert "errors (at most 0.5 points more)" in said
    assert "servers take it up within a few seconds" in call("deployment", "show", "late")
    counted(project, 1, champion=usual(99))
    assert "no entity has met it yet" not in call("deployment", "show", "late")
    counted(project, 1, champion=usual(100))
    assert "canary: no entity has met it yet" in call("deployment", "show", "late")
    counted(project, 1, canary=usual(1_000, 3), champion=usual(9_000, 12))
    told = call("deployment", "show", "late")
    assert "canary          4    10%     1,000    0.3%    50 ms" in told
    assert "canary 4: neither worse nor better, as far as can be known" in told
    assert "servers that follow: server-1" in told
    found = shown(call)
    assert found["verdicts"][0]["comparisons"][0]["tried"] == 0.003
    assert found["counted"]["total"]["champion"]["requests"] == 9_000
    assert "is running" in call("deploy", "late@2", "--canary", "10%", status=1)
    assert "no version 9" in call("deploy", "late", "--ab", "a=3,b=9", status=1)
    assert "canary late/1 is running: canary 4 answers 10%" in call("deploy", "late@4", status=1)
    assert "late@4 is the champion" in call("deployment", "finish", "late", "--why", "it is good")
    assert [one["state"] for one in json.loads(call("deployment", "list", "--json"))] == ["finished"]
    assert "nothing of model 'late' is tried now" in call("deployment", "abort", "late", status=1)
    assert "late/1" in call("deployment")


def test_steps(call: Call, project: Path) -> None:
    said = call("deploy", "late@4", "--canary", "--steps", "1,10,50,100", "--every", "10m")
    assert "steps: 1%, 10%, 50%, 100%, each for 10m and 100 requests of the canary at least" in said
    assert "steps: 1% now, 10%, 50%, 100%; the next not before " in call("deployment", "show", "late")
    assert "and 100 more requests" in call("deployment", "show", "late")
    with Workspace.open(Settings.load(project)) as workspace:
        workspace.records.commit(Put(TALLIES, tally_key("late", 1, "old"), {"variants": {}, "step": 2}))
    assert "old (still at step 3)" in call("deployment", "show", "late")
    assert "takes no further steps" in call("deployment", "pause", "late", "--why", "lunch")
    assert shown(call)["state"] == "paused"
    assert "canary late/1 is paused already" in call("deployment", "pause", "late", status=1)
    assert "goes on" in call("deployment", "resume", "late")
    assert "canary late/1 isn't paused" in call("deployment", "resume", "late", status=1)
    counted(project, 1, canary=usual(400, 40), champion=usual(4_000))
    assert "canary 4: worse, by errors 10% instead of 0% (at least " in call("deployment", "show", "late")
    with Workspace.open(Settings.load(project)) as workspace:
        assert [done.action for done in tend(workspace, workspace.clock.now())] == ["abort"]
    told = call("deployment", "show", "late")
    assert "late/1  canary, aborted: canary 4: errors 10% instead of 0%" in told
    assert "servers that follow: old (still at step 3), server-1" in told
    assert "noria rollout  abort canary" in call("audit", "late")


def test_a_shadow(call: Call, project: Path) -> None:
    assert "4 is asked on the side" in call("deploy", "late@4", "--shadow")
    counted(project, 1, shadow=usual(500, compared=500, agreed=480), champion=usual(5_000))
    told = call("deployment", "show", "late")
    assert "shadow: 96% of its answers agree (" in told
    assert "asked too" in told
    assert "shadow late/1 is over: no winner; late@3 is the champion" in call("deployment", "finish", "late")
    assert "go to nobody" in call(
        "deploy", "late@4", "--shadow", "--reward", "purchases", "--reward-by", "user", status=1
    )


def test_an_experiment_with_rewards(call: Call, project: Path) -> None:
    words = ("--reward", "purchases:amount", "--reward-by", "user", "--within", "1h", "--max-loss", "0.1")
    said = call("deploy", "late", "--ab", "control=3,treatment=4:50%", *words)
    assert "treatment 4 answers 50%, control 3 answers 50%" in said
    assert "reward (the sum of amount in purchases)" in said
    made = shown(call)["judging"]
    assert made["reward"] == {
        "source": "purchases", "value": "amount", "by": "user", "within": 3_600_000_000, "time": "at"
    }  # fmt: skip
    assert made["reward_loss"] == 0.1
    assert shown(call)["waits"] == "nothing has happened in purchases yet"
    started = shown(call)["started"]
    users = [str(user) for user in range(400)]
    with Workspace.open(Settings.load(project)) as workspace:
        writer = Segments(workspace.settings.state_dir / FOLDER, "s1", 1 << 20, ManualClock(1))
        for user in users:
            name = "treatment" if int(user) % 2 else "control"
            writer.write(msgspec.json.encode(Exposure(f"r{user}", started, "late", 1, name, user)) + b"\n")
        writer.close()
        frame = pl.DataFrame(
            {"user": [*users, "-"], "amount": [2.0 + int(user) % 2 for user in users] + [0.0]}
        ).with_columns(at=pl.lit(started).cast(pl.Datetime("us", "UTC")))
        workspace.table("purchases").write(frame, run_id="a")
    assert shown(call)["rewards"] == {}  # the hour isn't over
    day = to_iso(started)[:19]
    assert f"an event of purchases after {to_iso(started + 3_600_000_000)[:19]} UTC" in shown(call)["waits"]
    assert "reward: no window is over yet: " in (told := call("deployment", "show", "late"))
    assert f"the newest is of {day} UTC" in told
    assert "say which has won" in call("deployment", "finish", "late", status=1)
    assert "treatment won; late@4 is the champion" in call("deployment", "finish", "late", "--winner", "treatment")


def test_a_winner_and_another_champion_are_told(call: Call, project: Path) -> None:
    call("deploy", "late", "--ab", "control=3,treatment=4:50%")
    counted(project, 1, treatment=usual(5_000), control=usual(5_000, 250))
    told = call("deployment", "show", "late")
    assert "treatment 4: better, by errors 0% instead of 5% (at least " in told
    assert "to end it: noria deployment finish late --winner treatment" in told
    refused = call("models", "promote", "late@2", status=1)
    assert "ab late/1 is running: treatment 4 answers 50%, control 3 answers 50%" in refused
    assert "--force --why REASON promotes all the same" in refused
    assert "no version 9" in call("models", "promote", "late@9", status=1)
    call("models", "promote", "late@2", "--force", "--why", "sure")
    assert "version 2 has become the champion meanwhile" in call("deployment", "show", "late")
    assert "--force" in call("deployment", "finish", "late", "--winner", "treatment", status=1)
    call("deployment", "finish", "late", "--winner", "treatment", "--force")
    assert shown(call)["champion"] == 4


def test_rollback_takes_back_what_is_tried_first(call: Call) -> None:
    call("deploy", "late@4", "--canary", "10%")
    assert "canary late/1 is taken back; late@3 alone answers" in call("rollback", "late")
    assert "no earlier version" in call("rollback", "late", status=1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["late"], "names no version"),
        (["late@9", "--canary", "10%"], "no version 9"),
        (["lat@4", "--canary", "10%"], "did you mean 'late'"),
        (["late@3", "--canary", "10%"], "is the champion already"),
        (["late@3", "--shadow"], "is the champion already"),
        (["late@4", "--canary", "0%"], "canary would answer nobody"),
        (["late", "--ab", "a=3,b=4:0%"], "b would answer nobody"),
        (["late@4", "--canary"], "needs a share"),
        (["late@4", "--canary", "ten"], "is no share"),
        (["late", "--ab", "control=3,treatment=4:late@4"], "is a version, no share"),
        (["late@4", "--canary", "0.1"], "could be 0.1% or 10%"),
        (["late@4", "--canary", "--steps", "1,10"], "needs --every"),
        (["late@4", "--canary", "--steps", "10,1", "--every", "1m"], "must grow"),
        (["late@4", "--canary", "5%", "--steps", "1,10", "--every", "1m"], "has a share, and --steps"),
        (["late@4", "--every", "1m"], "goes with something that is tried"),
        (["late@4", "--shadow", "--steps", "1,2", "--every", "1m"], "those of a canary"),
        (["late@4", "--ab", "a=3,b=4"], "stand in --ab"),
        (["late", "--ab", "a=3"], "at least two"),
        (["late", "--ab", "a=3,b=x"], "is no variant"),
        (["late", "--ab", "a=3:50%,b=4:60%"], "add up to 110"),
        (["late", "--ab", "a=3,a=4"], "two variants have one name"),
        (["late@4", "--canary", "5%", "--alpha", "2"], "alpha=2.0 is no chance"),
        (["late@4", "--canary", "5%", "--max-latency", "0.5"], "no number from 1"),
        (["late@4", "--canary", "5%", "--within", "1h"], "goes with --reward"),
        (["late@4", "--canary", "5%", "--reward", "purchase"], "did you mean 'purchases'"),
        (["late@4", "--canary", "5%", "--reward", "purchases"], "no column 'request_id'"),
        (["late@4", "--canary", "5%", "--reward", "purchases:x", "--reward-by", "user"], "no column 'x'"),
        (["late@4", "--canary", "5%", "--reward", "purchases:note", "--reward-by", "user"], "can't be summed"),
    ],
)
def test_mistakes_say_what_to_do(call: Call, words: list[str], said: str) -> None:
    told = call("deploy", *words, status=1)
    assert said in told
    assert "hint: " in told
    assert "nothing is tried" in call("deployment")


def test_the_time_of_a_source_is_known_from_system_py(call: Call) -> None:
    call("deploy", "late@4", "--canary", "5%", "--reward", "ratings", "--reward-by", "user")
    assert shown(call)["judging"]["reward"]["time"] == "at"


def test_models_that_are_not_there(call: Call) -> None:
    for words in (["deployment", "show", "lat"], ["deployment", "pause", "lat"], ["rollback", "lat"], ["audit", "lat"]):
        assert "there is no model 'lat'" in call(*words, status=1)
    assert "nothing of model 'late' is tried now" in call("deployment", "show", "late", status=1)


def test_shares_and_variants() -> None:
    assert [share(text, "x") for text in ("10%", "10", "0.5%", "100", "0")] == [0.1, 0.1, 0.005, 1.0, 0.0]
    with pytest.raises(ConfigError):
        share("nan", "x")
    assert variants("a=1,b=2") == ([Variant("b", 2, 0.5)], Variant("a", 1, 0.5))
    tried, control = variants("x=4:20%, control=3 ,y=5:30%")
    assert [one.name for one in tried] == ["x", "y"]
    assert (control.name, control.version, control.share) == ("control", 3, pytest.approx(0.5))
