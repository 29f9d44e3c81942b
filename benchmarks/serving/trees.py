"""Trees: 500 candidates in one request for LightGBM, and one row for a forest."""

from __future__ import annotations

import json
import subprocess

import numpy as np

from benchmarks.serving.contestant import ASKED, Contestant
from benchmarks.serving.environments import PEERS, peer
from benchmarks.serving.example import CANDIDATES, FEW, Example, named
from benchmarks.serving.one_row import fastapi, noria


def candidates(example: Example) -> tuple[Contestant, list[Contestant]]:
    """500 rows of 50 features: noria and LightGBM behind FastAPI."""
    parts = [example.rows[n : n + CANDIDATES] for n in range(ASKED)]
    bodies = [named(part) for part in parts]
    right = [[score for (score,) in example.scores("trees", part)] for part in parts]
    peers = [fastapi(example, "LightGBM behind FastAPI", "lightgbm", "trees.txt", bodies, right)]
    return noria(example, "trees", bodies, right), peers


def forest(example: Example) -> tuple[Contestant, list[Contestant]]:
    """One row: noria, scikit-learn behind FastAPI, ONNX Runtime behind FastAPI."""
    rows = example.asked
    bodies, right = [named(row[None]) for row in rows], example.scores("forest", rows)
    why = peer("fastapi").call("to_onnx.py", example.file("forest.joblib"), example.file("forest.onnx"), FEW)
    onnx = fastapi(example, "ONNX Runtime behind FastAPI", "onnx", "forest.onnx", bodies, right)
    return noria(example, "forest", bodies, right), [
        fastapi(example, "scikit-learn behind FastAPI", "sklearn", "forest.joblib", bodies, right),
        Contestant(onnx.name, onnx.command, onnx.path, bodies, right, why=onnx.why or why),
    ]


def calls(example: Example, count: int) -> list[tuple[str, str, str]]:
    """What one call costs in process, without a server: the way, and its p50 and p99 in microseconds."""
    one, many = example.file("one.npy"), example.file("many.npy")
    np.save(one, example.rows[:1, :FEW])
    np.save(many, example.rows[:CANDIDATES])
    ways = {
        "forest, one row, scikit-learn": ("sklearn", "forest.joblib", one),
        "forest, one row, ONNX Runtime": ("onnx", "forest.onnx", one),
        f"LightGBM, {CANDIDATES} rows": ("lightgbm", "trees.txt", many),
    }
    if not example.has_trees:
        del ways[f"LightGBM, {CANDIDATES} rows"]
    table = []
    for name, (way, file, rows) in ways.items():
        where = peer("fastapi")
        if where.python is None:
            table.append((name, where.why, "-"))
            continue
        words = [where.python, str(PEERS / "in_process.py"), way, example.file(file), rows, str(count)]
        done = subprocess.run(["taskset", "-c", "0", *words], capture_output=True, text=True, check=False)
        if done.returncode:
            table.append((name, f"failed: {(done.stderr.strip() or '?').splitlines()[-1]}", "-"))
            continue
        middle, late = json.loads(done.stdout)
        table.append((name, f"{middle:,.0f}", f"{late:,.0f}"))
    return table
