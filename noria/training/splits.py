"""Splits: which rows a model learns from and which judge it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from noria.core import ConfigError

Mask = NDArray[np.bool_]


class Split(Protocol):
    """Divides rows into a training and a test part."""

    def masks(
        self, times: NDArray[np.int64] | None, rows: int, seed: int, entities: NDArray[Any] | None = None
    ) -> tuple[Mask, Mask]:
        """The training and the test rows as Boolean masks of length `rows`.

        Args:
            times: the rows' event times in microseconds; None when they have none.
            rows: how many there are.
            seed: of everything random.
            entities: whose each row is (a recommender's users); None when the rows belong to nobody.
        """
        ...

    def to_dict(self) -> dict[str, Any]:
        """The definition as plain JSON data."""
        ...


def _check_share(share: float) -> None:
    if not 0 < share < 1:
        raise ConfigError(f"test={share!r} is not a share", hint="write a number between 0 and 1, such as 0.2")


@dataclass(frozen=True)
class TimeSplit:
    """Train on the past, judge on the newest rows: the way in which the model will be used.

    Attributes:
        test: the share of rows that judge. Rows of one instant are never divided, so that the share is approximate.
    """

    test: float = 0.2

    def __post_init__(self) -> None:
        _check_share(self.test)

    def masks(
        self, times: NDArray[np.int64] | None, rows: int, seed: int, entities: NDArray[Any] | None = None
    ) -> tuple[Mask, Mask]:
        if times is None:
            raise ConfigError(
                "TimeSplit needs an event time", hint="give the source a Timestamp column, or use RandomSplit"
            )
        _check_rows(rows)
        cut = np.sort(times)[min(rows - 1, int(np.ceil(rows * (1 - self.test))))]
        test = times >= cut
        if test.all():
            raise ConfigError("all rows have the same event time: TimeSplit can't divide them", hint="use RandomSplit")
        return ~test, test

    def to_dict(self) -> dict[str, Any]:
        return {"split": "time", **asdict(self)}


@dataclass(frozen=True)
class LeaveLastOut:
    """Judge on the newest rows of each entity: everyone's last choices, predicted from everyone's earlier ones.

    Each entity with two rows or more is on both sides, so that few entities are enough for a judgement. The price:
    a model may learn from other entities' rows that are newer than those that it is judged on. Where the future of the
    others matters (news, fashions), use `TimeSplit`, which cuts all at one instant.

    Attributes:
        test: the share of an entity's rows that judge, rounded up; the oldest row always trains.
    """

    test: float = 0.2

    def __post_init__(self) -> None:
        _check_share(self.test)

    def masks(
        self, times: NDArray[np.int64] | None, rows: int, seed: int, entities: NDArray[Any] | None = None
    ) -> tuple[Mask, Mask]:
        if times is None or entities is None:
            raise ConfigError("LeaveLastOut needs an event time and an entity for each row", hint="use RandomSplit")
        _check_rows(rows)
        _, number, counts = np.unique(entities, return_inverse=True, return_counts=True)
        order = np.lexsort((times, number))
        after = np.cumsum(counts)[number[order]] - np.arange(rows)  # 1 for an entity's newest row
        judging = np.minimum(np.ceil(counts * self.test), counts - 1)
        test = np.zeros(rows, dtype=np.bool_)
        test[order] = after <= judging[number[order]]
        if not test.any():
            raise ConfigError("no entity has more than one row: LeaveLastOut can't divide them", hint="use RandomSplit")
        return ~test, test

    def to_dict(self) -> dict[str, Any]:
        return {"split": "leave_last_out", **asdict(self)}


@dataclass(frozen=True)
class RandomSplit:
    """Judge on rows drawn at random: for rows that have no order in time.

    Attributes:
        test: the share of rows that judge.
    """

    test: float = 0.2

    def __post_init__(self) -> None:
        _check_share(self.test)

    def masks(
        self, times: NDArray[np.int64] | None, rows: int, seed: int, entities: NDArray[Any] | None = None
    ) -> tuple[Mask, Mask]:
        _check_rows(rows)
        test = np.zeros(rows, dtype=np.bool_)
        test[np.random.default_rng(seed).permutation(rows)[: max(1, round(rows * self.test))]] = True
        return ~test, test

    def to_dict(self) -> dict[str, Any]:
        return {"split": "random", **asdict(self)}


def _check_rows(rows: int) -> None:
    if rows < 2:
        raise ConfigError(f"{rows} row(s) can't be split into training and test", hint="check the source's rows")
