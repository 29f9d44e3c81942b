"""Estimators: anything with `fit` and `predict`; what noria asks of one. How one is kept is in `formats`."""

from __future__ import annotations

import pickle
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from noria.core import fingerprint


@runtime_checkable
class Estimator(Protocol):
    """A model that learns from a matrix [n, features] and a vector [n], as in scikit-learn."""

    def fit(self, X: Any, y: Any) -> Any:  # noqa: N803 (scikit-learn's own name)
        """Learn."""
        ...

    def predict(self, X: Any) -> Any:  # noqa: N803
        """One value for each row."""
        ...


def fresh_copy(estimator: Estimator) -> Estimator:
    """An unfitted estimator with the same parameters, so that a definition is never changed by a run."""
    from sklearn.base import clone

    return cast(Estimator, clone(estimator, safe=False))


def definition(estimator: Estimator) -> dict[str, Any]:
    """The class and its parameters as plain JSON data."""
    kind = type(estimator)
    name = f"{kind.__module__}.{kind.__qualname__}"
    if hasattr(estimator, "get_params"):
        return {"class": name, "parameters": {k: _plain(v) for k, v in sorted(estimator.get_params().items())}}
    return {"class": name, "parameters": fingerprint(pickle.dumps(estimator).hex())}


def scores(estimator: Any, matrix: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """The probability of the second class, [n]; None unless the estimator tells two classes apart."""
    if not _has_scores(estimator):
        return None
    return np.asarray(estimator.predict_proba(matrix), dtype=np.float64)[:, 1]


def probabilities(estimator: Estimator, matrix: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Of two classes the second one's probability, [n]; of more each one's, [n, classes]; None where there are none."""
    if len(getattr(estimator, "classes_", ())) <= 2 or not hasattr(estimator, "predict_proba"):
        return scores(estimator, matrix)
    return np.asarray(estimator.predict_proba(matrix), dtype=np.float64)


def output_types(estimator: Estimator) -> dict[str, str]:
    """The types of the predictions, and of the scores where there are, as in a schema."""
    classes = getattr(estimator, "classes_", None)
    kind = "f" if classes is None else np.asarray(classes).dtype.kind
    predictions = {"b": "bool", "i": "int64", "u": "int64", "f": "float64"}.get(kind, "str")
    return {"predictions": predictions, **({"scores": "float64"} if _has_scores(estimator) else {})}


def _has_scores(estimator: Estimator) -> bool:
    classes = getattr(estimator, "classes_", None)  # None also in a TorchModule that predicts numbers
    return hasattr(estimator, "predict_proba") and classes is not None and len(classes) == 2


def _plain(value: Any) -> Any:
    return value if isinstance(value, (str, int, float, bool, type(None))) else repr(value)
