"""Metrics by their usual names, with the values that scikit-learn gives.

A metric is *prepared* once for the rows that judge: what doesn't depend on weights, such as the order of the scores, is
done then. What is left is a function from the rows' weights to the value, for many sets of weights at once. With ones
it is the metric, with sample weights the weighted metric, and with the counts of a resample one draw of its bootstrap
distribution, in time proportional to the rows.

With two classes, the greater one is positive (True, 1, or the later word); with more, precision, recall and F1 are
means over the classes, and the areas under curves are means of one class against the rest. Where a metric isn't defined
(the ranking of rows of one class), it is NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from noria.core import ConfigError, allowed
from noria.training.answers import Answers
from noria.training.ranking import average_precision, roc_area

Floats: TypeAlias = NDArray[np.float64]
Of: TypeAlias = Callable[[Floats], Floats]
"""From weights, [sets, rows], to values, [sets]."""

BINS = 10
"""Of the calibration error: bins with equally many rows, in the order of the probabilities."""


@dataclass(frozen=True)
class Metric:
    """A metric.

    Attributes:
        title: what it is called in a report.
        prepare: from the answers to a function of weights.
        of: whether it judges classes or numbers.
        needs_scores: it reads the probabilities of the classes instead of the predicted one.
        greater_is_better: whether a larger value is a better one.
        within: the values that it can have.
        biased: a resample shows more of it than the rows do: intervals are moved back by the mean difference.
    """

    title: str
    prepare: Callable[[Answers], Of]
    of: Literal["classes", "numbers"] = "classes"
    needs_scores: bool = False
    greater_is_better: bool = True
    within: tuple[float, float] = (0.0, float("inf"))
    biased: bool = False

    def value(self, answers: Answers, weights: Floats | None = None) -> float:
        """The metric; NaN where it isn't defined.

        Args:
            answers: of the rows that judge.
            weights: [rows] how much each of them counts; None when all count alike.
        """
        given = np.ones(len(answers)) if weights is None else np.asarray(weights, np.float64)
        return float(self.prepare(answers)(given[None])[0])


def mean_of(losses: Floats) -> Of:
    """The weighted mean of a value for each row."""
    return lambda weights: _divided(np.einsum("bi,i->b", weights, losses), weights.sum(axis=1))


def _divided(above: Any, below: Any, instead: float = np.nan) -> Any:
    """`above / below`, and `instead` where `below` is zero."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(below == 0, instead, above / below)


def _accuracy(answers: Answers) -> Of:
    return mean_of((answers.true_codes == answers.predicted_codes).astype(np.float64))


def _confusion(answers: Answers) -> Callable[[Floats], tuple[Floats, Floats, Floats]]:
    """For each set of weights and class: those that are right, those that are true, those that are predicted."""
    true, predicted, classes = answers.true_codes, answers.predicted_codes, len(answers.classes)
    # Only the pairs that there are: many classes leave most cells empty.
    pairs, cell = np.unique(true * classes + predicted, return_inverse=True)
    of_true, of_predicted = pairs // classes, pairs % classes
    is_right = of_true == of_predicted

    def summed(groups: NDArray[np.int64], cells: NDArray[Any]) -> Floats:
        return np.stack([np.bincount(groups, one, classes) for one in cells])

    def counted(weights: Floats) -> tuple[Floats, Floats, Floats]:
        cells = np.stack([np.bincount(cell, one, len(pairs)) for one in weights])
        return summed(of_true, cells * is_right), summed(of_true, cells), summed(of_predicted, cells)

    return counted


def _over_classes(answers: Answers, of: Callable[[Floats, Floats, Floats], Floats]) -> Of:
    """A metric of one class, for the positive one of two, or its mean over the classes that occur."""
    counted = _confusion(answers)

    def value(weights: Floats) -> Floats:
        right, true, predicted = counted(weights)
        each = of(right, true, predicted)
        if answers.is_binary:
            return each[:, 1]
        there = (true + predicted) > 0
        return np.asarray(_divided(np.where(there, each, 0.0).sum(axis=1), there.sum(axis=1)))

    return value


