"""Splits by time: learn from the past, be judged by what came later."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noria.core import ConfigError
from noria.core.time import duration
from noria.training.splits import Fold, Times, Values, check_rows, check_share, plain


@dataclass(frozen=True)
class TimeSplit:
    """Train on the past, judge on the newest rows: the way in which the model will be used.

    Attributes:
        test: the share of rows that judge. Rows of one instant are never divided, so that the share is approximate.
        embargo: how long before the first row that judges the training ends (`7d`): rows in between are in neither
            part. As long as it takes until a label is known, or else the model learns from what nobody knew yet.
    """

    is_ordered = True

    test: float = 0.2
    embargo: str | None = None

    def __post_init__(self) -> None:
        check_share(self.test)
        _pause(self.embargo)

    def masks(self, times: Times, rows: int, seed: int, entities: Values = None, target: Values = None) -> Fold:
        times = _timed(times, "TimeSplit")
        check_rows(rows)
        place = _first_of_newest(self.test, rows)
        cut = np.partition(times, place)[place]
        test = times >= cut
        if test.all():
            raise ConfigError("all rows have the same event time: TimeSplit can't divide them", hint="use RandomSplit")
        train = times < cut - _pause(self.embargo)
        if not train.any():
            raise ConfigError(
                f"TimeSplit: within the embargo of {self.embargo} lie all rows before those that judge",
                hint="make it shorter, or give the source older rows",
                field="embargo",
            )
        return train, test

    def to_dict(self) -> dict[str, Any]:
        return plain("time", test=self.test, embargo=self.embargo)


@dataclass(frozen=True)
class RollingSplit:
    """Judge several times, each time later: would the model have been good in each of the last periods?

    Each fold trains on the rows before its period and is judged on the period. The model that is registered is the last
    fold's, the one that has seen the newest past, and its metrics are its own; the run reports each metric's mean and
    spread over all folds.

    Attributes:
        folds: how many periods.
        test: each period's share of the rows.
        embargo: as that of `TimeSplit`.
        window: how much of the past teaches (`365d`); by default all of it.
    """

    is_ordered = True

    folds: int = 3
    test: float = 0.1
    embargo: str | None = None
    window: str | None = None

    def __post_init__(self) -> None:
        check_share(self.test)
        if self.folds < 2:
            raise ConfigError(f"RollingSplit: folds={self.folds!r}", hint="two folds or more; one is TimeSplit's")
        if self.folds * self.test >= 1:
            raise ConfigError(
                f"RollingSplit: {self.folds} folds of {self.test:.0%} each leave nothing to train on",
                hint="use fewer folds or a smaller test",
            )
        _pause(self.embargo)
        _pause(self.window)

    def masks(self, times: Times, rows: int, seed: int, entities: Values = None, target: Values = None) -> Fold:
        return self.each(times, rows)[-1]

    def each(self, times: Times, rows: int) -> list[Fold]:
        times = _timed(times, "RollingSplit")
        check_rows(rows)
        places = [_first_of_newest(self.test * n, rows) for n in range(self.folds, 0, -1)]
        cuts = np.partition(times, sorted(set(places)))[places]
        ends = [*cuts[1:], None]
        return [self._fold(times, number, cut, ends[number]) for number, cut in enumerate(cuts)]

    def _fold(self, times: NDArray[np.int64], number: int, cut: Any, end: Any) -> Fold:
        test = times >= cut if end is None else (times >= cut) & (times < end)
        last = cut - _pause(self.embargo)
        train = times < last
        if self.window is not None:
            train &= times >= last - _pause(self.window)
        if not (test.any() and train.any()):
            part = "judge" if train.any() else "train"
            raise ConfigError(
                f"RollingSplit: fold {number + 1} of {self.folds} has no rows to {part} on",
                hint="use fewer folds, a larger test, or a shorter embargo",
            )
        return train, test

    def to_dict(self) -> dict[str, Any]:
        return plain("rolling", folds=self.folds, test=self.test, embargo=self.embargo, window=self.window)


@dataclass(frozen=True)
class LeaveLastOut:
    """Judge on the newest rows of each entity: everyone's last choices, predicted from everyone's earlier ones.

    Each entity with two rows or more is on both sides, so that few entities are enough for a judgement. The price:
    a model may learn from other entities' rows that are newer than those that it is judged on. Where the future of the
    others matters (news, fashions), use `TimeSplit`, which cuts all at one instant.

    Attributes:
        test: the share of an entity's rows that judge, rounded up; the oldest row always trains.
        n: how many of an entity's rows judge, instead of a share.
        by: the labels' column that says whose a row is; by default the first key of the model's feature groups.
    """

    test: float = 0.2
    n: int | None = None
    by: str | None = None

    def __post_init__(self) -> None:
        check_share(self.test)
        if self.n is not None and self.n < 1:
            raise ConfigError(f"LeaveLastOut: n={self.n!r}", hint="at least one row judges", field="n")

    def masks(self, times: Times, rows: int, seed: int, entities: Values = None, target: Values = None) -> Fold:
        if times is None or entities is None:
            raise ConfigError("LeaveLastOut needs an event time and an entity for each row", hint="use RandomSplit")
        check_rows(rows)
        _, number, counts = np.unique(entities, return_inverse=True, return_counts=True)
        order = np.lexsort((times, number))
        after = np.cumsum(counts)[number[order]] - np.arange(rows)  # 1 for an entity's newest row
        wanted = np.ceil(counts * self.test) if self.n is None else np.full(len(counts), self.n)
        judging = np.minimum(wanted, counts - 1)
        test = np.zeros(rows, dtype=np.bool_)
        test[order] = after <= judging[number[order]]
        if not test.any():
            raise ConfigError("no entity has more than one row: LeaveLastOut can't divide them", hint="use RandomSplit")
        return ~test, test

    def to_dict(self) -> dict[str, Any]:
        return plain("leave_last_out", test=self.test if self.n is None else None, n=self.n, by=self.by)


def _timed(times: Times, what: str) -> NDArray[np.int64]:
    if times is None:
        raise ConfigError(f"{what} needs an event time", hint="give the source a Timestamp column, or use RandomSplit")
    return times


def _first_of_newest(share: float, rows: int) -> int:
    """The place, by time, of the first row of the newest share."""
    return min(rows - 1, int(np.ceil(rows * (1 - share))))


def _pause(text: str | None) -> int:
    """Microseconds; none for None."""
    return 0 if text is None else duration(text)
