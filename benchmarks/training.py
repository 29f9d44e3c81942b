"""Training: LightGBM through a pipeline (read, join, split, look for leakage, fit, judge, register) and by hand."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.measure import Usage, measure, median

ROWS, COLUMNS = 1_000_000, 50
RUNS = 3
MODEL = "lightgbm.LGBMClassifier(n_estimators=100, n_jobs=1, verbose=-1, random_state=0)"
MOST_TIME, MOST_MEMORY = 1.15, 1.5

SYSTEM = f"""
import lightgbm, noria as nr
SCHEMA = {{"user": "int64", **dict.fromkeys([f"x{{n}}" for n in range(NUMBER)], "float64?"), "y": "int64", "at": nr.Timestamp("s")}}
examples = nr.Source("examples", "examples.parquet", schema=SCHEMA)
habits = nr.FeatureGroup(
    "habits", entity="user", source=examples, features={{"n": nr.count(window="30d"), "mean_x0": nr.mean("x0", window="30d")}}
)
late = nr.ModelTrainingPipeline(
    "late", labels=examples, target="y", features=[*(f"x{{n}}" for n in range(NUMBER - 2)), habits],
    model={MODEL}, split=nr.TimeSplit(test=0.2), metrics=["roc_auc"],
)
system = nr.System("bench", [examples, habits, late])
"""
BY_HAND = f"""
import json, sys, time
import lightgbm, polars as pl
from sklearn.metrics import roc_auc_score
began = time.process_time()
frame = pl.read_parquet(sys.argv[1])
names = [name for name in frame.columns if name.startswith("x")]
cut = frame["at"].quantile(0.8, "higher")
past, future = frame.filter(pl.col("at") < cut), frame.filter(pl.col("at") >= cut)
if sys.argv[2] == "frugal":
    del frame
matrix, target = past.select(names).to_numpy(), past["y"].to_numpy()
if sys.argv[2] == "frugal":
    del past
model = {MODEL}
start = time.process_time(); model.fit(matrix, target); fit = time.process_time() - start
if sys.argv[2] == "frugal":
    del matrix
score = roc_auc_score(future["y"].to_numpy(), model.predict_proba(future.select(names).to_numpy())[:, 1])
print(json.dumps({{"fit": fit, "all": time.process_time() - began, "roc_auc": score}}))
"""
PIPELINE = """
import json, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import system as made
from noria.core import NoProgress, Settings
from noria.storage import Workspace
import noria.training.fitting as fitting, noria.training.learner as learner
spent = {}
def timed(module, name):
    function = getattr(module, name, None)
    if function is None:
        return
    def call(*given, **options):
        start = time.process_time()
        try:
            return function(*given, **options)
        finally:
            spent[name] = spent.get(name, 0.0) + time.process_time() - start
    setattr(module, name, call)
for name in ("join", "recipe", "find_leakage", "learn", "judge", "_register", "predictor_of", "_promote", "fit"):
    timed(fitting, name)
for name in ("_fitted_steps", "to_columns", "fit_estimator"):
    timed(learner, name)
with Workspace.open(Settings(Path(sys.argv[1]))) as workspace:
    began = time.process_time()
    outcome = made.late.run(workspace, "r1", NoProgress())
    whole = time.process_time() - began
print(json.dumps({"all": whole, "spent": spent, "peak": outcome.notes["peak_memory_bytes"], "roc_auc": outcome.notes["models"]["late"]["roc_auc"]}))
"""


def run(rows: int = ROWS, columns: int = COLUMNS, runs: int = RUNS) -> str:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, rows, columns)
        python = sys.executable
        hand = [python, "-c", BY_HAND, str(folder / "examples.parquet")]
        found = {"by hand": [], "by hand, frugal": [], "noria": []}  # type: dict[str, list[Usage]]
        for _ in range(runs):  # in turn, so that a busy minute meets all
            found["by hand"].append(measure([*hand, "plain"]))
            found["by hand, frugal"].append(measure([*hand, "frugal"]))
            found["noria"].append(measure([python, "-c", PIPELINE, str(folder)]))
    return report(found, rows, columns)


def prepare(folder: Path, rows: int, columns: int) -> None:
    """The file, the system, and the table: loading it is not part of what is measured."""
    random = np.random.default_rng(0)
    data: dict[str, Any] = {"user": random.integers(0, 100_000, rows)}
    score = np.zeros(rows)
    for number in range(columns):
        values = random.normal(size=rows)
        score += values * random.normal()
        data[f"x{number}"] = values
    data |= {"y": (score + random.normal(0, 3, rows) > 0).astype(int), "at": np.arange(rows) * 60}
    pl.DataFrame(data).write_parquet(folder / "examples.parquet")
    (folder / "system.py").write_text(SYSTEM.replace("NUMBER", str(columns)))
    load = "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]); import system as s\nfrom noria.core import Settings\nfrom noria.storage import Workspace\nwith Workspace.open(Settings(Path(sys.argv[1]))) as w: print(s.system.run(w, only='examples').failed)"
    measure([sys.executable, "-c", load, str(folder)])


def report(found: dict[str, list[Usage]], rows: int, columns: int) -> str:
    said = {
        name: [json.loads(usage.output.strip().splitlines()[-1]) for usage in usages] for name, usages in found.items()
    }
    alone = median([one["fit"] for one in said["by hand"]])
    own = median([usage.peak_mib for usage in found["by hand"]])
    lines = [
        "## Training",
        "",
        f"LightGBM on {rows:,} rows of {columns} numbers, for the pipeline {columns - 2} and two windows: read, join, split, look for leakage, fit, judge, register,",
        f"beside Polars and LightGBM by hand, whole processes, medians. `{MODEL}`. CPU seconds, for a busy machine's clock tells little. The fit alone took {alone:.2f}. Bars:",
        f"{MOST_TIME} times the fit alone, {MOST_MEMORY} times the peak by hand; frugal: each copy is deleted as soon as it can be.",
        "",
        "| way | CPU seconds | times the fit alone | of the whole process | peak MiB | times by hand | ROC AUC |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, usages in found.items():
        seconds = median([one["all"] for one in said[name]])
        peak = median([usage.peak_mib for usage in usages])
        lines.append(
            f"| {name} | {seconds:.2f} | {seconds / alone:.2f} | {median([u.cpu_seconds for u in usages]):.1f} | {peak:.0f} "
            f"| {peak / own:.2f} | {said[name][-1]['roc_auc']:.4f} |"
        )
    parts = said["noria"][-1]["spent"]
    lines += ["", "Of noria's last run: " + ", ".join(f"{n.strip('_')} {s:.2f} s" for n, s in parts.items()) + "."]
    return "\n".join(lines)
