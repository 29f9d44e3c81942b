"""KServe's Python server: `MODEL PORT`; a model's name is its file's, and its predictions are classes."""

import sys
from typing import Any

import joblib
import kserve
import numpy as np

file, port = sys.argv[1], int(sys.argv[2])
sys.argv = sys.argv[:1]  # it reads them itself


class Predict(kserve.Model):
    def __init__(self) -> None:
        super().__init__("linear")
        self.ready = self.load()

    def load(self) -> bool:
        self.model = joblib.load(file)
        return True

    async def predict(self, payload: Any, *_: Any, **__: Any) -> Any:
        return {"predictions": self.model.predict_proba(np.array(payload["instances"]))[:, 1].tolist()}


if __name__ == "__main__":
    server = kserve.ModelServer(http_port=port, enable_grpc=False, workers=1, access_log_format=None)
    server.start([Predict()])
