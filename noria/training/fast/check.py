"""Comparing a formula with the library, by bits, on rows where they would differ if they could."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noria.training.fast.formula import Formula, Matrix, Predicted

ROWS = 200
FEW = 24
"""Rows that are asked one by one, where the library's bits depend on the batch or just to see the same."""

_ODD = np.array([0.0, -0.0, 1.0, -1.0, -0.5, 1e-36, -1e-35, 5e-324, 1e-310, 1e30, -1e30, 3.5e38, 1e300, 1e9, 2.0**31])

Way = Callable[[Matrix], Predicted]


def agrees(ours: Way, theirs: Way, formula: Formula, rows: Matrix | None = None) -> bool:
    """Whether two ways give the same bits, and raise the same, for made rows and for `rows`."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        for matrix in _samples(formula, rows):
            few = matrix[:FEW]
            singles = [few[i : i + 1] for i in range(len(few))]
            wholes = singles if formula.alone else [matrix, *singles[:4]]
            if not all(_same_outcome(ours, theirs, part) for part in wholes):
                return False
            if not _splits(ours, few):
                return False
    return True


def same_bits(a: NDArray[Any] | None, b: NDArray[Any] | None) -> bool:
    """Whether two arrays have the same type, shape and bits; NaN equals NaN."""
    if a is None or b is None:
        return a is b
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if a.dtype.kind != "f":
        return bool(np.array_equal(a, b))
    missing = np.isnan(a)
    if not np.array_equal(missing, np.isnan(b)):
        return False
    return np.where(missing, 0, a).tobytes() == np.where(missing, 0, b).tobytes()


def _samples(formula: Formula, rows: Matrix | None) -> Iterator[Matrix]:
    """Rows at and beside the landmarks; the same with missing values; with odd values; with infinite ones."""
    if rows is not None and len(rows):
        yield np.ascontiguousarray(rows, np.float64)
    random = np.random.default_rng(0)
    shape = (ROWS, formula.features)
    base = random.normal(size=shape) * 10.0 ** random.integers(-2, 3, shape)
    if formula.landmarks is not None:
        _put_landmarks(base, *formula.landmarks, random)
    yield base
    for values, share in ((np.array([np.nan]), 0.1), (_ODD, 0.1), (np.array([np.inf, -np.inf]), 0.02)):
        yield np.where(random.random(shape) < share, random.choice(values, shape), base)


def _put_landmarks(base: Matrix, columns: NDArray[np.int64], values: Matrix, random: np.random.Generator) -> None:
    """Set values at landmarks, at the next numbers beside them, and far from them."""
    for column in np.unique(columns):
        near = random.choice(values[columns == column], len(base))
        short = near.astype(np.float32)
        beside = [
            near,
            np.nextafter(near, np.inf),
            np.nextafter(near, -np.inf),
            short,
            np.nextafter(short, np.float32(np.inf)),
            np.nextafter(short, np.float32(-np.inf)),
            near + random.normal(size=len(base)),
        ]
        base[:, column] = np.choose(random.integers(0, len(beside), len(base)), beside)


def _same_outcome(ours: Way, theirs: Way, matrix: Matrix) -> bool:
    mine, error = _outcome(ours, matrix)
    given, wanted = _outcome(theirs, matrix)
    if mine is None or given is None:
        return type(error) is type(wanted) and mine is given
    return same_bits(mine[0], given[0]) and same_bits(mine[1], given[1])


def _outcome(way: Way, matrix: Matrix) -> tuple[Predicted | None, Exception | None]:
    try:
        return way(matrix.copy()), None
    except Exception as error:
        return None, error


def _splits(ours: Way, matrix: Matrix) -> bool:
    """Whether rows get the same together as alone."""
    together, _ = _outcome(ours, matrix)
    if together is None:
        return True
    alone = [ours(matrix[i : i + 1].copy()) for i in range(len(matrix))]
    scores = None if together[1] is None else np.concatenate([part[1] for part in alone])
    return same_bits(together[0], np.concatenate([part[0] for part in alone])) and same_bits(together[1], scores)
