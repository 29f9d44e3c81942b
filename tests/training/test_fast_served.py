"""Boosted trees trained by a pipeline, registered, and served by their formula."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest

import noria as nr
from noria.core import MissingExtraError, Settings
from noria.registry import ModelRegistry
from noria.serving import load_servable
from noria.storage import Workspace
from noria.training.fast import FastPredictor
from noria.training.formats import estimator_of

lgb = pytest.importorskip("lightgbm")
xgb = pytest.importorskip("xgboost")

SCHEMA = {"amount": "float64?", "shop": "str?", "paid": "int64"}


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    random = np.random.default_rng(3)
    amount, shop = random.normal(10, 3, 500), random.integers(0, 5, 500)
    frame = pl.DataFrame(
        {
            "amount": [None if i % 17 == 0 else float(a) for i, a in enumerate(amount)],
            "shop": [f"s{s}" for s in shop],
            "paid": (amount + shop + random.normal(size=500) > 12).astype(int),
        }
    )
    frame.write_csv(tmp_path / "sales.csv")
    with Workspace.open(Settings(tmp_path)) as opened:
        yield opened


@pytest.mark.parametrize("kind", ["LGBMClassifier", "XGBClassifier"])
def test_trained_and_served(kind: str, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"n_estimators": 20, "n_jobs": 1, **({"verbose": -1} if kind[0] == "L" else {})}
    model = getattr(lgb if kind[0] == "L" else xgb, kind)(**options)
    sales = nr.Source("sales", "sales.csv", schema=SCHEMA)
    part = nr.ModelTrainingPipeline(
        "paid",
        labels=sales,
        target="paid",
        features=["amount", "shop"],
        steps=[nr.Encode()],
        model=model,
        split=nr.RandomSplit(),
    )
    report = nr.System("shop", [sales, part]).run(workspace)
    assert not report.failed
    version = ModelRegistry.of(workspace).get("paid")
    assert version.metrics["roc_auc"] > 0.8

    servable: Any = load_servable(version, workspace)
    servable.warm_up()
    assert isinstance(servable._predictor, FastPredictor)
    rows = [
        {"amount": amount, "shop": shop} for amount, shop in ((9.5, "s1"), (None, "s4"), (15.0, None), (7.0, "new"))
    ]
    request = servable.decode("predict", msgspec.json.encode({"instances": rows}))
    answer = servable.answer("predict", [request])[0]
    matrix = servable._inputs.matrix(pl.DataFrame(rows, schema={"amount": pl.Float64, "shop": pl.String}))
    kept: Any = estimator_of(version, workspace)
    assert answer.predictions == kept.predict(matrix).tolist()
    assert answer.scores == kept.predict_proba(matrix)[:, 1].astype(np.float64).tolist()
    msgspec.json.encode(answer)

    library = "lightgbm" if kind[0] == "L" else "xgboost"
    for name in [name for name in sys.modules if name.partition(".")[0] == library]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=library):
        estimator_of(version, workspace)
