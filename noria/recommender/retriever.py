"""Retriever: the contract of what picks candidates for a user out of the whole catalogue.

A retriever is a definition (a frozen dataclass of hyper-parameters); fitting it to interactions gives a fitted
retriever, whose state is a few arrays. `noria.testing.RetrieverConformance` checks one of yours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from noria.core import ConfigError, IntegrityError, NoProgress, Progress
from noria.recommender.interactions import Interactions

SILENT = NoProgress()


class FittedRetriever(Protocol):
    """A retriever that knows the users and items of the interactions that it was fitted to."""

    def score(self, users: NDArray[np.int32]) -> NDArray[np.float32]:
        """How well each item suits each user: [len(users), n_items], higher is better.

        Args:
            users: [b] positions in `Interactions.user_ids`.
        """
        ...

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The state beside the interactions: named arrays of numbers, each fit for a `.npy` file."""
        ...


class Retriever(Protocol):
    """The definition of a retriever."""

    @property
    def name(self) -> str:
        """What kind it is: `als`, `item_knn`, `popular`; the same for every instance of a class."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """The definition as plain JSON data: the name and the arguments of the constructor."""
        ...

    def fit(self, interactions: Interactions, *, seed: int = 0, progress: Progress = SILENT) -> FittedRetriever:
        """Learn from interactions; equal inputs and seeds give equal scores."""
        ...

    def restore(self, arrays: Mapping[str, NDArray[Any]], interactions: Interactions) -> FittedRetriever:
        """The fitted retriever that gave these arrays, fitted to these interactions; its scores are equal to the bit.

        Raises:
            IntegrityError: when the arrays can't come from these interactions.
        """
        ...


def checked(
    arrays: Mapping[str, NDArray[Any]], shapes: Mapping[str, tuple[int | None, ...]], name: str
) -> list[NDArray[Any]]:
    """The named arrays in the order of `shapes`; None stands for any length.

    Raises:
        IntegrityError: when one is missing or has another shape.
    """
    for key, shape in shapes.items():
        got = arrays[key].shape if key in arrays else None
        expected = [n if want is None else want for want, n in zip(shape, got or (), strict=False)]
        if got is None or len(got) != len(shape) or list(got) != expected:
            raise IntegrityError(
                f"the array {key!r} of retriever {name!r} has the shape {got}, expected {shape}",
                hint="restore it with the interactions that it was fitted to",
            )
    return [arrays[key] for key in shapes]


def require(condition: bool, name: str, field: str, value: object, rule: str) -> None:
    """Check one hyper-parameter.

    Raises:
        ConfigError: when the condition doesn't hold.
    """
    if not condition:
        raise ConfigError(
            f"{field}={value!r} of retriever {name!r} is out of range", hint=f"it must be {rule}", field=field
        )
