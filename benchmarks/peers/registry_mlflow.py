"""MLflow's tracking and registry in SQLite: what registry.py asks noria for, as far as MLflow has it."""

from __future__ import annotations

import json
import logging
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import mlflow
import numpy as np
from sklearn.linear_model import LogisticRegression

warnings.simplefilter("ignore")
logging.disable(logging.WARNING)
folder, big, turns, versions = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
mlflow.set_registry_uri(f"sqlite:///{folder}/mlflow.db")
mlflow.set_experiment(
    experiment_id=mlflow.create_experiment("bench", artifact_location=(folder / "artifacts").as_uri())
)
client = mlflow.MlflowClient()


def seconds(work: Callable[[], object], times: int) -> float:
    """The median."""
    found = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return statistics.median(found)


def register_model() -> None:
    with mlflow.start_run():
        mlflow.log_params({"C": 1.0})
        mlflow.log_metrics({"roc_auc": 0.7, "f1": 0.5})
        # With the requirements given MLflow need not find them out, which takes it seconds.
        mlflow.sklearn.log_model(
            model, name="model", registered_model_name="late", pip_requirements=["scikit-learn"],
            serialization_format="pickle",
        )  # fmt: skip


def register_file() -> None:
    with mlflow.start_run() as run:
        mlflow.log_artifact(str(big))
    client.create_model_version("big", f"{run.info.artifact_uri}/{big.name}", run.info.run_id)


def load_file() -> None:
    where = mlflow.artifacts.download_artifacts(client.get_model_version_download_uri("big", "1"))
    assert Path(where).stat().st_size == big.stat().st_size


generator = np.random.default_rng(0)
x = generator.normal(size=(1000, 20))
model = LogisticRegression().fit(x, x[:, 0] > 0)
register_model()  # what is loaded and made once isn't counted
client.create_registered_model("big")
register_file()
said = {
    "register": seconds(register_model, turns),
    "load": seconds(lambda: mlflow.sklearn.load_model("models:/late/1"), turns),
    "register_big": seconds(register_file, 3),
    "load_big": seconds(load_file, 3),
}
source = client.get_model_version("late", "1").source
client.create_registered_model("many")
began = time.perf_counter()
for _ in range(versions):
    client.create_model_version("many", source)
said["version"] = (time.perf_counter() - began) / versions
client.set_registered_model_alias("many", "champion", str(versions))
said["models"] = seconds(client.search_registered_models, 20)
said["page"] = seconds(
    lambda: client.search_model_versions("name='many'", max_results=50, order_by=["version_number DESC"]), 20
)
said["show"] = seconds(lambda: client.get_model_version("many", str(versions // 2)), 50)
said["alias"] = seconds(lambda: client.get_model_version_by_alias("many", "champion"), 50)
print(json.dumps(said))
