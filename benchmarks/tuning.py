"""Automatic models: `nr.Auto` beside LightGBM as it comes, and beside FLAML with the same time.

Time is that of the processor, with one thread, for noria and for FLAML: what else the machine does has no say.
Needs `tab_adult.parquet` in `../shared/data`; without it, only scikit-learn's own sets are taken.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

import noria as nr
from benchmarks.measure import environment, markdown, measure
from noria.core import Schema
from noria.training.estimator import scores
from noria.training.learner import Lesson, fit_once
from noria.training.metrics import judge

PEERS = Path(__file__).parent / "peers"
FLAML = ("flaml[automl]==2.8.0", "pyarrow")
ADULT = Path(__file__).parents[2] / "shared" / "data" / "tab_adult.parquet"
SECONDS = 60.0
ONE_THREAD = {"OMP_NUM_THREADS": "1", "LOKY_MAX_CPU_COUNT": "1"}
JUDGES = 0.25
"""The share of the rows that judge."""


def run(seconds: float = SECONDS) -> str:
    """In a process of its own, since libraries ask for the number of threads when they are loaded."""
    environ = {**os.environ, **ONE_THREAD}
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.tuning", str(seconds)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    return "## Automatic models" + done.stdout.partition("## Automatic models")[2].rstrip()


def compare(seconds: float) -> str:
    python, why = environment("flaml", FLAML, "flaml.automl")
    rows = []
    for name, (frame, target, metric) in sets().items():
        test = np.zeros(len(frame), bool)
        test[np.random.default_rng(0).permutation(len(frame))[: int(len(frame) * JUDGES)]] = True
        given = lesson(frame.filter(~pl.Series(test)), target[~test], metric)
        judged = frame.filter(pl.Series(test)), target[test]
        cells: list[str] = [f"{name}, {len(given):,} rows", metric]
        cells += _plain(given, judged)
        cells += _auto(given, judged, seconds)
        cells += [why, ""] if python is None else _flaml(python, given, judged, seconds)
        print(cells, flush=True)
        rows.append(cells)
    header = ("data", "metric", "LightGBM as it comes", "s", "nr.Auto", "s", "model", "FLAML", "s")
    note = (
        f"Each judged on the same quarter of the rows, drawn at random, that nobody has learned from; {seconds:.0f} "
        "seconds of one thread's processor time for the two that search. More is better for accuracy and roc_auc, less for rmse."
    )
    return markdown("Automatic models", header, rows, note)


def sets() -> dict[str, tuple[pl.DataFrame, NDArray[Any], str]]:
    """Inputs, target and metric of each."""
    from sklearn.datasets import load_diabetes, load_digits

    found: dict[str, tuple[pl.DataFrame, NDArray[Any], str]] = {}
    if ADULT.exists():
        adult = pl.read_parquet(ADULT)
        label = next(name for name in ("income", "class", "target", adult.columns[-1]) if name in adult.columns)
        target = (adult[label].rank("dense") - 1).to_numpy().astype(int)
        found["adult"] = adult.drop(label), target, "roc_auc"
    for name, load, metric in (("digits", load_digits, "accuracy"), ("diabetes", load_diabetes, "rmse")):
        x, y = load(return_X_y=True)
        found[name] = pl.DataFrame({f"x{i}": x[:, i] for i in range(x.shape[1])}), y, metric
    return found


def lesson(frame: pl.DataFrame, target: NDArray[Any], metric: str) -> Lesson:
    kinds = {name: "str?" if dtype == pl.String else "float64?" for name, dtype in frame.schema.items()}
    return Lesson(frame, target, Schema.of(kinds), metric=metric, seed=0)


def _judge(learned: Any, judged: tuple[pl.DataFrame, NDArray[Any]], metric: str) -> str:
    matrix = learned.inputs.matrix(judged[0])
    answer = np.asarray(learned.estimator.predict(matrix)), scores(learned.estimator, matrix)
    return f"{judge((metric,), judged[1], *answer)[metric]:.4f}"


def _plain(given: Lesson, judged: tuple[pl.DataFrame, NDArray[Any]]) -> list[str]:
    from dataclasses import replace

    from lightgbm import LGBMClassifier, LGBMRegressor

    model = LGBMRegressor(verbose=-1) if given.metric == "rmse" else LGBMClassifier(verbose=-1)
    steps = [nr.Encode()] if pl.String in given.inputs.dtypes else []
    began = time.process_time()
    learned = fit_once(model, replace(given, steps=steps))
    return [_judge(learned, judged, given.metric), f"{time.process_time() - began:.1f}"]


def _auto(given: Lesson, judged: tuple[pl.DataFrame, NDArray[Any]], seconds: float) -> list[str]:
    began = time.process_time()
    learned = nr.Auto(minutes=seconds / 60, clock=time.process_time).learn(given)
    took, notes = time.process_time() - began, learned.notes["search"]
    print(json.dumps(notes["leaderboard"]), notes["trials"], flush=True)
    return [
        _judge(learned, judged, given.metric),
        f"{took:.1f}",
        f"{notes['chosen']} of {len(notes['history'])} trials",
    ]


def _flaml(python: str, given: Lesson, judged: tuple[pl.DataFrame, NDArray[Any]], seconds: float) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        given.inputs.with_columns(target=given.target).write_parquet(Path(folder) / "train.parquet")
        judged[0].with_columns(target=judged[1]).write_parquet(Path(folder) / "test.parquet")
        task = "regression" if given.metric == "rmse" else "classification"
        command = [python, str(PEERS / "automl_flaml.py"), folder, task, given.metric, str(seconds)]
        said = json.loads(measure(command).output.splitlines()[-1])
    answers = np.array(said["answers"])
    # Of two classes FLAML's answers are the second one's scores.
    predicted, ranked = (answers > 0.5, answers) if given.metric == "roc_auc" else (answers, None)
    value = judge((given.metric,), judged[1], predicted.astype(judged[1].dtype), ranked)[given.metric]
    return [f"{value:.4f} ({said['model']})", f"{said['took']:.1f}"]


if __name__ == "__main__":
    print(compare(float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS))
