"""What answers for a fitted estimator: a checked formula, or the library."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

import numpy as np

from noria.training.categorical import ByCodes
from noria.training.estimator import Estimator, scores
from noria.training.fast.chain import chain, with_classes
from noria.training.fast.check import agrees
from noria.training.fast.formula import Formula, Matrix, Predicted

_LINEAR_REGRESSORS = (
    "LinearRegression", "Ridge", "RidgeCV", "Lasso", "LassoCV", "ElasticNet", "ElasticNetCV", "Lars", "LassoLars",
    "LassoLarsCV", "LassoLarsIC", "LarsCV", "OrthogonalMatchingPursuit", "BayesianRidge", "ARDRegression",
    "HuberRegressor", "TheilSenRegressor", "SGDRegressor", "LinearSVR", "QuantileRegressor",
)  # fmt: skip
_LINEAR_CLASSIFIERS = (
    "LogisticRegression", "LogisticRegressionCV", "SGDClassifier", "RidgeClassifier", "RidgeClassifierCV",
    "Perceptron", "LinearSVC",
)  # fmt: skip
_TREES = (
    "DecisionTreeClassifier", "DecisionTreeRegressor", "ExtraTreeClassifier", "ExtraTreeRegressor",
    "RandomForestClassifier", "RandomForestRegressor", "ExtraTreesClassifier", "ExtraTreesRegressor",
)  # fmt: skip
_MAKERS = {
    **{f"sklearn.{name}": "linear.regressor" for name in _LINEAR_REGRESSORS},
    **{f"sklearn.{name}": "linear.generalized" for name in ("PoissonRegressor", "GammaRegressor", "TweedieRegressor")},
    **{f"sklearn.{name}": "linear.classifier" for name in _LINEAR_CLASSIFIERS},
    **{f"sklearn.{name}": "sklearn_trees.averaged" for name in _TREES},
    **{f"sklearn.GradientBoosting{kind}": "sklearn_trees.boosted" for kind in ("Classifier", "Regressor")},
    **{f"sklearn.HistGradientBoosting{kind}": "sklearn_trees.histogram" for kind in ("Classifier", "Regressor")},
    **{f"lightgbm.{name}": "lightgbm_trees.estimator" for name in ("LGBMClassifier", "LGBMRegressor", "LGBMRanker")},
    "lightgbm.Booster": "lightgbm_trees.booster",
    **{
        f"xgboost.{name}": "xgboost_trees.estimator"
        for name in ("XGBClassifier", "XGBRegressor", "XGBRanker", "XGBRFClassifier", "XGBRFRegressor")
    },
}
"""Which function knows which class. A subclass is not known: it may compute something else."""


class Predictor(Protocol):
    """Predicts rows of features."""

    def predict(self, matrix: Matrix) -> Predicted:
        """From [rows, features] to one prediction for each row and, where two classes are told apart, scores.

        Raises:
            Exception: what the estimator's library raises for such rows.
        """
        ...


@dataclass(frozen=True)
class LibraryPredictor:
    """The estimator's own methods, one pass for predictions and one for probabilities."""

    estimator: Any

    def predict(self, matrix: Matrix) -> Predicted:
        return np.asarray(self.estimator.predict(matrix)), scores(self.estimator, matrix)


@dataclass(frozen=True)
class FastPredictor:
    """A formula, and the library for the rows that it leaves to it."""

    formula: Formula
    library: LibraryPredictor

    def predict(self, matrix: Matrix) -> Predicted:
        if matrix.ndim == 2 and matrix.shape[1] == self.formula.features and len(matrix):
            # The loops are compiled for arrays of this kind alone, so that no request waits for a compiler.
            plain = matrix.flags.carray and matrix.dtype == np.float64
            answer = self.formula.compute(matrix if plain else np.array(matrix, np.float64, order="C"))
            if answer is not None:
                return answer
        return self.library.predict(matrix)


def predictor_of(estimator: Estimator, rows: Matrix | None = None) -> Predictor:
    """What answers for a fitted estimator: a formula with the library's bits if there is one, else the library.

    Args:
        estimator: any fitted estimator.
        rows: [n, features] rows known to be good, on which a formula is compared too.
    """
    return fast_predictor(estimator, rows) or LibraryPredictor(estimator)


def fast_predictor(estimator: Estimator, rows: Matrix | None = None) -> FastPredictor | None:
    """A formula that has just given the library's bits on made rows and on `rows`; None if there is none."""
    try:
        formula = _formula(estimator)
        if formula is None:
            return None
        made = FastPredictor(formula, LibraryPredictor(estimator))
        reference = LibraryPredictor(formula.reference or estimator)
        return made if agrees(made.predict, reference.predict, formula, rows) else None
    except Exception:  # a library's insides may change with any version; its own way always works
        return None


def _formula(estimator: Any) -> Formula | None:
    kind = type(estimator)
    name = f"{kind.__module__.partition('.')[0]}.{kind.__name__}"
    if isinstance(estimator, ByCodes):
        coded = None if estimator.categories else _formula(estimator.model)
        return None if coded is None else with_classes(coded, getattr(estimator, "classes_", None))
    if name == "sklearn.Pipeline":
        last = fast_predictor(estimator.steps[-1][1])
        return None if last is None else chain(estimator, last.formula)
    if name not in _MAKERS:
        return None
    module, function = _MAKERS[name].split(".")
    made: Formula | None = getattr(import_module(f"noria.training.fast.{module}"), function)(estimator)
    return made
