"""One fit of one estimator, said to each library in its own words: categories, weights, when to stop."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noria.core import ConfigError, DataError
from noria.training.categorical import ByCodes, are_codes, as_frame, library_model
from noria.training.estimator import Estimator
from noria.training.families import Family

_STOPPING = {
    "lightgbm": ("early_stopping_rounds", "early_stopping_round", "early_stopping", "n_iter_no_change"),
    "xgboost": ("early_stopping_rounds",),
    "catboost": ("early_stopping_rounds", "od_wait"),
}
"""By which parameters an estimator of a library says that it wants to stop early."""
_OWN_ERRORS = ("LightGBMError", "XGBoostError", "CatBoostError", "CatboostError")


@dataclass(frozen=True)
class Rows:
    """What is given to `fit`.

    Attributes:
        matrix: [n, columns], an array; a frame for a library that reads Arrow.
        target: [n].
        weights: [n]; None when all rows count alike.
    """

    matrix: Any
    target: NDArray[Any]
    weights: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Terms:
    """How to fit.

    Attributes:
        columns: the matrix's, by name.
        categories: the places of those that are codes of categories.
        held: rows that say when to stop; None: nobody does.
        rounds: without getting better, after which to stop.
    """

    columns: Sequence[str]
    categories: Sequence[int] = ()
    held: Rows | None = None
    rounds: int = 0


def wanted_rounds(model: Any, family: Family, asked: int | None) -> int | None:
    """After how many rounds without getting better to stop; None to do all of them.

    Raises:
        ConfigError: it is asked of a model that can't.
    """
    if asked is not None and (isinstance(asked, bool) or asked < 1):
        raise ConfigError(f"early_stopping={asked!r}", hint="a number of rounds, such as 50", field="early_stopping")
    options = model.get_params() if hasattr(model, "get_params") else {}
    if family.library == "noria":
        return asked or options["patience"]
    if family.library in _STOPPING:
        given = next((options[name] for name in _STOPPING[family.library] if options.get(name)), None)
        return asked or (None if given is None else int(given))
    if asked is not None and not _is_histogram(model):
        raise ConfigError(
            f"{type(model).__name__} can't stop early",
            hint="leave early_stopping out; LightGBM, XGBoost, CatBoost, HistGradientBoosting and TorchModule can",
            field="early_stopping",
        )
    return asked


def fit_estimator(estimator: Any, family: Family, rows: Rows, terms: Terms, seed: int) -> Estimator:
    """The fitted estimator; for some of CatBoost's, what answers with the target's own classes.

    Raises:
        ConfigError: it takes no weights.
        DataError: it refuses these rows.
    """
    _seed(estimator, family, seed)
    _check_kind(estimator, rows.target)
    if rows.weights is not None:
        _check_weights(estimator)
    try:
        made: Estimator = _FITS.get(family.library, _plain)(estimator, rows, terms)
    except Exception as error:
        if isinstance(error, ValueError) or type(error).__name__ in _OWN_ERRORS:
            raise _refused(estimator, rows, terms, error) from error
        raise
    return made


def stopped_at(estimator: Any) -> int | None:
    """How many rounds (or epochs) a model consists of that has stopped early."""
    model = library_model(estimator)
    best = getattr(model, "best_epoch_", None)
    if best is not None:
        return int(best)
    for name, more in (("best_iteration_", 0), ("best_iteration", 1)):
        try:
            found = getattr(model, name)
        except (AttributeError, ValueError):
            continue
        if found is not None:
            return int(found) + (more or (1 if type(model).__module__.startswith("catboost") else 0))
    return int(model.n_iter_) if hasattr(model, "n_iter_") else None


def quieten(estimator: Any) -> None:
    """Without a word of the user's LightGBM tells of itself at each fit, seven lines; its warnings stay."""
    if not {"verbose", "verbosity"} & estimator.get_params().keys():
        estimator.set_params(verbosity=0)


def _lightgbm(estimator: Any, rows: Rows, terms: Terms) -> Any:
    options: dict[str, Any] = {}
    quieten(estimator)
    if terms.categories:
        options["categorical_feature"] = list(terms.categories)
    if terms.held is not None:
        from lightgbm import early_stopping

        target = terms.held.target
        if hasattr(estimator, "predict_proba"):
            target = np.searchsorted(
                np.unique(rows.target), target
            )  # LightGBM numbers the classes of `y`, not of these
        options |= {"eval_X": terms.held.matrix, "eval_y": target}
        options["callbacks"] = [early_stopping(terms.rounds, verbose=False)]
        if terms.held.weights is not None:
            options["eval_sample_weight"] = [terms.held.weights]
        # Said once: otherwise LightGBM stops by its own callback beside ours.
        given = [name for name in _STOPPING["lightgbm"] if name in estimator.get_params()]
        estimator.set_params(**dict.fromkeys(given))
    made = estimator.fit(rows.matrix, rows.target, sample_weight=rows.weights, **options)
    if "_fitted_with_feature_names" in vars(made):
        made._fitted_with_feature_names = False  # or it warns at each matrix, which has none
    return made


def _xgboost(estimator: Any, rows: Rows, terms: Terms) -> Any:
    classes = np.unique(rows.target) if hasattr(estimator, "predict_proba") else None
    if classes is None or are_codes(classes):
        return _xgboost_of_codes(estimator, rows, terms)
    held = terms.held and replace(terms.held, target=np.searchsorted(classes, terms.held.target))
    rows = replace(rows, target=np.searchsorted(classes, rows.target))
    return ByCodes(_xgboost_of_codes(estimator, rows, replace(terms, held=held)), (), classes)


