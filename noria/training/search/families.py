"""Families of models: how each is made of parameters, which parameters are good to begin with, and their space."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from noria.training.estimator import Estimator
from noria.training.search.spaces import Integer, Space, integer, log, uniform

ROUNDS = 1000
"""Of boosting at most; the folds' judging rows say how many are best."""
TREES = 200
"""Of a forest."""


@dataclass(frozen=True)
class Problem:
    """What is to be learned.

    Attributes:
        is_regression: numbers instead of classes.
        seed: of everything random.
    """

    is_regression: bool
    seed: int


@dataclass(frozen=True, eq=False)
class Family:
    """A kind of model.

    Attributes:
        name: in the leaderboard.
        library: that it comes from.
        make: an unfitted estimator of parameters; those that are left out are the library's.
        first: parameters that are good to begin with, the best guess first; each names the whole space.
        space: of the parameters.
        rounds: the parameter that says how many rounds of boosting; empty for other models.
        onehot: whether text becomes a column for each category, instead of a number.
    """

    name: str
    library: str
    make: Callable[[Problem, Mapping[str, Any]], Estimator]
    first: tuple[Mapping[str, Any], ...]
    space: Mapping[str, Space]
    rounds: str = ""
    onehot: bool = False

    def missing(self) -> str:
        """Why it can't be tried; empty if it can."""
        return "" if find_spec(self.library) is not None else f"{self.library} is not installed"


def _linear(problem: Problem, parameters: Mapping[str, Any]) -> Estimator:
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    strength = parameters.get("strength", 1.0)
    last = Ridge(alpha=1 / strength) if problem.is_regression else LogisticRegression(C=strength, max_iter=300)
    made: Estimator = make_pipeline(SimpleImputer(strategy="median", keep_empty_features=True), StandardScaler(), last)
    return made


def _hist(problem: Problem, parameters: Mapping[str, Any]) -> Estimator:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    kind = HistGradientBoostingRegressor if problem.is_regression else HistGradientBoostingClassifier
    made: Estimator = kind(**{"max_iter": ROUNDS, **parameters, "early_stopping": False, "random_state": problem.seed})
    return made


def _forest(name: str) -> Callable[[Problem, Mapping[str, Any]], Estimator]:
    def make(problem: Problem, parameters: Mapping[str, Any]) -> Estimator:
        from sklearn import ensemble

        kind = getattr(ensemble, name + ("Regressor" if problem.is_regression else "Classifier"))
        made: Estimator = kind(n_estimators=TREES, n_jobs=-1, random_state=problem.seed, **parameters)
        return made

    return make


def _lightgbm(problem: Problem, parameters: Mapping[str, Any]) -> Estimator:
    from lightgbm import LGBMClassifier, LGBMRegressor

    kind = LGBMRegressor if problem.is_regression else LGBMClassifier
    # Without these two, sums depend on how many threads had time.
    same = {"deterministic": True, "force_row_wise": True}
    options = {"n_estimators": ROUNDS, "subsample_freq": 1, "verbose": -1, "random_state": problem.seed}
    made: Estimator = kind(**{**options, **same, **parameters})
    return made


def _xgboost(problem: Problem, parameters: Mapping[str, Any]) -> Estimator:
    from xgboost import XGBClassifier, XGBRegressor

    kind = XGBRegressor if problem.is_regression else XGBClassifier
    options = {"n_estimators": ROUNDS, "tree_method": "hist", "verbosity": 0, "random_state": problem.seed}
    made: Estimator = kind(**{**options, **parameters})
    return made


def _catboost(problem: Problem, parameters: Mapping[str, Any]) -> Estimator:
    from catboost import CatBoostClassifier, CatBoostRegressor

    kind = CatBoostRegressor if problem.is_regression else CatBoostClassifier
    options = {"iterations": ROUNDS, "allow_writing_files": False, "verbose": False, "random_seed": problem.seed}
    made: Estimator = kind(**{**options, **parameters})
    return made


_RATE = log(0.01, 0.3)
_FOREST: dict[str, Space] = {"max_features": uniform(0.1, 1.0), "min_samples_leaf": Integer(1, 50, log=True)}

FAMILIES: tuple[Family, ...] = (
    Family(
        "lightgbm",
        "lightgbm",
        _lightgbm,
        (
            {
                "learning_rate": 0.05,
                "num_leaves": 31,
                "min_child_samples": 20,
                "subsample": 0.9,
                "colsample_bytree": 0.8,
                "reg_lambda": 0.1,
            },
            {
                "learning_rate": 0.03,
                "num_leaves": 8,
                "min_child_samples": 40,
                "subsample": 0.8,
                "colsample_bytree": 0.5,
                "reg_lambda": 1.0,
            },
        ),
        {
            "learning_rate": _RATE,
            "num_leaves": integer(4, 256, log=True),
            "min_child_samples": integer(2, 128, log=True),
            "subsample": uniform(0.5, 1.0),
            "colsample_bytree": uniform(0.3, 1.0),
            "reg_lambda": log(1e-3, 100.0),
        },
        rounds="n_estimators",
    ),
    Family(
        "linear", "sklearn", _linear, ({"strength": 1.0}, {"strength": 0.01}), {"strength": log(1e-4, 1e3)}, onehot=True
    ),
    Family(
        "extra_trees",
        "sklearn",
        _forest("ExtraTrees"),
        ({"max_features": 0.5, "min_samples_leaf": 2},),
        _FOREST,
    ),
    Family(
        "xgboost",
        "xgboost",
        _xgboost,
        (
            {
                "learning_rate": 0.05,
                "max_depth": 6,
                "min_child_weight": 2.0,
                "subsample": 0.9,
                "colsample_bytree": 0.8,
                "reg_lambda": 1.0,
            },
        ),
        {
            "learning_rate": _RATE,
            "max_depth": integer(2, 10),
            "min_child_weight": log(0.1, 64.0),
            "subsample": uniform(0.5, 1.0),
            "colsample_bytree": uniform(0.3, 1.0),
            "reg_lambda": log(1e-3, 100.0),
        },
        rounds="n_estimators",
    ),
    Family(
        "catboost",
        "catboost",
        _catboost,
        ({"learning_rate": 0.06, "depth": 6, "l2_leaf_reg": 3.0},),
        {"learning_rate": _RATE, "depth": integer(3, 9), "l2_leaf_reg": log(0.3, 30.0)},
        rounds="iterations",
    ),
    Family(
        "hist_boosting",
        "sklearn",
        _hist,
        ({"learning_rate": 0.06, "max_leaf_nodes": 31, "min_samples_leaf": 20, "l2_regularization": 0.1},),
        {
            "learning_rate": _RATE,
            "max_leaf_nodes": integer(4, 128, log=True),
            "min_samples_leaf": integer(2, 128, log=True),
            "l2_regularization": log(1e-3, 100.0),
        },
        rounds="max_iter",
    ),
    Family(
        "random_forest",
        "sklearn",
        _forest("RandomForest"),
        ({"max_features": 0.4, "min_samples_leaf": 2},),
        _FOREST,
    ),
)