def _balanced(answers: Answers) -> Of:
    counted = _confusion(answers)

    def value(weights: Floats) -> Floats:
        right, true, _ = counted(weights)
        return np.asarray(_divided(_divided(right, true, 0.0).sum(axis=1), (true > 0).sum(axis=1)))

    return value


def _one_against_the_rest(area: Callable[[NDArray[np.bool_], Floats], Of]) -> Callable[[Answers], Of]:
    """An area under a curve, for the positive one of two classes, or its mean over the classes for which it exists."""

    def prepare(answers: Answers) -> Of:
        columns = [1] if answers.is_binary else range(len(answers.classes))
        each = [area(answers.true_codes == column, answers.probabilities[:, column]) for column in columns]

        def value(weights: Floats) -> Floats:
            areas = np.stack([one(weights) for one in each])
            known = ~np.isnan(areas)
            return np.asarray(_divided(np.where(known, areas, 0.0).sum(axis=0), known.sum(axis=0)))

        return value

    return prepare


def _log_loss(answers: Answers) -> Of:
    """Probabilities are kept away from 0 and 1 by the smallest difference that floats of that size can show."""
    rows = np.arange(len(answers))
    eps = np.finfo(np.float64).eps
    return mean_of(-np.log(np.clip(answers.probabilities[rows, answers.true_codes], eps, 1 - eps)))


def _brier(answers: Answers) -> Of:
    happened = np.zeros(answers.probabilities.shape)
    happened[np.arange(len(answers)), answers.true_codes] = 1
    losses = ((answers.probabilities - happened) ** 2).sum(axis=1)
    return mean_of(losses / 2 if answers.is_binary else losses)


def _calibration_error(answers: Answers) -> Of:
    """The mean distance between what was said and what happened, over `BINS` bins with equally many rows.

    What is said is the positive class's probability, or with more than two classes the predicted one's.
    """
    if answers.is_binary:
        said, happened = answers.probabilities[:, 1], answers.true_codes == 1
    else:
        said = answers.probabilities.max(axis=1)
        happened = answers.probabilities.argmax(axis=1) == answers.true_codes
    edges = np.quantile(said, np.arange(1, BINS) / BINS) if len(said) else np.zeros(0)
    bins = np.searchsorted(edges, said, side="right")
    gaps = np.where(bins == np.arange(BINS)[:, None], said - happened, 0.0)
    return lambda weights: np.asarray(
        _divided(np.abs(np.einsum("bi,ki->bk", weights, gaps)).sum(axis=1), weights.sum(axis=1))
    )


def _rmse(answers: Answers) -> Of:
    mean = mean_of(answers.errors**2)
    return lambda weights: np.sqrt(mean(weights))


def _r2(answers: Answers) -> Of:
    truth = answers.numbers
    truth = truth - (truth.mean() if len(truth) else 0.0)  # the sums of squares below would lose their digits
    errors = answers.errors**2

    def value(weights: Floats) -> Floats:
        total, left = weights.sum(axis=1), np.einsum("bi,i->b", weights, errors)
        spread = np.einsum("bi,i->b", weights, truth**2)
        spread -= np.asarray(_divided(np.einsum("bi,i->b", weights, truth) ** 2, total, 0.0))
        spread = np.where(spread <= 1e-15 * np.square(truth).sum(), 0.0, spread)
        r2 = np.where(spread == 0, np.where(left == 0, 1.0, 0.0), 1 - _divided(left, spread, 0.0))
        return np.where((weights > 0).sum(axis=1) < 2, np.nan, r2)

    return value


def _mape(answers: Answers) -> Of:
    return mean_of(np.abs(answers.errors) / np.maximum(np.abs(answers.numbers), np.finfo(np.float64).eps))


_SHARE = (0.0, 1.0)
_UP_TO_ONE = (float("-inf"), 1.0)

