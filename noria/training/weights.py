"""Weights: how much each training row counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from noria.core import ConfigError
from noria.core.time import duration

Weights = NDArray[np.float64]
ClassWeight = str | Mapping[Any, float]


class Weighting(Protocol):
    """Says how much rows count by their event times."""

    def weights(self, times: NDArray[np.int64] | None) -> Weights:
        """One weight, above 0, for each row.

        Raises:
            ConfigError: the rows have no times.
        """
        ...

    def to_dict(self) -> dict[str, Any]:
        """The definition as plain JSON data."""
        ...


@dataclass(frozen=True)
class Recency:
    """Newer rows count more: the weight halves with each half-life before the newest training row.

    Attributes:
        half_life: such as `90d`.
        least: no row counts less.
    """

    half_life: str
    least: float = 1e-3

    def __post_init__(self) -> None:
        duration(self.half_life)
        if not 0 < self.least <= 1:
            raise ConfigError(f"recency: least={self.least!r}", hint="a number above 0 and at most 1", field="least")

    def weights(self, times: NDArray[np.int64] | None) -> Weights:
        if times is None:
            raise ConfigError("recency needs an event time", hint="give the source a Timestamp column")
        age = (times.max() - times) / duration(self.half_life)
        return np.asarray(np.maximum(np.exp2(-age), self.least))

    def to_dict(self) -> dict[str, Any]:
        return {"weights": "recency", "half_life": self.half_life, "least": self.least}


def recency(half_life: str, least: float = 1e-3) -> Recency:
    """Newer rows count more: the weight halves with each half-life before the newest training row.

    >>> recency("90d").weights(np.array([0, 90, 180]) * 86_400_000_000).tolist()
    [0.25, 0.5, 1.0]
    """
    return Recency(half_life, least)


def check_class_weight(given: ClassWeight | None) -> None:
    """Refuse what can't weigh classes.

    Raises:
        ConfigError: it is neither `balanced` nor a positive number for each class.
    """
    if given is None or given == "balanced":
        return
    if not isinstance(given, Mapping) or not given or not all(map(_is_weight, given.values())):
        raise ConfigError(
            f"class_weight={given!r}",
            hint='"balanced", or a number above 0 for each class: {False: 1, True: 5}',
            field="class_weight",
        )


def _is_weight(value: Any) -> bool:
    return isinstance(value, (int, float)) and 0 < value < float("inf")


def class_weights(given: ClassWeight, target: NDArray[Any]) -> Weights:
    """The rows' weights by their classes; `balanced` makes each class count as much as any other.

    Raises:
        ConfigError: the target is a number without classes, or a class has no weight.
    """
    if target.dtype.kind == "f":
        raise ConfigError(
            "class_weight goes with classes, and the target is a number",
            hint="leave it out, or make classes of the target: nr.col(…) > 0",
            field="class_weight",
        )
    classes, number, counts = np.unique(target, return_inverse=True, return_counts=True)
    if isinstance(given, str):
        each = len(target) / (len(classes) * counts)
    else:
        missing = [kind for kind in classes.tolist() if kind not in given]
        if missing:
            raise ConfigError(
                f"class_weight has no weight for the class {missing[0]!r}",
                hint=f"the classes are {', '.join(map(repr, classes.tolist()))}",
                field="class_weight",
            )
        each = np.array([float(given[kind]) for kind in classes.tolist()])
    return np.asarray(each[number])


def row_weights(
    weighting: Weighting | None,
    class_weight: ClassWeight | None,
    times: NDArray[np.int64] | None,
    target: NDArray[Any],
) -> Weights | None:
    """Both together, with a mean of 1; None when all rows count alike.

    Raises:
        ConfigError: the weighting gives something else than one number for each row, or a class has no weight.
    """
    made: Weights | None = None
    if weighting is not None:
        made = _checked(weighting, weighting.weights(times), len(target))
    if class_weight is not None:
        by_class = class_weights(class_weight, target)
        made = by_class if made is None else made * by_class
    return None if made is None else made / made.mean()


def _checked(weighting: Weighting, given: Any, rows: int) -> Weights:
    """A user's own may give anything, and LightGBM takes NaN, negative ones and too few without a word."""
    made = np.asarray(given)
    wrong = ""
    if made.shape != (rows,) or made.dtype.kind not in "biuf":
        wrong = f"{made.dtype}{list(made.shape)} for {rows} rows"
    elif not (np.isfinite(made) & (made >= 0)).all():
        wrong = f"{made[~(np.isfinite(made) & (made >= 0))][0]} for a row"
    elif not made.any():
        wrong = "0 for every row"
    if wrong:
        raise ConfigError(
            f"{type(weighting).__name__} gives as weights {wrong}",
            hint="one finite number for each training row, not below 0 and not 0 for all",
            field="weights",
        )
    return made.astype(np.float64)
