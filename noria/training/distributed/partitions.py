"""Partitions: which rows are worked on together."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noria.core import DataError

BY = ("rows", "entity")


@dataclass(frozen=True)
class Part:
    """The rows of a partition.

    Attributes:
        number: of the partition.
        matrix: [rows, features] float64.
        target: [rows].
        weights: [rows], or None when all count alike.
    """

    number: int
    matrix: NDArray[np.float64]
    target: NDArray[Any]
    weights: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.target)

    @property
    def weight(self) -> float:
        """How many rows, or the sum of their weights."""
        return float(len(self) if self.weights is None else self.weights.sum())

    def __add__(self, other: Part) -> Part:
        """Both one after the other, under the first one's number."""
        weights = None
        if self.weights is not None and other.weights is not None:
            weights = np.concatenate([self.weights, other.weights])
        rows, target = np.concatenate([self.matrix, other.matrix]), np.concatenate([self.target, other.target])
        return Part(self.number, rows, target, weights)


def by_rows(target: NDArray[Any], count: int, seed: int) -> NDArray[np.int32]:
    """[rows] the partition of each row: shuffled, and classes dealt out evenly; sizes differ by one at most.

    Raises:
        DataError: there are fewer rows than partitions.
    """
    rows = len(target)
    if rows < count:
        raise DataError(f"{rows} rows can't fill {count} partitions", hint=f"partitions={max(rows, 1)} at most")
    order = np.random.default_rng(seed).permutation(rows)
    if target.dtype.kind != "f":
        _, codes = np.unique(target, return_inverse=True)
        order = order[np.argsort(codes[order], kind="stable")]
    partition = np.empty(rows, np.int32)
    partition[order] = np.arange(rows) % count
    return partition


def by_entity(entities: NDArray[Any] | None, count: int) -> NDArray[np.int32]:
    """[rows] the partition of each row: an entity's rows stay together, the largest are dealt out first.

    Raises:
        DataError: the rows belong to nobody, or there are fewer entities than partitions.
    """
    if entities is None:
        raise DataError(
            "the rows belong to no entities, so they can't be cut by entity",
            hint='cut them by rows (by="rows"), or train on features of an entity',
        )
    found, codes, sizes = np.unique(entities, return_inverse=True, return_counts=True)
    if len(found) < count:
        raise DataError(f"{len(found)} entities can't fill {count} partitions", hint=f"partitions={len(found)} at most")
    least = [(0, number) for number in range(count)]
    place = np.empty(len(found), np.int32)
    for entity in np.argsort(-sizes, kind="stable"):
        size, number = least[0]
        place[entity] = number
        heapq.heapreplace(least, (size + int(sizes[entity]), number))
    return place[codes]


def cut(
    matrix: NDArray[np.float64],
    target: NDArray[Any],
    weights: NDArray[np.float64] | None,
    partition: NDArray[np.int32],
    number: int,
) -> Part:
    """The rows of one partition, in the order in which they were."""
    rows = np.flatnonzero(partition == number)
    return Part(number, matrix[rows], target[rows], None if weights is None else weights[rows])


def check_classes(
    partition: NDArray[np.int32], target: NDArray[Any], classes: NDArray[Any], *, all_of_them: bool
) -> None:
    """That each partition has two classes, or all classes.

    Raises:
        DataError: one has too few.
    """
    for number in range(int(partition.max()) + 1):
        found = np.unique(target[partition == number])
        if len(found) < (len(classes) if all_of_them else 2):
            missing = [str(value) for value in classes if value not in found]
            what = f"only the class {found[0]!s}" if len(found) == 1 else f"no rows of the class {missing[0]}"
            raise DataError(
                f"partition {number} ({int((partition == number).sum())} rows) has {what}",
                hint='use fewer partitions, or by="rows", which deals the classes out evenly',
            )
