"""Trees of LightGBM, read from the text in which it keeps a model.

Rules of its `Tree::NumericalDecision` and `Tree::CategoricalDecision` (`include/LightGBM/tree.h`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noria.training.fast import kernels
from noria.training.fast.forest import Forest, Ints, Trees
from noria.training.fast.formula import Formula, Matrix, Predicted
from noria.training.fast.sklearn_trees import landmarks

_CATEGORICAL, _DEFAULT_LEFT = 1, 2
_IDENTITIES = {
    "regression", "regression_l1", "huber", "fair", "quantile", "mape", "lambdarank", "rank_xendcg", "custom", "",
}  # fmt: skip
_EXPONENTIALS = {"poisson", "gamma", "tweedie"}

Link = Callable[[NDArray[np.float64]], object]


def estimator(model: Any) -> Formula | None:
    """Classes as scikit-learn's interface of LightGBM tells them apart, or values."""
    options = {**model.get_params(), **model.get_params().get("kwargs", {})}
    if any("early_stop" in name and name.startswith("pred") for name in options) or callable(model.objective_):
        return None
    classes = getattr(model, "classes_", None)
    return _formula(model.booster_, None if classes is None else np.asarray(classes))


def booster(model: Any) -> Formula | None:
    """What `Booster.predict` gives."""
    return _formula(model, None)


def _formula(model: Any, classes: NDArray[Any] | None) -> Formula | None:
    header, *sections = model.model_to_string(num_iteration=-1).partition("end of trees")[0].split("\nTree=")
    facts = _facts(header)
    outputs = int(facts["num_tree_per_iteration"])
    link = _link(facts.get("objective", ""))
    if model.best_iteration > 0:
        sections = sections[: model.best_iteration * outputs]
    trees = None if link is None else _trees([_facts(part) for part in sections], facts, outputs)
    if trees is None or link is None:
        return None
    summed, iterations = Forest(trees), len(sections) // outputs
    is_average = "average_output" in header.split("\n")

    def compute(matrix: Matrix) -> Predicted | None:
        out = summed.sums(matrix)
        if out is None:
            return None
        if is_average:
            out /= iterations
        link(out)
        return _answer(out, classes)

    return Formula(trees.features, compute, landmarks(trees))


def _answer(out: NDArray[np.float64], classes: NDArray[Any] | None) -> Predicted:
    if classes is None:
        return (out.reshape(-1) if out.shape[1] == 1 else out), None
    if out.shape[1] > 1:
        return classes[out.argmax(axis=1)], None
    flat = out.reshape(-1)
    return classes[(flat > 1.0 - flat).astype(np.int64)], flat if len(classes) == 2 else None


def _link(objective: str) -> Link | None:
    """From sums to what is predicted, in place; None if it isn't known."""
    name, *options = objective.split(" ")
    named = dict(option.split(":") for option in options if ":" in option)
    if name in ("binary", "multiclassova"):
        scale = float(named["sigmoid"])
        return lambda out: kernels.lightgbm_sigmoid(out, scale)
    if name == "cross_entropy":
        return lambda out: kernels.lightgbm_sigmoid(out, 1.0)
    if name == "cross_entropy_lambda":
        return kernels.softplus
    if name == "multiclass":
        return kernels.lightgbm_softmax
    if name in _EXPONENTIALS:
        return kernels.exponential
    return (lambda out: None) if name in _IDENTITIES and "sqrt" not in options else None


def _facts(section: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in section.split("\n") if "=" in line)


def _trees(sections: list[dict[str, str]], facts: Mapping[str, str], outputs: int) -> Trees | None:
    if not sections or any(part["is_linear"] != "0" for part in sections):
        return None
    features = int(facts["max_feature_idx"]) + 1
    leaves = np.array([int(part["num_leaves"]) for part in sections])
    offsets = np.cumsum([0, *(2 * leaves - 1)[:-1]])
    parts = [
        _tree(part, int(count), int(offset)) for part, count, offset in zip(sections, leaves, offsets, strict=True)
    ]
    column, threshold, decision, left, right, values = (np.concatenate(pieces) for pieces in zip(*parts, strict=True))
    inner = left >= 0
    missing = (decision >> 2) & 3
    is_set = inner & (decision & _CATEGORICAL > 0)
    numeric = inner & ~is_set
    zero_is_missing = np.zeros(features, bool)
    zero_is_missing[column[numeric & (missing == 1)]] = True
    if np.any(zero_is_missing[column[numeric & (missing != 1)]]) or np.any(zero_is_missing[column[is_set]]):
        return None  # merged from models that read the feature differently
    # Where NaN is not a value of its own it is read as zero.
    missing_left = np.where(missing == 0, threshold >= 0.0, decision & _DEFAULT_LEFT > 0) & ~is_set
    sets = _sets(sections, is_set, column, threshold, offsets)
    column = column.copy()
    column[is_set] = features + np.arange(is_set.sum())
    return Trees(
        features=features,
        roots=offsets,
        column=column,
        threshold=np.where(is_set, 0.5, threshold),
        left=left,
        right=right,
        missing_left=missing_left,
        values=values.reshape(-1, 1),
        targets=np.arange(len(sections)) % outputs,
        start=np.zeros(outputs),
        rules=kernels.FLUSH,
        zero_is_missing=zero_is_missing,
        sets=sets,
    )


def _tree(section: Mapping[str, str], leaves: int, offset: int) -> tuple[NDArray[Any], ...]:
    """Column, threshold, decision, left, right and value of each node: first the inner ones, then the leaves."""
    inner = leaves - 1

    def padded(name: str, dtype: Any, fill: float = 0) -> NDArray[Any]:
        found = np.full(2 * leaves - 1, fill, dtype)
        if inner:
            found[:inner] = np.array(section[name].split(), dtype)
        return found

    values = np.zeros(2 * leaves - 1)
    values[inner:] = np.array(section["leaf_value"].split(), np.float64)
    children = []
    for name in ("left_child", "right_child"):
        child = padded(name, np.int64)
        child = offset + np.where(child < 0, inner + ~child, child)
        child[inner:] = -1
        children.append(child)
    columns, decisions = padded("split_feature", np.int64), padded("decision_type", np.int64)
    return columns, padded("threshold", np.float64), decisions, *children, values


def _sets(
    sections: list[dict[str, str]], is_set: NDArray[np.bool_], column: Ints, threshold: Matrix, offsets: Ints
) -> tuple[Ints, Ints, NDArray[np.uint32]]:
    """Each categorical split's feature and words; its threshold is its number within the tree."""
    nodes = np.flatnonzero(is_set)
    owner = np.searchsorted(offsets, nodes, side="right") - 1
    words = []
    for node, tree in zip(nodes, owner, strict=True):
        bounds = [int(bound) for bound in sections[tree]["cat_boundaries"].split()]
        number = int(threshold[node])
        words.append(np.array(sections[tree]["cat_threshold"].split()[bounds[number] : bounds[number + 1]], np.uint32))
    starts = np.cumsum([0, *(len(part) for part in words)])
    return column[nodes], starts, np.concatenate([*words, np.empty(0, np.uint32)])
