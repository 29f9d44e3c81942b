from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.core import DataError
from noria.recommender.interactions import Interactions, positions

ids = st.one_of(
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=6),
    st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=4), min_size=1, max_size=6),
)


@given(st.data())
def test_it_is_what_a_dictionary_of_pairs_would_hold(data: st.DataObject) -> None:
    users, items = data.draw(ids), data.draw(ids)
    event = st.tuples(st.sampled_from(users), st.sampled_from(items), st.integers(0, 99), st.integers(1, 9))
    events = data.draw(st.lists(event, min_size=1, max_size=30))
    user, item, time, weight = (list(column) for column in zip(*events, strict=True))
    known = Interactions.of(user, item, time=time, weight=weight)

    expected: dict[tuple[object, object], tuple[float, int]] = {}
    for u, i, at, w in events:
        total, newest = expected.get((u, i), (0.0, 0))
        expected[u, i] = (total + w, max(newest, at))
    pairs = zip(known.user_ids[known.users].tolist(), known.item_ids[known.items].tolist(), strict=True)
    values = zip(known.weights.tolist(), known.times.tolist(), strict=True)
    assert list(zip(pairs, values, strict=True)) == sorted(expected.items())
    assert known.user_ids.tolist() == sorted(set(user))
    assert known.item_ids.tolist() == sorted(set(item))


def test_rows_by_user_and_by_item_are_one_matrix() -> None:
    random = np.random.default_rng(0)
    known = Interactions.of(random.integers(0, 9, 40), random.integers(0, 7, 40), time=np.arange(40))
    by_user, by_item = np.zeros((9, 7)), np.zeros((9, 7))
    for row, (start, stop) in enumerate(zip(known.by_user().indptr[:-1], known.by_user().indptr[1:], strict=True)):
        by_user[row, known.by_user().indices[start:stop]] = known.by_user().weights[start:stop]
    for row, (start, stop) in enumerate(zip(known.by_item().indptr[:-1], known.by_item().indptr[1:], strict=True)):
        by_item[known.by_item().indices[start:stop], row] = known.by_item().weights[start:stop]
    np.testing.assert_array_equal(by_user, by_item)
    assert by_user.sum() == 40
    assert known.by_item() is known.by_item()


def test_users_and_items_without_events_may_be_present() -> None:
    known = Interactions.of(["b"], [3], time=[0], user_ids=["c", "a", "b"], item_ids=[3, 1, 3])
    assert (known.n_users, known.n_items) == (3, 2)
    assert known.by_user().indptr.tolist() == [0, 0, 1, 1]
    assert known.by_item().indptr.tolist() == [0, 0, 1]


def test_arrays_can_not_be_changed() -> None:
    known = Interactions.of([1], [1], time=[0])
    for array in (known.users, known.user_ids, *known.by_user(), *known.by_item()):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_data_frames_give_text_as_objects() -> None:
    known = Interactions.of(np.array(["x", "yy"], dtype=object), [1, 2], time=[0, 0])
    assert known.user_ids.tolist() == ["x", "yy"]


def test_positions_of_longer_and_shorter_text() -> None:
    known = np.array(["ab", "cd"])
    assert positions(known, ["abc", "a", "cd", "zzz", ""]).tolist() == [-1, -1, 1, -1, -1]
    assert positions(known, [1]).tolist() == [-1]
    assert positions(known, []).tolist() == []
    assert positions(np.array([], np.int64), [1]).tolist() == [-1]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"user": [], "item": [], "time": []}, "no positive events"),
        ({"user": [1, 2], "item": [1], "time": [0, 0]}, "different lengths"),
        ({"user": [1.5], "item": [1], "time": [0]}, "user ids are float64"),
        ({"user": np.array(["a", None], object), "item": [1, 2], "time": [0, 0]}, "user ids are missing"),
        ({"user": [1], "item": [1], "time": [0], "weight": [0.0]}, "first 0.0 in row 0"),
        ({"user": [1], "item": [1], "time": [0], "weight": [np.nan]}, "not positive numbers"),
        ({"user": [1, 9], "item": [1, 1], "time": [0, 0], "user_ids": [1]}, "unknown user, first 9 in row 1"),
        ({"user": [1], "item": ["x"], "time": [0], "item_ids": [1]}, "unknown item"),
    ],
)
def test_wrong_events_are_refused(columns: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Interactions.of(columns.pop("user"), columns.pop("item"), **columns)  # type: ignore[arg-type]
