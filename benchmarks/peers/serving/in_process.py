"""What one call costs without a server: `WAY FILE ROWS.npy CALLS` with the ways onnx, sklearn, lightgbm; microseconds."""

import json
import sys
import time

import numpy as np

way, file, rows, calls = sys.argv[1], sys.argv[2], np.load(sys.argv[3]), int(sys.argv[4])
if way == "onnx":
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    given, wanted, rows = session.get_inputs()[0].name, [session.get_outputs()[1].name], rows.astype(np.float32)
    call = lambda: session.run(wanted, {given: rows})  # noqa: E731
elif way == "lightgbm":
    import lightgbm

    booster = lightgbm.Booster(model_file=file)
    call = lambda: booster.predict(rows, num_threads=1)  # noqa: E731
else:
    import joblib

    estimator = joblib.load(file)
    call = lambda: estimator.predict_proba(rows)  # noqa: E731
took = []
for _ in range(calls + calls // 10):
    began = time.perf_counter_ns()
    call()
    took.append(time.perf_counter_ns() - began)
print(json.dumps((np.percentile(took[calls // 10 :], [50, 99]) / 1000).tolist()))
