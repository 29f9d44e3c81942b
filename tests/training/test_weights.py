from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import noria as nr
from noria.core import ConfigError, Schema
from noria.training.learner import Lesson, fit_once
from noria.training.weights import check_class_weight, class_weights, row_weights

pytestmark = pytest.mark.usefixtures("one_thread")

DAY = 86_400_000_000
ROWS = 400
RANDOM = np.random.default_rng(0)
FRAME = pl.DataFrame({"x": RANDOM.normal(size=ROWS)})
# The world changed half-way: what was true is false.
TARGET = (FRAME["x"].to_numpy() > 0) ^ (np.arange(ROWS) < ROWS // 2)
TIMES = np.arange(ROWS, dtype=np.int64) * DAY


@given(st.lists(st.sampled_from("abc"), min_size=1))
def test_balanced_classes_weigh_the_same(kinds: list[str]) -> None:
    target = np.array(kinds)
    weights = class_weights("balanced", target)
    sums = [weights[target == kind].sum() for kind in np.unique(target)]
    assert np.allclose(sums, sums[0])
    assert weights.mean() == pytest.approx(1)


def test_weights_multiply() -> None:
    times, target = np.array([0, 90, 180]) * DAY, np.array([True, False, True])
    assert row_weights(None, None, times, target) is None
    assert nr.recency("90d").weights(times).tolist() == [0.25, 0.5, 1.0]
    both = row_weights(nr.recency("90d"), {True: 2, False: 1}, times, target)
    assert both is not None
    assert (both / both[0]).tolist() == [1.0, 1.0, 4.0]
    assert nr.recency("1d", least=0.1).weights(times).tolist() == [0.1, 0.1, 1.0]


def models() -> list[Any]:
    lgb, xgb, catboost = (pytest.importorskip(name) for name in ("lightgbm", "xgboost", "catboost"))
    pytest.importorskip("torch")
    return [
        RandomForestClassifier(20, max_depth=3), make_pipeline(StandardScaler(), LogisticRegression()),
        lgb.LGBMClassifier(n_estimators=20, n_jobs=1, verbose=-1), xgb.XGBClassifier(n_estimators=20, n_jobs=1),
        catboost.CatBoostClassifier(iterations=30, thread_count=1), nr.TorchModule(epochs=40, learning_rate=0.02),
    ]  # fmt: skip


def test_each_library_lets_the_newest_rows_count() -> None:
    weights = row_weights(nr.recency("20d"), "balanced", TIMES, TARGET)
    for model in models():
        lesson = Lesson(FRAME, TARGET, Schema.of({"x": "float64"}), weights=weights, times=TIMES, seed=1)
        learned = fit_once(model, lesson)
        matrix = learned.inputs.matrix(pl.DataFrame({"x": [-1.0, 1.0]}))
        assert np.asarray(learned.estimator.predict(matrix)).tolist() == [False, True], model


def test_what_can_not_be_weighed_is_explained() -> None:
    lesson = Lesson(FRAME, TARGET, Schema.of({"x": "float64"}), weights=np.ones(ROWS))
    for model in (KNeighborsClassifier(), make_pipeline(StandardScaler(), KNeighborsClassifier())):
        with pytest.raises(ConfigError, match="KNeighborsClassifier takes no weights"):
            fit_once(model, lesson)
    with pytest.raises(ConfigError, match="goes with classes"):
        class_weights("balanced", np.arange(3.0))
    with pytest.raises(ConfigError, match="no weight for the class 'b'"):
        class_weights({"a": 1}, np.array(["a", "b"]))
    with pytest.raises(ConfigError, match="needs an event time"):
        nr.recency("90d").weights(None)
    for wrong in ("equal", {}, {True: -1}, {True: "1"}, {True: float("inf")}):
        with pytest.raises(ConfigError, match="class_weight="):
            check_class_weight(wrong)
    with pytest.raises(ConfigError, match="not a duration"):
        nr.recency("soon")
