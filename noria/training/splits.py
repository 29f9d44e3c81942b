"""Splits: which rows a model learns from and which judge it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from noria.core import ConfigError

Mask = NDArray[np.bool_]
Fold = tuple[Mask, Mask]
"""The rows that teach and the rows that judge; a row may be in neither."""
Times: TypeAlias = NDArray[np.int64] | None
Values: TypeAlias = NDArray[Any] | None


class Split(Protocol):
    """Divides rows into a training and a test part.

    A split that reads whose each row is may have `by`, the name of that column. One that never trains on rows that are
    newer than those that judge has `is_ordered = True`.
    """

    def masks(self, times: Times, rows: int, seed: int, entities: Values = None, target: Values = None) -> Fold:
        """The training and the test rows as Boolean masks of length `rows`: no row in both, some rows in each.

        Args:
            times: the rows' event times in microseconds; None when they have none.
            rows: how many there are.
            seed: of everything random.
            entities: whose each row is (a recommender's users); None when the rows belong to nobody.
            target: what is to be predicted; None when nothing is.

        Raises:
            ConfigError: these rows can't be divided so.
        """
        ...

    def to_dict(self) -> dict[str, Any]:
        """The definition as plain JSON data."""
        ...


@runtime_checkable
class Folded(Protocol):
    """A split that judges several times; its `masks` are those of the last fold."""

    def each(self, times: Times, rows: int) -> list[Fold]:
        """The folds, the oldest first."""
        ...


def earlier_folds(split: Split, times: Times, rows: int) -> Sequence[Fold]:
    """What a split judges by besides its `masks`."""
    return split.each(times, rows)[:-1] if isinstance(split, Folded) else ()


def check_share(share: float, name: str = "test") -> None:
    """Refuse what is not a share.

    Raises:
        ConfigError: it isn't between 0 and 1.
    """
    if not 0 < share < 1:
        raise ConfigError(
            f"{name}={share!r} is not a share", hint="write a number between 0 and 1, such as 0.2", field=name
        )


def check_rows(rows: int) -> None:
    """Refuse what is too little to be divided.

    Raises:
        ConfigError: fewer than two rows.
    """
    if rows < 2:
        raise ConfigError(f"{rows} row(s) can't be split into training and test", hint="check the source's rows")


def plain(split: str, **options: Any) -> dict[str, Any]:
    """A split's definition; what isn't set is left out, so that a new option makes no old model stale."""
    return {"split": split, **{name: value for name, value in options.items() if value is not None}}


def _judging(count: Any, share: float) -> NDArray[np.int64]:
    """How many of `count` judge: at least one, and at least one is left."""
    return np.clip(np.round(np.asarray(count) * share), 1, np.asarray(count) - 1).astype(np.int64)


def _drawn(count: int, share: float, seed: int) -> Mask:
    """The share of so many that judges, at random."""
    drawn = np.zeros(count, dtype=np.bool_)
    drawn[np.random.default_rng(seed).permutation(count)[: _judging(count, share)]] = True
    return drawn


@dataclass(frozen=True)
class RandomSplit:
    """Judge on rows drawn at random: for rows that have no order in time and belong to nobody.

    Attributes:
        test: the share of rows that judge.
    """

    test: float = 0.2

    def __post_init__(self) -> None:
        check_share(self.test)

    def masks(self, times: Times, rows: int, seed: int, entities: Values = None, target: Values = None) -> Fold:
        check_rows(rows)
        test = _drawn(rows, self.test, seed)
        return ~test, test

    def to_dict(self) -> dict[str, Any]:
        return plain("random", test=self.test)


@dataclass(frozen=True)
class StratifiedSplit:
    """Judge on rows drawn at random, from each class its share: for rare classes.

    A class with one row only trains.

    Attributes:
        test: the share of each class's rows that judge.
    """

    test: float = 0.2

    def __post_init__(self) -> None:
        check_share(self.test)

    def masks(self, times: Times, rows: int, seed: int, entities: Values = None, target: Values = None) -> Fold:
        check_rows(rows)
        if target is None or target.dtype.kind == "f":
            raise ConfigError("StratifiedSplit needs a target with classes", hint="use RandomSplit for numbers")
        classes, number, counts = np.unique(target, return_inverse=True, return_counts=True)
        if len(classes) < 2:
            raise ConfigError(
                f"all rows have the target {classes.tolist()[0]!r}: StratifiedSplit has nothing to balance",
                hint="a model needs examples of at least two values; check the target",
            )
        drawn = np.random.default_rng(seed).permutation(rows)
        order = drawn[np.argsort(number[drawn], kind="stable")]
        place = np.arange(rows) - np.repeat(np.cumsum(counts) - counts, counts)
        judging = np.where(counts > 1, _judging(np.maximum(counts, 2), self.test), 0)
        test = np.zeros(rows, dtype=np.bool_)
        test[order] = place < np.repeat(judging, counts)
        if not test.any():
            raise ConfigError(
                "no class has more than one row: StratifiedSplit can't divide them", hint="use RandomSplit"
            )
        return ~test, test

    def to_dict(self) -> dict[str, Any]:
        return plain("stratified", test=self.test)


@dataclass(frozen=True)
class GroupSplit:
    """Judge on entities that the model has never seen: all rows of an entity are on one side.

    For models that will meet new patients, machines or shops, of which each has several rows.

    Attributes:
        test: the share of entities that judge.
        by: the labels' column that says whose a row is; by default the first key of the model's feature groups.
    """

    test: float = 0.2
    by: str | None = None

    def __post_init__(self) -> None:
        check_share(self.test)

    def masks(self, times: Times, rows: int, seed: int, entities: Values = None, target: Values = None) -> Fold:
        check_rows(rows)
        if entities is None:
            raise ConfigError(
                "GroupSplit needs to know whose each row is", hint='name the column: nr.GroupSplit(by="user_id")'
            )
        found, number = np.unique(entities, return_inverse=True)
        if len(found) < 2:
            raise ConfigError("all rows belong to one entity: GroupSplit can't divide them", hint="use TimeSplit")
        test = _drawn(len(found), self.test, seed)[number]
        return ~test, test

    def to_dict(self) -> dict[str, Any]:
        return plain("group", test=self.test, by=self.by)
