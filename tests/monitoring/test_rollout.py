"""The controller on real records, with what servers would have written."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import polars as pl
import pytest

from noria.core import ConflictError, Settings
from noria.monitoring import rollout
from noria.monitoring.evidence import STEPS
from noria.monitoring.rollout import ENOUGH, GRACE, Done, Rollout, tend
from noria.monitoring.tending import tending
from noria.registry import Deployment, Deployments, Judging, ModelRegistry, Reward, Variant
from noria.serving.exposures import FOLDER, TALLIES, Exposure, Tally, tally_key
from noria.serving.prediction_files import Segments
from noria.storage import Put, Workspace
from noria.testing import ManualClock

MINUTE = 60_000_000


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace.open(Settings.load(tmp_path), ManualClock(1_000)) as workspace:
        registry = ModelRegistry.of(workspace)
        for run in "abcd":
            registry.register("late", {"model": run.encode()}, servable="doubler", run_id=run)
        registry.promote("late", 3)
        yield workspace


def clock(workspace: Workspace) -> ManualClock:
    assert isinstance(workspace.clock, ManualClock)
    return workspace.clock


def start(workspace: Workspace, steps: tuple[float, ...] = (), judging: Judging | None = None) -> Deployment:
    return Deployments.of(workspace).start(
        "late", [Variant("canary", 4, 0.1)], steps=steps, every=MINUTE if steps else 0, judging=judging
    )


def counted(workspace: Workspace, server: str = "s1", failed: dict[str, str] | None = None, **variants: Tally) -> None:
    data = {"variants": msgspec.to_builtins(variants), "failed": failed or {}}
    workspace.records.commit(Put(TALLIES, tally_key("late", 1, server), data))


def usual(requests: int, errors: int = 0) -> Tally:
    """Answers after 50 ms, more or less."""
    n = requests - errors
    return Tally(requests, errors, n * math.log(0.05), n * (math.log(0.05) ** 2 + 0.2))


def after(workspace: Workspace, micros: int) -> list[Done]:
    clock(workspace).advance(micros)
    return tend(workspace, workspace.clock.now())


def now(workspace: Workspace) -> Deployment:
    found = Deployments.of(workspace).get("late")
    assert found is not None
    return found


def test_a_step_that_a_wrong_clock_has_begun_is_begun_anew(workspace: Workspace) -> None:
    """Or a canary of a day would last a year."""
    clock(workspace).advance(365 * 24 * 60 * MINUTE)
    start(workspace, steps=(0.1, 1.0))
    counted(workspace, canary=usual(300), champion=usual(2_700))
    (done,) = after(workspace, -365 * 24 * 60 * MINUTE)
    assert (done.action, done.why) == ("resume", "the clock was put back: the present step begins anew")
    assert now(workspace).stepped == clock(workspace).now()
    assert after(workspace, -MINUTE // 2) == []  # a little back is waited for
    (done,) = after(workspace, 2 * MINUTE)
    assert done.action == "advance"


def test_a_worse_canary_goes_back_with_its_reason(workspace: Workspace) -> None:
    start(workspace)
    counted(workspace, canary=usual(300, 1), champion=usual(2_700, 6))
    assert after(workspace, MINUTE) == []
    counted(workspace, canary=usual(600, 19), champion=usual(5_400, 11))
    counted(workspace, "s2", canary=usual(600, 18), champion=usual(5_400, 11))
    (done,) = after(workspace, MINUTE)
    assert (done.deployment, done.action) == ("late/1", "abort")
    assert done.why.startswith("canary 4: errors 3.08% instead of 0.204% (at least ")
    assert done.why.endswith(" points more), 95% anytime-valid, 1,200 requests")
    assert now(workspace).state == "aborted"
    assert ModelRegistry.of(workspace).get("late").version == 3
    (entry, *_) = ModelRegistry.of(workspace).audit("late")
    assert (entry.action, entry.who, entry.why) == ("abort canary", "noria rollout", done.why)
    assert after(workspace, MINUTE) == []


def test_a_paused_one_goes_back_too(workspace: Workspace) -> None:
    start(workspace)
    Deployments.of(workspace).pause("late")
    counted(workspace, canary=usual(500, 50), champion=usual(5_000))
    assert [done.action for done in after(workspace, 1)] == ["abort"]


def test_steps_are_taken_with_evidence_and_the_last_one_wins(workspace: Workspace) -> None:
    start(workspace, (0.1, 0.5, 1.0))
    counted(workspace, canary=usual(ENOUGH - 1), champion=usual(1_000))
    assert after(workspace, MINUTE) == []  # it is time, but there were too few requests
    counted(workspace, canary=usual(ENOUGH), champion=usual(1_000))
    (done,) = after(workspace, 1)
    assert (done.action, done.why) == ("advance", "step 2 of 3: 50% of the entities, after 100 requests")
    assert now(workspace).variants[0].share == 0.5
    assert after(workspace, MINUTE) == []  # what was before doesn't count for this step
    counted(workspace, canary=usual(3 * ENOUGH), champion=usual(1_200))
    assert [done.action for done in after(workspace, 1)] == ["advance"]
    counted(workspace, canary=usual(5 * ENOUGH), champion=usual(1_200))
    assert [done.action for done in after(workspace, MINUTE - 1)] == []
    assert [done.action for done in after(workspace, 1)] == ["finish"]
    assert ModelRegistry.of(workspace).get("late").version == 4
    assert now(workspace).state == "finished"
    actions = [entry.action for entry in ModelRegistry.of(workspace).audit("late")]
    assert sorted(actions[:4]) == ["advance canary", "advance canary", "finish canary", "promote champion"]


def test_a_canary_that_is_worse_at_the_last_step_goes_back(workspace: Workspace) -> None:
    start(workspace, (0.5, 1.0))
    counted(workspace, canary=usual(1_000), champion=usual(1_000))
    assert [done.action for done in after(workspace, MINUTE)] == ["advance"]
    counted(workspace, canary=usual(2_000, 100), champion=usual(1_000))
    assert [done.action for done in after(workspace, 1)] == ["abort"]
    assert ModelRegistry.of(workspace).get("late").version == 3


def test_another_champion_ends_a_canary(workspace: Workspace) -> None:
    start(workspace, (0.5, 1.0))
    counted(workspace, canary=usual(1_000), champion=usual(1_000))
    after(workspace, MINUTE)
    counted(workspace, canary=usual(2_000), champion=usual(1_000))
    ModelRegistry.of(workspace).promote("late", 2)
    (done,) = after(workspace, MINUTE)
    assert done.action == "abort"
    assert "version 2 has become the champion meanwhile" in done.why
    assert ModelRegistry.of(workspace).get("late").version == 2


def test_a_variant_that_cannot_be_loaded_goes_back(workspace: Workspace) -> None:
    start(workspace)
    counted(workspace, failed={"canary": "MissingExtraError: lightgbm"}, champion=usual(500))
    assert after(workspace, GRACE - 1) == []  # servers may still find a way
    (done,) = after(workspace, 1)
    assert done.why == "canary 4 can't be loaded: MissingExtraError: lightgbm"


def test_one_server_that_cannot_load_it_is_no_reason(workspace: Workspace) -> None:
    start(workspace)
    counted(workspace, failed={"canary": "out of memory"}, champion=usual(500))
    counted(workspace, "s2", canary=usual(5), champion=usual(500))
    assert after(workspace, GRACE) == []


def test_a_canary_that_loses_rewards_goes_back(workspace: Workspace) -> None:
    made = start(workspace, judging=Judging(reward=Reward("purchases", by="user", within=MINUTE)))
    counted(workspace, canary=usual(500), champion=usual(5_000))
    writer = Segments(workspace.settings.state_dir / FOLDER, "s1", 1 << 20, workspace.clock)
    users = [str(user) for user in range(5_000)]
    for user in users:
        shown = Exposure(f"r{user}", 2_000, "late", 1, made.variant_of(user).name, user)
        writer.write(msgspec.json.encode(shown) + b"\n")
    writer.close()
    bought = [user for user in users if made.variant_of(user).name == "champion" and int(user) % 4 == 0]
    frame = pl.DataFrame({"user": [*bought, "-"], "at": [3_000] * len(bought) + [3 * MINUTE]})
    frame = frame.with_columns(pl.col("at").cast(pl.Datetime("us", "UTC")))
    controller = Rollout(workspace)
    assert controller.tend(MINUTE) == []
    workspace.table("purchases").write(frame, run_id="a")
    assert controller.tend(MINUTE + 1) == []  # rewards were looked up just now
    (done,) = controller.tend(4 * MINUTE)
    assert done.why.startswith("canary 4: reward 0 instead of 0.25")


def test_rewards_that_cannot_be_found_do_not_keep_errors_from_being_judged(workspace: Workspace) -> None:
    start(workspace, judging=Judging(reward=Reward("purchases", by="nobody")))
    frame = pl.DataFrame({"user": ["1"], "at": [1]}).with_columns(pl.col("at").cast(pl.Datetime("us", "UTC")))
    workspace.table("purchases").write(frame, run_id="a")
    counted(workspace, canary=usual(500), champion=usual(5_000))
    controller = Rollout(workspace)
    (done,) = controller.tend(MINUTE)
    assert done.action == "fail"
    assert "no column 'nobody'" in done.why
    counted(workspace, canary=usual(1_000, 100), champion=usual(5_000))
    assert [done.action for done in controller.tend(MINUTE + 1)] == ["abort"]


def test_controllers_and_people_that_act_at_once(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between a controller's look and its change, a person ends the deployment and begins another one."""
    start(workspace)
    counted(workspace, canary=usual(500, 50), champion=usual(5_000))
    judged = rollout.judge

    def slowly(*given: object) -> object:
        Deployments.of(workspace).abort("late", why="I saw it first")
        start(workspace)
        return judged(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(rollout, "judge", slowly)
    assert after(workspace, 1) == []
    assert (now(workspace).number, now(workspace).state) == (2, "running")
    with pytest.raises(ConflictError, match="changed by another process"):
        Deployments.of(workspace).finish("late", before=Deployments.of(workspace).history("late")[0])


def test_two_controllers_take_a_step_once(workspace: Workspace) -> None:
    start(workspace, (0.1, 0.2, 0.3, 0.4))
    counted(workspace, canary=usual(1_000), champion=usual(9_000))
    clock(workspace).advance(MINUTE)
    done: list[Done] = []

    def one() -> None:
        with Workspace.open(workspace.settings) as own:
            done.extend(Rollout(own).tend(workspace.clock.now()))

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one.action for one in done] == ["advance"]
    assert now(workspace).step == 1


