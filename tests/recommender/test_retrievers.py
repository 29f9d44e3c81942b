from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.core import ConfigError, Progress
from noria.recommender.als import ALS, FittedALS
from noria.recommender.interactions import Interactions
from noria.recommender.item_knn import ItemKNN
from noria.recommender.popular import Popular
from noria.recommender.ranking import top_k
from noria.recommender.retriever import Retriever
from noria.testing.retriever import RetrieverConformance

DAY = 86_400 * 1_000_000


class TestALS(RetrieverConformance):
    def retriever(self) -> Retriever:
        return ALS(factors=8, iterations=5)


class TestItemKNN(RetrieverConformance):
    def retriever(self) -> Retriever:
        return ItemKNN(neighbours=10)


class TestPopular(RetrieverConformance):
    def retriever(self) -> Retriever:
        return Popular()


class TestPopularInAWindow(RetrieverConformance):
    def retriever(self) -> Retriever:
        return Popular(window="1d")


@pytest.fixture(scope="module")
def tastes() -> Interactions:
    return RetrieverConformance().interactions()


@pytest.mark.parametrize("retriever", [ALS(factors=8), ItemKNN()], ids=lambda r: r.name)
def test_personal_retrievers_recommend_from_the_users_own_taste(retriever: Retriever, tastes: Interactions) -> None:
    users = np.arange(119, dtype=np.int32)
    seen = tastes.by_user()
    items, _ = top_k(retriever.fit(tastes).score(users), seen.indptr, seen.indices, users, 5)
    assert np.mean(items // 30 == users[:, None] % 2) > 0.99


def test_als_solves_its_equations(tastes: Interactions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("noria.recommender.als.CG_STEPS", 20)
    als = ALS(factors=6, iterations=1, regularization=0.05, alpha=4)
    fitted = als.fit(tastes)
    assert isinstance(fitted, FittedALS)
    confidence = np.zeros((tastes.n_items, tastes.n_users))
    confidence[tastes.items, tastes.users] = als.alpha * tastes.weights
    expected = direct_solution(als, fitted.user_factors, confidence)
    np.testing.assert_allclose(fitted.item_factors, expected, rtol=1e-3, atol=1e-4)


def test_als_does_not_depend_on_the_number_of_threads(tastes: Interactions, monkeypatch: pytest.MonkeyPatch) -> None:
    fits = []
    for cores in ({0}, set(range(7))):
        monkeypatch.setattr("os.sched_getaffinity", lambda _, cores=cores: cores)
        fits.append(ALS(factors=8, iterations=3).fit(tastes).arrays()["user_factors"])
    np.testing.assert_array_equal(*fits)


def test_users_and_items_without_events_have_zero_vectors(tastes: Interactions) -> None:
    arrays = ALS(factors=4, iterations=2).fit(tastes).arrays()
    assert not arrays["user_factors"][119].any()
    assert not arrays["item_factors"][59].any()


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_item_knn_agrees_with_its_formula(data: st.DataObject) -> None:
    n_users, n_items = data.draw(st.integers(1, 8)), data.draw(st.integers(1, 8))
    pair = st.tuples(st.integers(0, n_users - 1), st.integers(0, n_items - 1), st.integers(1, 5))
    events = np.array(data.draw(st.lists(pair, min_size=1, max_size=30)))
    knn = ItemKNN(neighbours=data.draw(st.integers(1, 8)), shrink=data.draw(st.sampled_from([0.0, 1.5])))
    known = Interactions.of(
        events[:, 0],
        events[:, 1],
        time=np.zeros(len(events)),
        weight=events[:, 2],
        user_ids=np.arange(n_users),
        item_ids=np.arange(n_items),
    )
    matrix = np.zeros((n_users, n_items))
    matrix[known.users, known.items] = known.weights
    scores = knn.fit(known).score(np.arange(n_users, dtype=np.int32))
    np.testing.assert_allclose(scores, matrix @ nearest(matrix, knn), rtol=1e-4, atol=1e-5)


def test_tiny_weights_are_no_danger() -> None:
    known = Interactions.of([0, 0, 0, 1, 1], [0, 1, 2, 0, 1], time=np.zeros(5), weight=np.full(5, 1e-30))
    for retriever in (ItemKNN(shrink=0), ALS(factors=2)):
        retriever.fit(known)


def test_item_knn_refuses_users_that_do_not_exist(tastes: Interactions) -> None:
    fitted = ItemKNN().fit(tastes)
    for user in (-1, 120):
        with pytest.raises(IndexError, match="120"):
            fitted.score(np.array([user], np.int32))


def test_popular_counts_users_in_the_window() -> None:
    known = Interactions.of([1, 2, 3, 1], ["old", "old", "new", "new"], time=[0, DAY, 10 * DAY, 11 * DAY])
    assert Popular().fit(known).score(np.zeros(1, np.int32)).tolist() == [[2, 2]]
    assert Popular("2d").fit(known).score(np.zeros(2, np.int32)).tolist() == [[2, 0], [2, 0]]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: ALS(factors=0),
        lambda: ALS(regularization=0),
        lambda: ALS(alpha=-1),
        lambda: ALS(iterations=0),
        lambda: ItemKNN(neighbours=0),
        lambda: ItemKNN(shrink=-1),
        lambda: Popular("a month"),
    ],
)
def test_wrong_hyper_parameters_are_refused(wrong: object) -> None:
    with pytest.raises(ConfigError, match="hint"):
        wrong()  # type: ignore[operator]


def test_als_tells_its_progress(tastes: Interactions) -> None:
    class Watch:
        def __init__(self) -> None:
            self.steps = 0

        def begin(self, task: str, total: int | None = None) -> None:
            self.total = total

        def advance(self, task: str, steps: int = 1, note: str = "") -> None:
            self.steps += steps

        def end(self, task: str, note: str = "") -> None:
            self.note = note

    watch = Watch()
    progress: Progress = watch
    ALS(factors=4, iterations=6).fit(tastes, progress=progress)
    assert (watch.total, watch.steps, watch.note) == (6, 6, "")


def direct_solution(als: ALS, fixed: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """One side's vectors from the normal equations, written down as in the paper."""
    rows = []
    for extra in confidence:
        system = fixed.T @ ((1 + extra)[:, None] * fixed) + als.regularization * extra.sum() * np.eye(als.factors)
        wanted = fixed.T @ ((1 + extra) * (extra > 0))
        rows.append(np.linalg.solve(system, wanted) if extra.any() else np.zeros(als.factors))
    return np.array(rows)


def nearest(matrix: np.ndarray, knn: ItemKNN) -> np.ndarray:
    """Similarities, each row cut to its nearest items, ties to the lower position."""
    norms = np.sqrt((matrix**2).sum(axis=0)).astype(np.float32)
    both = (matrix.T @ matrix).astype(np.float32)
    np.fill_diagonal(both, 0)
    scale = norms[:, None] * norms + np.float32(knn.shrink)
    similar = np.divide(both, scale, out=np.zeros_like(both), where=both > 0)
    for row in similar:
        row[np.argsort(-row, kind="stable")[knn.neighbours :]] = 0
    return similar
