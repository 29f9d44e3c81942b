"""BentoML: `BATCH=1|32 MODEL=FILE bentoml serve bentoml_app:Predict`."""

import os
from typing import Any

import bentoml
import joblib
import numpy as np

BATCH = int(os.environ["BATCH"])
batching: dict[str, Any] = {"batchable": True, "max_batch_size": BATCH} if BATCH > 1 else {}


@bentoml.service(
    workers=1,
    traffic={"timeout": 10, **({"concurrency": BATCH} if BATCH > 1 else {})},
    logging={"access": {"enabled": False}},
)
class Predict:
    def __init__(self) -> None:
        self.model = joblib.load(os.environ["MODEL"])

    @bentoml.api(**batching)
    def predict(self, rows: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
        scores: np.ndarray = self.model.predict_proba(rows)[:, 1]  # type: ignore[type-arg]
        return scores
