"""Areas under the curves of a ranking, for many sets of weights at once: sorted once, then one pass over the rows each.

Rows with equal scores are one step of the curve.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from noria.training.fast.kernels import kernel

_Floats: TypeAlias = NDArray[np.float64]
_Of: TypeAlias = Callable[[_Floats], _Floats]


def roc_area(positive: NDArray[np.bool_], scores: _Floats) -> _Of:
    """The share of pairs of a positive and a negative row in which the positive one scores higher; ties are a half.

    Args:
        positive: [rows].
        scores: [rows].

    Returns:
        a function of weights; NaN where all rows are of one side.
    """
    return _prepared(_roc_areas, positive, scores)


def average_precision(positive: NDArray[np.bool_], scores: _Floats) -> _Of:
    """The mean precision over the positive rows, each at its own score, as in scikit-learn.

    Args:
        positive: [rows].
        scores: [rows].

    Returns:
        a function of weights; NaN where no row is positive.
    """
    return _prepared(_average_precisions, positive, scores)


def _prepared(areas: Callable[..., Any], positive: NDArray[np.bool_], scores: _Floats) -> _Of:
    is_sorted = bool((scores[1:] >= scores[:-1]).all())
    order = np.arange(len(scores)) if is_sorted else np.argsort(scores, kind="stable")
    ranked = scores[order]
    is_last = np.ones(len(scores), np.bool_)  # of its step
    is_last[:-1] = ranked[1:] != ranked[:-1]
    sides = positive[order].astype(np.float64)

    def of(weights: _Floats) -> _Floats:
        made = np.empty(len(weights))
        areas(weights, order, is_sorted, sides, is_last, made)
        return made

    return of


@kernel
def _roc_areas(weights: Any, order: Any, is_sorted: Any, sides: Any, is_last: Any, made: Any) -> None:
    """By rising score: each step's positive rows win against the negative ones below, and half of those beside."""
    for b in range(len(weights)):
        won = below = positive = ones = zeros = 0.0
        for i in range(len(sides)):
            weight = weights[b, i] if is_sorted else weights[b, order[i]]
            ones += weight * sides[i]
            zeros += weight * (1.0 - sides[i])
            if is_last[i]:
                won += ones * (below + 0.5 * zeros)
                below += zeros
                positive += ones
                ones = zeros = 0.0
        pairs = positive * below
        made[b] = won / pairs if pairs > 0.0 else np.nan


@kernel
def _average_precisions(weights: Any, order: Any, is_sorted: Any, sides: Any, is_last: Any, made: Any) -> None:
    """By falling score: each step's positive rows count with the precision of all rows down to it."""
    count = len(sides)
    for b in range(len(weights)):
        summed = found = taken = ones = 0.0
        for i in range(count - 1, -1, -1):
            weight = weights[b, i] if is_sorted else weights[b, order[i]]
            ones += weight * sides[i]
            taken += weight
            if (i == 0 or is_last[i - 1]) and ones > 0.0:
                found += ones
                summed += ones * found / taken
                ones = 0.0
        made[b] = summed / found if found > 0.0 else np.nan
