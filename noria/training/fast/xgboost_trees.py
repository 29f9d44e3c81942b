"""Trees of XGBoost, read from the JSON in which it keeps a model (`doc/model.schema`).

Rows and sums are float32; a value goes left if it is less than the threshold.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noria.training.fast import kernels
from noria.training.fast.forest import Forest, Ints, Trees
from noria.training.fast.formula import Formula, Matrix, Predicted
from noria.training.fast.sklearn_trees import landmarks

Link = Callable[[NDArray[np.float32]], object]
Margin = Callable[[np.float32], float]


def estimator(model: Any) -> Formula | None:
    """Classes as scikit-learn's interface of XGBoost tells them apart, or values."""
    if not np.isnan(model.missing):
        return None
    kept = json.loads(model.get_booster().save_raw("json"))["learner"]
    links = _links(kept["objective"]["name"])
    trees = None if links is None else _trees(model, kept, links[0])
    if trees is None or links is None:
        return None
    summed, link = Forest(trees), links[1]
    is_classifier, classes = hasattr(model, "n_classes_"), getattr(model, "n_classes_", 0)

    def compute(matrix: Matrix) -> Predicted | None:
        out = summed.sums(matrix)
        if out is None:
            return None
        link(out)
        if is_classifier:
            return _told_apart(out, classes)
        return (out.reshape(-1) if out.shape[1] == 1 else out), None

    return Formula(trees.features, compute, landmarks(trees))


def _told_apart(out: NDArray[np.float32], classes: int) -> Predicted:
    if out.shape[1] > 1:
        return out.argmax(axis=1), None
    flat = out.reshape(-1)
    return (flat > 0.5).astype(np.int64), flat.astype(np.float64) if classes == 2 else None


def _links(objective: str) -> tuple[Margin, Link] | None:
    """From the base score to the sums' start, and from the sums to what is predicted, in place."""
    if objective in ("binary:logistic", "reg:logistic"):
        return kernels.xgboost_logit, kernels.xgboost_sigmoid
    if objective in ("count:poisson", "reg:gamma", "reg:tweedie"):
        return kernels.xgboost_log, kernels.exponential
    if objective == "multi:softprob":
        return float, kernels.xgboost_softmax
    if objective in ("reg:squarederror", "reg:absoluteerror", "reg:pseudohubererror") or objective[:5] == "rank:":
        return float, lambda out: None
    return None


def _trees(model: Any, kept: dict[str, Any], margin: Margin) -> Trees | None:
    booster, facts = kept["gradient_booster"], kept["learner_model_param"]
    weights = booster.get("weight_drop")
    booster = booster.get("gbtree", booster)["model"] if kept["gradient_booster"]["name"] != "gblinear" else None
    if booster is None or int(facts.get("num_target", 1)) != 1 or booster.get("cats", {}).get("enc"):
        return None
    count = _used(model, booster)
    grown = booster["trees"][:count]
    if not grown or any(int(tree["tree_param"]["size_leaf_vector"]) > 1 for tree in grown):
        return None
    features, outputs = int(facts["num_feature"]), max(1, int(facts["num_class"]))
    base = np.array(json.loads(facts["base_score"]), np.float32).reshape(-1)
    start = np.array([margin(value) for value in np.broadcast_to(base, outputs)], np.float32)
    counts = [len(tree["left_children"]) for tree in grown]
    offsets = np.cumsum([0, *counts[:-1]])
    owner = np.repeat(offsets, counts)
    left, right, column, default, split_type = (
        _joined(grown, name, np.int64)
        for name in ("left_children", "right_children", "split_indices", "default_left", "split_type")
    )
    condition = _joined(grown, "split_conditions", np.float32)
    targets = np.array(booster["tree_info"][:count], np.int64)
    values = condition
    if weights is not None:
        # DART predicts each tree on top of the base score, and takes that away again before it weighs the tree.
        base_of = np.repeat(start[targets], counts)
        values = ((condition + base_of) - base_of) * np.repeat(np.array(weights[:count], np.float32), counts)
    is_set = (left >= 0) & (split_type == 1)
    sets = _sets(grown, column, offsets)
    placed = column.copy()
    placed[is_set] = features + np.arange(is_set.sum())
    return Trees(
        features=features,
        roots=offsets,
        column=placed,
        # Less than a number is at most the one before it.
        threshold=np.where(is_set, 0.5, np.nextafter(condition.astype(np.float64), -np.inf)),
        left=np.where(left < 0, -1, left + owner),
        right=np.where(left < 0, -1, right + owner),
        missing_left=default > 0,
        values=values.reshape(-1, 1),
        targets=targets,
        start=start,
        rules=kernels.FLOAT32 | kernels.NEGATIVE_IS_LEFT,
        zero_is_missing=np.zeros(features, bool),
        sets=sets,
    )


def _used(model: Any, booster: dict[str, Any]) -> int:
    """How many trees count: up to the best iteration where training stopped early."""
    try:
        best = int(model.best_iteration) + 1
    except AttributeError:
        return len(booster["trees"])
    return int(booster["iteration_indptr"][best])


def _joined(grown: list[dict[str, Any]], name: str, dtype: Any) -> NDArray[Any]:
    return np.concatenate([np.array(tree[name], dtype) for tree in grown])


def _sets(grown: list[dict[str, Any]], column: Ints, offsets: Ints) -> tuple[Ints, Ints, NDArray[np.uint32]]:
    """Each categorical split's feature, and its categories as words of 32 bits, in the order of the nodes."""
    features, words = [], []
    for tree, offset in zip(grown, offsets, strict=True):
        places = zip(tree["categories_nodes"], tree["categories_segments"], tree["categories_sizes"], strict=True)
        for node, first, size in sorted(places):
            members = np.array(tree["categories"][first : first + size], np.int64)
            bits = np.zeros(members.max(initial=0) // 32 + 1, np.uint32)
            np.bitwise_or.at(bits, members >> 5, np.uint32(1) << (members & 31).astype(np.uint32))
            features.append(int(column[offset + node]))
            words.append(bits)
    starts = np.cumsum([0, *(len(part) for part in words)])
    return np.array(features, np.int64), starts, np.concatenate([*words, np.empty(0, np.uint32)])
