"""Around a model that has a formula: scaling and imputing in pipelines of scikit-learn, and classes by their codes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from noria.training.fast.formula import Formula, Matrix, Predicted, none_infinite

Change = Callable[[Matrix], Matrix]


def chain(pipeline: Any, final: Formula) -> Formula | None:
    """The changes of each step, then the formula of the last one, which has been compared with it."""
    changes = [_change(step) for _, step in pipeline.steps[:-1]]
    if not all(changes):
        return None

    def compute(matrix: Matrix) -> Predicted | None:
        for change in changes:
            if not none_infinite(matrix):
                return None
            assert change is not None
            matrix = change(matrix)
        return final.compute(matrix)

    return Formula(int(pipeline.n_features_in_), compute, alone=final.alone)


def with_classes(coded: Formula, classes: NDArray[Any] | None) -> Formula:
    """A formula that says 0, 1, 2 and so on, with the classes that they stand for."""

    def compute(matrix: Matrix) -> Predicted | None:
        answer = coded.compute(matrix)
        return answer if answer is None or classes is None else (classes[answer[0]], answer[1])

    return replace(coded, compute=compute)


def _change(step: Any) -> Change | None:
    kind = type(step)
    maker = _CHANGES.get(kind.__name__) if kind.__module__.startswith("sklearn.") else None
    return (lambda matrix: matrix) if step == "passthrough" else maker(step) if maker else None


def _standard(step: Any) -> Change:
    mean, scale = step.mean_ if step.with_mean else None, step.scale_ if step.with_std else None

    def change(matrix: Matrix) -> Matrix:
        moved = matrix if mean is None else matrix - mean
        return moved if scale is None else moved / scale

    return change


def _min_max(step: Any) -> Change:
    def change(matrix: Matrix) -> Matrix:
        scaled = matrix * step.scale_ + step.min_
        return cast(Matrix, np.clip(scaled, *step.feature_range) if step.clip else scaled)

    return change


def _max_abs(step: Any) -> Change:
    def change(matrix: Matrix) -> Matrix:
        scaled = matrix / step.scale_
        return cast(Matrix, np.clip(scaled, -1.0, 1.0) if getattr(step, "clip", False) else scaled)

    return change


def _robust(step: Any) -> Change:
    center, scale = step.center_ if step.with_centering else None, step.scale_ if step.with_scaling else None

    def change(matrix: Matrix) -> Matrix:
        moved = matrix if center is None else matrix - center
        return moved if scale is None else moved / scale

    return change


def _imputer(step: Any) -> Change | None:
    if step._fill_dtype != np.float64:
        return None
    filled = np.asarray(step.statistics_, np.float64)  # objects, where a constant fills
    is_plain = isinstance(step.missing_values, float) and np.isnan(step.missing_values) and not step.add_indicator
    if not is_plain or not np.isfinite(filled).all():
        return None
    return lambda matrix: np.where(np.isnan(matrix), filled, matrix)


_CHANGES: dict[str, Callable[[Any], Change | None]] = {
    "StandardScaler": _standard,
    "MinMaxScaler": _min_max,
    "MaxAbsScaler": _max_abs,
    "RobustScaler": _robust,
    "SimpleImputer": _imputer,
}
