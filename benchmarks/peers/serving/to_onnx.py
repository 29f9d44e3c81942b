"""Turn a forest into ONNX: `MODEL FILE FEATURES`."""

import sys
from pathlib import Path

import joblib
import numpy as np
from skl2onnx import to_onnx

model, file, features = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
made = to_onnx(joblib.load(model), np.zeros((1, features), np.float32), options={"zipmap": False})
file.write_bytes(made.SerializeToString())
