"""Ray Serve: `MODEL BATCH PORT FOLDER`."""

import sys
import threading
from typing import Any

import joblib
import numpy as np
import ray
from ray import serve
from starlette.requests import Request

model, batch, port, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]


@serve.deployment(num_replicas=1, max_ongoing_requests=100)
class Predict:
    def __init__(self, file: str) -> None:
        self.model = joblib.load(file)

    async def __call__(self, request: Request) -> Any:
        rows = (await request.json())["rows"]
        return {"scores": self.model.predict_proba(np.array(rows))[:, 1].tolist()}


@serve.deployment(num_replicas=1, max_ongoing_requests=100)
class PredictBatched:
    def __init__(self, file: str) -> None:
        self.model = joblib.load(file)

    @serve.batch(max_batch_size=batch, batch_wait_timeout_s=0.001)
    async def score(self, rows: list[Any]) -> list[float]:
        scores: list[float] = self.model.predict_proba(np.array(rows))[:, 1].tolist()
        return scores

    async def __call__(self, request: Request) -> Any:
        return {"scores": [await self.score((await request.json())["rows"][0])]}


ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, _temp_dir=folder)
serve.start(http_options={"host": "127.0.0.1", "port": port}, logging_config={"enable_access_log": False})
serve.run((Predict if batch == 1 else PredictBatched).bind(model), route_prefix="/predict")
threading.Event().wait()
