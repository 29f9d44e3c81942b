"""How much a model relies on each input: what it loses when the input's values are shuffled among the rows.

(Permutation importance, Breiman 2001.) Of two inputs that say the same, each may look unimportant: the other is left.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria.pipelines import apply_steps
from noria.training.answers import Answers, answer
from noria.training.bootstrap import LEVEL, Rows, drawer
from noria.training.categorical import library_model
from noria.training.learner import Learned
from noria.training.metrics import METRICS

MOST_ROWS, FEWEST_ROWS = 2_000, 250
REPEATS = 3
_RESAMPLES = 100
_PATIENCE = 3


def permutation_importance(
    learned: Learned,
    frame: pl.DataFrame,
    truth: NDArray[Any],
    metric: str,
    seed: int,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Any]:
    """By how much a metric gets worse, with 95 % intervals over shuffles and rows, the most important first.

    Args:
        learned: the model.
        frame: [rows, inputs] of the rows that judge; of many, a part is used.
        truth: [rows].
        metric: the deciding metric.
        seed: of the part and of the shuffles.
        seconds: what it should take: for a slow model, fewer rows are used. After three times as many, the inputs that
            are left are named as not measured.
        clock: tells the seconds.
    """
    random, began = np.random.default_rng(seed), clock()
    frame, truth = _some(frame, truth, MOST_ROWS, random)
    first = answer(learned, frame, truth)
    share = seconds / max(1e-9, (clock() - began) * REPEATS * len(frame.columns))
    if share < 1:
        frame, truth = _some(frame, truth, max(FEWEST_ROWS, int(len(frame) * share)), random)
        first = answer(learned, frame, truth)
    weights = np.vstack([np.ones(len(frame)), drawer(Rows(len(frame)))(random, _RESAMPLES)])
    sign = 1 if METRICS[metric].greater_is_better else -1

    def values(answers: Answers) -> NDArray[np.float64]:
        return sign * METRICS[metric].prepare(answers)(weights)

    base = values(first)
    if not np.isfinite(base[0]):
        return {}
    found: list[dict[str, Any]] = []
    left = list(frame.columns)
    repeated, rows = pl.concat([frame] * REPEATS, rechunk=True), np.arange(len(frame))
    orders = np.concatenate([random.permutation(rows) for _ in range(REPEATS)])
    while left and clock() - began < _PATIENCE * seconds:
        name = left.pop(0)
        shuffled = repeated.with_columns(frame[name][orders].alias(name))
        answers = answer(learned, shuffled, np.concatenate([truth] * REPEATS))
        lost = base - np.stack([values(answers.take(rows + len(frame) * k)) for k in range(REPEATS)])
        found.append(_measured(name, lost))
    found.sort(key=lambda one: -one["value"])
    return {"metric": metric, "rows": len(frame), "repeats": REPEATS, "features": found, "not_measured": left}


def _some(
    frame: pl.DataFrame, truth: NDArray[Any], most: int, random: np.random.Generator
) -> tuple[pl.DataFrame, NDArray[Any]]:
    if len(frame) <= most:
        return frame, truth
    part = np.sort(random.choice(len(frame), most, replace=False))
    return frame[part], truth[part]


def _measured(name: str, lost: NDArray[np.float64]) -> dict[str, Any]:
    """The mean over shuffles; the interval over resamples of the rows, each with one of the shuffles."""
    draws = lost[:, 1:].ravel()
    draws = draws[np.isfinite(draws)]
    value = float(np.nanmean(lost[:, 0]))
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(draws, [tail, 100 - tail]) if len(draws) else (value, value)
    return {"name": name, **{key: float(f"{v:.5g}") for key, v in (("value", value), ("low", low), ("high", high))}}


def native_importance(learned: Learned, frame: pl.DataFrame) -> list[dict[str, Any]]:
    """The library's own importances of the columns after the steps, as shares; nothing where it has none."""
    shares = getattr(library_model(learned.estimator), "feature_importances_", None)
    if shares is None:
        return []
    shares = np.asarray(shares, np.float64).ravel()
    columns = apply_steps(learned.inputs.steps, frame.head(1)).columns
    if len(shares) != len(columns) or not np.isfinite(shares).all() or shares.sum() <= 0:
        return []
    shares = shares / shares.sum()
    order = np.argsort(-shares, kind="stable")[:20]
    return [{"name": columns[at], "value": float(f"{shares[at]:.4g}")} for at in order]


def learning_curve(estimator: Any) -> dict[str, list[float]]:
    """What a library tells of each round: by series; nothing where it tells nothing."""
    for read in (_evaluations, _scores, _losses):
        told = read(library_model(estimator))
        found = {name: _rounds(values) for name, values in told.items() if len(values) > 1}
        if found:
            return found
    return {}


def _evaluations(estimator: Any) -> dict[str, Sequence[float]]:
    """LightGBM's `evals_result_`, XGBoost's and CatBoost's functions, a network's `history_`."""
    found: Any = {}
    for name in ("evals_result_", "history_"):
        try:  # a property that raises before, or without, evaluation
            found = getattr(estimator, name, None) or found
        except Exception:
            continue
    for name in ("evals_result", "get_evals_result"):
        if not found and callable(getattr(estimator, name, None)):
            try:
                found = getattr(estimator, name)()
            except Exception:  # XGBoost raises where nothing was evaluated
                continue
    made: dict[str, Sequence[float]] = {}
    for part, values in found.items() if isinstance(found, dict) else ():
        if isinstance(values, dict):
            made |= {f"{part} {name}": list(series) for name, series in values.items()}
        else:
            made[str(part)] = list(values)
    return made


def _scores(estimator: Any) -> dict[str, Sequence[float]]:
    """scikit-learn's boosting."""
    named = {"train": "train_score_", "validation": "validation_score_"}
    found = {title: getattr(estimator, name, None) for title, name in named.items()}
    return {title: list(values) for title, values in found.items() if values is not None and np.ndim(values) == 1}


def _losses(estimator: Any) -> dict[str, Sequence[float]]:
    """scikit-learn's networks."""
    found = {
        "loss": getattr(estimator, "loss_curve_", None),
        "validation": getattr(estimator, "validation_scores_", None),
    }
    return {title: list(values) for title, values in found.items() if values is not None}


def _rounds(values: Sequence[float], most: int = 200) -> list[float]:
    places = np.unique(np.linspace(0, len(values) - 1, min(most, len(values))).round().astype(int))
    return [float(f"{float(values[at]):.5g}") for at in places]
