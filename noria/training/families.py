"""Families of estimators: what each library takes of text and gaps, and the steps that get a model's inputs there.

A model gets its columns as its library does best, without a word of the user's: LightGBM, XGBoost and CatBoost get text
as categories, trees of scikit-learn as codes, linear models and neural networks as a column for each category; models
that can't take missing numbers get them filled, with a column that says where. These are steps like any others, fitted
on the training part, kept with the version. Steps of the user's come first: there is then nothing left to do for
columns that they have made numbers without gaps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from noria.core import Schema
from noria.pipelines.steps import Cast, Encode, Impute, Normalize, apply_steps

if TYPE_CHECKING:
    from noria.pipelines import FittedStep, Step

_LIBRARIES = ("lightgbm", "xgboost", "catboost", "noria", "sklearn")
_MOST_COLUMNS = 100
"""Categories of a column that get a column each."""
_TREES = ("Tree", "Forest", "Boosting", "AdaBoost", "Bagging")
_SHORT = ("Tree", "Forest", "GradientBoosting")


@dataclass(frozen=True)
class Family:
    """What a model's library takes.

    Attributes:
        library: its module; empty for one that isn't known.
        text: `category`, `ordinal` or `onehot`, as of `Encode`.
        takes_missing: whether numbers may be missing.
        is_scaled: whether numbers have to be on one scale.
        dtype: the numbers that it works with: a matrix of them is read without another copy.
        reads_arrow: whether it reads the columns where they lie, so that no matrix is made of them.
    """

    library: str
    text: str = "ordinal"
    takes_missing: bool = True
    is_scaled: bool = False
    dtype: type[np.floating[Any]] = np.float64
    reads_arrow: bool = False


def family_of(model: Any) -> Family:
    """The family of an unfitted estimator."""
    library = library_of(model)
    options = model.get_params() if hasattr(model, "get_params") else {}
    if library == "lightgbm":
        # A class of somebody else's may look into the matrix.
        return Family(library, "category", reads_arrow=type(model).__module__.startswith("lightgbm."))
    if library == "xgboost":
        if options.get("booster") == "gblinear":
            return Family(library, "onehot", takes_missing=False, dtype=np.float32)
        return Family(library, "ordinal" if options.get("tree_method") == "exact" else "category", dtype=np.float32)
    if library == "catboost":
        return Family(library, "category", dtype=np.float32)
    if library == "noria":
        return Family(library, "onehot", takes_missing=False, is_scaled=True, dtype=np.float32)
    return _of_sklearn(model) if library == "sklearn" else Family("")


def library_of(model: Any) -> str:
    """The library that a model's class, or the first of its bases, comes from; empty if it isn't known."""
    modules = (kind.__module__.partition(".")[0] for kind in type(model).__mro__)
    return next((module for module in modules if module in _LIBRARIES), "")


def _of_sklearn(model: Any) -> Family:
    from sklearn.utils import get_tags

    inner = _inner(model)
    name = type(inner).__name__
    boosted = family_of(inner) if inner is not model and library_of(inner) != "sklearn" else None
    is_tree = boosted is not None or any(word in name for word in _TREES)
    parts = [part for _, part in getattr(model, "steps", ())]
    fills = any("Imputer" in type(part).__name__ for part in parts)
    takes_missing = fills or (get_tags(inner).input_tags.allow_nan if boosted is None else boosted.takes_missing)
    # They work with float32; the histograms of gradient boosting are of float64.
    is_short = inner is model and "Hist" not in name and any(word in name for word in _SHORT)
    return Family(
        "sklearn",
        "ordinal" if is_tree else "onehot",
        takes_missing=bool(takes_missing),
        dtype=np.float32 if is_short else np.float64,
    )


def _inner(model: Any) -> Any:
    """What a chain, a search or a calibration is about."""
    if getattr(model, "steps", None):
        return _inner(model.steps[-1][1])
    inner = getattr(model, "estimator", None)
    return _inner(inner) if hasattr(inner, "fit") else model


def automatic_steps(family: Family, columns: Mapping[str, pl.DataType], gaps: Sequence[str]) -> list[Step]:
    """What is left to do, so that the family can read these columns.

    Args:
        family: the model's.
        columns: what the user's steps made.
        gaps: those that may be missing.
    """
    steps: list[Step] = []
    text = [name for name, dtype in columns.items() if dtype == pl.String]
    numbers = [name for name, dtype in columns.items() if dtype.is_numeric()]
    if not family.takes_missing:
        flags = [name for name in gaps if columns[name] == pl.Boolean]
        filled = [name for name in gaps if name in numbers or name in flags]
        steps += [Cast(dict.fromkeys(flags, "int64?"))] if flags else []
        steps += [Impute(filled, indicator=True)] if filled else []
    if family.is_scaled and numbers:
        steps.append(Normalize(numbers))
    if text and family.text == "onehot":
        steps.append(Encode(text, method="onehot", max_categories=_MOST_COLUMNS))
    elif text:
        steps.append(Encode(text, method=family.text))
    return steps


def possible_gaps(frame: pl.DataFrame, steps: Sequence[FittedStep], inputs: pl.DataFrame, declared: Schema) -> set[str]:
    """The columns that may be missing: a training row's are, or a row's would be that misses all that may be missing.

    Args:
        frame: what the steps made of the training rows.
        steps: the user's, fitted.
        inputs: the training rows.
        declared: the model's inputs.
    """
    nullable = [pl.lit(None, inputs.schema[field.name]).alias(field.name) for field in declared if field.nullable]
    probe = apply_steps(steps, inputs.head(1).with_columns(nullable))
    return {name for name in frame.columns if frame[name].has_nulls() or probe[name].has_nulls()}
