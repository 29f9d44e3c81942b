"""LightGBM and XGBoost: every kind of split, objective and ensemble that has a formula."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from noria.training.fast import fast_predictor, predictor_of

lgb = pytest.importorskip("lightgbm")
xgb = pytest.importorskip("xgboost")

LIGHT = {"n_estimators": 12, "verbose": -1, "n_jobs": 1}
XGB = {"n_estimators": 12, "n_jobs": 1}
FEATURES = 8
KINDS = ["q", "q", "q", "c", "c", "q", "q", "q"]


@pytest.fixture(scope="module")
def sorts(plain: Any) -> Any:
    """The rows with categories that are whole and not negative."""
    rows = plain.copy()
    rows[:, 4] = np.abs(rows[:, 4]) // 1
    return rows


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"zero_as_missing": True},
        {"use_missing": False},
        {"boosting_type": "dart"},
        {"boosting_type": "rf", "bagging_freq": 1, "bagging_fraction": 0.7},
        {"num_leaves": 100, "min_child_samples": 2},
        {"num_leaves": 2},
        {"min_child_samples": 10_000},
        {"objective": "l1"},
        {"objective": "quantile", "alpha": 0.3},
        {"objective": "huber"},
    ],
    ids=str,
)
def test_lightgbms_regressors(
    options: dict[str, Any], plain: Any, gaps: Any, wild: Any, target: Any, agree: Any
) -> None:
    for rows in (plain, gaps):
        model = lgb.LGBMRegressor(**LIGHT, **options).fit(rows, target)
        agree(model, wild)
        agree(model.booster_, gaps)


@pytest.mark.parametrize("objective", ["poisson", "gamma", "tweedie", "cross_entropy", "cross_entropy_lambda"])
def test_lightgbms_links(objective: str, gaps: Any, wild: Any, target: Any, agree: Any) -> None:
    positive = np.abs(target) + 0.1
    truth = np.minimum(positive / 10, 1.0) if objective.startswith("cross") else positive
    agree(lgb.LGBMRegressor(**LIGHT, objective=objective).fit(gaps, truth), wild)


@pytest.mark.parametrize(
    "options",
    [{}, {"boosting_type": "dart"}, {"boosting_type": "rf", "bagging_freq": 1, "bagging_fraction": 0.7}],
    ids=str,
)
def test_lightgbms_classifiers(options: dict[str, Any], gaps: Any, wild: Any, target: Any, agree: Any) -> None:
    agree(lgb.LGBMClassifier(**LIGHT, **options).fit(gaps, np.where(target > 1, "yes", "no")), wild)
    agree(lgb.LGBMClassifier(**LIGHT, **options).fit(gaps, np.digitize(target, [0.0, 2.0, 3.0])), wild)


def test_lightgbms_one_against_all(gaps: Any, wild: Any, target: Any, agree: Any) -> None:
    model = lgb.LGBMClassifier(**LIGHT, objective="multiclassova").fit(gaps, np.digitize(target, [0.0, 2.0]))
    agree(model, wild)


@pytest.mark.parametrize("one_hot", [1, 64])
def test_lightgbms_categories(one_hot: int, sorts: Any, wild: Any, target: Any, agree: Any) -> None:
    model = lgb.LGBMClassifier(**LIGHT, max_cat_to_onehot=one_hot, min_child_samples=5, cat_smooth=1)
    model.fit(sorts, target > 1, categorical_feature=[3, 4])
    for rows in (sorts, wild):
        agree(model, rows)


def test_lightgbms_ranker(gaps: Any, wild: Any, target: Any, agree: Any) -> None:
    grades = np.digitize(target, [0.0, 2.0])
    agree(lgb.LGBMRanker(**LIGHT).fit(gaps, grades, group=[60] * 10), wild)


def test_lightgbms_best_iteration(gaps: Any, target: Any, agree: Any) -> None:
    model = lgb.LGBMRegressor(**{**LIGHT, "n_estimators": 200}, learning_rate=0.5)
    stop = lgb.early_stopping(2, verbose=False)
    model.fit(gaps[:400], target[:400], eval_X=(gaps[400:],), eval_y=(target[400:],), callbacks=[stop])
    assert model.best_iteration_ > 3
    agree(model, gaps)
    model.booster_.best_iteration = 3  # LightGBM keeps no later trees by itself
    agree(model, gaps)


def test_what_isnt_known_of_lightgbm_is_the_librarys(plain: Any, target: Any) -> None:
    for options in ({"linear_tree": True}, {"objective": "regression", "reg_sqrt": True}, {"pred_early_stop": True}):
        model = lgb.LGBMRegressor(**LIGHT, **options).fit(plain, target)
        assert fast_predictor(model) is None
        assert predictor_of(model).predict(plain[:3])[0].tobytes() == model.predict(plain[:3]).tobytes()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"booster": "dart", "rate_drop": 0.4},
        {"max_depth": 9, "min_child_weight": 0},
        {"max_leaves": 20, "grow_policy": "lossguide"},
        {"num_parallel_tree": 3, "subsample": 0.7},
        {"objective": "reg:absoluteerror"},
        {"objective": "reg:pseudohubererror"},
        {"base_score": 3.25},
    ],
    ids=str,
)
def test_xgboosts_regressors(
    options: dict[str, Any], plain: Any, gaps: Any, wild: Any, target: Any, agree: Any
) -> None:
    for rows in (plain, gaps):
        agree(xgb.XGBRegressor(**XGB, **options).fit(rows, target), wild)


@pytest.mark.parametrize("objective", ["count:poisson", "reg:gamma", "reg:tweedie", "reg:logistic"])
def test_xgboosts_links(objective: str, gaps: Any, wild: Any, target: Any, agree: Any) -> None:
    positive = np.abs(target) + 0.1
    truth = np.minimum(positive / 10, 1.0) if objective.endswith("logistic") else positive
    agree(xgb.XGBRegressor(**XGB, objective=objective).fit(gaps, truth), wild)


@pytest.mark.parametrize("options", [{}, {"booster": "dart", "rate_drop": 0.4}, {"base_score": 0.3}], ids=str)
def test_xgboosts_classifiers(options: dict[str, Any], gaps: Any, wild: Any, target: Any, agree: Any) -> None:
    agree(xgb.XGBClassifier(**XGB, **options).fit(gaps, (target > 1).astype(int)), wild)
    agree(xgb.XGBClassifier(**XGB, **options).fit(gaps, np.digitize(target, [0.0, 2.0, 3.0])), wild)


def test_xgboosts_forests_and_ranker(gaps: Any, wild: Any, target: Any, agree: Any) -> None:
    agree(xgb.XGBRFClassifier(**XGB).fit(gaps, (target > 1).astype(int)), wild)
    agree(xgb.XGBRFRegressor(**XGB).fit(gaps, target), wild)
    grades = np.digitize(target, [0.0, 2.0])
    agree(xgb.XGBRanker(**XGB).fit(gaps, grades, group=[60] * 10), wild)


@pytest.mark.parametrize("one_hot", [1, 64])
def test_xgboosts_categories(one_hot: int, sorts: Any, wild: Any, target: Any, agree: Any) -> None:
    model = xgb.XGBClassifier(**XGB, enable_categorical=True, feature_types=KINDS, max_cat_to_onehot=one_hot)
    model.fit(sorts, (target > 1).astype(int))
    for rows in (sorts, wild):
        agree(model, rows)


def test_xgboosts_best_iteration(gaps: Any, target: Any, agree: Any) -> None:
    model = xgb.XGBRegressor(n_estimators=200, n_jobs=1, learning_rate=0.5, early_stopping_rounds=2)
    model.fit(gaps[:400], target[:400], eval_set=[(gaps[400:], target[400:])], verbose=False)
    assert model.best_iteration + 1 < model.get_booster().num_boosted_rounds()
    agree(model, gaps)


def test_what_isnt_known_of_xgboost_is_the_librarys(plain: Any, target: Any) -> None:
    for options in (
        {"booster": "gblinear"},
        {"missing": -2.5},
        {"objective": "reg:quantileerror", "quantile_alpha": [0.1, 0.9]},
    ):
        model = xgb.XGBRegressor(**XGB, **options).fit(plain, target)
        assert fast_predictor(model) is None
        assert predictor_of(model).predict(plain[:3])[0].tobytes() == model.predict(plain[:3]).tobytes()
