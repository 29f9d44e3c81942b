from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier

from noria.training.fast import fast_predictor, predictor_of

TEN = {"n_estimators": 10, "random_state": 0}
CLASSIFIERS = [
    DecisionTreeClassifier(random_state=0),
    ExtraTreeClassifier(random_state=0),
    RandomForestClassifier(**TEN),
    ExtraTreesClassifier(**TEN),
    GradientBoostingClassifier(**TEN),
    GradientBoostingClassifier(**TEN, init="zero", subsample=0.7),
    HistGradientBoostingClassifier(max_iter=10),
]
REGRESSORS = [
    DecisionTreeRegressor(random_state=0),
    RandomForestRegressor(**TEN),
    RandomForestRegressor(**TEN, max_depth=4),
    ExtraTreesRegressor(**TEN),
    GradientBoostingRegressor(**TEN),
    GradientBoostingRegressor(**TEN, loss="quantile"),
    HistGradientBoostingRegressor(max_iter=10),
    HistGradientBoostingRegressor(max_iter=10, loss="absolute_error"),
]


def at_thresholds(model: Any, rows: Any) -> Any:
    """Rows of which many values are those at which the model changes its mind, or next to them."""
    random, found = np.random.default_rng(2), rows.copy()
    columns, values = fast_predictor(model).formula.landmarks  # type: ignore[misc, union-attr]
    for column in range(rows.shape[1]):
        mine = values[columns == column]
        if len(mine):
            near = random.choice(mine, len(rows))
            near = np.nextafter(near, random.choice([-np.inf, np.inf, 0.0], len(rows)))
            found[:, column] = np.where(random.random(len(rows)) < 0.7, near, found[:, column])
    return found


@pytest.mark.parametrize("model", CLASSIFIERS, ids=lambda model: type(model).__name__)
@pytest.mark.parametrize("classes", [2, 3])
def test_classifiers(model: Any, classes: int, plain: Any, odd: Any, target: Any, agree: Any) -> None:
    model.fit(plain, np.array(["a", "b", "c"])[np.digitize(target, [1.0, 3.0][: classes - 1])])
    for rows in (plain, odd, at_thresholds(model, plain)):
        agree(model, rows)


@pytest.mark.parametrize("model", REGRESSORS, ids=lambda model: type(model).__name__)
def test_regressors(model: Any, plain: Any, odd: Any, target: Any, agree: Any) -> None:
    model.fit(plain, target)
    for rows in (plain, odd, at_thresholds(model, plain)):
        agree(model, rows)


@pytest.mark.parametrize("model", [CLASSIFIERS[0], *CLASSIFIERS[2:4], CLASSIFIERS[-1]], ids=lambda m: type(m).__name__)
def test_missing_values(model: Any, plain: Any, gaps: Any, target: Any, agree: Any) -> None:
    agree(model.fit(gaps, target > 1), gaps)
    agree(model.fit(plain, target > 1), gaps)  # also where training had none


def test_histograms_take_every_number(wild: Any, odd: Any, gaps: Any, target: Any, agree: Any) -> None:
    agree(HistGradientBoostingRegressor(max_iter=10).fit(gaps, target), wild)
    agree(HistGradientBoostingClassifier(max_iter=10).fit(odd, target > 1), wild)


def test_what_scikit_learn_refuses_is_refused_in_its_words(plain: Any, target: Any) -> None:
    for model in (RandomForestRegressor(**TEN), GradientBoostingRegressor(**TEN)):
        fast = predictor_of(model.fit(plain, target))
        rows = plain[:20].copy()
        rows[17, 2] = np.inf
        with pytest.raises(ValueError, match="infinity"):
            fast.predict(rows)
    rows[17, 2] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        fast.predict(rows)  # gradient boosting takes no missing values


def test_behind_a_scaler(plain: Any, target: Any, agree: Any) -> None:
    agree(make_pipeline(StandardScaler(), RandomForestClassifier(**TEN)).fit(plain, target > 1), plain)


def test_threads_dont_change_which_sum_is_meant(plain: Any, target: Any) -> None:
    model = RandomForestRegressor(**TEN, n_jobs=2).fit(plain, target)
    one = RandomForestRegressor(**TEN).fit(plain, target)
    fast = fast_predictor(model)
    assert fast is not None
    assert fast.predict(plain)[0].tobytes() == one.predict(plain).tobytes()


def test_others_are_the_librarys(plain: Any, target: Any) -> None:
    several = RandomForestRegressor(**TEN).fit(plain, np.stack([target, -target], axis=1))
    started = GradientBoostingRegressor(**TEN, init=LinearRegression()).fit(plain, target)
    coded = HistGradientBoostingRegressor(max_iter=5, categorical_features=[3]).fit(plain, target)
    for model in (several, started, coded):
        assert fast_predictor(model) is None
        assert predictor_of(model).predict(plain[:3])[0].tobytes() == model.predict(plain[:3]).tobytes()
