"""FLAML on the same rows with the same budget: FOLDER with train.parquet and test.parquet, TASK, METRIC, SECONDS."""

import json
import sys
import time
from pathlib import Path

time.time = time.process_time  # FLAML's clock: processor time, as for noria

import pandas as pd
from flaml import AutoML

folder, task, metric, seconds = Path(sys.argv[1]), sys.argv[2], sys.argv[3], float(sys.argv[4])
train, test = pd.read_parquet(folder / "train.parquet"), pd.read_parquet(folder / "test.parquet")
for name in train.columns:
    if train[name].dtype.kind not in "fiub":
        kinds = pd.CategoricalDtype(sorted(train[name].dropna().unique()))
        train[name], test[name] = train[name].astype(kinds), test[name].astype(kinds)
x, y = train.drop(columns="target"), train["target"].to_numpy()
automl = AutoML()
began = time.process_time()
automl.fit(x, y, task=task, metric=metric, time_budget=seconds, seed=0, verbose=0, n_jobs=1)
took = time.process_time() - began
answers = (
    automl.predict_proba(test.drop(columns="target"))[:, 1]
    if metric == "roc_auc"
    else automl.predict(test.drop(columns="target"))
)
print(json.dumps({"took": took, "model": automl.best_estimator, "answers": [float(one) for one in answers]}))
