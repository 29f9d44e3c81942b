"""The models that are served: trained and registered by noria, then handed to the peers as they are."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from benchmarks.serving.contestant import ASKED
from noria.core import Settings
from noria.registry import ModelRegistry
from noria.storage import Workspace
from noria.training.formats import estimator_of

FEW, MANY, TREES, FOREST, CANDIDATES, USERS = 20, 50, 300, 100, 500, 5_000
START = 1_700_000_000_000_000
_SYSTEM = f"""
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

import noria as nr

try:
    from lightgbm import LGBMClassifier
except ImportError:
    LGBMClassifier = None
names = [f"f{{n}}" for n in range({MANY})]
few = names[:{FEW}]
examples = nr.Source("examples", "examples.parquet", schema={{
    "user": "int64", "at": nr.Timestamp("us"), "y": "bool", **dict.fromkeys(names, "float64"),
}})
events = nr.Source("events", "events.parquet", schema={{
    "user": "int64", "at": nr.Timestamp("us"), **dict.fromkeys(few, "float64"),
}})
group = nr.FeatureGroup("g", entity="user", source=events, features={{name: nr.latest(name) for name in few}})


def model(name, features, estimator):
    return nr.ModelTrainingPipeline(
        name, labels=examples, target="y", features=features, model=estimator, split=nr.RandomSplit(), metrics=["roc_auc"],
    )


system = nr.System("bench", [
    examples, events, group,
    model("linear", few, LogisticRegression()),
    model("looked-up", [group], LogisticRegression()),
    *([model("trees", names, LGBMClassifier(n_estimators={TREES}, n_jobs=1, verbose=-1))] if LGBMClassifier else []),
    model("forest", few, RandomForestClassifier(n_estimators={FOREST}, random_state=0, n_jobs=1)),
])
"""


@dataclass(frozen=True)
class Example:
    """A project of noria's with trained models.

    Attributes:
        project: its folder; the files for the peers are beside it.
        rows: float features, [rows, MANY], to ask with; the first `FEW` columns are all that most models read.
        newest: each user's newest features, [USERS, FEW].
    """

    project: Path
    rows: NDArray[np.float64]
    newest: NDArray[np.float64]

    @property
    def has_trees(self) -> bool:
        """Whether there is a LightGBM model."""
        return find_spec("lightgbm") is not None

    def file(self, name: str) -> str:
        """Where a file for the peers is."""
        return str(self.project.parent / name)

    def estimator(self, model: str) -> Any:
        """The very estimator that noria serves."""
        with Workspace.open(Settings.load(self.project)) as workspace:
            return estimator_of(ModelRegistry.of(workspace).get(model), workspace)

    def scores(self, model: str, matrix: NDArray[np.float64]) -> list[list[float]]:
        """The probability of the second class of each row, computed by the estimator's own library."""
        found: NDArray[np.float64] = self.estimator(model).predict_proba(matrix)[:, 1]
        return [[value] for value in found.tolist()]

    @property
    def asked(self) -> NDArray[np.float64]:
        """The rows of the requests: [ASKED, FEW]."""
        return self.rows[:ASKED, :FEW]


def named(matrix: NDArray[np.float64]) -> bytes:
    """One request with these rows as objects, as noria and the FastAPI apps take it."""
    return _json({"instances": [{f"f{n}": v for n, v in enumerate(row)} for row in matrix.tolist()]})


def arrays(key: str, matrix: NDArray[np.float64]) -> list[bytes]:
    """A request for each row, as an array of arrays under this key."""
    return [_json({key: [row]}) for row in matrix.tolist()]


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def tensors(matrix: NDArray[np.float64]) -> list[bytes]:
    """A request for each row in the Open Inference Protocol."""
    shape = [1, matrix.shape[1]]
    return [
        _json({"inputs": [{"name": "x", "shape": shape, "datatype": "FP64", "data": row}]}) for row in matrix.tolist()
    ]


def make(folder: Path) -> Example:
    """Write the data, train, and export for the peers."""
    project = folder / "project"
    project.mkdir()
    (project / "system.py").write_text(_SYSTEM)
    rng = np.random.default_rng(0)
    newest = _features(rng, USERS, FEW)
    _events(rng, newest).write_parquet(project / "events.parquet")
    user = rng.integers(0, USERS, 5_000)
    rows = np.hstack([newest[user], _features(rng, len(user), MANY - FEW)])
    y = rows[:, 0] + rows[:, 1] * rows[:, 2] + rows[:, MANY - 1] + rng.normal(size=len(user)) > 0
    at = pl.Series(START + 20 * 86_400_000_000 + np.arange(len(user))).cast(pl.Datetime("us", "UTC"))
    columns = {f"f{n}": rows[:, n] for n in range(MANY)}
    pl.DataFrame({"user": user, "at": at, "y": y, **columns}).write_parquet(project / "examples.parquet")
    done = subprocess.run([sys.executable, "-m", "noria", "run"], cwd=project, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"`noria run` failed:\n{done.stdout}\n{done.stderr}")
    made = Example(project, _features(rng, CANDIDATES + ASKED, MANY), newest)
    _export(made)
    return made


def _features(rng: np.random.Generator, rows: int, columns: int) -> NDArray[np.float64]:
    # Few digits, as measured things have; a float32 must not lie on the other side of a tree's threshold.
    return np.round(rng.normal(size=(rows, columns)), 4)


def _events(rng: np.random.Generator, newest: NDArray[np.float64]) -> pl.DataFrame:
    """Four events of each user; the last one has the newest features."""
    parts = [_features(rng, USERS, FEW) for _ in range(3)] + [newest]
    days = np.repeat(np.arange(4), USERS) * 86_400_000_000
    at = pl.Series(START + days).cast(pl.Datetime("us", "UTC"))
    stacked = np.vstack(parts)
    return pl.DataFrame(
        {"user": np.tile(np.arange(USERS), 4), "at": at, **{f"f{n}": stacked[:, n] for n in range(FEW)}}
    )


def _export(made: Example) -> None:
    for model in ("linear", "looked-up", "forest"):
        Path(made.file(f"{model}.joblib")).write_bytes(pickle.dumps(made.estimator(model)))
    if made.has_trees:
        made.estimator("trees").booster_.save_model(made.file("trees.txt"))
    linear = made.estimator("linear")
    weights = {"names": _names(FEW), "coefficients": linear.coef_[0].tolist(), "intercept": float(linear.intercept_[0])}
    Path(made.file("linear.json")).write_text(json.dumps(weights))
    for count in (FEW, MANY):
        Path(made.file(f"names-{count}.json")).write_text(json.dumps(_names(count)))


def _names(count: int) -> Sequence[str]:
    return [f"f{n}" for n in range(count)]
