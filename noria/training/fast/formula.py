"""A formula: what a fitted estimator computes, said in another way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Predicted = tuple[NDArray[Any], NDArray[np.float64] | None]
"""One prediction for each row, and the probability of the second class where two classes are told apart."""


@dataclass(frozen=True)
class Formula:
    """Another way to an estimator's answers, which is yet to be compared with it.

    Attributes:
        features: how many a row has.
        compute: from a contiguous matrix [rows, features] to what was predicted; None leaves the rows to the library,
            which refuses them or knows what to do. A row's answer doesn't depend on the rows beside it.
        landmarks: columns and values [n] each, at which the estimator changes its mind.
        alone: the library's own bits depend on how many rows it is given; the formula's are those of a single row.
        reference: what to compare with, if not the estimator itself.
    """

    features: int
    compute: Callable[[Matrix], Predicted | None]
    landmarks: tuple[NDArray[np.int64], Matrix] | None = None
    alone: bool = False
    reference: Any = None


def all_finite(matrix: Matrix) -> bool:
    """Whether no value is NaN or infinite; the sum of squares tells in one pass, if it doesn't overflow."""
    return bool(np.isfinite(np.vdot(matrix, matrix)) or np.isfinite(matrix).all())


def none_infinite(matrix: Matrix) -> bool:
    """Whether no value is infinite; NaN may be there."""
    return bool(np.isfinite(np.vdot(matrix, matrix)) or not np.isinf(matrix).any())
