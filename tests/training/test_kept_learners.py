"""Whatever a run of a pipeline makes is kept without a pickle, and answers the same when it is read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from catboost import CatBoostClassifier, CatBoostRegressor
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

import noria as nr
from noria.core import ConfigError, Settings
from noria.registry import ModelRegistry
from noria.storage import Workspace
from noria.training.distributed.ensembles import Stacked, Voted
from noria.training.formats import estimator_of, keep, restore

FEW = {"iterations": 10, "verbose": False, "thread_count": 1}


def made(tmp_path: Path, **options: Any) -> tuple[Workspace, Any]:
    random = np.random.default_rng(0)
    amount = random.normal(size=400)
    shop = random.choice(["a", "b", "c"], 400)
    pl.DataFrame(
        {
            "amount": amount,
            "shop": shop,
            "paid": amount + (shop == "a") + random.normal(size=400) > 0.5,
            "sum": amount * 2 + random.normal(size=400),
            "at": np.arange(400) * 60,
        }
    ).write_csv(tmp_path / "events.csv")
    schema = {"amount": "float64", "shop": "str", "paid": "bool", "sum": "float64", "at": nr.Timestamp("s")}
    events = nr.Source("events", "events.csv", schema=schema)
    pipeline = nr.ModelTrainingPipeline(
        "paid",
        **{"labels": events, "target": "paid", "features": ["amount", "shop"], "metrics": ["roc_auc"], **options},
    )
    workspace = Workspace.open(Settings(tmp_path))
    report = nr.System("shop", [events, pipeline]).run(workspace)
    if report.failed:
        raise report.failed[0].error or AssertionError(report)
    return workspace, ModelRegistry.of(workspace).get("paid@1")


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("catboost", {"model": CatBoostClassifier(**FEW)}),
        ("catboost", {"model": CatBoostRegressor(**FEW), "target": "sum", "metrics": ["rmse"]}),
        ("torch", {"model": nr.TorchModule(hidden=(8,), epochs=3)}),
        ("skops", {"model": RandomForestClassifier(5)}),
    ],
    ids=["classes", "numbers", "network", "forest"],
)
def test_a_run_keeps_no_pickle(tmp_path: Path, form: str, options: dict[str, Any]) -> None:
    workspace, version = made(tmp_path, **options)
    assert version.spec["model"]["format"] == form
    assert not [name for name in version.files if name.endswith(".pkl")]
    estimator = estimator_of(version, workspace)
    assert len(estimator.predict(np.zeros((3, version_columns(version))))) == 3
    workspace.close()


def version_columns(version: Any) -> int:
    """How many columns the estimator reads: the text is a code, or a column for each value."""
    return 2 if version.spec["model"]["format"] in ("catboost", "skops") else 4


@pytest.mark.parametrize("kind", [Voted, Stacked], ids=lambda kind: kind.__name__)
def test_ensembles_of_workers(tmp_path: Path, kind: Any) -> None:
    random = np.random.default_rng(0)
    x, y = random.normal(size=(200, 3)), random.integers(0, 2, 200)
    models = [LogisticRegression().fit(x[part::2], y[part::2]) for part in range(2)]
    classes = np.unique(y)
    if kind is Voted:
        estimator: Any = Voted(models, np.array([0.5, 0.5]), classes)
    else:
        estimator = Stacked(models, LogisticRegression(), classes).fit(x, y)
    kept = keep(estimator, Settings(tmp_path))
    assert kept.spec["format"] == "skops"
    for name, data in kept.files.items():
        (tmp_path / name).write_bytes(data)
    again = restore(kept.spec, {name: tmp_path / name for name in kept.files}, Settings(tmp_path), "m")
    assert np.array_equal(again.predict(x), estimator.predict(x))
    assert np.array_equal(again.predict_proba(x), estimator.predict_proba(x))


class Own(LogisticRegression):  # type: ignore[misc]
    """A class that no format knows."""

    def fit(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("it was fitted")


@pytest.mark.parametrize(
    "learner",
    [
        nr.tune(Own(), {"C": nr.uniform(0.1, 1.0)}, trials=2),
        nr.DistributedTraining(Own(), "vote", partitions=2, workers=1),
    ],
    ids=["tune", "distributed"],
)
def test_what_only_a_pickle_could_hold_is_told_before_it_is_fitted(tmp_path: Path, learner: Any) -> None:
    with pytest.raises(ConfigError, match="can only be kept as a pickle"):
        made(tmp_path, model=learner)