def test_a_step_whose_beginning_nobody_kept_begins_when_it_is_seen(workspace: Workspace) -> None:
    made = start(workspace, (0.1, 0.5))
    counted(workspace, canary=usual(1_000), champion=usual(9_000))
    clock(workspace).advance(MINUTE)
    taken = made.advanced(workspace.clock.now())
    assert taken is not None
    Deployments.of(workspace).change(made, taken, "advance canary", "by hand")
    assert after(workspace, MINUTE) == []
    assert len(workspace.records.list(STEPS)) == 1
    counted(workspace, canary=usual(1_000 + ENOUGH), champion=usual(9_500))
    assert [done.action for done in after(workspace, 1)] == ["finish"]


def test_a_server_that_forgot_its_totals_begins_the_step_anew(workspace: Workspace) -> None:
    start(workspace, (0.1, 0.5))
    counted(workspace, canary=usual(1_000, 5), champion=usual(9_000, 40))
    assert [done.action for done in after(workspace, MINUTE)] == ["advance"]
    counted(workspace, canary=usual(10), champion=usual(90))  # started again under its old name
    assert after(workspace, MINUTE) == []
    counted(workspace, canary=usual(10 + ENOUGH - 1), champion=usual(200))
    assert after(workspace, 1) == []
    counted(workspace, canary=usual(10 + ENOUGH), champion=usual(200))
    assert [done.action for done in after(workspace, 1)] == ["finish"]


