"""The same search on a real Ray on this machine."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.tree import DecisionTreeClassifier

import noria as nr

sys.path.insert(0, str(Path(__file__).parent))
from search_lessons import lesson

pytest.importorskip("optuna")
pytest.importorskip("ray")
pytestmark = pytest.mark.filterwarnings("default")  # Ray's own

TREE = DecisionTreeClassifier(max_depth=1, random_state=0)
DEPTH = {"max_depth": nr.integer(1, 8), "min_samples_leaf": nr.integer(1, 60, log=True)}


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    import ray

    from noria.pipelines.ray_compute import connect

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        connect("ray")
        yield
        ray.shutdown()


class Deadly(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Fails, or takes its process with it."""

    def __init__(self, mood: str = "good") -> None:
        self.mood = mood

    def fit(self, X: Any, y: Any) -> Deadly:  # noqa: N803
        if self.mood == "dead":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.mood == "bad":
            raise RuntimeError("not today")
        self.mean_ = float(np.mean(y))
        return self

    def predict(self, X: Any) -> Any:  # noqa: N803
        return np.full(len(X), self.mean_)


def test_trials_run_on_workers_and_find_as_good_a_model(tmp_path: Path) -> None:
    here = nr.tune(TREE, DEPTH, trials=16).learn(lesson()).notes["search"]
    there = nr.tune(TREE, DEPTH, trials=16).learn(lesson(compute="ray", directory=tmp_path)).notes["search"]
    assert sum(there["trials"].values()) == 16
    assert there["score"] > here["given"]
    assert there["score"] == pytest.approx(here["score"], abs=0.03)
    again = nr.tune(TREE, DEPTH, trials=18, compute="ray").learn(lesson(directory=tmp_path)).notes["search"]
    assert again["history"][:16] == there["history"]
    assert len(again["history"]) == 18


def test_failures_and_dead_workers_are_recorded() -> None:
    given = lesson("numbers")
    moods = {"mood": nr.choice("good", "bad", "dead")}
    notes = nr.tune(Deadly(), moods, trials=8, pruning=False, compute="ray").learn(given).notes["search"]
    reasons = [one.get("reason", "") for one in notes["history"]]
    assert len(reasons) == 8
    assert any("not today" in reason for reason in reasons)
    assert any(reason and "not today" not in reason for reason in reasons)
    assert notes["trials"]["complete"] >= 1
