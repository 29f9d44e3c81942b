"""Gates in a training run and at a promotion: judged on the same rows, and written down."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeClassifier

import noria as nr
from noria.core import ConfigError, ConflictError, GateError, IntegrityError, Settings
from noria.registry import Deployments, Evidence, ModelRegistry, Needs, Variant, Verdict
from noria.storage import Workspace
from noria.training.gating import kept_gates, promote

SCHEMA = {"user": "int64", "amount": "float64?", "shop": "str?", "paid": "bool", "at": nr.Timestamp("s")}


def write(folder: Path, rows: int = 1500, name: str = "a.csv", start: int = 0) -> None:
    random = np.random.default_rng(3 + start)
    amount = random.normal(10, 3, rows)
    frame = pl.DataFrame(
        {
            "user": random.integers(0, 40, rows),
            "amount": amount,
            "shop": [f"s{i % 3}" for i in range(rows)],
            "paid": amount + random.normal(0, 2, rows) > 10,
            "at": start + np.arange(rows) * 600,
        }
    )
    frame.write_csv(folder / name)


def pipeline(**options: Any) -> nr.ModelTrainingPipeline:
    events = nr.Source("events", "*.csv", schema=SCHEMA)
    given = {
        "labels": events,
        "target": "paid",
        "features": ["amount"],
        "steps": [nr.Impute()],
        "model": LogisticRegression(),
        "metrics": ["roc_auc", "accuracy"],
        **options,
    }
    return nr.ModelTrainingPipeline("paid", **given)


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    write(tmp_path)
    with Workspace.open(Settings(tmp_path)) as opened:
        yield opened


def run(workspace: Workspace, part: nr.ModelTrainingPipeline) -> str:
    report = nr.System("shop", [part.labels, *part.groups, part]).run(workspace)
    if report.failed and report.failed[0].error:
        raise report.failed[0].error
    done = report.steps["paid"].run
    return "" if done is None else str(done.notes["verdict"])


def test_a_worse_version_is_kept_out_and_that_is_written_down(workspace: Workspace) -> None:
    registry = ModelRegistry.of(workspace)
    gates = [nr.better("roc_auc", by=0.002), nr.latency_under("10s"), nr.size_under("10MB")]
    assert "; not promoted" not in run(workspace, pipeline(gates=gates))
    assert [one["passed"] for one in registry.audit("paid")[0].verdicts] == [True, True, True]
    verdict = run(workspace, pipeline(model=DecisionTreeClassifier(max_depth=1, random_state=0), gates=gates))
    assert "; not promoted: better in roc_auc by 0.002: 0." in verdict
    assert "on 300 rows that neither has learned from" in verdict
    assert registry.champion("paid") == 1
    assert registry.state("paid", 2) == "registered"
    last = registry.audit("paid")[0]
    assert (last.action, last.version) == ("refuse champion", 2)
    assert registry.verdicts("paid", 2) == last.verdicts
    assert [one["passed"] for one in last.verdicts] == [False, True, True]


def test_the_champion_reads_its_own_features_of_the_same_rows(workspace: Workspace) -> None:
    """Another feature group, another column: the judgement is on one set of rows all the same."""
    source = pipeline().labels
    group = nr.FeatureGroup("habits", entity="user", source=source, features={"spent": nr.mean("amount")})
    run(workspace, pipeline(features=["amount", group]))
    verdict = run(workspace, pipeline(features=["shop"], steps=[nr.Encode()], gates=[nr.better("roc_auc")]))
    assert "not promoted: better in roc_auc by 0: 0.5" in verdict or "not better than" in verdict
    kept_out = pipeline(gates=[nr.better("roc_auc", by=0.5)], split=nr.TimeSplit(test=0.3))
    verdict = run(workspace, kept_out)
    assert "of paid@1, on 300 rows that neither has learned from" in verdict


def test_rows_that_the_champion_has_learned_from_do_not_judge(workspace: Workspace) -> None:
    run(workspace, pipeline(split=nr.RandomSplit(test=0.5)))
    write(workspace.settings.root, rows=300, name="b.csv", start=10_000_000)
    verdict = run(workspace, pipeline(split=nr.RandomSplit(test=0.5), gates=[nr.better("roc_auc", by=0.5)]))
    (rows,) = [int(word) for word in verdict.partition("of paid@1, on ")[2].split()[:1]]
    learned, test = np.zeros(1800, bool), nr.RandomSplit(test=0.5).masks(None, 1800, 0)[1]
    learned[:1500] = nr.RandomSplit(test=0.5).masks(None, 1500, 0)[0]
    assert rows == (test & ~learned).sum() < test.sum() == 900
    assert "rows that neither has learned from" in verdict


def test_slices_are_judged_on_the_same_rows(workspace: Workspace) -> None:
    run(workspace, pipeline())
    gates = [nr.no_slice_worse("accuracy", by=0.05, columns=["shop"], rows=50)]
    part = pipeline(features=["amount", "shop"], steps=[nr.Impute(), nr.Encode()], gates=gates)
    assert "not promoted" not in run(workspace, part)
    said = ModelRegistry.of(workspace).verdicts("paid", 2)
    assert said[0]["why"] == "3 slices of 50 rows or more, on 300 rows that neither has learned from"
    lost = pipeline(gates=[nr.no_slice_worse("accuracy", columns=["shop"])])  # no input: the rows lack it
    assert "not judged: paid@3 has no slices by shop (its rows have no column 'shop'" in run(workspace, lost)


def test_by_hand_the_same_gates_are_run_from_the_record(workspace: Workspace) -> None:
    registry = ModelRegistry.of(workspace)
    run(workspace, pipeline())
    run(workspace, pipeline(model=DecisionTreeClassifier(max_depth=1, random_state=0), promote=False))
    worse = registry.get("paid@2")
    gates = [nr.better("roc_auc", sure=True)]
    with pytest.raises(GateError, match=r"doesn't pass its gates: better in roc_auc by 0 for sure: .* at the low end"):
        promote(workspace, worse, gates, why="I like it")
    with pytest.raises(ConfigError, match="needs its reason"):
        promote(workspace, worse, gates, force=True)
    assert registry.champion("paid") == 1
    promote(workspace, worse, gates, force=True, why="the tree can be explained", who="ada")
    last = registry.audit("paid")[0]
    assert (last.who, last.why, last.verdicts[0]["passed"]) == ("ada", "the tree can be explained", False)
    assert promote(workspace, registry.get("paid@1"), gates)[0].passed
    assert registry.champion("paid") == 1


def test_a_version_whose_files_are_damaged_is_not_promoted(workspace: Workspace) -> None:
    """Servers would go on with the champion that they have, and none could be started anew."""
    registry = ModelRegistry.of(workspace)
    run(workspace, pipeline())
    run(workspace, pipeline(model=DecisionTreeClassifier(max_depth=1, random_state=0), promote=False))
    version = registry.get("paid@2")
    file = registry.files(version)["model.skops"]
    file.chmod(0o600)
    file.write_bytes(b"cut")
    with pytest.raises(IntegrityError, match=r"paid@2 can't be loaded, for its file model.skops"):
        promote(workspace, version, [], force=True, why="it was good")
    assert registry.champion("paid") == 1


def test_what_is_tried_is_not_passed_by(workspace: Workspace) -> None:
    run(workspace, pipeline())
    run(workspace, pipeline(model=DecisionTreeClassifier(max_depth=2), promote=False))
    Deployments.of(workspace).start("paid", [Variant("canary", 2, 0.1)])
    with pytest.raises(ConflictError, match="canary paid/1 is running"):
        promote(workspace, ModelRegistry.of(workspace).get("paid@2"), [])


def test_without_the_rows_what_was_recorded_has_to_do(workspace: Workspace) -> None:
    run(workspace, pipeline())
    run(workspace, pipeline(model=DecisionTreeClassifier(max_depth=1, random_state=0), promote=False))
    shutil.rmtree(workspace.settings.root / ".noria" / "tables" / "events")
    with Workspace.open(Settings(workspace.settings.root)) as again, pytest.raises(GateError) as caught:
        promote(again, ModelRegistry.of(again).get("paid@2"), [nr.better("roc_auc"), nr.no_slice_worse("roc_auc")])
    assert "on each version's own test rows (the same rows can't be read: " in caught.value.message
    assert "no slice worse in roc_auc by 0: not judged: " in caught.value.message


def test_the_evaluation_that_a_version_keeps_is_read(workspace: Workspace) -> None:
    registry = ModelRegistry.of(workspace)
    for number, value in ((1, 0.7), (2, 0.71)):
        evaluation = {
            "metrics": {"ndcg": {"value": value, "low": value - 0.005, "high": value + 0.005}},
            "slices": {"country": {"at": {"rows": 900, "ndcg": {"value": value, "low": 0.6, "high": 0.8}}}},
        }
        registry.register(
            "movies", {"m": b"x"}, servable="other", run_id=str(number), parameters={"evaluation": evaluation}
        )
    registry.promote("movies", 1)
    candidate = registry.get("movies@2")
    with pytest.raises(GateError, match=r"\+0.0050 at the low end"):
        promote(workspace, candidate, [nr.better("ndcg", by=0.006, sure=True)])
    promote(workspace, candidate, [nr.better("ndcg", by=0.004, sure=True), nr.no_slice_worse("ndcg")])
    assert registry.champion("movies") == 2


@dataclass(frozen=True)
class OnMonday:
    """A gate of a user's own."""

    needs = Needs()

    def judge(self, candidate: Evidence, champion: Evidence | None) -> Verdict:
        return Verdict("only on Mondays", False, "it is Sunday")

    def to_dict(self) -> dict[str, Any]:
        return {"gate": "on_monday"}