def test_what_cannot_be_looked_up_is_told_once(tmp_path: Path) -> None:
    settings = Settings.load(tmp_path)
    with Workspace.open(settings, ManualClock(1_000)) as workspace:
        registry = ModelRegistry.of(workspace)
        for run in "ab":
            registry.register("late", {"model": run.encode()}, servable="doubler", run_id=run)
        registry.promote("late", 1)
        judging = Judging(reward=Reward("purchases", by="nobody"))
        Deployments.of(workspace).start("late", [Variant("canary", 2, 0.1)], judging=judging)
        frame = pl.DataFrame({"user": ["1"], "at": [1]}).with_columns(pl.col("at").cast(pl.Datetime("us", "UTC")))
        workspace.table("purchases").write(frame, run_id="a")
    told: list[str] = []
    with tending(settings, told.append, every=0.01):
        wait_for(told, 1)
        time.sleep(0.1)
    (only,) = told
    assert only.startswith("late/1: fail, its rewards can't be looked up: the events in 'purchases' have no column")


def test_the_loop_goes_on_after_the_registry_was_away(tmp_path: Path) -> None:
    settings = Settings.load(tmp_path)
    with Workspace.open(settings, ManualClock(1_000)) as workspace:
        registry = ModelRegistry.of(workspace)
        for run in "ab":
            registry.register("late", {"model": run.encode()}, servable="doubler", run_id=run)
        registry.promote("late", 1)
        Deployments.of(workspace).start("late", [Variant("canary", 2, 0.1)])
        counted(workspace, canary=usual(500, 50), champion=usual(5_000))
    file, away = (settings.root / ".noria" / name for name in ("records.db", "away.db"))
    file.rename(away)
    file.symlink_to(tmp_path)  # which no database can be
    told: list[str] = []
    with tending(settings, told.append, every=0.01):
        wait_for(told, 1)
        assert told[0].startswith("deployments can't be looked after: the records store")
        time.sleep(0.1)
        assert len(told) == 1  # once is enough
        away.replace(file)  # in one step: in between the loop would make a new one
        wait_for(told, 2)
    assert told[1].startswith("late/1: abort, canary 2: errors 10% instead of 0%")
    log = (settings.state_dir / "logs" / "rollout.jsonl").read_text().splitlines()
    assert [msgspec.json.decode(line)["event"] for line in log] == ["error", "rollout"]


def wait_for(what: list[str], count: int) -> None:
    deadline = time.monotonic() + 20
    while len(what) < count and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(what) >= count
