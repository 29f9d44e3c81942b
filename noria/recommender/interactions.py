"""Interactions: who chose what, when and how strongly; the implicit feedback that retrievers learn from."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from noria.core import DataError


class Rows(NamedTuple):
    """A sparse matrix by rows (CSR): row `r` holds `indices[indptr[r]:indptr[r + 1]]`, in rising order.

    `indptr` is int64 [rows + 1], `indices` int32 [n], `weights` float32 [n]; all are read-only.
    """

    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    weights: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Interactions:
    """Positive events only, one row per distinct pair of user and item, ordered by user, then item.

    A *position* is an index into `user_ids` or `item_ids`: retrievers, scores and metrics speak in positions.
    All arrays are read-only. Users and items without events may be present.

    Attributes:
        user_ids: [n_users] distinct, rising; int64 or text.
        item_ids: [n_items] distinct, rising; int64 or text.
        users: [n] positions of the users, int32.
        items: [n] positions of the items, int32.
        weights: [n] the pair's summed weight, float32.
        times: [n] the pair's newest event, int64 microseconds since 1970.

    >>> seen = Interactions.of(["b", "a", "b"], [7, 7, 7], time=[1, 2, 3])
    >>> seen.user_ids.tolist(), seen.users.tolist(), seen.weights.tolist(), seen.times.tolist()
    (['a', 'b'], [0, 1], [1.0, 2.0], [2, 3])
    """

    user_ids: NDArray[Any]
    item_ids: NDArray[Any]
    users: NDArray[np.int32]
    items: NDArray[np.int32]
    weights: NDArray[np.float32]
    times: NDArray[np.int64]

    def __post_init__(self) -> None:
        # Compiled kernels are specialised on "read-only": arrays that are always so compile once.
        for field in fields(self):
            object.__setattr__(self, field.name, read_only(getattr(self, field.name)))

    @staticmethod
    def of(
        user: ArrayLike,
        item: ArrayLike,
        *,
        time: ArrayLike,
        weight: ArrayLike | None = None,
        user_ids: ArrayLike | None = None,
        item_ids: ArrayLike | None = None,
    ) -> Interactions:
        """Gather events, in any order: duplicates of a pair sum their weights and keep the newest time.

        Args:
            user: [n] ids, whole numbers or text.
            item: [n] ids, whole numbers or text.
            time: [n] microseconds since 1970.
            weight: [n] positive; 1 for each event when left out.
            user_ids: all users, also those without events; by default those of the events.
            item_ids: the whole catalogue, also items without events; by default the items of the events.

        Raises:
            DataError: for no events, columns of different lengths, missing or non-positive weights, or an id
                that is not among those given.
        """
        user, item, time = _ids(user, "user"), _ids(item, "item"), np.asarray(time, dtype=np.int64)
        weight = np.ones(len(user), np.float32) if weight is None else np.asarray(weight, dtype=np.float32)
        _check(user, item, time, weight)
        known_users, users = _encode(user, user_ids, "user")
        known_items, items = _encode(item, item_ids, "item")
        pair, start, row = _group(users.astype(np.int64) * len(known_items) + items)
        return Interactions(
            known_users,
            known_items,
            (pair // len(known_items)).astype(np.int32),
            (pair % len(known_items)).astype(np.int32),
            np.add.reduceat(weight[row], start, dtype=np.float64).astype(np.float32),
            np.maximum.reduceat(time[row], start),
        )

    def __len__(self) -> int:
        return len(self.users)

    @property
    def n_users(self) -> int:
        """The number of users, those without events included."""
        return len(self.user_ids)

    @property
    def n_items(self) -> int:
        """The number of items, those without events included."""
        return len(self.item_ids)

    def by_user(self) -> Rows:
        """Each user's items. Computed once."""
        return self._by_user

    def by_item(self) -> Rows:
        """Each item's users. Computed once."""
        return self._by_item

    @cached_property
    def _by_user(self) -> Rows:
        return Rows(_indptr(self.users, self.n_users), self.items, self.weights)

    @cached_property
    def _by_item(self) -> Rows:
        order = np.argsort(self.items, kind="stable")
        indptr = _indptr(self.items, self.n_items)
        return Rows(indptr, read_only(self.users[order]), read_only(self.weights[order]))