METRICS: dict[str, Metric] = {
    "accuracy": Metric("Accuracy", _accuracy, within=_SHARE),
    "balanced_accuracy": Metric("Balanced accuracy", _balanced, within=_SHARE),
    "f1": Metric(
        "F1", lambda a: _over_classes(a, lambda right, true, said: _divided(2 * right, true + said, 0.0)), within=_SHARE
    ),
    "precision": Metric(
        "Precision", lambda a: _over_classes(a, lambda right, _, said: _divided(right, said, 0.0)), within=_SHARE
    ),
    "recall": Metric(
        "Recall", lambda a: _over_classes(a, lambda right, true, _: _divided(right, true, 0.0)), within=_SHARE
    ),
    "roc_auc": Metric("ROC AUC", _one_against_the_rest(roc_area), needs_scores=True, within=_SHARE),
    "pr_auc": Metric("PR AUC", _one_against_the_rest(average_precision), needs_scores=True, within=_SHARE),
    "log_loss": Metric("Log loss", _log_loss, needs_scores=True, greater_is_better=False),
    "brier": Metric("Brier score", _brier, needs_scores=True, greater_is_better=False, within=(0.0, 2.0)),
    "calibration_error": Metric(
        "Calibration error",
        _calibration_error,
        needs_scores=True,
        greater_is_better=False,
        within=_SHARE,
        biased=True,
    ),
    "rmse": Metric("RMSE", _rmse, "numbers", greater_is_better=False),
    "mae": Metric("MAE", lambda a: mean_of(np.abs(a.errors)), "numbers", greater_is_better=False),
    "r2": Metric("R²", _r2, "numbers", within=_UP_TO_ONE),
    "mape": Metric("MAPE", _mape, "numbers", greater_is_better=False),
}


def check_metrics(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names, once it is sure that each is known.

    Raises:
        ConfigError: for an unknown metric, or none at all.
    """
    for name in names:
        if name not in METRICS:
            raise ConfigError(f"unknown metric {name!r}", hint=allowed(METRICS, str(name)), field="metrics")
    if not names:
        raise ConfigError("a model needs at least one metric to be judged by", hint=allowed(METRICS), field="metrics")
    return names


def check_truth(names: tuple[str, ...], truth: NDArray[Any]) -> None:
    """Make sure that the metrics can judge this target, whatever a model says.

    Raises:
        ConfigError: a metric needs numbers where there are words.
    """
    for name in names:
        if METRICS[name].of == "numbers" and truth.dtype.kind not in "bifu":
            raise ConfigError(
                f"metric {name!r} is of numbers, and the target is text", hint=_others("classes"), field="metrics"
            )


def check_answers(names: tuple[str, ...], answers: Answers) -> None:
    """Make sure that the metrics can judge these answers.

    Raises:
        ConfigError: a metric needs probabilities that the model doesn't give, numbers where there are words, or classes
            where there are numbers.
    """
    check_truth(names, answers.truth)
    for name in names:
        metric = METRICS[name]
        if metric.needs_scores and not answers.has_probabilities:
            raise ConfigError(
                f"metric {name!r} needs probabilities of the classes, which this model doesn't give",
                hint="use a classifier that has predict_proba and, once fitted, classes_; or another metric",
                field="metrics",
            )
        if metric.of == "classes" and not answers.has_classes:
            raise ConfigError(
                f"metric {name!r} is of classes, and this model predicts numbers",
                hint=_others("numbers"),
                field="metrics",
            )


def _others(of: str) -> str:
    return allowed([name for name, metric in METRICS.items() if metric.of == of])


def judge(
    names: tuple[str, ...],
    truth: NDArray[Any],
    predicted: NDArray[Any],
    scores: NDArray[np.float64] | None = None,
    *,
    classes: NDArray[Any] | None = None,
    weights: NDArray[np.float64] | None = None,
) -> dict[str, float]:
    """Each metric's value; NaN where it isn't defined for these rows.

    Args:
        names: keys of `METRICS`.
        truth: the true values, [n].
        predicted: the predicted values, [n].
        scores: the probabilities of the positive class, [n], or of all classes, [n, classes]; None when the model
            gives none.
        classes: those that the model knows, in the order of the scores; by default those that occur.
        weights: how much each row counts, [n]; None when all count alike.

    Raises:
        ConfigError: a metric can't judge what the model gives.
    """
    answers = Answers.of(truth, predicted, scores, classes)
    check_answers(check_metrics(names), answers)
    return {name: METRICS[name].value(answers, weights) for name in names}
