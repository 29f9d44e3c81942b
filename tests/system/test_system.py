from __future__ import annotations

import json
import subprocess
import sys
import threading
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from noria.core import BusyError, GraphError, IntegrityError, NoriaError, Outcome, Progress, Settings, exclusive
from noria.storage import Put, Workspace
from noria.system import RunLog, System, levels, mermaid, svg
from noria.testing import ManualClock


@dataclass
class Part:
    """A component that counts its runs."""

    name: str
    dependencies: tuple[str, ...] = ()
    outside: dict[str, str] = field(default_factory=dict)
    definition: str = "v1"
    fails: bool = False
    loss: str = ""
    kind: str = "source"
    description: str = "A part."
    run_ids: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, "definition": self.definition}

    def inputs(self, settings: Settings) -> dict[str, str]:
        return self.outside

    def lost(self, workspace: Workspace, version: str) -> str:
        return self.loss

    def run(self, workspace: Workspace, run_id: str, progress: Progress, *, full: bool = False) -> Outcome:
        self.run_ids.append(run_id)
        if self.fails:
            raise NoriaError("out of water", hint="wait for rain")
        return Outcome(run_id, {"in": 1}, {"note": 1})


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace.open(Settings(tmp_path)) as opened:
        yield opened


def statuses(system: System, workspace: Workspace, **options: Any) -> dict[str, str]:
    return {name: step.status for name, step in system.run(workspace, **options).steps.items()}


def test_a_second_run_does_nothing_and_a_change_runs_what_is_below(workspace: Workspace) -> None:
    a, b, c = Part("a"), Part("b", ("a",)), Part("c")
    system = System("s", [a, b, c])
    assert statuses(system, workspace) == {"a": "succeeded", "c": "succeeded", "b": "succeeded"}
    assert set(statuses(system, workspace).values()) == {"fresh"}
    a.outside = {"file": "2"}
    assert [(s.component, s.why) for s in system.status(workspace) if s.why] == [
        ("a", "file changed"),
        ("b", "a is stale"),
    ]
    assert statuses(system, workspace) == {"a": "succeeded", "c": "fresh", "b": "succeeded"}
    c.definition = "v2"
    report = system.run(workspace)
    assert report.steps["c"].why == "its definition changed"
    assert set(statuses(system, workspace, full=True).values()) == {"succeeded"}
    assert set(statuses(system, workspace).values()) == {"fresh"}


def test_the_same_work_done_anew_has_another_run_id_and_a_repetition_the_same(workspace: Workspace) -> None:
    a = Part("a")
    system = System("s", [a])
    for definition in ("v1", "v2", "v1"):
        a.definition = definition
        system.run(workspace)
    assert len(set(a.run_ids)) == 3
    a.definition, a.fails = "v3", True
    system.run(workspace)
    a.fails = False
    system.run(workspace)
    assert a.run_ids[3] == a.run_ids[4]


def test_what_was_lost_is_made_again(workspace: Workspace) -> None:
    a, b = Part("a"), Part("b", ("a",))
    system = System("s", [a, b])
    system.run(workspace)
    a.loss = "its table is gone"
    assert [step.why for step in system.status(workspace)] == ["its table is gone", "a is stale"]
    assert statuses(system, workspace) == {"a": "succeeded", "b": "succeeded"}


def test_a_failure_skips_what_is_below_and_nothing_else(workspace: Workspace) -> None:
    parts = [Part("a", fails=True), Part("b", ("a",)), Part("c", ("b",)), Part("d")]
    report = System("s", parts).run(workspace)
    assert {n: s.status for n, s in report.steps.items()} == {
        "a": "failed",
        "d": "succeeded",
        "b": "skipped",
        "c": "skipped",
    }
    assert [step.component for step in report.failed] == ["a"]
    assert RunLog(workspace.records, workspace.clock).last("a") is None
    logged = (workspace.settings.state_dir / "logs" / "run.jsonl").read_text()
    assert "out of water" in logged
    assert "Traceback" in logged
    errors = [run.error for run in RunLog(workspace.records, workspace.clock).recent() if run.component == "a"]
    assert "out of water" in errors[0]


