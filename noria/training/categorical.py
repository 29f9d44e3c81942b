"""Models of CatBoost and XGBoost behind matrices, and with classes of any kind.

CatBoost wants categories as integers beside numbers, and knows no Boolean classes; XGBoost's classes are 0, 1, 2 and so
on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

_NONE = -1
"""The category of what is missing or wasn't there when fitting."""


def as_frame(matrix: NDArray[Any], categories: Sequence[int]) -> pl.DataFrame:
    """A matrix as CatBoost reads it without another copy: numbers as float32, codes as integers."""
    places = set(categories)
    with np.errstate(over="ignore"):
        return pl.DataFrame(
            {
                str(place): _codes(matrix[:, place]) if place in places else matrix[:, place].astype(np.float32)
                for place in range(matrix.shape[1])
            }
        )


def _codes(column: NDArray[Any]) -> NDArray[np.int32]:
    return np.asarray(np.where(np.isnan(column), _NONE, column), np.int32)


def are_codes(classes: NDArray[Any]) -> bool:
    """Whether classes, in order, are 0, 1, 2 and so on."""
    return classes.dtype.kind in "iu" and np.array_equal(classes, np.arange(len(classes)))


def library_model(estimator: Any) -> Any:
    """The library's own model behind a fitted estimator; mostly that itself."""
    return estimator.model if isinstance(estimator, ByCodes) else estimator


class ByCodes:
    """A fitted model of CatBoost or XGBoost that reads matrices and answers with the target's own classes.

    Attributes:
        model: the library's; its classes are 0, 1, ….
        categories: the places of columns that are codes, which CatBoost is given apart.
        classes_: by their codes; there are none where numbers are predicted.
    """

    def __init__(self, model: Any, categories: tuple[int, ...], classes: NDArray[Any] | None) -> None:
        self.model = model
        self.categories = categories
        if classes is not None:
            self.classes_ = classes

    def fit(self, X: Any, y: Any) -> ByCodes:  # noqa: N803 (scikit-learn's own name)
        """Learn anew from a matrix."""
        classes = getattr(self, "classes_", None)
        if classes is not None:
            self.classes_, y = np.unique(y, return_inverse=True)
        self.model.fit(self._given(X), y, verbose=False)
        return self

    def predict(self, X: Any) -> NDArray[Any]:  # noqa: N803
        """One value for each row."""
        made = np.asarray(self.model.predict(self._given(X))).reshape(len(X))
        classes = getattr(self, "classes_", None)
        return made if classes is None else np.asarray(classes[made.astype(np.int64)])

    def predict_proba(self, X: Any) -> NDArray[np.float64]:  # noqa: N803
        """[n, classes] probabilities."""
        return np.asarray(self.model.predict_proba(self._given(X)), np.float64)

    def _given(self, matrix: Any) -> Any:
        return as_frame(np.asarray(matrix), self.categories) if self.categories else matrix
