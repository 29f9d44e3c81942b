"""Sums over made trees against walking down them one comparison at a time."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.training.fast.forest import Forest, Trees
from noria.training.fast.kernels import FLOAT32, FLUSH, NEGATIVE_IS_LEFT, NO_INFINITY, NO_NAN

THRESHOLDS = [-math.inf, -1e300, -1.0, -0.5, -0.0, 0.0, 5e-324, 1e-36, 0.5, 1.0, 2.0, 3.0, 1e300]
VALUES = [*THRESHOLDS, math.inf, math.nan, 1e-35, -1e-35, 1.5, 31.0, 32.0, 63.0, 64.0, 2.0**31, 2.0**24, -0.9]
SETS = [{0, 2, 33}, {1, 63}, set()]


def made(random: np.random.Generator, trees: int, leaves: int, rules: int, dtype: Any) -> Trees:
    """Random trees over two features and three sets of feature 1; three outputs, one or all at a time."""
    lists: dict[str, list[Any]] = {name: [] for name in ("column", "threshold", "left", "right", "missing_left")}
    roots = []
    for _ in range(trees):
        first = len(lists["column"])
        roots.append(first)
        left, right = [-1], [-1]
        for _ in range(leaves - 1):  # turn a leaf into a node, wherever
            node = int(random.choice(np.flatnonzero(np.array(left) < 0)))
            left[node], right[node] = first + len(left), first + len(left) + 1
            left, right = [*left, -1, -1], [*right, -1, -1]
        column = random.integers(0, 5, len(left))
        lists["column"] += column.tolist()
        lists["threshold"] += np.where(column > 1, 0.5, random.choice(THRESHOLDS, len(left))).tolist()
        lists["missing_left"] += (random.random(len(left)) < 0.5).tolist()
        lists["left"] += left
        lists["right"] += right
    width = int(random.choice([1, 3]))
    words = [np.bitwise_or.reduce([np.uint64(1 << member) for member in members] or [np.uint64(0)]) for members in SETS]
    return Trees(
        features=2,
        roots=np.array(roots),
        column=np.array(lists["column"]),
        threshold=np.array(lists["threshold"]),
        left=np.array(lists["left"]),
        right=np.array(lists["right"]),
        missing_left=np.array(lists["missing_left"]),
        values=random.normal(size=(len(lists["left"]), width)).astype(dtype),
        targets=np.zeros(trees, np.int64) if width == 3 else random.integers(0, 3, trees),
        start=random.normal(size=3).astype(dtype),
        rules=rules,
        zero_is_missing=np.array([random.random() < 0.3, False]),
        sets=(np.ones(3, np.int64), np.arange(0, 7, 2), np.array(words, np.uint64).view(np.uint32)),
    )


def naive(trees: Trees, row: Any) -> Any:
    """The sums of one row, said as plainly as possible; None where the row is refused."""
    values = []
    for feature, value in enumerate(float(number) for number in row):
        with np.errstate(over="ignore"):
            value = float(np.float32(value)) if trees.rules & FLOAT32 else value
        if (trees.rules & NO_INFINITY and math.isinf(value)) or (trees.rules & NO_NAN and math.isnan(value)):
            return None
        if trees.rules & FLUSH and abs(value) <= float(np.float32(1e-35)):
            value = 0.0
        values.append(math.nan if trees.zero_is_missing[feature] and value == 0 else value)
    sums = trees.start.copy()
    for root, target in zip(trees.roots, trees.targets, strict=True):
        node = root
        while trees.left[node] >= 0:
            goes_left = _goes_left(trees, int(trees.column[node]), values, node)
            node = trees.left[node] if goes_left else trees.right[node]
        for k, value in enumerate(trees.values[node]):
            sums[target + k] += value
    return sums


def _goes_left(trees: Trees, column: int, values: list[float], node: int) -> bool:
    value = values[1] if column > 1 else values[column]
    if math.isnan(value):
        return bool(trees.missing_left[node])
    if column < 2:
        return value <= float(trees.threshold[node])
    if trees.rules & NEGATIVE_IS_LEFT:
        return value < 0 or math.isinf(value) or int(value) not in SETS[column - 2]
    return value > -1 and not math.isinf(value) and int(value) in SETS[column - 2]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    trees=st.sampled_from([1, 7, 8, 9, 20]),
    leaves=st.sampled_from([1, 2, 5, 63, 64, 65]),
    rules=st.sampled_from([0, FLUSH, FLOAT32 | NEGATIVE_IS_LEFT, FLOAT32]),
)
def test_both_ways_add_the_leaves_that_a_walk_reaches(
    dtype: Any, seed: int, trees: int, leaves: int, rules: int
) -> None:
    random = np.random.default_rng(seed)
    given = made(random, trees, leaves, rules, dtype)
    rows = random.choice(VALUES, (37, 2))
    wanted = np.array([naive(given, row) for row in rows])
    forest = Forest(given)
    for many in (1, 1000):
        for size in (1, 16, 17, 37):
            sums = forest.sums(np.ascontiguousarray(rows[:size]), many)
            assert sums is not None
            assert sums.dtype == dtype
            assert sums.tobytes() == wanted[:size].tobytes()


@pytest.mark.parametrize("many", [1, 1000])
@pytest.mark.parametrize(("rule", "bad"), [(NO_INFINITY, np.inf), (NO_NAN, np.nan), (NO_INFINITY | FLOAT32, 1e300)])
def test_refused_wherever_the_row_stands(many: int, rule: int, bad: float) -> None:
    forest = Forest(made(np.random.default_rng(0), 9, 5, rule, np.float64))
    for place in (0, 15, 16, 29):
        rows = np.ones((30, 2))
        assert forest.sums(rows, many) is not None
        rows[place, 1] = bad
        assert forest.sums(rows, many) is None
