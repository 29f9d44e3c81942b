"""What a version records of the code that made it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


def test_libraries_that_were_not_loaded_have_no_part_in_a_model(tmp_path: Path) -> None:
    pytest.importorskip("lightgbm")
    code = "import json, sys{more}; from pathlib import Path; from noria.registry import code_state\n"
    code += "print(json.dumps(code_state(Path(sys.argv[1]))))"
    found = []
    for more in ("", ", lightgbm"):
        words = [sys.executable, "-c", code.format(more=more), str(tmp_path)]
        found.append(json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout))
    alone, loaded = found
    assert {"python", "noria", "numpy", "polars", "scikit-learn"} <= alone.keys()
    assert loaded.keys() - alone.keys() == {"lightgbm"}
