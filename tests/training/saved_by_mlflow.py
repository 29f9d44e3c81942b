"""Runs where MLflow is: saves a model of each library as MLflow does, and what it predicts."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from mlflow.models import infer_signature

kind, folder = sys.argv[1:]
rows = pd.DataFrame(np.random.default_rng(0).normal(size=(200, 2)), columns=["a", "b"])
target = (rows["a"] * rows["b"] > 0).astype(int)
if kind == "lightgbm":
    import lightgbm
    import mlflow.lightgbm

    data = lightgbm.Dataset(rows, target)
    model = lightgbm.train({"objective": "binary", "verbose": -1}, data, num_boost_round=5)
    predictions, save = model.predict(rows), mlflow.lightgbm.save_model
elif kind == "xgboost":
    import mlflow.xgboost
    import xgboost

    model = xgboost.XGBClassifier(n_estimators=5).fit(rows, target)
    predictions, save = model.predict(rows), mlflow.xgboost.save_model
elif kind == "catboost":
    import catboost
    import mlflow.catboost

    model = catboost.CatBoostClassifier(iterations=5, verbose=False, allow_writing_files=False).fit(rows, target)
    predictions, save = model.predict(rows), mlflow.catboost.save_model
elif kind == "onnx":
    import mlflow.onnx
    from skl2onnx import to_onnx
    from sklearn.ensemble import RandomForestClassifier

    forest = RandomForestClassifier(5, random_state=0).fit(rows.to_numpy(np.float32), target)
    model = to_onnx(forest, rows.to_numpy(np.float32)[:1])
    predictions, save = forest.predict(rows.to_numpy(np.float32)), mlflow.onnx.save_model
else:
    import mlflow.sklearn
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression().fit(rows, target)
    predictions, save = model.predict(rows), mlflow.sklearn.save_model
save(model, folder, signature=infer_signature(rows, predictions))
expected = {"rows": rows[:20].values.tolist(), "predictions": predictions[:20].tolist()}
(Path(folder) / "expected.json").write_text(json.dumps(expected))