def positions(ids: NDArray[Any], values: ArrayLike) -> NDArray[np.int32]:
    """The index of each value in the rising `ids`, int32; -1 where it is not among them.

    >>> positions(np.array([3, 5, 9]), [9, 4]).tolist()
    [2, -1]
    """
    wanted = _ids(values, "value")
    if len(ids) == 0 or (wanted.dtype.kind == "U") != (ids.dtype.kind == "U"):
        return np.full(len(wanted), -1, np.int32)
    # Text of another width would make NumPy convert all ids; a value that is cut to theirs can't equal one.
    found = np.minimum(np.searchsorted(ids, wanted.astype(ids.dtype)), len(ids) - 1)
    return np.where(ids[found] == wanted, found, -1).astype(np.int32)


def read_only(array: NDArray[Any], dtype: Any = None) -> NDArray[Any]:
    """A contiguous, read-only view of the array; a copy only where its type or layout differs."""
    view = np.ascontiguousarray(array, dtype=dtype).view()
    view.setflags(write=False)
    return view


def _ids(values: ArrayLike, what: str) -> NDArray[Any]:
    ids = np.asarray(values)
    if ids.dtype.kind in "iu" or (ids.size == 0 and ids.dtype.kind != "U"):
        return ids.astype(np.int64, copy=False)
    if ids.dtype.kind == "O" and {*map(type, ids)} - {str}:
        raise DataError(f"some {what} ids are missing or of mixed types", hint="use whole numbers or text", field=what)
    if ids.dtype.kind not in "OUT":
        raise DataError(f"{what} ids are {ids.dtype}", hint="use whole numbers or text", field=what)
    return ids.astype(np.str_, copy=False)


def _check(user: NDArray[Any], item: NDArray[Any], time: NDArray[Any], weight: NDArray[Any]) -> None:
    lengths = {"user": len(user), "item": len(item), "time": len(time), "weight": len(weight)}
    if len(set(lengths.values())) > 1:
        raise DataError(f"columns of different lengths: {lengths}", hint="give each event one value per column")
    if len(user) == 0:
        raise DataError("there are no positive events", hint="check which events count as positive")
    wrong = np.flatnonzero(~(np.isfinite(weight) & (weight > 0)))
    if len(wrong):
        raise DataError(
            f"{len(wrong)} weights are not positive numbers, first {weight[wrong[0]]} in row {wrong[0]}",
            hint="keep only positive events; leave the weight out to count each as 1",
            field="weight",
        )


def _encode(values: NDArray[Any], ids: ArrayLike | None, what: str) -> tuple[NDArray[Any], NDArray[np.int32]]:
    if ids is None:
        known, found = np.unique(values, return_inverse=True)
        return known, found.astype(np.int32)
    known = np.unique(_ids(ids, what))
    at = positions(known, values)
    unknown = np.flatnonzero(at < 0)
    if len(unknown):
        raise DataError(
            f"{len(unknown)} events name an unknown {what}, first {values[unknown[0]].item()!r} in row {unknown[0]}",
            hint=f"add it to {what}_ids, or leave these events out",
            field=what,
        )
    return known, at


def _group(keys: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The distinct keys in rising order, where each one's run starts, and the order of rows that makes runs."""
    row = np.argsort(keys, kind="stable")
    rising = keys[row]
    start = np.flatnonzero(np.r_[True, rising[1:] != rising[:-1]])
    return rising[start], start, row


def _indptr(rows: NDArray[np.int32], count: int) -> NDArray[np.int64]:
    return read_only(np.r_[0, np.cumsum(np.bincount(rows, minlength=count))], np.int64)
