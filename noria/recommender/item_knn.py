"""ItemKNN: items that the same people chose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from noria.core import IntegrityError, Progress, task
from noria.recommender.interactions import Interactions, Rows, read_only
from noria.recommender.kernels import neighbour_scores, over_rows, similar_rows
from noria.recommender.retriever import SILENT, FittedRetriever, checked, require


@dataclass(frozen=True)
class ItemKNN:
    """An item's score is the sum of its similarities to the items of the user's history (Deshpande & Karypis 2004).

    The similarity of two items is the cosine between their columns of weights, with `shrink` added to its
    denominator, so that a few common users prove little.

    Attributes:
        neighbours: how many most similar items each item keeps.
        shrink: in the unit of squared weights; 0 is the plain cosine.
    """

    neighbours: int = 50
    shrink: float = 20.0
    name: ClassVar[str] = "item_knn"

    def __post_init__(self) -> None:
        require(self.neighbours >= 1, self.name, "neighbours", self.neighbours, "1 or more")
        require(self.shrink >= 0, self.name, "shrink", self.shrink, "0 or more")

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, **asdict(self)}

    def fit(self, interactions: Interactions, *, seed: int = 0, progress: Progress = SILENT) -> FittedRetriever:
        by_item, by_user = interactions.by_item(), interactions.by_user()
        width = max(1, min(self.neighbours, interactions.n_items - 1))
        near = np.empty((interactions.n_items, width), np.int32)
        similarity = np.empty((interactions.n_items, width), np.float32)
        rules = by_item, by_user, _norms(interactions), np.float32(self.shrink)
        # An item is compared with every entry of every user who has it.
        entries = np.r_[0, np.cumsum(np.diff(by_user.indptr)[by_item.indices])]
        cost = entries[by_item.indptr] + np.arange(interactions.n_items + 1)
        with task(progress, self.name):
            over_rows(lambda start, stop: similar_rows(start, stop, near, similarity, *rules), cost)
        kept = near >= 0
        indptr = np.r_[0, np.cumsum(kept.sum(axis=1))]
        return FittedItemKNN(by_user, *_read_only(indptr, near[kept], similarity[kept]))

    def restore(self, arrays: Mapping[str, NDArray[Any]], interactions: Interactions) -> FittedRetriever:
        shapes = {"indptr": (interactions.n_items + 1,), "neighbours": (None,), "similarities": (None,)}
        indptr, near, similarity = checked(arrays, shapes, self.name)
        if not indptr[-1] == len(near) == len(similarity) or near.max(initial=-1) >= interactions.n_items:
            raise IntegrityError(f"the arrays of retriever {self.name!r} don't fit each other", hint="train it again")
        return FittedItemKNN(interactions.by_user(), *_read_only(indptr, near, similarity))


@dataclass(frozen=True, eq=False)
class FittedItemKNN:
    """Each item's nearest items, best first: those of item i lie in `[indptr[i]:indptr[i + 1]]`."""

    histories: Rows
    indptr: NDArray[np.int64]
    neighbours: NDArray[np.int32]
    similarities: NDArray[np.float32]

    def score(self, users: NDArray[np.int32]) -> NDArray[np.float32]:
        scores = np.zeros((len(users), len(self.indptr) - 1), np.float32)
        users = read_only(users, np.int32)
        if len(users) and not 0 <= users.min() <= users.max() < len(self.histories.indptr) - 1:
            raise IndexError(f"user positions must lie in [0, {len(self.histories.indptr) - 1})")
        neighbour_scores(scores, users, self.histories, self.indptr, self.neighbours, self.similarities)
        return scores

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {"indptr": self.indptr, "neighbours": self.neighbours, "similarities": self.similarities}


def _norms(interactions: Interactions) -> NDArray[np.float32]:
    squares = interactions.weights.astype(np.float64) ** 2
    lengths = np.sqrt(np.bincount(interactions.items, squares, interactions.n_items))
    return lengths.astype(np.float32)


def _read_only(
    indptr: NDArray[Any], neighbours: NDArray[Any], similarities: NDArray[Any]
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
    return read_only(indptr, np.int64), read_only(neighbours, np.int32), read_only(similarities, np.float32)
