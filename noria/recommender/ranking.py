"""Ranking: the best items of each user's scores, without what the user has already seen."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from noria.core import DataError
from noria.recommender.interactions import read_only
from noria.recommender.kernels import top_rows


def top_k(
    scores: NDArray[np.float32],
    seen_indptr: NDArray[np.int64],
    seen_indices: NDArray[np.int32],
    users: ArrayLike,
    k: int,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Each row's `k` best unseen items, best first; of equal scores the lower position comes first.

    An item whose score is NaN or minus infinity is no candidate. Where fewer than `k` are left, the row is padded
    with item -1 and score minus infinity.

    Args:
        scores: [b, n_items].
        seen_indptr: [n_users + 1]: user u has seen `seen_indices[seen_indptr[u]:seen_indptr[u + 1]]`.
        seen_indices: item positions, rising within each user (as `Interactions.by_user` gives them).
        users: [b] user positions, one for each row of scores.
        k: how many; at least 1.

    Returns:
        Item positions, int32 [b, k], and their scores, float32 [b, k].

    Raises:
        DataError: when the shapes don't fit, or a user has no row in `seen_indptr`.

    >>> scores = np.array([[0.1, 0.9, 0.9, 0.5]], np.float32)
    >>> top_k(scores, np.array([0, 1]), np.array([1]), [0], k=2)[0].tolist()
    [[2, 3]]
    """
    users = read_only(np.asarray(users), np.int32)
    if len(seen_indices) < seen_indptr[-1]:
        raise DataError(f"seen_indices has {len(seen_indices)} entries, seen_indptr speaks of {seen_indptr[-1]}")
    if scores.ndim != 2 or len(users) != len(scores) or k < 1:
        raise DataError(f"can't take the best {k} of scores {scores.shape} for {len(users)} users")
    if len(users) and not 0 <= users.min() <= users.max() < len(seen_indptr) - 1:
        raise DataError(f"user positions must lie in [0, {len(seen_indptr) - 1})", field="users")
    best = np.empty((len(users), k), np.float32)
    items = np.empty((len(users), k), np.int32)
    seen = read_only(seen_indptr, np.int64), read_only(seen_indices, np.int32)
    top_rows(best, items, read_only(scores, np.float32), *seen, users)
    return items, best
