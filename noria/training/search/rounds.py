"""Rounds: watching over a boosting library while it works, so that a hopeless or late fit ends early.

LightGBM and XGBoost tell after each round what they have so far; CatBoost tells only that a round is over. With
`patience`, the best number of rounds is found by the fold's judging rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noria.training.categorical import are_codes
from noria.training.estimator import Estimator
from noria.training.families import library_of
from noria.training.fits import quieten
from noria.training.search.folds import Fold

Judged = tuple[NDArray[Any], NDArray[np.float64] | None]
"""Predictions, and probabilities where there are classes: of two the second one's, [rows], else [rows, classes]."""


class Ended(Exception):  # noqa: N818 (not an error: how a watch ends a fit)
    """The fit needn't go on: `pruned` or `out of time`."""


@dataclass(frozen=True)
class Watch:
    """Who is asked while rounds are added.

    Attributes:
        after: called with the number of rounds done and a function that predicts the judging rows; raises `Ended`.
        patience: rounds without a better value on the judging rows after which it is enough; 0: all rounds.
        metric: of noria, by which they are better.
        enough: asked after each round; once it says so, the fit ends with the rounds that it has.
    """

    after: Callable[[int, Callable[[], Judged] | None], None]
    patience: int = 0
    metric: str = ""
    enough: Callable[[], bool] = lambda: False


def watched(estimator: Estimator) -> str:
    """The boosting library that rounds can be watched of; empty for every other estimator."""
    if type(estimator).__name__.startswith("HistGradientBoosting"):
        return "hist"
    library = library_of(estimator)
    return library if library in _WATCHED else ""


def as_read(estimator: Estimator, fold: Fold) -> Fold:
    """The fold as the estimator's library reads it: XGBoost's classes are 0, 1, 2 and so on, in the same order."""
    if watched(estimator) != "xgboost" or not hasattr(estimator, "predict_proba"):
        return fold
    known = np.unique(fold.y)
    if are_codes(known):
        return fold
    places = {value: place for place, value in enumerate([*known, *np.setdiff1d(fold.judging_y, known)])}
    y, judging_y = (np.array([places[value] for value in part]) for part in (fold.y, fold.judging_y))
    return replace(fold, y=y, judging_y=judging_y)


def fit_watched(estimator: Estimator, fold: Fold, watch: Watch) -> int | None:
    """Fit to the learning rows of the fold; returns the best number of rounds, where patience has found it.

    Raises:
        Ended: the watch has ended it.
    """
    weights = {} if fold.weights is None else {"sample_weight": fold.weights}
    library = watched(estimator)
    if not library:
        estimator.fit(fold.x, fold.y, **weights)
        return None
    return _WATCHED[library](estimator, fold, watch, weights)


def _lightgbm(estimator: Any, fold: Fold, watch: Watch, options: dict[str, Any]) -> int | None:
    import lightgbm

    def after(state: Any) -> None:
        watch.after(state.iteration + 1, lambda: judged(state.model.predict(fold.judging_x), fold, estimator))
        if watch.enough():
            raise lightgbm.callback.EarlyStopException(state.iteration, state.evaluation_result_list or [])

    quieten(estimator)
    callbacks: list[Any] = [after]
    if watch.patience:
        callbacks.append(lightgbm.early_stopping(watch.patience, first_metric_only=True, verbose=False))
        metric = _METRICS["lightgbm"].get(watch.metric)
        options |= {"eval_X": (fold.judging_x,), "eval_y": (_numbered(estimator, fold),), "eval_metric": metric}
        if metric is not None:
            estimator.set_params(metric="None")  # else the objective's own comes first
    estimator.fit(fold.x, fold.y, callbacks=callbacks, **options)
    return int(estimator.best_iteration_) if watch.patience and estimator.best_iteration_ else None


