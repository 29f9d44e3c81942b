"""Trees that lead somewhere: what the libraries follow without looking is looked at here, once, when a file is read.

scikit-learn follows the children and columns of a node wherever they point, and LightGBM aborts the process or never
returns when its text is cut off. In each of the libraries a child has a larger number than its parent, so that the
numbers alone tell that there is no way round.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noria.training.formats.facts import damaged

_OF_LEAVES = (("leaf_value", float), ("leaf_weight", float), ("leaf_count", int))
_OF_SPLITS = (("split_gain", float), ("internal_value", float), ("internal_weight", float), ("internal_count", int))
_NUMBERS = re.compile(r"[-+0-9.einfa ]*", re.IGNORECASE)
_LINES = {
    "Tree", "num_leaves", "num_cat", "split_feature", "split_gain", "threshold", "decision_type", "left_child",
    "right_child", "leaf_value", "leaf_weight", "leaf_count", "internal_value", "internal_weight", "internal_count",
    "cat_boundaries", "cat_threshold", "is_linear", "leaf_const", "num_features", "leaf_features", "leaf_coeff",
    "shrinkage",
}  # fmt: skip
_SPLIT = (
    ("split_feature", int),
    ("threshold", float),
    ("decision_type", int),
    ("left_child", int),
    ("right_child", int),
)


def check_sklearn(estimator: Any) -> None:
    """Look at all trees of scikit-learn inside an estimator, at any depth.

    Raises:
        DataError: one of them isn't sound.
    """
    for part in parts_of(estimator):
        kind = type(part).__name__
        if kind == "Tree" and type(part).__module__ == "sklearn.tree._tree":
            is_inner = part.children_left != -1
            check_nodes(is_inner, (part.children_left, part.children_right), part.feature, part.n_features)
        elif kind == "TreePredictor":
            nodes = part.nodes
            is_inner = nodes["is_leaf"] == 0
            bins, raw = part.raw_left_cat_bitsets, part.binned_left_cat_bitsets
            sets = nodes["bitset_idx"][is_inner & (nodes["is_categorical"] != 0)]
            if len(sets) and sets.max(initial=0) >= min(len(bins), len(raw)):
                raise damaged("a tree asks for a set of categories that isn't there")
            check_nodes(is_inner, (nodes["left"], nodes["right"]), nodes["feature_idx"], None)
        elif kind.startswith("HistGradientBoosting") and hasattr(part, "_predictors"):
            _check_columns(part)


def parts_of(value: Any, seen: set[int] | None = None) -> Iterator[Any]:
    """An object and all that its attributes, lists and mappings hold, each once."""
    seen = set() if seen is None else seen
    if id(value) in seen or isinstance(value, (str, bytes, int, float, type(None), type)):
        return
    seen.add(id(value))
    yield value
    inside: Any = ()
    if isinstance(value, dict):
        inside = value.values()
    elif isinstance(value, (list, tuple)) or (isinstance(value, np.ndarray) and value.dtype.kind == "O"):
        inside = value.ravel().tolist() if isinstance(value, np.ndarray) else value
    elif hasattr(value, "__dict__"):
        inside = vars(value).values()
    for one in inside:
        yield from parts_of(one, seen)


def check_lightgbm(text: str) -> None:
    """Look at the structure of a model's text.

    Raises:
        DataError: it isn't sound.
    """
    if re.search(r"[\x00-\x09\x0b-\x1f]", text):
        raise damaged("its text has control characters")  # LightGBM ends a line, or the text, at some of them
    data = text.encode()
    head = data.partition(b"\nTree=")[0].decode()
    facts = _facts(head)
    try:
        sizes = [int(size) for size in facts.get("tree_sizes", "").split()]
        columns, classes = int(facts["max_feature_idx"]) + 1, int(facts["num_tree_per_iteration"])
        sound = int(facts["num_class"]) > 0 and classes > 0 and len(sizes) % classes == 0
        if not sound or len(facts["feature_names"].split()) != columns:
            raise damaged("the head of its text contradicts itself")
        at = len(head.encode()) + 1
        for number, size in enumerate(sizes):
            section = data[at : at + size]
            if not section.startswith(b"Tree=%d\n" % number) or size <= 0:
                raise damaged(f"tree {number} is not where its text says")
            _check_tree(_lines(section.decode()), columns)
            at += size
        if not data[at:].startswith(b"end of trees\n"):
            raise damaged("its text has no end")
    except (KeyError, ValueError) as error:
        raise damaged(f"its text lacks or misspells a number: {error}") from error


def _facts(section: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in section.split("\n") if "=" in line)


def _lines(section: str) -> dict[str, str]:
    """The lines of a tree, each a name with a value."""
    return dict(_pair(line) for line in section.split("\n") if line)


def _pair(line: str) -> tuple[str, str]:
    name, value = line.split("=")
    return name, value


def _check_tree(tree: Mapping[str, str], columns: int) -> None:
    if unknown := tree.keys() - _LINES:
        raise damaged(f"a tree has a line {min(unknown)!r}")
    leaves, sets = int(tree["num_leaves"]), int(tree["num_cat"])
    if leaves < 1 or sets < 0:
        raise damaged("a tree has no leaves")
    float(tree.get("shrinkage", "1"))
    for name, kind in _OF_LEAVES:
        if name == "leaf_value" or (leaves > 1 and tree.get(name)):
            _numbers(tree, name, kind, leaves)
    if leaves == 1:
        return
    for name, kind in _OF_SPLITS:
        if name == "split_gain" or tree.get(name):
            _numbers(tree, name, kind, leaves - 1)
    split, threshold, decision, *children = (_numbers(tree, name, kind, leaves - 1) for name, kind in _SPLIT)
    inner = [np.where(child < 0, -1, child) for child in children]
    if any((child < -leaves).any() for child in children):
        raise damaged("a tree leads to a leaf that isn't there")
    check_nodes(np.ones(leaves - 1, bool), inner, split, columns, may_end=True)
    if sets:
        bounds = _numbers(tree, "cat_boundaries", int, sets + 1)
        _numbers(tree, "cat_threshold", int, int(bounds[-1]))
        used = threshold[(decision & 1) > 0]
        if bounds[0] != 0 or (np.diff(bounds) < 0).any() or (used < 0).any() or (used >= sets).any():
            raise damaged("a tree asks for a set of categories that isn't there")
    if tree.get("is_linear", "0") != "0":
        counts = _numbers(tree, "num_features", int, leaves)
        used = _numbers(tree, "leaf_features", int, int(counts.sum()))
        if (counts < 0).any() or (used < 0).any() or (used >= columns).any():
            raise damaged("a leaf reads a column that isn't there")


def _numbers(tree: Mapping[str, str], name: str, kind: type, count: int) -> NDArray[Any]:
    if not _NUMBERS.fullmatch(tree[name]):
        raise damaged(f"a tree has something else than numbers in {name}")
    found = np.array(tree[name].split(), dtype=np.int64 if kind is int else np.float64)
    if len(found) != count:
        raise damaged(f"a tree has {len(found)} values of {name} instead of {count}")
    return found


def check_nodes(
    is_inner: NDArray[np.bool_], children: Any, column: NDArray[Any], columns: int | None, *, may_end: bool = False
) -> None:
    """Children come after their parent and are there; columns are there. With `may_end`, -1 is a leaf."""
    count, own = len(is_inner), np.flatnonzero(is_inner)
    for child in children:
        chosen = np.asarray(child)[is_inner].astype(np.int64)
        later = (chosen > own) & (chosen < count)
        if not (later | ((chosen == -1) if may_end else False)).all():
            raise damaged("a tree leads nowhere")
    read = np.asarray(column)[is_inner]
    if (read < 0).any() or (columns is not None and (read >= columns).any()):
        raise damaged("a tree reads a column that isn't there")


def _check_columns(estimator: Any) -> None:
    """The columns of histogram boosting, whose trees don't know how many there are."""
    for tree in (tree for stage in estimator._predictors for tree in stage):
        inner = tree.nodes["is_leaf"] == 0
        if (tree.nodes["feature_idx"][inner] >= estimator.n_features_in_).any():
            raise damaged("a tree reads a column that isn't there")
