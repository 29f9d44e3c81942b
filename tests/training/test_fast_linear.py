from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.impute import SimpleImputer
from sklearn.linear_model import (
    ElasticNet,
    GammaRegressor,
    HuberRegressor,
    Lasso,
    LinearRegression,
    LogisticRegression,
    PoissonRegressor,
    Ridge,
    RidgeClassifier,
    SGDClassifier,
    SGDRegressor,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler
from sklearn.svm import LinearSVC

from noria.training.fast import LibraryPredictor, fast_predictor, predictor_of

CLASSIFIERS = [
    LogisticRegression(max_iter=1000),
    LogisticRegression(max_iter=1000, fit_intercept=False),
    RidgeClassifier(),
    SGDClassifier(loss="log_loss", random_state=0),
    SGDClassifier(random_state=0),
    LinearSVC(),
]
REGRESSORS = [
    LinearRegression(),
    Ridge(),
    Lasso(0.1),
    ElasticNet(0.1),
    HuberRegressor(max_iter=1000),
    SGDRegressor(random_state=0),
]


@pytest.mark.parametrize("model", CLASSIFIERS, ids=str)
@pytest.mark.parametrize("classes", [2, 4])
def test_classifiers_have_the_librarys_bits(model: Any, classes: int, plain: Any, target: Any, agree: Any) -> None:
    scaled = plain / plain.std(axis=0)
    labels = np.array(["a", "b", "c", "d"])[np.digitize(target, np.quantile(target, np.arange(1, classes) / classes))]
    agree(model.fit(scaled, labels), scaled, alone=True)


@pytest.mark.parametrize("model", REGRESSORS, ids=str)
def test_regressors_have_the_librarys_bits(model: Any, plain: Any, target: Any, agree: Any) -> None:
    scaled = plain / plain.std(axis=0)
    agree(model.fit(scaled, target), scaled, alone=True)


@pytest.mark.parametrize("model", [PoissonRegressor(max_iter=1000), GammaRegressor(max_iter=1000)], ids=str)
def test_generalized_ones_too(model: Any, plain: Any, target: Any, agree: Any) -> None:
    scaled = plain / plain.std(axis=0)
    agree(model.fit(scaled, np.abs(target) + 0.1), scaled, alone=True)


@pytest.mark.parametrize("features", [1, 2, 3, 8, 50, 300])
def test_any_number_of_features(features: int, agree: Any) -> None:
    random = np.random.default_rng(features)
    rows = random.normal(size=(600, features))
    agree(LogisticRegression().fit(rows, rows[:, 0] > 0), rows, alone=True)
    agree(LinearRegression().fit(rows, rows.sum(axis=1)), rows, alone=True)


@pytest.mark.parametrize("size", [1, 2, 3, 8, 33, 500])
def test_a_rows_answer_is_that_of_the_row_alone(size: int) -> None:
    random = np.random.default_rng(1)
    rows = random.normal(size=(600, 40))
    fast = predictor_of(LogisticRegression().fit(rows, rows[:, 0] + random.normal(size=600) > 0))
    _, together = fast.predict(rows[:size])
    alone = [fast.predict(rows[i : i + 1])[1] for i in range(size)]
    assert together is not None
    assert np.array_equal(together.view(np.int64), np.concatenate(alone).view(np.int64))  # type: ignore[arg-type]


PIPELINES = [
    make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression()),
    make_pipeline(SimpleImputer(strategy="median"), MinMaxScaler(clip=True), LogisticRegression()),
    make_pipeline(RobustScaler(), SimpleImputer(strategy="constant", fill_value=0.5), MaxAbsScaler(), Ridge()),
    make_pipeline(SimpleImputer(), StandardScaler(with_mean=False), "passthrough", LinearRegression()),
]


@pytest.mark.parametrize("model", PIPELINES, ids=lambda model: "-".join(model.named_steps))
def test_scaling_and_imputing_before(model: Any, gaps: Any, target: Any, agree: Any) -> None:
    is_classifier = hasattr(model, "predict_proba")
    agree(model.fit(gaps, target > 1 if is_classifier else target), gaps, alone=True)


def test_what_scikit_learn_refuses_is_refused_in_its_words(plain: Any, target: Any) -> None:
    for model in (LinearRegression(), make_pipeline(StandardScaler(), Ridge())):
        fast = fast_predictor(model.fit(plain, target))
        assert fast is not None
        for bad in (np.nan, np.inf, -np.inf):
            rows = plain[:3].copy()
            rows[1, 2] = bad
            with pytest.raises(ValueError, match=r"NaN|infinity"):
                fast.predict(rows)
        with pytest.raises(ValueError, match="8 features"):
            fast.predict(plain[:2, :5])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.floats(-1e150, 1e150) | st.sampled_from([0.0, -0.0, 5e-324, 1e-310]), min_size=3, max_size=3))
def test_any_row(row: list[float]) -> None:
    matrix = np.array([row])
    ours, theirs = FITTED.predict(matrix), LibraryPredictor(MODEL).predict(matrix)
    assert ours[0] == theirs[0]
    assert np.array_equal(ours[1].view(np.int64), theirs[1].view(np.int64))  # type: ignore[union-attr]


MODEL = LogisticRegression().fit(np.random.default_rng(0).normal(size=(50, 3)), np.arange(50) % 2)
FITTED = predictor_of(MODEL)


def test_several_targets_are_the_librarys(plain: Any, target: Any) -> None:
    model = LinearRegression().fit(plain, np.stack([target, -target], axis=1))
    assert fast_predictor(model) is None
    assert predictor_of(model).predict(plain[:2])[0].shape == (2, 2)


def test_a_pipeline_of_an_unknown_step_is_the_librarys(gaps: Any, target: Any) -> None:
    model = make_pipeline(SimpleImputer(add_indicator=True), Ridge()).fit(gaps, target)
    assert fast_predictor(model) is None
