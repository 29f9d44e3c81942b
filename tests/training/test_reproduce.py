"""Versions made again: from the registry alone, bit for bit where nothing is random, and what differs where it does."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from catboost import CatBoostClassifier
from hypothesis import given, settings
from hypothesis import strategies as st
from lightgbm import LGBMClassifier, LGBMRegressor
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier, VotingClassifier
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, WhiteKernel
from sklearn.linear_model import LinearRegression, LogisticRegression, SGDClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from xgboost import XGBClassifier

import noria as nr
from noria.core import DataError, IntegrityError, NoProgress, NotFoundError, Settings
from noria.registry import ModelRegistry
from noria.storage import Put, Workspace
from noria.training import ModelTrainingPipeline, Reproduction, reproduce
from noria.training.learner import Learned, Lesson, fit_once
from noria.training.remembered import _plain, _value, estimator_state, made_estimator

SCHEMA = {"user": "int64", "amount": "float64?", "shop": "str?", "paid": "bool", "at": nr.Timestamp("s")}


def write(folder: Path, rows: int = 500, seed: int = 3) -> None:
    random = np.random.default_rng(seed)
    amount = random.normal(10, 3, rows)
    frame = pl.DataFrame(
        {
            "user": random.integers(0, 40, rows),
            "amount": [None if i % 17 == 0 else float(a) for i, a in enumerate(amount)],
            "shop": [None if i % 23 == 0 else f"s{i % 5}" for i in range(rows)],
            "paid": amount + random.normal(0, 2, rows) > 10,
            "at": np.arange(rows) * 600,
        }
    )
    frame.write_csv(folder / "events.csv")


def pipeline(**options: Any) -> ModelTrainingPipeline:
    events = nr.Source("events", "events.csv", schema=SCHEMA)
    group = nr.FeatureGroup("habits", entity="user", source=events, features={"spent": nr.mean("amount")})
    given = {
        "labels": events,
        "target": "paid",
        "features": ["amount", "shop", group],
        "steps": [nr.Impute(), nr.Encode(method="onehot"), nr.Normalize()],
        "model": LogisticRegression(),
        "metrics": ["roc_auc", "accuracy"],
        "gates": [nr.size_under("1GB")],
        **options,
    }
    return ModelTrainingPipeline("paid", **given)


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    write(tmp_path)
    with Workspace.open(Settings(tmp_path)) as opened:
        yield opened


def run(workspace: Workspace, part: ModelTrainingPipeline) -> None:
    report = nr.System("shop", [part.labels, *part.groups, part]).run(workspace)
    if report.failed and report.failed[0].error:
        raise report.failed[0].error


def changed(workspace: Workspace, **parts: Any) -> None:
    """Change the record of paid@1, as nobody should."""
    version = replace(ModelRegistry.of(workspace).get("paid@1"), **parts)
    workspace.records.commit(Put("versions", "paid@00000001", version.to_dict()))


@pytest.mark.parametrize(
    "model",
    [
        LogisticRegression(C=0.3),
        make_pipeline(StandardScaler(), SGDClassifier("log_loss", random_state=1)),
        HistGradientBoostingClassifier(max_iter=5, random_state=0),
        RandomForestClassifier(10, random_state=np.int64(7), n_jobs=1),
        VotingClassifier(
            [("a", LogisticRegression()), ("b", RandomForestClassifier(3, random_state=0))], voting="soft"
        ),
        LGBMClassifier(n_estimators=5, verbose=-1, random_state=0, n_jobs=1, extra_trees=True),
        XGBClassifier(n_estimators=5, random_state=0, n_jobs=1, subsample=0.5),
        CatBoostClassifier(iterations=5, random_seed=0, thread_count=1, verbose=False),
    ],
    ids=lambda model: type(model).__name__,
)
def test_it_is_made_again_bit_for_bit(workspace: Workspace, model: Any) -> None:
    """Also when the rows have grown since, and nothing is left of the project but its stores."""
    run(workspace, pipeline(model=model))
    with (workspace.settings.root / "events.csv").open("a") as file:
        file.write("1,900.0,s9,true,9000000\n")
    pipeline().labels.run(workspace, "again", NoProgress())
    found = reproduce(workspace, "paid@1")
    assert found.outcome == "identical", found
    assert (found.source, found.changed, found.rows, found.libraries) == ("registry", 0, 500, {})
    assert found.metrics["roc_auc"].now == found.metrics["roc_auc"].then


@pytest.mark.parametrize("family", ["lightgbm", "linear"])
def test_text_that_auto_made_numbers_of_is_made_so_again(workspace: Workspace, family: str) -> None:
    pytest.importorskip("optuna")
    run(workspace, pipeline(steps=[], model=nr.Auto(trials=1, folds=1, families=[family])))
    made = reproduce(workspace, "paid@1")
    assert (made.outcome, made.source) == ("identical", "registry")


def test_regression_too(workspace: Workspace) -> None:
    model = LGBMRegressor(n_estimators=10, verbose=-1, n_jobs=1)
    run(workspace, pipeline(target="amount", features=["user", "shop"], model=model, metrics=["rmse"]))
    assert reproduce(workspace, "paid@1").outcome == "identical"


def test_an_unseeded_estimator_gets_the_seed_of_the_run(workspace: Workspace) -> None:
    run(workspace, pipeline(model=RandomForestClassifier(20)))
    assert reproduce(workspace, "paid@1").outcome == "identical"


def test_what_is_random_by_itself_is_equivalent(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    fit, random = LogisticRegression.fit, np.random.default_rng(0)

    def shaken(self: Any, X: Any, y: Any, **options: Any) -> Any:  # noqa: N803
        return fit(self, X + random.normal(0, 0.01, X.shape), y, **options)

    monkeypatch.setattr(LogisticRegression, "fit", shaken)
    run(workspace, pipeline(model=LogisticRegression()))
    found = reproduce(workspace, "paid@1")
    assert found.outcome == "equivalent", found
    assert found.changed > 0
    assert found.largest > 0
    assert "differ by themselves" in " ".join(found.notes)


def _with(workspace: Workspace, **parameters: Any) -> dict[str, Any]:
    """The version's parameters with others for its estimator."""
    kept = ModelRegistry.of(workspace).get("paid@1").parameters
    estimator = kept["estimator"]
    return {**kept, "estimator": {**estimator, "parameters": {**estimator["parameters"], **parameters}}}


