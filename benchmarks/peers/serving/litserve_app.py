"""LitServe: `MODEL BATCH PORT`."""

import sys
from typing import Any

import joblib
import litserve as ls
import numpy as np

model, batch, port = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])


class Predict(ls.LitAPI):
    def setup(self, device: str) -> None:
        self.model = joblib.load(model)

    def decode_request(self, request):  # type: ignore[no-untyped-def]  # with a type it would be read from the URL
        return request["rows"][0]

    def predict(self, x: Any) -> Any:
        return self.model.predict_proba(np.atleast_2d(x))[:, 1]

    def encode_response(self, output: Any) -> Any:
        return {"scores": np.atleast_1d(output).tolist()}


class PredictBatched(Predict):
    def batch(self, inputs: list[Any]) -> Any:
        return np.array(inputs)

    def unbatch(self, output: Any) -> Any:
        return list(output)


if __name__ == "__main__":
    api = Predict() if batch == 1 else PredictBatched(max_batch_size=batch, batch_timeout=0.001)
    # Without fast_queue: on one core its ZeroMQ was the slower way.
    server = ls.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(
        host="127.0.0.1",
        port=port,
        num_api_servers=1,
        generate_client_file=False,
        log_level="warning",
        access_log=False,
    )
