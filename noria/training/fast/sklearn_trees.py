"""Trees of scikit-learn: single ones, forests and extra trees, gradient boosting, histogram gradient boosting."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noria.training.fast.forest import Forest, Ints, Trees
from noria.training.fast.formula import Formula, Matrix, Predicted
from noria.training.fast.kernels import FLOAT32, NO_INFINITY, NO_NAN


def averaged(estimator: Any) -> Formula | None:
    """The mean over the trees, in their order, of values or of the classes' shares.

    scikit-learn sums in the order in which its threads finish; with one thread, that of the trees.
    """
    forest = getattr(estimator, "estimators_", None)
    parts = forest or [estimator]
    if estimator.n_outputs_ != 1:
        return None
    trees = _trees(parts, [part.tree_.value[:, 0, :] for part in parts], estimator.n_features_in_)
    summed, classes = Forest(trees), getattr(estimator, "classes_", None)

    def compute(matrix: Matrix) -> Predicted | None:
        means = summed.sums(matrix)
        if means is None:
            return None
        if forest:
            means /= len(parts)
        if classes is None:
            return means.reshape(-1), None
        return classes.take(means.argmax(axis=1)), means[:, 1] if len(classes) == 2 else None

    alone = None
    if forest:
        alone = copy.copy(estimator)
        alone.n_jobs = None
    return Formula(trees.features, compute, landmarks(trees), reference=alone)


def boosted(estimator: Any) -> Formula | None:
    """The start and the scaled values of each stage's trees, behind the loss's link."""
    from sklearn.dummy import DummyClassifier, DummyRegressor

    if not (estimator.init_ == "zero" or isinstance(estimator.init_, (DummyClassifier, DummyRegressor))):
        return None  # the start depends on the row
    parts = list(estimator.estimators_.ravel())
    start = estimator._raw_predict_init(np.zeros((1, estimator.n_features_in_), np.float32))[0]
    values = [estimator.learning_rate * part.tree_.value[:, 0, :1] for part in parts]
    trees = _trees(parts, values, estimator.n_features_in_, start, NO_NAN)
    return _linked(estimator, trees, zero_is_second=True)


def histogram(estimator: Any) -> Formula | None:
    """The baseline and the values of each iteration's trees, behind the loss's link; numbers are not rounded."""
    if estimator._preprocessor is not None:
        return None  # categories are encoded and columns moved
    grown = [part for iteration in estimator._predictors for part in iteration]
    offsets, owner = _offsets([len(part.nodes) for part in grown])
    nodes = np.concatenate([part.nodes for part in grown])
    is_leaf = nodes["is_leaf"].astype(bool)
    start = np.asarray(estimator._baseline_prediction, np.float64).reshape(-1)
    features = int(estimator.n_features_in_)
    trees = Trees(
        features=features,
        roots=offsets,
        column=nodes["feature_idx"].astype(np.int64),
        threshold=nodes["num_threshold"].astype(np.float64),
        left=np.where(is_leaf, -1, nodes["left"].astype(np.int64) + owner),
        right=np.where(is_leaf, -1, nodes["right"].astype(np.int64) + owner),
        missing_left=nodes["missing_go_to_left"].astype(bool),
        values=nodes["value"].astype(np.float64).reshape(-1, 1),
        targets=np.arange(len(grown)) % len(start),
        start=start,
        rules=0,
        zero_is_missing=np.zeros(features, bool),
    )
    return _linked(estimator, trees, zero_is_second=False)


def landmarks(trees: Trees) -> tuple[Ints, Matrix]:
    """The features and thresholds of all comparisons of numbers."""
    compared = (trees.left >= 0) & (trees.column < trees.features)
    return trees.column[compared], trees.threshold[compared]


def _linked(estimator: Any, trees: Trees, zero_is_second: bool) -> Formula:
    """Classes by the raw sums, and their probability by the estimator's own loss."""
    summed, classes = Forest(trees), getattr(estimator, "classes_", None)
    inverse = estimator._loss.link.inverse if hasattr(estimator, "_loss") else None
    probabilities = estimator._loss.predict_proba if hasattr(estimator, "predict_proba") else None

    def compute(matrix: Matrix) -> Predicted | None:
        raw = summed.sums(matrix)
        if raw is None:
            return None
        if classes is None:
            # Gradient boosting gives the sums themselves; its link is the identity.
            return (raw.reshape(-1) if inverse is None else inverse(raw.reshape(-1))), None
        if raw.shape[1] > 1:
            return classes[raw.argmax(axis=1)], None
        flat = raw.reshape(-1)
        second = flat >= 0 if zero_is_second else flat > 0
        scores = probabilities(flat)[:, 1] if probabilities and len(classes) == 2 else None
        return classes[second.astype(np.int64)], scores

    return Formula(trees.features, compute, landmarks(trees))


def _trees(
    parts: Sequence[Any], values: Sequence[NDArray[Any]], features: int, start: Any = None, rules: int = 0
) -> Trees:
    """Trees of the class `sklearn.tree._tree.Tree`; `start` has one output for each tree of a stage."""
    grown = [part.tree_ for part in parts]
    offsets, owner = _offsets([tree.node_count for tree in grown])
    left = np.concatenate([tree.children_left for tree in grown])
    right = np.concatenate([tree.children_right for tree in grown])
    takes_nan = parts[0]._support_missing_values(np.zeros((1, features), np.float32))
    outputs = values[0].shape[1] if start is None else len(start)
    return Trees(
        features=features,
        roots=offsets,
        column=np.concatenate([tree.feature for tree in grown]).astype(np.int64),
        threshold=np.concatenate([tree.threshold for tree in grown]),
        left=np.where(left < 0, -1, left + owner),
        right=np.where(left < 0, -1, right + owner),
        missing_left=np.concatenate([tree.missing_go_to_left for tree in grown]).astype(bool),
        values=np.concatenate(values),
        targets=np.zeros(len(grown), np.int64) if start is None else np.arange(len(grown)) % outputs,
        start=np.zeros(outputs) if start is None else np.asarray(start, np.float64),
        rules=rules | FLOAT32 | NO_INFINITY | (0 if takes_nan else NO_NAN),
        zero_is_missing=np.zeros(features, bool),
    )


def _offsets(counts: Sequence[int]) -> tuple[Ints, Ints]:
    """Each tree's first node, and for each node that of its tree."""
    offsets = np.cumsum([0, *counts[:-1]])
    return offsets, np.repeat(offsets, counts)
