"""Predictors: one row, and 500 at once, of tabular models in their library and in noria's formula with the same bits."""

from __future__ import annotations

import json
import pickle
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.measure import environment, markdown, measure, median
from noria.training.fast import LibraryPredictor, fast_predictor

PEERS = Path(__file__).parent / "peers"
ONNX = ("onnxruntime==1.32.0", "skl2onnx==1.20.0", f"scikit-learn=={metadata.version('scikit-learn')}")
ROWS, FEATURES = 10_000, 50
MANY = 500


def run(rows: int = ROWS) -> str:
    x, y = example(rows)
    table = []
    for name, model in models().items():
        fitted = model.fit(x, (y > np.median(y)).astype(int) if hasattr(model, "predict_proba") else y)
        made = fast_predictor(fitted)
        library = LibraryPredictor(fitted)
        cells = []
        for size in (1, MANY):
            with threadpool_limits(1):  # as in the model server, whose replicas are the parallelism
                theirs = each(library.predict, x, size)
                ours = each((made or library).predict, x, size)
            cells += [f"{theirs:,.0f}", f"{ours:,.1f}", f"{theirs / ours:,.0f} ×"]
        if name.startswith("RandomForestClassifier"):
            onnx, why = _onnx(fitted, x)
        table.append((name, *cells))
    header = ("model", "library, 1 row", "noria", "ratio", f"library, {MANY} rows", "noria", "ratio")
    note = (
        f"Microseconds to predict and, of two classes, to give the probability; {FEATURES} features, {rows:,} rows to "
        "learn from, each call other rows, one thread. noria's bits are the library's (of a row alone, for linear ones)."
    )
    peer = f"ONNX Runtime for the random forest (its sums are float32, so not the same bits): {onnx or why}."
    return markdown("Predicting a few rows", header, table, note) + "\n\n" + peer


def models() -> dict[str, Any]:
    import lightgbm as lgb
    import xgboost as xgb
    from sklearn.ensemble import (
        GradientBoostingClassifier,
        HistGradientBoostingClassifier,
        RandomForestClassifier,
        RandomForestRegressor,
    )
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.tree import DecisionTreeRegressor

    return {
        "Ridge": Ridge(),
        "LogisticRegression": LogisticRegression(),
        "StandardScaler, LogisticRegression": make_pipeline(StandardScaler(), LogisticRegression()),
        "DecisionTreeRegressor": DecisionTreeRegressor(random_state=0),
        "RandomForestClassifier, 100 trees": RandomForestClassifier(100, random_state=0),
        "RandomForestRegressor, 100 trees": RandomForestRegressor(100, random_state=0, max_features=0.3),
        "GradientBoostingClassifier, 100 trees": GradientBoostingClassifier(n_estimators=100, max_features=0.3),
        "HistGradientBoostingClassifier, 100 trees": HistGradientBoostingClassifier(max_iter=100, early_stopping=False),
        "LGBMClassifier, 300 trees of 31 leaves": lgb.LGBMClassifier(n_estimators=300, n_jobs=1, verbose=-1),
        "LGBMRegressor, 300 trees of 255 leaves": lgb.LGBMRegressor(
            n_estimators=300, n_jobs=1, verbose=-1, num_leaves=255
        ),
        "XGBClassifier, 300 trees of depth 6": xgb.XGBClassifier(n_estimators=300, n_jobs=1),
    }


def example(rows: int) -> tuple[Any, Any]:
    random = np.random.default_rng(0)
    x = random.normal(size=(rows, FEATURES))
    return x, x[:, 0] + x[:, 1] ** 2 + x[:, 2] * x[:, 3] + random.normal(size=rows)


def each(predict: Callable[[Any], Any], x: Any, size: int) -> float:
    """Median microseconds of a call for about half a second, each with the next rows."""
    times: list[float] = []
    began = time.perf_counter()
    while time.perf_counter() - began < 0.5 or len(times) < 5:
        at = len(times) * size % (len(x) - size)
        batch = x[at : at + size]
        start = time.perf_counter()
        predict(batch)
        times.append(time.perf_counter() - start)
    return median(times) * 1e6


def _onnx(model: Any, x: Any) -> tuple[str, str]:
    """What ONNX Runtime takes for a forest, and why it can't be told."""
    python, why = environment("onnx", ONNX, "onnxruntime, skl2onnx")
    if python is None:
        return "", why
    with tempfile.TemporaryDirectory(prefix="noria-bench-") as folder:
        (Path(folder) / "model.pkl").write_bytes(pickle.dumps(model))
        np.save(Path(folder) / "rows.npy", x)
        said = measure([python, str(PEERS / "forest_onnx.py"), folder, str(MANY)]).output
    one, many, apart = json.loads(said.splitlines()[-1])
    return f"{one:,.1f} µs for a row, {many:,.0f} µs for {MANY}, up to {apart:.0e} apart from scikit-learn's", ""


if __name__ == "__main__":
    print(run())