def _xgboost_of_codes(estimator: Any, rows: Rows, terms: Terms) -> Any:
    options: dict[str, Any] = {}
    if terms.categories:
        kinds = ["c" if place in set(terms.categories) else "q" for place in range(len(terms.columns))]
        estimator.set_params(enable_categorical=True, feature_types=kinds)
    estimator.set_params(early_stopping_rounds=None if terms.held is None else terms.rounds)
    if terms.held is not None:
        options["eval_set"] = [(terms.held.matrix, terms.held.target)]
        if terms.held.weights is not None:
            options["sample_weight_eval_set"] = [terms.held.weights]
    return estimator.fit(rows.matrix, rows.target, sample_weight=rows.weights, verbose=False, **options)


def _catboost(estimator: Any, rows: Rows, terms: Terms) -> Any:
    if "allow_writing_files" not in estimator.get_params():
        estimator.set_params(allow_writing_files=False)  # or it leaves a folder where the user is
    classes = np.unique(rows.target) if hasattr(estimator, "predict_proba") else None

    from catboost import Pool

    def pool(some: Rows) -> Any:
        data = as_frame(some.matrix, terms.categories) if terms.categories else some.matrix
        target = some.target if classes is None else np.searchsorted(classes, some.target)
        return Pool(data, target, cat_features=list(terms.categories) or None, weight=some.weights)

    options: dict[str, Any] = {"verbose": False}
    if terms.held is not None:
        options |= {"eval_set": pool(terms.held), "early_stopping_rounds": terms.rounds}
    estimator.fit(pool(rows), **options)
    if classes is None and not terms.categories:
        return estimator
    return ByCodes(estimator, tuple(terms.categories), classes)


def _torch(estimator: Any, rows: Rows, terms: Terms) -> Any:
    held = terms.held
    validation = None if held is None else (held.matrix, held.target, held.weights)
    estimator.set_params(patience=terms.rounds or estimator.patience)
    return estimator.fit(rows.matrix, rows.target, rows.weights, validation=validation)


def _plain(estimator: Any, rows: Rows, terms: Terms) -> Any:
    options: dict[str, Any] = {}
    if rows.weights is not None:
        options[_weights_name(estimator)] = rows.weights
    if terms.held is not None:
        estimator.set_params(early_stopping=True, n_iter_no_change=terms.rounds)
        options |= {"X_val": terms.held.matrix, "y_val": terms.held.target}
        if terms.held.weights is not None:
            options["sample_weight_val"] = terms.held.weights
    made = estimator.fit(rows.matrix, rows.target, **options)
    return estimator if made is None else made


_FITS: Mapping[str, Callable[[Any, Rows, Terms], Any]] = {
    "lightgbm": _lightgbm,
    "xgboost": _xgboost,
    "catboost": _catboost,
    "noria": _torch,
}


def _seed(estimator: Any, family: Family, seed: int) -> None:
    """Estimators that would draw from nowhere draw from the run's seed; the boosting libraries have a fixed one."""
    if family.library in ("lightgbm", "xgboost", "catboost") or not hasattr(estimator, "get_params"):
        return
    unset = [
        name
        for name, value in estimator.get_params().items()
        if value is None and (name == "random_state" or name.endswith("__random_state"))
    ]
    if unset:
        estimator.set_params(**dict.fromkeys(unset, seed))


def _weights_name(estimator: Any) -> str:
    steps = getattr(estimator, "steps", None)
    return f"{steps[-1][0]}__{_weights_name(steps[-1][1])}" if steps else "sample_weight"


def _check_weights(estimator: Any) -> None:
    steps = getattr(estimator, "steps", None)
    inner = steps[-1][1] if steps else estimator
    if "sample_weight" not in inspect.signature(inner.fit).parameters:
        raise ConfigError(
            f"{type(inner).__name__} takes no weights for its rows",
            hint="leave weights= and class_weight= out, or use a model whose fit has sample_weight",
            field="weights",
        )


def _check_kind(estimator: Any, target: NDArray[Any]) -> None:
    """Numbers can't be learned from text."""
    if target.dtype.kind in "OUS" and predicts_numbers(estimator):
        raise ConfigError(
            f"{type(estimator).__name__} predicts numbers, and the target is text such as {str(target[0])!r}",
            hint="use a classifier, or make a number of the target: target=nr.col(…).cast(…)",
            field="target",
        )


def predicts_numbers(model: Any) -> bool:
    """Whether it says of itself that it does."""
    from sklearn.base import is_regressor

    return hasattr(model, "__sklearn_tags__") and bool(is_regressor(model))


def _is_histogram(model: Any) -> bool:
    return any(kind.__name__.startswith("HistGradientBoosting") for kind in type(model).__mro__)


def _refused(estimator: Any, rows: Rows, terms: Terms, error: Exception) -> DataError:
    name = type(estimator).__name__
    infinite = np.isinf(np.asarray(rows.matrix)).sum(axis=0)
    if infinite.any():
        place = int(np.flatnonzero(infinite)[0])
        column = terms.columns[place]
        return DataError(
            f"feature {column!r} is infinite in {int(infinite[place])} training row(s), which {name} can't learn from",
            hint="mend the source, or limit the column: nr.Clip([…], low=…, high=…)",
            field=column,
        )
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return DataError(f"{name} can't learn from these rows: {lines[0]}", hint="check the model, the target and steps=")


def without_unknown_classes(held: Rows, target: NDArray[Any]) -> Rows:
    """The rows of classes that the training part has: a library refuses others."""
    if target.dtype.kind == "f":
        return held
    known = np.isin(held.target, np.unique(target))
    if known.all():
        return held
    weights = None if held.weights is None else held.weights[known]
    return replace(held, matrix=np.asarray(held.matrix)[known], target=held.target[known], weights=weights)
