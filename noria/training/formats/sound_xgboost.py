"""XGBoost's files, looked at before it reads them: cut off or contradictory ones end the process.

UBJSON: https://ubjson.org; XGBoost writes its typed arrays with the type and the count in front.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from noria.training.formats.facts import damaged
from noria.training.formats.sound_trees import check_nodes

_NUMBERS = {"i": ">i1", "U": ">u1", "I": ">i2", "l": ">i4", "L": ">i8", "d": ">f4", "D": ">f8"}
_DEPTH = 64
_MOST = 2**24
"""XGBoost's own limit of categories."""
_OF_NODES = ("left_children", "right_children", "split_indices", "split_conditions", "base_weights", "default_left",
             "loss_changes", "parents", "split_type", "sum_hessian")  # fmt: skip


def check_xgboost(data: bytes) -> None:
    """Look at the structure of a model in UBJSON.

    Raises:
        DataError: it isn't sound.
    """
    try:
        reader = _Reader(data)
        learner = reader.value()["learner"]
        if reader.at != len(data):
            raise damaged("its file goes on after its end")
        booster = learner["gradient_booster"]
        if booster["name"] == "gblinear":
            return
        model = booster.get("gbtree", booster)["model"]
        columns, trees = int(learner["learner_model_param"]["num_feature"]), model["trees"]
        if not int(model["gbtree_model_param"]["num_trees"]) == len(trees) == len(model["tree_info"]):
            raise damaged("its file has another number of trees than it says")
        kinds = np.asarray(model["tree_info"], np.int64)
        if (kinds < 0).any() or (kinds >= max(1, int(learner["learner_model_param"]["num_class"]))).any():
            raise damaged("a tree is of a class that isn't there")
        steps = np.asarray(model["iteration_indptr"], np.int64)
        if steps[0] != 0 or steps[-1] != len(trees) or (np.diff(steps) < 0).any():
            raise damaged("its iterations are out of order")
        for tree in trees:
            _check_tree(tree, columns)
    except (KeyError, IndexError, ValueError, TypeError, AttributeError, OverflowError, struct.error) as error:
        raise damaged(f"its file lacks or misspells something: {error}") from error


def _check_tree(tree: dict[str, Any], columns: int) -> None:
    count = int(tree["tree_param"]["num_nodes"])
    if int(tree["tree_param"]["num_feature"]) != columns or count < 1:
        raise damaged("a tree contradicts its model")
    if any(len(tree[name]) != count for name in _OF_NODES):
        raise damaged("a tree has more or fewer nodes than it says")
    if int(tree["tree_param"]["size_leaf_vector"]) > 1:
        raise damaged("its trees have more than one output, which can't be verified")
    left, right = (np.asarray(tree[name], np.int64) for name in ("left_children", "right_children"))
    is_inner = left != -1
    if (right[~is_inner] != -1).any():
        raise damaged("a tree leads nowhere")
    check_nodes(is_inner, (left, right), np.asarray(tree["split_indices"], np.int64), columns)
    nodes, starts, sizes = (np.asarray(tree[f"categories_{name}"], np.int64) for name in ("nodes", "segments", "sizes"))
    members, split = np.asarray(tree["categories"], np.int64), np.asarray(tree["split_type"], np.int64)
    is_set = np.zeros(count, bool)
    is_set[nodes[(nodes >= 0) & (nodes < count)]] = True
    sound = ((split == 0) | (split == 1)).all() and (is_set == (split == 1)).all()
    if not sound or ((members < 0) | (members > _MOST)).any():
        raise damaged("a tree's categories are out of order")
    ends = starts + sizes
    sound = len(nodes) == len(starts) == len(sizes) and (starts >= 0).all() and (sizes >= 0).all()
    if not sound or (ends > len(tree["categories"])).any() or ((nodes < 0) | (nodes >= count)).any():
        raise damaged("a tree asks for a set of categories that isn't there")


class _Reader:
    """Reads one value after the other."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def _take(self, count: int) -> bytes:
        part = self.data[self.at : self.at + count]
        if count < 0 or len(part) != count:
            raise ValueError("it is cut off")
        self.at += count
        return part

    def _mark(self) -> str:
        return self._take(1).decode("latin-1")

    def _array(self, kind: str, count: int) -> np.ndarray[Any, Any]:
        dtype = np.dtype(_NUMBERS[kind])
        return np.frombuffer(self._take(count * dtype.itemsize), dtype)

    def _text(self) -> str:
        return self._take(int(self.value())).decode("utf-8")

    def value(self, depth: int = 0) -> Any:
        """The value that stands here."""
        if depth > _DEPTH:
            raise ValueError("it is nested too deeply")
        mark = self._mark()
        if mark in _NUMBERS:
            return self._array(mark, 1)[0].item()
        if mark == "S":
            return self._text()
        if mark == "C":
            return self._mark()
        if mark in "TFZ":
            return {"T": True, "F": False, "Z": None}[mark]
        if mark == "{":
            return self._object(depth)
        if mark == "[":
            return self._list(depth)
        raise ValueError(f"it has {mark!r} where a value should be")

    def _object(self, depth: int) -> dict[str, Any]:
        made = {}
        while self.data[self.at : self.at + 1] != b"}":
            name = self._text()
            made[name] = self.value(depth + 1)
        self.at += 1
        return made

    def _list(self, depth: int) -> Any:
        start = self.data[self.at : self.at + 1]
        if start == b"$":
            self.at += 1
            kind = self._mark()
            if self._mark() != "#":
                raise ValueError("an array has no count")
            return self._array(kind, int(self.value(depth + 1)))
        made: list[Any] = []
        if start == b"#":
            self.at += 1
            count = int(self.value(depth + 1))
            while len(made) < count:
                made.append(self.value(depth + 1))
            return made
        while self.data[self.at : self.at + 1] != b"]":
            made.append(self.value(depth + 1))
        self.at += 1
        return made