def test_what_differs_without_a_reason_is_different(workspace: Workspace) -> None:
    run(workspace, pipeline(model=LogisticRegression(C=1.0)))
    changed(workspace, parameters=_with(workspace, C=0.99))
    found = reproduce(workspace, "paid@1")
    assert found.outcome == "different"
    assert found.changed > 400


def test_moved_libraries_are_named_and_explain_small_differences(workspace: Workspace) -> None:
    run(workspace, pipeline(model=LogisticRegression(C=1.0)))
    version = ModelRegistry.of(workspace).get("paid@1")
    code = {**version.lineage.code, "scikit-learn": "1.2.0", "lightgbm": "0.0.1"}
    changed(workspace, lineage=replace(version.lineage, code=code), parameters=_with(workspace, C=0.999))
    found = reproduce(workspace, "paid@1")
    assert found.outcome == "equivalent"
    assert found.libraries["scikit-learn"][0] == "1.2.0"
    changed(workspace, lineage=replace(version.lineage, code=code), parameters=_with(workspace, C=1e-9))
    found = reproduce(workspace, "paid@1")
    assert found.outcome == "different"  # no library explains so much
    assert not found.metrics["accuracy"].fits


def test_metrics_that_the_predictions_do_not_give_are_told(workspace: Workspace) -> None:
    """Whoever has changed them in the record doesn't get the word that all is as it was."""
    run(workspace, pipeline(split=nr.RollingSplit(folds=2, test=0.2)))
    assert reproduce(workspace, "paid@1").outcome == "identical"
    kept = ModelRegistry.of(workspace).get("paid@1").metrics
    changed(workspace, metrics={**kept, "roc_auc": 0.999})
    found = reproduce(workspace, "paid@1")
    assert (found.outcome, found.changed) == ("different", 0)
    assert "what is registered as roc_auc isn't what they give" in found.notes[-1]


def test_other_rows_are_told(workspace: Workspace, tmp_path: Path) -> None:
    """The table was made anew under its name, with other amounts."""
    run(workspace, pipeline())
    for name in ("events", "events__quarantine"):
        shutil.rmtree(tmp_path / ".noria" / "tables" / name)
    write(tmp_path, seed=4)
    with Workspace.open(Settings(tmp_path)) as again:
        with pytest.raises(NotFoundError, match="a table's version is gone"):
            reproduce(again, "paid")
        pipeline().labels.run(again, "anew", NoProgress())
        with pytest.raises(IntegrityError, match=r"isn't there any more: other user, amount, habits.spent, __target__"):
            reproduce(again, "paid")


