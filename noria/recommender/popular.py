"""Popular: what most people choose now; the answer to users of whom nothing is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from noria.core import Progress, duration, task
from noria.recommender.interactions import Interactions, read_only
from noria.recommender.retriever import SILENT, FittedRetriever, checked


@dataclass(frozen=True)
class Popular:
    """An item's score is the number of users whose newest event with it lies in the window, the same for everyone.

    Attributes:
        window: how far back from the newest event, such as `30d`; None: all time.
    """

    window: str | None = None
    name: ClassVar[str] = "popular"

    def __post_init__(self) -> None:
        if self.window is not None:
            duration(self.window)

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, **asdict(self)}

    def fit(self, interactions: Interactions, *, seed: int = 0, progress: Progress = SILENT) -> FittedRetriever:
        with task(progress, self.name):
            items = interactions.items
            if self.window is not None:
                start = interactions.times.max() - duration(self.window)
                items = items[interactions.times > start]
            return FittedPopular(np.bincount(items, minlength=interactions.n_items).astype(np.float32))

    def restore(self, arrays: Mapping[str, NDArray[Any]], interactions: Interactions) -> FittedRetriever:
        (counts,) = checked(arrays, {"counts": (interactions.n_items,)}, self.name)
        return FittedPopular(read_only(counts, np.float32))


@dataclass(frozen=True, eq=False)
class FittedPopular:
    """The number of users per item, float32 [n_items]."""

    counts: NDArray[np.float32]

    def score(self, users: NDArray[np.int32]) -> NDArray[np.float32]:
        return np.tile(self.counts, (len(users), 1))

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {"counts": self.counts}
