"""ALS: implicit-feedback matrix factorisation by alternating least squares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from noria.core import Progress, task
from noria.recommender.interactions import Interactions, Rows, read_only
from noria.recommender.kernels import als_rows, over_rows
from noria.recommender.retriever import SILENT, FittedRetriever, checked, require

CG_STEPS = 3
"""Conjugate-gradient steps a half-iteration: each starts where the last iteration ended, so few are enough."""


@dataclass(frozen=True)
class ALS:
    """Each user and item becomes a vector; a pair's score is their dot product.

    An event of weight w says "1" with confidence 1 + alpha w, every pair without one says "0" with confidence 1
    (Hu, Koren & Volinsky 2008). The vectors are improved by warm-started conjugate gradient (Takacs, Pilaszy &
    Tikk 2011). Each vector is regularised in proportion to the confidence in its own events, so that frequent
    users and items aren't fitted more loosely than rare ones, and good values don't depend on the catalogue's size
    (after Rendle, Krichene, Zhang & Koren 2022, who add a part for the whole catalogue).

    Attributes:
        factors: the length of the vectors.
        iterations: passes over users and items.
        regularization: how strongly vectors are pulled to zero, relative to the sum of alpha w over their events.
        alpha: how much more an event of weight 1 is trusted than its absence.
    """

    factors: int = 64
    iterations: int = 15
    regularization: float = 0.07
    alpha: float = 20.0
    name: ClassVar[str] = "als"

    def __post_init__(self) -> None:
        require(self.factors >= 1, self.name, "factors", self.factors, "1 or more")
        require(self.iterations >= 1, self.name, "iterations", self.iterations, "1 or more")
        require(self.regularization > 0, self.name, "regularization", self.regularization, "above 0")
        require(self.alpha > 0, self.name, "alpha", self.alpha, "above 0")

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, **asdict(self)}

    def fit(self, interactions: Interactions, *, seed: int = 0, progress: Progress = SILENT) -> FittedRetriever:
        random = np.random.default_rng(seed)
        users = self._start(interactions.n_users, random)
        items = self._start(interactions.n_items, random)
        with task(progress, self.name, self.iterations):
            for _ in range(self.iterations):
                self._solve(users, items, interactions.by_user())
                self._solve(items, users, interactions.by_item())
                progress.advance(self.name)
        return FittedALS(users, items)

    def restore(self, arrays: Mapping[str, NDArray[Any]], interactions: Interactions) -> FittedRetriever:
        shapes = {
            "user_factors": (interactions.n_users, self.factors),
            "item_factors": (interactions.n_items, self.factors),
        }
        return FittedALS(*(read_only(array, np.float32) for array in checked(arrays, shapes, self.name)))

    def _start(self, count: int, random: np.random.Generator) -> NDArray[np.float32]:
        scale = np.float32(0.1 / np.sqrt(self.factors))
        return scale * random.standard_normal((count, self.factors), dtype=np.float32)

    def _solve(self, solved: NDArray[np.float32], fixed: NDArray[np.float32], rows: Rows) -> None:
        gram = fixed.T @ fixed
        rules = np.float32(self.alpha), np.float32(self.regularization), CG_STEPS
        # A row costs its entries plus the product with `gram`, which is worth about factors / 2 entries.
        cost = rows.indptr + np.arange(len(rows.indptr)) * (self.factors // 2 + 1)
        over_rows(lambda start, stop: als_rows(start, stop, solved, fixed, gram, *rows, *rules), cost)


@dataclass(frozen=True, eq=False)
class FittedALS:
    """The vectors of all users and items, float32; those without events are zero."""

    user_factors: NDArray[np.float32]
    item_factors: NDArray[np.float32]

    def score(self, users: NDArray[np.int32]) -> NDArray[np.float32]:
        scores: NDArray[np.float32] = self.user_factors[users] @ self.item_factors.T
        return scores

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {"user_factors": self.user_factors, "item_factors": self.item_factors}