@pytest.mark.parametrize("model", [XGBClassifier(n_estimators=50, n_jobs=1), LGBMClassifier(verbose=-1, n_jobs=1)])
def test_what_stopped_early_is_made_again_by_system_py(workspace: Workspace, model: Any) -> None:
    part = pipeline(model=model, early_stopping=5)
    run(workspace, part)
    found = reproduce(workspace, "paid@1", pipeline=part)
    assert (found.outcome, found.source) == ("identical", "system.py")


def test_a_function_is_not_kept_then_system_py_has_to_say(workspace: Workspace) -> None:
    part = pipeline(model=make_pipeline(FunctionTransformer(np.cbrt), StandardScaler(), LogisticRegression()),
                    features=["amount"])  # fmt: skip
    run(workspace, part)
    with pytest.raises(DataError, match=r"from the registry alone: its estimator isn't kept: its parameter 'func'"):
        reproduce(workspace, "paid@1")
    found = reproduce(workspace, "paid", pipeline=part)
    assert (found.outcome, found.source) == ("identical", "system.py")
    assert "its parameter 'func' is <ufunc 'cbrt'>" in " ".join(found.notes)
    with pytest.raises(DataError, match=r"system.py says otherwise now: features, model"):
        reproduce(workspace, "paid", pipeline=pipeline())


class Half:
    """A learner that fits once, to every second row."""

    def learn(self, lesson: Lesson) -> Learned:
        return fit_once(LogisticRegression(), lesson.part(np.arange(len(lesson)) % 2 == 0))

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "half"}


def test_a_learner_that_is_no_search_has_to_be_asked_itself(workspace: Workspace) -> None:
    run(workspace, pipeline(model=Half()))
    with pytest.raises(DataError, match="from the registry alone: it was made in another way than by one fit"):
        reproduce(workspace, "paid@1")
    made = reproduce(workspace, "paid@1", pipeline=pipeline(model=Half()))
    assert (made.outcome, made.source) == ("identical", "system.py")


def test_expressions_in_steps_are_taken_as_they_were_fitted(workspace: Workspace) -> None:
    steps = [nr.Impute(), nr.Derive({"double": nr.col("amount") * 2}), nr.Encode()]
    run(workspace, pipeline(steps=steps))
    found = reproduce(workspace, "paid@1")
    assert found.outcome == "identical"
    assert found.notes == ("steps with expressions were taken as they were fitted: Derive",)


def test_older_and_foreign_versions_say_why_not(workspace: Workspace) -> None:
    run(workspace, pipeline())
    kept = ModelRegistry.of(workspace).get("paid@1").parameters
    for parameters, said in [
        ({name: value for name, value in kept.items() if name != "estimator"}, "before estimators were kept"),
        ({**kept, "weights": "recency"}, "its definition has weights"),
        ({**kept, "estimator": {"class": "subprocess:Popen", "parameters": {}}}, "no class with parameters"),
        ({**kept, "estimator": {"class": "gone:Model", "parameters": {}}}, "can't be imported"),
        ({**kept, "estimator": {**kept["estimator"], "parameters": {"x": 1}}}, "takes other parameters now"),
        ({**kept, "estimator": {**kept["estimator"], "parameters": {"C": -1.0}}}, "learn from these rows"),
    ]:
        changed(workspace, parameters=parameters)
        with pytest.raises(DataError, match=said):
            reproduce(workspace, "paid@1")
    registry = ModelRegistry.of(workspace)
    registry.register("movies", {"m": b"x"}, servable="recommender", run_id="a")
    with pytest.raises(DataError, match="only tabular models"):
        reproduce(workspace, "movies@1")


def test_the_report_is_plain_data(workspace: Workspace) -> None:
    run(workspace, pipeline())
    found = reproduce(workspace, "paid@1")
    assert isinstance(found, Reproduction)
    assert found.to_dict()["metrics"]["accuracy"].keys() == {"then", "now", "low", "high"}


@pytest.mark.parametrize(
    "estimator",
    [
        GaussianProcessRegressor(RBF(0.5) + WhiteKernel()),
        TransformedTargetRegressor(LinearRegression()),
        XGBClassifier(),
        LGBMClassifier(class_weight={0: 1.0, 1: float("inf")}),
    ],
    ids=lambda model: type(model).__name__,
)
def test_estimators_come_back_with_their_parameters(estimator: Any) -> None:
    state = estimator_state(estimator)
    assert estimator_state(made_estimator(state)) == state


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@settings(max_examples=40, deadline=None)
@given(plain)
def test_plain_values_come_back_as_they_were(value: Any) -> None:
    back = _value(msgspec.json.decode(msgspec.json.encode(_plain(value, "x"))))
    assert back == value
    assert repr(back) == repr(value)
