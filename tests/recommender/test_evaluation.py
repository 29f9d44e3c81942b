from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.core import ConfigError, DataError
from noria.recommender.evaluation import METRICS, bootstrap, evaluate, parse_metric, per_user
from noria.recommender.interactions import Interactions


@dataclass
class Fixed:
    """A retriever that knows its scores."""

    scores: Any

    def score(self, users: Any) -> Any:
        return self.scores[users]

    def arrays(self) -> dict[str, Any]:
        return {"scores": self.scores}


def oracle(metric: str, k: int, ranking: list[int], relevant: set[int]) -> float:
    """Each metric as a textbook spells it out for one user."""
    top = ranking[:k]
    hits = [item for item in top if item in relevant]
    if metric == "recall":
        return len(hits) / len(relevant)
    if metric == "precision":
        return len(hits) / k
    if metric == "hit_rate":
        return float(bool(hits))
    if metric == "mrr":
        return 1 / (1 + top.index(hits[0])) if hits else 0.0
    gained = sum(1 / np.log2(rank + 2) for rank, item in enumerate(top) if item in relevant)
    ideal = sum(1 / np.log2(rank + 2) for rank in range(min(k, len(relevant))))
    return gained / ideal


@settings(deadline=None)
@given(st.data())
def test_metrics_agree_with_a_naive_oracle(data: st.DataObject) -> None:
    n_users, n_items = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 8))
    pair = st.tuples(st.integers(0, n_users - 1), st.integers(0, n_items - 1))
    train = data.draw(st.lists(pair, min_size=1, max_size=12))
    test = data.draw(st.lists(pair, max_size=12))
    values = st.lists(st.integers(0, 3), min_size=n_users * n_items, max_size=n_users * n_items)
    scores = np.array(data.draw(values), np.float32).reshape(n_users, n_items)
    metric, k = data.draw(st.sampled_from(sorted(METRICS))), data.draw(st.integers(1, 10))
    known = Interactions.of(
        [u for u, _ in train],
        [i for _, i in train],
        time=[0] * len(train),
        user_ids=np.arange(n_users),
        item_ids=np.arange(n_items),
    )
    expected = []
    for user in range(n_users):
        seen = {i for u, i in train if u == user}
        relevant = {i for u, i in test if u == user} - seen
        ranking = sorted(set(range(n_items)) - seen, key=lambda i: (-scores[user, i], i))
        if relevant:
            expected.append(oracle(metric, k, ranking, relevant))

    users, items = [u for u, _ in test], [i for _, i in test]
    if not expected:
        with pytest.raises(DataError, match="no user has a relevant test item"):
            per_user(Fixed(scores), known, users, items, [f"{metric}@{k}"])
        return
    got = per_user(Fixed(scores), known, users, items, [f"{metric}@{k}"])
    np.testing.assert_allclose(got[f"{metric}@{k}"], expected)


def test_batches_are_put_together(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    known = Interactions.of(
        random.integers(0, 50, 300),
        random.integers(0, 40, 300),
        time=np.zeros(300),
        user_ids=np.arange(50),
        item_ids=np.arange(40),
    )
    fitted = Fixed(random.random((50, 40), np.float32))
    test = random.integers(0, 50, 200), random.integers(0, 40, 200)
    whole = per_user(fitted, known, *test)
    monkeypatch.setattr("noria.recommender.evaluation.BATCH", 7)
    for name, values in per_user(fitted, known, *test).items():
        np.testing.assert_array_equal(values, whole[name])


def test_the_mean_comes_with_its_interval() -> None:
    known = Interactions.of([0, 1], [0, 0], time=[0, 0], item_ids=np.arange(3))
    scores = np.array([[9, 2, 1], [9, 2, 1]], np.float32)
    result = evaluate(Fixed(scores), known, [0, 1], [1, 2], ["mrr@2", "recall@1"])
    assert (result["mrr@2"].value, result["mrr@2"].users) == (0.75, 2)
    assert (result["mrr@2"].low, result["mrr@2"].high) == (0.5, 1.0)
    assert result == evaluate(Fixed(scores), known, [0, 1], [1, 2], ["mrr@2", "recall@1"])


def test_bootstrap_covers_the_true_mean_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    intervals = [bootstrap(random.random(100), seed) for seed in range(300)]
    covered = np.mean([i.low <= 0.5 <= i.high for i in intervals])
    assert 0.90 <= covered <= 0.99


def test_bootstrap_is_seeded_and_works_in_blocks() -> None:
    values = np.random.default_rng(0).random(5000)
    assert bootstrap(values, 1) == bootstrap(values, 1) != bootstrap(values, 2)
    interval = bootstrap(np.ones(3_000_000), resamples=3)  # more values than one block holds
    assert (interval.low, interval.value, interval.high, interval.users) == (1, 1, 1, 3_000_000)


@pytest.mark.parametrize("wrong", ["ndgc@10", "ndcg", "ndcg@0", "ndcg@-1", "ndcg@x", "", "@10"])
def test_unknown_metrics_list_the_known_ones(wrong: str) -> None:
    with pytest.raises(ConfigError, match="hit_rate@K, mrr@K, ndcg@K, precision@K, recall@K"):
        parse_metric(wrong)


def test_a_misspelt_metric_gets_a_guess() -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'ndcg@K'\?"):
        parse_metric("ndgc@10")


@pytest.mark.parametrize(("users", "items"), [([-1], [0]), ([2], [0]), ([0], [-1]), ([0], [1])])
def test_positions_out_of_range_are_refused(users: list[int], items: list[int]) -> None:
    known = Interactions.of([0, 1], [0, 0], time=[0, 0])
    with pytest.raises(DataError, match="must be positions"):
        evaluate(Fixed(np.zeros((2, 1), np.float32)), known, users, items)
