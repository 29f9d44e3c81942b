"""Training a recommender: judge every retriever on the future, choose, and fit the choice to everything.

The events are split twice. The newest part is set aside; on the newest part of what is left the best retriever is
chosen; then all are judged on the part that was set aside, which the choice never saw, and that is what the report
shows. The chosen one is then fitted to all events.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noria.core import NoProgress, Progress, task
from noria.recommender.evaluation import Interval, evaluate
from noria.recommender.interactions import Interactions, positions
from noria.recommender.popular import Popular
from noria.recommender.retriever import FittedRetriever, Retriever
from noria.training.splits import Split

METRICS = ("ndcg@10", "recall@20")
"""What retrievers are judged by; the first one chooses."""


@dataclass(frozen=True)
class Events:
    """Positive events as columns of equal length: ids, and event times in microseconds since 1970."""

    users: NDArray[Any]
    items: NDArray[Any]
    times: NDArray[np.int64]

    def where(self, mask: NDArray[np.bool_]) -> Events:
        """The events for which the mask is true."""
        return Events(self.users[mask], self.items[mask], self.times[mask])

    def split(self, split: Split, seed: int) -> tuple[Events, Events]:
        """The events that train and those that judge."""
        train, test = split.masks(self.times, len(self.times), seed, self.users)
        return self.where(train), self.where(test)

    def interactions(self, like: Interactions | None = None) -> Interactions:
        """Gathered for retrievers; with the users and items of `like`, so that positions agree."""
        ids = {"user_ids": like.user_ids, "item_ids": like.item_ids} if like is not None else {}
        return Interactions.of(self.users, self.items, time=self.times, **ids)


@dataclass(frozen=True)
class Judgement:
    """How the retrievers did on the newest events.

    Attributes:
        models: retriever to metric to value with its 95 % interval.
        chosen: the retriever that was best on the events before the newest.
        users: how many users the metrics are means over.
        cold_users: users of the newest events without any event before, who are not among `users`: they get the
            popular items whatever the retriever.
    """

    models: dict[str, dict[str, Interval]]
    chosen: str
    users: int
    cold_users: int


@dataclass(frozen=True)
class Trained:
    """A recommender that is ready to answer."""

    retriever: Retriever
    fitted: FittedRetriever
    popular: NDArray[np.int32]
    interactions: Interactions
    judgement: Judgement


def train(
    events: Events, retrievers: Sequence[Retriever], *, split: Split, seed: int, progress: Progress | None = None
) -> Trained:
    """Judge, choose and fit.

    Args:
        events: positive events only.
        retrievers: the candidates.
        split: sets aside what judges; split again, the rest gives what chooses.
        seed: of everything random.
        progress: shown one step for every fit.
    """
    progress = progress or NoProgress()
    everything = events.interactions()
    with task(progress, "judge retrievers", 2 * len(retrievers)):
        earlier, newest = events.split(split, seed)
        past, present = earlier.split(split, seed)
        choice = _judge(past, present, everything, retrievers, seed, progress)
        models = _judge(earlier, newest, everything, retrievers, seed, progress)
    best = max(retrievers, key=lambda r: choice[r.name][METRICS[0]].value)
    with task(progress, f"fit {best.name}"):
        fitted = best.fit(everything, seed=seed)
        popular = _popular(everything, seed)
    warm = np.isin(np.unique(newest.users), earlier.users)
    judgement = Judgement(models, best.name, int(warm.sum()), int((~warm).sum()))
    return Trained(best, fitted, popular, everything, judgement)


def _judge(
    before: Events, after: Events, like: Interactions, retrievers: Sequence[Retriever], seed: int, progress: Progress
) -> dict[str, dict[str, Interval]]:
    known = before.interactions(like)
    later = after.where(np.isin(after.users, before.users))
    users, items = positions(like.user_ids, later.users), positions(like.item_ids, later.items)
    results = {}
    for retriever in retrievers:
        fitted = retriever.fit(known, seed=seed)
        results[retriever.name] = evaluate(fitted, known, users, items, metrics=METRICS, seed=seed)
        progress.advance("judge retrievers")
    return results


def _popular(interactions: Interactions, seed: int) -> NDArray[np.int32]:
    """All items, the most popular first: the answer for users of whom nothing is known."""
    scores = Popular().fit(interactions, seed=seed).score(np.zeros(1, np.int32))[0]
    return np.argsort(-scores, kind="stable").astype(np.int32)