def test_components_without_a_common_path_run_in_parallel(workspace: Workspace) -> None:
    both = threading.Barrier(2, timeout=10)

    class Meeting(Part):
        def run(self, workspace: Workspace, run_id: str, progress: Progress, *, full: bool = False) -> Outcome:
            both.wait()
            return Outcome(run_id)

    assert set(statuses(System("s", [Meeting("a"), Meeting("b")]), workspace).values()) == {"succeeded"}


def test_graph_errors_show_the_path() -> None:
    with pytest.raises(GraphError, match="a -> c -> b -> a"):
        System("s", [Part("a", ("c",)), Part("b", ("a",)), Part("c", ("b",))])
    with pytest.raises(GraphError, match=r"'b' depends on 'raitings'.*(?s:.)*did you mean 'ratings'"):
        System("s", [Part("ratings"), Part("b", ("raitings",))])
    with pytest.raises(GraphError, match="two components"):
        System("s", [Part("a"), Part("a")])
    with pytest.raises(GraphError, match="in a circle: a -> a"):
        levels({"a": ["a"]})


def test_two_runs_at_once_are_refused(workspace: Workspace) -> None:
    with (
        exclusive(workspace.settings.state_dir / "run.lock", "a run"),
        pytest.raises(BusyError, match=r"going on in process \d+"),
    ):
        System("s", [Part("a")]).run(workspace)


def test_a_killed_run_is_marked_and_done_again(workspace: Workspace, tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_system import *\n"
        "class Killed(Part):\n"
        "    def run(self, *_, **__): os.kill(os.getpid(), signal.SIGKILL)\n"
        f"System('s', [Part('a'), Killed('b', ('a',))]).run(Workspace.open(Settings(Path({str(tmp_path)!r}))))\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    log = RunLog(workspace.records, workspace.clock)
    left = next(run for run in log.recent() if run.component == "b")
    assert left.status == "running"
    a, b = Part("a"), Part("b", ("a",))
    report = System("s", [a, b]).run(workspace)
    assert report.steps["a"].status == "fresh"
    assert report.steps["b"].why == "the last run was interrupted"
    assert b.run_ids == [left.run_id]
    assert {run.status for run in log.recent()} == {"succeeded", "interrupted"}


def test_a_run_is_the_newest_whatever_the_clock_says(workspace: Workspace) -> None:
    """One that was killed is found after the clock was put back, or was wrong for a while."""
    clock = ManualClock(2_000_000_000_000_000)
    log = RunLog(workspace.records, clock)
    for _ in range(60):
        log.succeed(log.start(log.new_group(), "a", "k", {}), Outcome("1"), 0.1)
    for jump in (-365 * 86_400_000_000, -2_500_000_000_000_000, 5_000_000_000_000_000):
        clock.advance(jump)
        left = log.start(log.new_group(), "b", "k", {})
        assert (log.recent(1)[0].id, left.started) == (left.id, clock.now())
        assert log.close_interrupted() == ["b"]
        assert {run.status for run in log.recent(100)} == {"succeeded", "interrupted"}


@pytest.mark.parametrize("collection", ["components", "runs"])
def test_a_record_of_a_run_that_is_none_is_told(workspace: Workspace, collection: str) -> None:
    system = System("s", [Part("a")])
    system.run(workspace)
    for record in workspace.records.list(collection):
        workspace.records.commit(Put(collection, record.key, {**record.data, "version": 7}))
    with pytest.raises(IntegrityError, match=r"the record of the run .*a is damaged"):
        system.run(workspace)


def test_the_graph_has_the_servers_and_can_be_drawn() -> None:
    system = System("s", [Part("a"), Part("m", ("a",), kind="recommender")])
    graph = json.loads(json.dumps(system.to_dict()))
    assert [c["name"] for c in graph["components"]] == ["a", "m", "model-server", "load-balancer"]
    assert graph["components"][2]["dependencies"] == ["m"]
    assert "c_a --> c_m" in mermaid(graph)
    texts = [e.text for e in ElementTree.fromstring(svg(graph, system.order)).iter() if e.tag.endswith("text")]
    assert "load-balancer" in texts