def _numbered(estimator: Any, fold: Fold) -> NDArray[Any]:
    """The targets that judge, as LightGBM numbers classes: it does so itself for the learning ones alone."""
    if not hasattr(estimator, "predict_proba"):
        return fold.judging_y
    return np.searchsorted(np.unique(fold.y), fold.judging_y)


def _xgboost(estimator: Any, fold: Fold, watch: Watch, options: dict[str, Any]) -> int | None:
    import xgboost

    class After(xgboost.callback.TrainingCallback):
        def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
            watch.after(epoch + 1, lambda: judged(model.inplace_predict(fold.judging_x), fold, estimator))
            return watch.enough()

    given = estimator.get_params().get("callbacks")
    estimator.set_params(callbacks=[*(given or ()), After()])
    try:
        if watch.patience:
            estimator.set_params(
                early_stopping_rounds=watch.patience, eval_metric=_METRICS["xgboost"].get(watch.metric)
            )
            options |= {"eval_set": [(fold.judging_x, fold.judging_y)], "verbose": False}
        estimator.fit(fold.x, fold.y, **options)
    finally:
        estimator.set_params(callbacks=given)
    if not watch.patience:
        return None
    booster = estimator.get_booster()
    best = booster.attr("best_iteration")  # None if it was stopped in its first round
    return int(booster.num_boosted_rounds()) if best is None else int(best) + 1


def _catboost(estimator: Any, fold: Fold, watch: Watch, options: dict[str, Any]) -> int | None:
    ended: list[Ended] = []

    class After:
        def after_iteration(self, info: Any) -> bool:
            try:
                watch.after(int(info.iteration), None)
            except Ended as end:  # it must not pass through CatBoost's own code
                ended.append(end)
            return not (ended or watch.enough())

    if watch.patience:
        if metric := _METRICS["catboost"].get(watch.metric):
            estimator.set_params(eval_metric=metric)
        options |= {"eval_set": (fold.judging_x, fold.judging_y), "early_stopping_rounds": watch.patience}
    estimator.fit(fold.x, fold.y, callbacks=[After()], **options)
    if ended:
        raise ended[0]
    return int(estimator.get_best_iteration()) + 1 if watch.patience else None


def _hist(estimator: Any, fold: Fold, watch: Watch, options: dict[str, Any]) -> int | None:
    """scikit-learn's own boosting: it tells nothing while it works, but knows when it is enough."""
    if not watch.patience:
        estimator.fit(fold.x, fold.y, **options)
        return None
    estimator.set_params(early_stopping=True, n_iter_no_change=watch.patience, scoring="loss")
    estimator.fit(fold.x, fold.y, X_val=fold.judging_x, y_val=fold.judging_y, **options)
    losses = np.asarray(estimator.validation_score_)
    return max(1, int(losses.argmax()))  # the first one is that of no rounds


def judged(raw: Any, fold: Fold, estimator: Estimator) -> Judged:
    """What a booster's own predictions say in the words of its estimator."""
    raw = np.asarray(raw, dtype=np.float64)
    if getattr(estimator, "_estimator_type", "") == "regressor" or not hasattr(estimator, "predict_proba"):
        return raw, None
    classes = np.unique(fold.y)
    if raw.ndim == 2:
        return classes[raw.argmax(axis=1)], raw
    return classes[(raw > 0.5).astype(int)], raw


_METRICS: dict[str, dict[str, str]] = {
    "lightgbm": {"roc_auc": "auc", "pr_auc": "average_precision", "rmse": "rmse", "mae": "mae"},
    "xgboost": {"roc_auc": "auc", "pr_auc": "aucpr", "rmse": "rmse", "mae": "mae"},
    "catboost": {"roc_auc": "AUC", "rmse": "RMSE", "mae": "MAE"},
}
"""What a library calls a metric; of others, the best rounds are those with the least loss."""
_WATCHED: dict[str, Callable[[Any, Fold, Watch, dict[str, Any]], int | None]] = {
    "lightgbm": _lightgbm,
    "xgboost": _xgboost,
    "catboost": _catboost,
    "hist": _hist,
}
