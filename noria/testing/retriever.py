"""The conformance suite of retrievers: subclass `RetrieverConformance` in a test file and name your retriever."""

from __future__ import annotations

import io
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noria.core import IntegrityError
from noria.recommender.interactions import Interactions
from noria.recommender.retriever import FittedRetriever, Retriever


class RetrieverConformance:
    """What every retriever must do; run by pytest.

    ```python
    class TestMine(RetrieverConformance):
        def retriever(self) -> Retriever:
            return Mine()
    ```
    """

    def retriever(self) -> Retriever:
        """The definition under test; give one that fits quickly."""
        raise NotImplementedError("define retriever() to return the retriever under test")

    def interactions(self) -> Interactions:
        """120 users of 60 items in two groups of taste; the last user and the last item have no events."""
        random = np.random.default_rng(7)
        users = random.integers(0, 119, 1500)
        items = random.integers(0, 29, 1500) + 30 * (users % 2)
        times = random.integers(0, 10**12, 1500)
        return Interactions.of(users, items, time=times, user_ids=np.arange(120), item_ids=np.arange(60))

    def test_the_definition_is_plain_data_that_makes_an_equal_one(self) -> None:
        retriever = self.retriever()
        definition = json.loads(json.dumps(retriever.to_dict()))
        assert definition.pop("name") == retriever.name, "to_dict() must carry the name"
        again = type(retriever)(**definition)
        assert again.to_dict() == retriever.to_dict(), "the constructor must take what to_dict() gives, less the name"

    def test_scores_cover_the_catalogue(self) -> None:
        known = self.interactions()
        scores = self._fit(known).score(np.array([5, 0, 5, 119], np.int32))
        assert scores.shape == (4, known.n_items), f"one row per user and one column per item, not {scores.shape}"
        assert scores.dtype == np.float32, f"scores are float32, not {scores.dtype}"
        assert not np.isnan(scores).any(), "a score may be -inf (no candidate) but not NaN"
        np.testing.assert_array_equal(scores[0], scores[2], "the same user twice in a batch has the same scores")

    def test_no_users_give_no_rows(self) -> None:
        known = self.interactions()
        assert self._fit(known).score(np.empty(0, np.int32)).shape == (0, known.n_items)

    def test_scores_belong_to_the_caller(self) -> None:
        fitted, users = self._fit(self.interactions()), np.arange(3, dtype=np.int32)
        scores = fitted.score(users)
        before = scores.copy()
        scores[:] = -1
        np.testing.assert_array_equal(fitted.score(users), before, "writing to scores must not change the retriever")

    def test_equal_seeds_give_equal_scores(self) -> None:
        known = self.interactions()
        np.testing.assert_array_equal(self._scores(self._fit(known), known), self._scores(self._fit(known), known))

    def test_the_order_of_events_does_not_matter(self) -> None:
        known = self.interactions()
        back = slice(None, None, -1)
        reversed_events = Interactions.of(
            known.user_ids[known.users[back]],
            known.item_ids[known.items[back]],
            time=known.times[back],
            weight=known.weights[back],
            user_ids=known.user_ids,
            item_ids=known.item_ids,
        )
        again = self._scores(self._fit(reversed_events), known)
        np.testing.assert_array_equal(self._scores(self._fit(known), known), again)

    def test_saved_and_restored_it_scores_equal_to_the_bit(self) -> None:
        known, fitted = self.interactions(), self._fit(self.interactions())
        saved = {name: _saved(array) for name, array in fitted.arrays().items()}
        restored = self.retriever().restore(saved, known)
        np.testing.assert_array_equal(self._scores(fitted, known), self._scores(restored, known))

    def test_arrays_of_other_interactions_are_refused(self) -> None:
        known = self.interactions()
        arrays = self._fit(known).arrays()
        other = Interactions.of([1, 2], [1, 2], time=[1, 2])
        if not arrays:
            return  # a retriever without state of its own has nothing to mismatch
        try:
            self.retriever().restore(arrays, other)
        except IntegrityError:
            return
        raise AssertionError("restore() must raise IntegrityError for arrays that don't fit the interactions")

    def test_one_user_and_one_item_are_enough(self) -> None:
        known = Interactions.of(["u"], ["i"], time=[0])
        assert self._fit(known).score(np.zeros(1, np.int32)).shape == (1, 1)

    def test_two_may_fit_at_once(self) -> None:
        known = self.interactions()
        with ThreadPoolExecutor(2) as pool:
            one, two = pool.map(lambda _: self._scores(self._fit(known), known), range(2))
        np.testing.assert_array_equal(one, two)

    def _fit(self, known: Interactions) -> FittedRetriever:
        return self.retriever().fit(known, seed=3)

    def _scores(self, fitted: FittedRetriever, known: Interactions) -> NDArray[np.float32]:
        return fitted.score(np.arange(known.n_users, dtype=np.int32))


def _saved(array: NDArray[Any]) -> NDArray[Any]:
    """The array after a way through a file; read-only, as arrays of mapped files are."""
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    stream.seek(0)
    loaded: NDArray[Any] = np.load(stream, allow_pickle=False)
    loaded.setflags(write=False)
    return loaded
