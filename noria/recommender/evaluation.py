"""Evaluation: how well a retriever's rankings of the full catalogue meet what users chose later."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from noria.core import ConfigError, DataError, allowed
from noria.recommender.interactions import Interactions
from noria.recommender.ranking import top_k
from noria.recommender.retriever import FittedRetriever

BATCH = 256
"""Users scored at once: bounds memory to BATCH x n_items scores."""

RESAMPLES = 1000

Hits = NDArray[np.bool_]
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A mean over users with its 95 % confidence interval.

    Attributes:
        value: the mean.
        low: the 2.5th percentile of the bootstrap.
        high: the 97.5th percentile of the bootstrap.
        users: how many users the mean is over.
    """

    value: float
    low: float
    high: float
    users: int

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"


def ndcg(hits: Hits, relevant: NDArray[np.int64]) -> Values:
    """Discounted gain of the hits over that of the best ranking possible (Jarvelin & Kekalainen 2002).

    Relevance is binary, a hit at rank r (from 1) gains 1 / log2(r + 1); the best ranking starts with
    min(k, number of relevant items) hits.

    Args:
        hits: [users, k] whether the item at each rank is relevant.
        relevant: [users] the number of relevant items, at least 1; so for every metric here.
    """
    gains = 1 / np.log2(np.arange(2, hits.shape[1] + 2))
    ideal = np.cumsum(gains)[np.minimum(relevant, hits.shape[1]) - 1]
    return np.asarray(hits @ gains / ideal, np.float64)


def recall(hits: Hits, relevant: NDArray[np.int64]) -> Values:
    """The share of the relevant items that are among the first k; below 1 where there are more than k of them."""
    return np.asarray(hits.sum(axis=1) / relevant, np.float64)


def precision(hits: Hits, relevant: NDArray[np.int64]) -> Values:
    """The share of the first k that is relevant."""
    return np.asarray(hits.sum(axis=1) / hits.shape[1], np.float64)


def hit_rate(hits: Hits, relevant: NDArray[np.int64]) -> Values:
    """Whether any of the first k is relevant."""
    return np.asarray(hits.any(axis=1), np.float64)


def mrr(hits: Hits, relevant: NDArray[np.int64]) -> Values:
    """One over the rank of the first relevant item; 0 when none is among the first k."""
    return np.where(hits.any(axis=1), 1 / (1 + hits.argmax(axis=1)), 0.0)


METRICS: dict[str, Callable[[Hits, NDArray[np.int64]], Values]] = {
    "ndcg": ndcg,
    "recall": recall,
    "precision": precision,
    "hit_rate": hit_rate,
    "mrr": mrr,
}


def parse_metric(text: str) -> tuple[str, int]:
    """The metric's name and its cut-off: `ndcg@10` is `("ndcg", 10)`.

    Raises:
        ConfigError: for an unknown name, or no cut-off of 1 or more.
    """
    match = re.fullmatch(r"(\w+)@([1-9]\d*)", text)
    if match is None or match[1] not in METRICS:
        near = f"{text.partition('@')[0]}@K"
        hint = allowed([f"{name}@K" for name in METRICS], near) + "; K is a whole number, such as 10"
        raise ConfigError(f"unknown metric {text!r}", hint=hint, field="metrics")
    return match[1], int(match[2])


def per_user(
    fitted: FittedRetriever,
    train: Interactions,
    test_users: ArrayLike,
    test_items: ArrayLike,
    metrics: Sequence[str] = ("ndcg@10", "recall@20"),
) -> dict[str, Values]:
    """Each metric for each user with a relevant item, users in the order of their positions.

    The whole catalogue is ranked, without the items that the user has in `train`; these are not relevant either,
    and repeated pairs count once.

    Args:
        fitted: what to judge.
        train: what it was fitted to.
        test_users: [n] positions in `train.user_ids`.
        test_items: [n] positions in `train.item_ids`: what the users chose later.
        metrics: names such as `ndcg@10`.

    Raises:
        ConfigError: for an unknown metric.
        DataError: when positions are out of range, or no user has a relevant item.
    """
    wanted = {text: parse_metric(text) for text in metrics}
    pairs = _relevant(train, np.asarray(test_users, np.int64), np.asarray(test_items, np.int64))
    users, relevant = np.unique(pairs // train.n_items, return_counts=True)
    depth = min(max((k for _, k in wanted.values()), default=1), train.n_items)
    hits = np.concatenate(
        [_hits(fitted, train, users[start : start + BATCH], pairs, depth) for start in range(0, len(users), BATCH)]
    )
    # A catalogue smaller than k has no hits beyond its end.
    return {text: METRICS[name](_to_width(hits, k), relevant) for text, (name, k) in wanted.items()}


def evaluate(
    fitted: FittedRetriever,
    train: Interactions,
    test_users: ArrayLike,
    test_items: ArrayLike,
    metrics: Sequence[str] = ("ndcg@10", "recall@20"),
    seed: int = 0,
) -> dict[str, Interval]:
    """The mean of `per_user`, whose arguments these are, with bootstrap intervals over users."""
    values = per_user(fitted, train, test_users, test_items, metrics)
    return {name: bootstrap(value, seed) for name, value in values.items()}


def bootstrap(values: Values, seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """The mean and its percentile bootstrap interval (Efron 1979), 95 %.

    To compare two models on the same users give the differences of their values: the models differ when the
    interval excludes 0.

    Args:
        values: [n] one for each user, at least one.
        seed: of the resampling.
        resamples: how many.
    """
    random = np.random.default_rng(seed)
    block = max(1, 2_000_000 // len(values))  # bounds memory
    sizes = [min(block, resamples - start) for start in range(0, resamples, block)]
    means = np.concatenate([values[random.integers(len(values), size=(n, len(values)))].mean(axis=1) for n in sizes])
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(float(values.mean()), float(low), float(high), len(values))


def _relevant(train: Interactions, users: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[np.int64]:
    """Distinct test pairs that are not in train, as rising numbers user * n_items + item."""
    for what, at, count in (("test_users", users, train.n_users), ("test_items", items, train.n_items)):
        if len(at) and not 0 <= at.min() <= at.max() < count:
            raise DataError(
                f"{what} must be positions in [0, {count})",
                hint="leave out what training doesn't know, or give `Interactions.of` all ids",
                field=what,
            )
    seen = train.users.astype(np.int64) * train.n_items + train.items
    pairs = np.setdiff1d(users * train.n_items + items, seen)
    if len(pairs) == 0:
        raise DataError("no user has a relevant test item", hint="use a longer test period")
    return pairs


def _hits(
    fitted: FittedRetriever, train: Interactions, users: NDArray[np.int64], pairs: NDArray[np.int64], depth: int
) -> Hits:
    batch = users.astype(np.int32)
    seen = train.by_user()
    items, _ = top_k(fitted.score(batch), seen.indptr, seen.indices, batch, depth)
    keys = users[:, None] * train.n_items + items
    at = np.minimum(np.searchsorted(pairs, keys), len(pairs) - 1)
    return np.asarray((pairs[at] == keys) & (items >= 0), np.bool_)


def _to_width(hits: Hits, k: int) -> Hits:
    return np.pad(hits[:, :k], ((0, 0), (0, max(0, k - hits.shape[1]))))