def test_a_gate_of_your_own(workspace: Workspace) -> None:
    assert run(workspace, pipeline(gates=[OnMonday()])).endswith("; not promoted: only on Mondays: it is Sunday")
    version = ModelRegistry.of(workspace).get("paid@1")
    with pytest.raises(ConfigError, match="'on_monday' is unknown"):
        kept_gates(version)


@dataclass(frozen=True)
class Says:
    """A gate whose judge gives whatever it is told to."""

    said: Any
    needs: Any = field(default_factory=Needs)

    def judge(self, candidate: Evidence, champion: Evidence | None) -> Any:
        if isinstance(self.said, Exception):
            raise self.said
        return self.said

    def to_dict(self) -> dict[str, Any]:
        return {"gate": "says"}


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (ZeroDivisionError("of rows"), "Says: not judged: its judge raised ZeroDivisionError: of rows"),
        (None, "its judge gave None, not a Verdict"),
        (True, "its judge gave True, not a Verdict"),
        (Verdict("mine", float("nan"), "0 of 0"), "mine: not judged: passed=nan is neither True nor False: 0 of 0"),  # type: ignore[arg-type]
        (Verdict("mine", "no", "why"), "passed='no' is neither True nor False"),  # type: ignore[arg-type]
        (Verdict("mine", np.bool_(False), "by 3"), "mine: by 3"),  # type: ignore[arg-type]
    ],
)
def test_a_gate_that_fails_stays_closed(workspace: Workspace, said: Any, told: str) -> None:
    verdict = run(workspace, pipeline(gates=[Says(said)]))
    assert "; not promoted: " in verdict
    assert told in verdict
    assert ModelRegistry.of(workspace).models() == {"paid": {}}
    assert run(workspace, pipeline(gates=[Says(Verdict("mine", np.bool_(True), ""))], split=nr.RandomSplit()))  # type: ignore[arg-type]
    assert ModelRegistry.of(workspace).champion("paid") == 2


def test_other_gates_make_no_other_version(workspace: Workspace) -> None:
    run(workspace, pipeline())
    assert run(workspace, pipeline(gates=[nr.size_under("1MB")])) == run(workspace, pipeline())
    assert len(ModelRegistry.of(workspace).versions("paid")) == 1


@pytest.mark.parametrize(
    ("gates", "said"),
    [
        (["roc_auc"], "is no gate"),
        ([nr.better("auc")], "unknown metric 'auc'"),
        ([Says(None, needs=None)], "Says needs None, which is no Needs"),
    ],
)
def test_wrong_gates_are_told_before_anything_is_fitted(workspace: Workspace, gates: list[Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        run(workspace, pipeline(gates=gates, model=DummyClassifier()))
    assert ModelRegistry.of(workspace).models() == {}
