"""mosec: `BATCH=1|32 MODEL=FILE python mosec_app.py --port …`."""

import os
from typing import Any

import joblib
import numpy as np
from mosec import Server, Worker

BATCH = int(os.environ["BATCH"])


class Predict(Worker):
    def __init__(self) -> None:
        super().__init__()
        self.model = joblib.load(os.environ["MODEL"])

    def forward(self, data: Any) -> Any:
        if BATCH == 1:
            return {"scores": self.model.predict_proba(np.array(data["rows"]))[:, 1].tolist()}
        rows = np.array([one["rows"][0] for one in data])
        return [{"scores": [score]} for score in self.model.predict_proba(rows)[:, 1].tolist()]


if __name__ == "__main__":
    server = Server()
    # The shortest time to wait that it has: one row takes far less than a millisecond.
    server.append_worker(Predict, num=1, max_batch_size=BATCH, max_wait_time=1)
    server.run()
