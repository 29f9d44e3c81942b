"""Metrics by their usual names, as scikit-learn computes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics as sk

from noria.core import ConfigError, allowed


@dataclass(frozen=True)
class Metric:
    """A metric.

    Attributes:
        compute: from the true values and the predictions (or the scores) to a number.
        needs_scores: it reads the probability of the positive class instead of the predicted one.
        greater_is_better: whether a larger value is a better one.
    """

    compute: Callable[[NDArray[Any], NDArray[Any]], float]
    needs_scores: bool = False
    greater_is_better: bool = True


def _f1(truth: NDArray[Any], predicted: NDArray[Any]) -> float:
    average = "binary" if len(np.union1d(truth, predicted)) <= 2 and truth.dtype.kind in "bi" else "macro"
    return float(sk.f1_score(truth, predicted, average=average, zero_division=0.0))


METRICS: dict[str, Metric] = {
    "accuracy": Metric(lambda y, p: float(sk.accuracy_score(y, p))),
    "f1": Metric(_f1),
    "roc_auc": Metric(lambda y, s: float(sk.roc_auc_score(y, s)), needs_scores=True),
    "pr_auc": Metric(lambda y, s: float(sk.average_precision_score(y, s)), needs_scores=True),
    "log_loss": Metric(lambda y, s: float(sk.log_loss(y, s, labels=[0, 1])), True, greater_is_better=False),
    "rmse": Metric(lambda y, p: float(sk.root_mean_squared_error(y, p)), greater_is_better=False),
    "mae": Metric(lambda y, p: float(sk.mean_absolute_error(y, p)), greater_is_better=False),
}


def check_metrics(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names, once it is sure that each is known.

    Raises:
        ConfigError: for an unknown metric, or none at all.
    """
    for name in names:
        if name not in METRICS:
            raise ConfigError(f"unknown metric {name!r}", hint=allowed(METRICS, name), field="metrics")
    if not names:
        raise ConfigError("a model needs at least one metric to be judged by", hint=allowed(METRICS), field="metrics")
    return names


def judge(
    names: tuple[str, ...], truth: NDArray[Any], predicted: NDArray[Any], scores: NDArray[np.float64] | None
) -> dict[str, float]:
    """Each metric's value.

    Args:
        names: keys of `METRICS`.
        truth: the true values, [n].
        predicted: the predicted values, [n].
        scores: the positive class's probabilities, [n]; None when the model gives none.

    Raises:
        ConfigError: a metric needs scores that the model can't give.
    """
    results = {}
    for name in names:
        metric = METRICS[name]
        if metric.needs_scores and scores is None:
            raise ConfigError(
                f"metric {name!r} needs probabilities of two classes, which this model doesn't give",
                hint="use a binary classifier that has predict_proba and, once fitted, classes_; or another metric",
            )
        results[name] = metric.compute(truth, scores if metric.needs_scores and scores is not None else predicted)
    return results
