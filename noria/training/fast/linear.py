"""Linear models of scikit-learn: one product for each row, and the link.

BLAS takes another kernel, with another order of the sum, for one row than for many, so that scikit-learn's last bits
depend on how many rows it is given. Here a row's answer is always the one that scikit-learn gives for it alone: a
stack of one-row products makes the very call that a single row makes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from noria.training.fast.formula import Formula, Matrix, Predicted, all_finite


def regressor(estimator: Any) -> Formula | None:
    """`X @ coef_ + intercept_`."""
    return _regressor(estimator, None)


def generalized(estimator: Any) -> Formula | None:
    """The same behind the inverse of the link function."""
    return _regressor(estimator, estimator._base_loss.link.inverse)


def classifier(estimator: Any) -> Formula | None:
    """The sign, or the largest, of the decision function; the logistic function of it for two classes' scores."""
    from scipy.special import expit

    decide = _decision(estimator)
    classes = np.asarray(estimator.classes_)
    if decide is None or classes.ndim != 1:
        return None
    has_scores = len(classes) == 2 and hasattr(estimator, "predict_proba")

    def compute(matrix: Matrix) -> Predicted | None:
        decision = decide(matrix)
        if decision is None:
            return None
        if decision.shape[1] > 1:
            return classes.take(decision.argmax(axis=1)), None
        flat = decision.reshape(-1)
        return classes.take(flat > 0), expit(flat) if has_scores else None

    return Formula(estimator.coef_.shape[-1], compute, alone=True)


def _regressor(estimator: Any, inverse: Callable[[Matrix], Matrix] | None) -> Formula | None:
    decide = _decision(estimator)
    if decide is None or estimator.coef_.ndim != 1:
        return None

    def compute(matrix: Matrix) -> Predicted | None:
        decision = decide(matrix)
        if decision is None:
            return None
        flat = decision.reshape(-1)
        return (flat if inverse is None else inverse(flat)), None

    return Formula(len(estimator.coef_), compute, alone=True)


def _decision(estimator: Any) -> Callable[[Matrix], Matrix | None] | None:
    """`X @ coef_.T + intercept_`, [rows, outputs]; None for values that scikit-learn refuses."""
    weights = estimator.coef_.T
    intercept = estimator.intercept_
    if weights.dtype != np.float64 or np.asarray(intercept).dtype != np.float64:
        return None

    def decide(matrix: Matrix) -> Matrix | None:
        if not all_finite(matrix):
            return None
        rows, features = matrix.shape
        product: Matrix = np.matmul(matrix.reshape(rows, 1, features), weights).reshape(rows, -1)
        product += intercept
        return product

    return decide
