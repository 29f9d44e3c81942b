"""A forest of scikit-learn in ONNX Runtime: `FOLDER ROWS`, with `model.pkl` and `rows.npy` in the folder.

Prints median microseconds of one row and of ROWS rows, and how far its probabilities are from scikit-learn's.
"""

import json
import pickle
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime
from skl2onnx import to_onnx

folder, many = Path(sys.argv[1]), int(sys.argv[2])
model = pickle.loads((folder / "model.pkl").read_bytes())
rows = np.load(folder / "rows.npy")
short = rows.astype(np.float32)
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
made = to_onnx(model, short[:1], options={"zipmap": False}).SerializeToString()
session = onnxruntime.InferenceSession(made, options)


def each(size: int) -> float:
    times: list[float] = []
    began = time.perf_counter()
    while time.perf_counter() - began < 0.5:
        at = len(times) * size % (len(short) - size)
        batch = short[at : at + size]
        start = time.perf_counter()
        session.run(None, {"X": batch})
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e6


given = session.run(None, {"X": short[:many]})[1]
apart = float(np.abs(given - model.predict_proba(rows[:many])).max())
print(json.dumps([each(1), each(many), apart]))
