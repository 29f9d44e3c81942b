"""Estimators: anything with `fit` and `predict`; what noria asks of one and how its bytes are kept."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from noria.core import ConfigError, DataError, MissingExtraError, fingerprint

FILE = "model.pkl"
_EXTRAS = ("lightgbm", "xgboost", "catboost", "torch")


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


def scores(estimator: Estimator, matrix: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """The probability of the second class, [n]; None unless the estimator tells two classes apart."""
    if not hasattr(estimator, "predict_proba") or len(getattr(estimator, "classes_", ())) != 2:
        return None
    return np.asarray(estimator.predict_proba(matrix), dtype=np.float64)[:, 1]


def output_types(estimator: Estimator) -> dict[str, str]:
    """The types of the predictions, and of the scores where there are, as in a schema."""
    classes = getattr(estimator, "classes_", None)
    kind = "f" if classes is None else np.asarray(classes).dtype.kind
    predictions = {"b": "bool", "i": "int64", "u": "int64", "f": "float64"}.get(kind, "str")
    has_scores = hasattr(estimator, "predict_proba") and classes is not None and len(classes) == 2
    return {"predictions": predictions, **({"scores": "float64"} if has_scores else {})}


def dump(estimator: Estimator) -> bytes:
    """The fitted estimator as bytes.

    Raises:
        ConfigError: it can't be pickled.
    """
    try:
        return pickle.dumps(estimator, protocol=5)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ConfigError(
            f"the model {type(estimator).__name__} can't be saved: {error}",
            hint="define its class in a module, not in a function or in __main__",
        ) from error


def load(file: Path) -> Estimator:
    """The reverse of `dump`. The file's checksum has been verified: unpickling runs code.

    Raises:
        DataError: it needs a library that isn't installed here, or was written by another version.
        MissingExtraError: that library is an extra of noria.
    """
    try:
        estimator = pickle.loads(file.read_bytes())
    except (ImportError, AttributeError, pickle.UnpicklingError) as error:
        library = (getattr(error, "name", None) or "").partition(".")[0]
        if isinstance(error, ModuleNotFoundError) and library in _EXTRAS:
            raise MissingExtraError(library, library, "this model") from error
        raise DataError(
            f"the model file can't be loaded: {error}",
            hint="install the libraries that it was trained with (`noria models show` lists them), or train it again",
        ) from error
    return cast(Estimator, estimator)


def _plain(value: Any) -> Any:
    return value if isinstance(value, (str, int, float, bool, type(None))) else repr(value)
