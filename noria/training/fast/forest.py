"""A forest laid out for the compiled loops: from any library's trees to sums of leaves, with the library's bits.

Rows walk down the trees, eight at once. Many rows of small trees (at most 64 leaves) take QuickScorer (Lucchese et al.
2015, "QuickScorer: a fast algorithm to rank documents with additive ensembles of regression trees"), vectorised over
rows (Lucchese et al. 2016). Both add the same leaves in the same order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noria.training.fast import kernels

MANY = 4
"""Rows from which QuickScorer is the faster way."""

_NO_SETS = (np.empty(0, np.int64), np.zeros(1, np.int64), np.empty(0, np.uint32))

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Trees:
    """Trees as arrays over all nodes, and how their library reads a row.

    Attributes:
        features: how many a row has.
        roots: [trees] each tree's first node.
        column: [nodes] what an inner node compares: a feature, or `features + s` for set s.
        threshold: [nodes] float64; a value that is at most this goes left.
        left, right: [nodes] children; -1 at a leaf.
        missing_left: [nodes] bool, where NaN goes.
        values: [nodes, width] what a leaf adds to `width` outputs, float32 or float64 like the sum.
        targets: [trees] the first output that a tree adds to.
        start: [outputs] what the sum begins with.
        rules: sum of `FLOAT32` (round values to it), `NO_INFINITY`, `NO_NAN` (rows with them are the library's
            business), `FLUSH` (values up to 1e-35 are zero), `NEGATIVE_IS_LEFT` (XGBoost's categories).
        zero_is_missing: [features] bool.
        sets: categorical splits: each one's feature, the start of its words, and the words of 32 categories each.
    """

    features: int
    roots: Ints
    column: Ints
    threshold: Floats
    left: Ints
    right: Ints
    missing_left: NDArray[np.bool_]
    values: NDArray[Any]
    targets: Ints
    start: NDArray[Any]
    rules: int
    zero_is_missing: NDArray[np.bool_]
    sets: tuple[Ints, Ints, NDArray[np.uint32]] = field(default=_NO_SETS)

    @property
    def columns(self) -> Ints:
        """[nodes] the column that the loops read, the second half being where a missing value goes left."""
        return self.column + self.missing_left * (self.features + len(self.sets[0]))


class Forest:
    """Trees that are ready to be summed."""

    def __init__(self, trees: Trees) -> None:
        self.features = trees.features
        self._shape = len(trees.start)
        self._dtype = trees.values.dtype
        levels = _levels(trees)
        reading = (trees.rules, trees.zero_is_missing, *trees.sets)
        self._walk = (*reading, *_nodes(trees, levels), trees.targets, trees.start)
        bits = _bit_vectors(trees, levels)
        self._score = None if bits is None else (*reading, *bits, trees.targets, trees.start)

    def sums(self, matrix: Floats, many: int = MANY) -> NDArray[Any] | None:
        """[rows, outputs] of contiguous float64 rows; None where the library would refuse one.

        Args:
            many: rows from which QuickScorer is taken, where it can be.
        """
        out = np.empty((len(matrix), self._shape), self._dtype)
        if self._score is not None and len(matrix) >= many:
            taken = kernels.score(matrix, *self._score, out)
        else:
            taken = kernels.walk(matrix, *self._walk, out)
        return out if taken else None


def _levels(trees: Trees) -> list[tuple[Ints, Ints]]:
    """The nodes of each level and the tree of each, the roots first; siblings stand together."""
    nodes, owner = trees.roots, np.arange(len(trees.roots))
    levels = []
    while len(nodes):
        levels.append((nodes, owner))
        inner = trees.left[nodes] >= 0
        owner = np.repeat(owner[inner], 2)
        nodes = np.stack([trees.left[nodes[inner]], trees.right[nodes[inner]]], axis=1).ravel()
    return levels


def _nodes(trees: Trees, levels: list[tuple[Ints, Ints]]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The roots, then each tree level by level, so that a tree stays in the cache for many rows; and the values."""
    order = np.concatenate([nodes for nodes, _ in levels])
    owner = np.concatenate([owners for _, owners in levels])
    roots = len(trees.roots)
    order[roots:] = order[roots:][np.argsort(owner[roots:], kind="stable")]
    place = np.empty(len(trees.left), np.int64)
    place[order] = np.arange(len(order))
    left = trees.left[order]
    inner = left >= 0
    nodes = np.zeros(len(order), kernels.NODE)
    nodes["threshold"] = np.where(inner, trees.threshold[order], np.nan)
    nodes["column"] = np.where(inner, trees.columns[order], 0)
    nodes["step"] = np.where(inner, place[left] + 1 - np.arange(len(order)), 0)
    return nodes, np.ascontiguousarray(trees.values[order])


def _bit_vectors(trees: Trees, levels: list[tuple[Ints, Ints]]) -> tuple[NDArray[Any], ...] | None:
    """Each tree's comparisons with the leaves that each rules out when false; None for trees over 64 leaves."""
    leaves = (trees.left < 0).astype(np.int64)
    first, owner = np.zeros_like(leaves), np.zeros_like(leaves)
    for nodes, _ in reversed(levels):
        inner = nodes[trees.left[nodes] >= 0]
        leaves[inner] = leaves[trees.left[inner]] + leaves[trees.right[inner]]
    if leaves[trees.roots].max(initial=0) > 64:
        return None
    for nodes, owners in levels:
        owner[nodes] = owners
        inner = nodes[trees.left[nodes] >= 0]
        first[trees.left[inner]] = first[inner]
        first[trees.right[inner]] = first[inner] + leaves[trees.left[inner]]
    reached = np.concatenate([nodes for nodes, _ in levels])
    inner = reached[trees.left[reached] >= 0]
    inner = inner[np.argsort(owner[inner], kind="stable")]
    ends = reached[trees.left[reached] < 0]
    ends = ends[np.lexsort((first[ends], owner[ends]))]
    struck = leaves[trees.left[inner]].astype(np.uint64)  # at most 63, so that the shift is defined
    masks = ((np.uint64(1) << struck) - np.uint64(1)) << first[inner].astype(np.uint64)
    return (
        np.searchsorted(owner[inner], np.arange(len(trees.roots) + 1)),
        trees.columns[inner] * kernels.LANES,
        trees.threshold[inner],
        masks,
        np.searchsorted(owner[ends], np.arange(len(trees.roots))),
        np.ascontiguousarray(trees.values[ends]),
    )
