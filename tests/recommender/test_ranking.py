from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from noria.core import DataError
from noria.recommender.ranking import top_k

SCORES = st.one_of(st.integers(-2, 2).map(float), st.floats(width=32), st.just(-np.inf), st.just(np.nan))


@given(st.data())
def test_it_agrees_with_sorting(data: st.DataObject) -> None:
    n_users, n_items = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 9))
    users = data.draw(st.lists(st.integers(0, n_users - 1), max_size=5))
    k = data.draw(st.integers(1, 11))
    scores = data.draw(arrays(np.float32, (len(users), n_items), elements=SCORES))
    seen = [sorted(data.draw(st.sets(st.integers(0, n_items - 1)))) for _ in range(n_users)]
    indptr = np.cumsum([0, *map(len, seen)])
    indices = np.array([item for row in seen for item in row], np.int32)

    items, best = top_k(scores, indptr, indices, np.array(users, np.int32), k)

    assert items.shape == best.shape == (len(users), k)
    for row, user in enumerate(users):
        candidates = [i for i in range(n_items) if i not in seen[user] and scores[row, i] > -np.inf]
        expected = sorted(candidates, key=lambda i: (-scores[row, i], i))[:k]
        padding = k - len(expected)
        assert items[row].tolist() == expected + [-1] * padding
        assert best[row].tolist() == [*scores[row, expected].tolist(), *[-np.inf] * padding]


def test_many_items_and_ties() -> None:
    scores = np.random.default_rng(0).integers(0, 50, (20, 5000)).astype(np.float32)
    items, _ = top_k(scores, np.zeros(21, np.int64), np.empty(0, np.int32), np.arange(20), 200)
    np.testing.assert_array_equal(items, np.argsort(-scores, axis=1, kind="stable")[:, :200])


@pytest.mark.parametrize(
    ("rows", "users", "k", "indptr", "message"),
    [
        (1, [0, 1], 1, [0, 0, 0], "for 2 users"),
        (1, [0], 0, [0, 0], "the best 0"),
        (1, [1], 1, [0, 0], r"\[0, 1\)"),
        (1, [-1], 1, [0, 0], r"\[0, 1\)"),
        (1, [0], 1, [0, 5], "speaks of 5"),
    ],
)
def test_shapes_that_do_not_fit(rows: int, users: list[int], k: int, indptr: list[int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        top_k(np.zeros((rows, 3), np.float32), np.array(indptr), np.empty(0, np.int32), users, k)
