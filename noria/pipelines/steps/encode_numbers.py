"""A number for each category: its share of the rows, or the mean of a target over them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria.pipelines.blocks import Blocks
from noria.pipelines.steps.categories import Categories, categories
from noria.pipelines.steps.step import ByRow, Row, RowFunction

FOLDS = 5

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class OutOfFold:
    """The means that the fitted rows get: by category (then missing, then unseen) and fold."""

    values: list[str]
    means: Floats


@dataclass(frozen=True)
class FittedNumbers(ByRow):
    """A number for each category of a column, one for those unseen and one for those missing; float64.

    `folds` has what the rows that it was fitted to get in their place; it isn't saved.
    """

    numbers: dict[str, dict[str, float]]
    unseen: dict[str, float]
    missing: dict[str, float]
    folds: dict[str, OutOfFold] = field(default_factory=dict, compare=False)

    def apply(self, frame: pl.DataFrame) -> pl.DataFrame:
        return frame.with_columns(self._number(frame[name]) for name in self.numbers)

    def _number(self, column: pl.Series) -> pl.Series:
        name, numbers = column.name, self.numbers[column.name]
        table = np.array([*numbers.values(), self.missing[name], self.unseen[name]], np.float64)
        return pl.Series(name, table[_codes(column, list(numbers))], pl.Float64)

    def apply_to_fit(self, frame: pl.DataFrame, block: int) -> pl.DataFrame:
        if not self.folds:
            return self.apply(frame)
        folds = _folds(len(frame), block)
        return frame.with_columns(
            pl.Series(name, found.means[_codes(frame[name], found.values), folds], pl.Float64)
            for name, found in self.folds.items()
        )

    def row(self, schema: pl.Schema) -> RowFunction:
        columns = [(name, found, self.unseen[name], self.missing[name]) for name, found in self.numbers.items()]

        def number(row: Row) -> bool:
            for name, numbers, unseen, missing in columns:
                value = row[name]
                row[name] = missing if value is None else numbers.get(value, unseen)
            return True

        return number

    def to_dict(self) -> dict[str, Any]:
        return {"step": "Encode", "numbers": self.numbers, "unseen": self.unseen, "missing": self.missing}


def _codes(column: pl.Series, values: list[str]) -> NDArray[np.int64]:
    """Each row's category as its place among these; then missing, then unseen."""
    code = column.cast(pl.Enum(values), strict=False).to_physical().cast(pl.Int64).fill_null(len(values) + 1)
    return code.set(column.is_null(), len(values)).to_numpy()


def fit_frequency(found: Mapping[str, Categories]) -> FittedNumbers:
    """Shares of all rows; 0 for unseen categories."""
    numbers: dict[str, dict[str, float]] = {}
    for name, values in found.items():
        counts = dict(values.top.rows())
        numbers[name] = {value: counts[value] / values.rows for value in sorted(counts)}
    missing = {name: values.missing / max(1, values.rows) for name, values in found.items()}
    return FittedNumbers(numbers, dict.fromkeys(found, 0.0), missing)


def fit_target(blocks: Blocks, names: tuple[str, ...], target: str, most: int, smoothing: float) -> FittedNumbers:
    """Means of the target; rows without one teach nothing."""
    kept = {
        name: sorted(found.top["value"].to_list())
        for name, found in categories(blocks, names, most, known=target).items()
    }
    sums = {name: np.zeros((2, len(values) + 2, FOLDS)) for name, values in kept.items()}
    if not kept:
        return FittedNumbers({}, {}, {})
    for part in blocks.map(partial(_target_sums, kept, target)):
        for name in names:
            sums[name] += part[name]
    numbers, unseen, missing, folds = {}, {}, {}, {}
    for name, values in kept.items():
        means, unseen[name] = _means(sums[name].sum(axis=2), smoothing)
        numbers[name] = dict(zip(values, means[: len(values)].tolist(), strict=True))
        missing[name] = float(means[len(values)])
        folds[name] = OutOfFold(values, _out_of_fold(sums[name], smoothing))
    return FittedNumbers(numbers, unseen, missing, folds)


def _folds(rows: int, block: int) -> NDArray[np.int64]:
    """A row's fold: by its place, scattered, so that sorted rows don't share one."""
    place = np.arange(rows, dtype=np.uint64) + np.uint64(block) * np.uint64(1_000_003)
    mixed = (place * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(40)
    return (mixed % np.uint64(FOLDS)).astype(np.int64)


def _target_sums(kept: Mapping[str, list[str]], target: str, frame: pl.DataFrame, block: int) -> dict[str, Floats]:
    """For each column the target's sums and the rows, by category and fold."""
    values = frame[target].cast(pl.Float64).fill_null(float("nan")).to_numpy()
    present = np.isfinite(values)
    values, folds = values[present], _folds(len(frame), block)[present]
    made = {}
    for name, known in kept.items():
        cells = _codes(frame[name], known)[present] * FOLDS + folds
        size = (len(known) + 2) * FOLDS
        sums = np.bincount(cells, weights=values, minlength=size), np.bincount(cells, minlength=size)
        made[name] = np.array(sums, np.float64).reshape(2, -1, FOLDS)
    return made


def _means(sums: Floats, smoothing: float) -> tuple[Floats, float]:
    """Each category's mean, and that of all rows, which is that of a category without rows and of unseen ones."""
    total, rows = sums[0], sums[1]
    overall = float(total.sum() / max(rows.sum(), 1.0))
    weight = rows + smoothing
    means = np.where(rows > 0, (total + smoothing * overall) / np.where(weight > 0, weight, 1.0), overall)
    means[-1] = overall
    return means, overall


def _out_of_fold(sums: Floats, smoothing: float) -> Floats:
    others = [np.delete(sums, fold, axis=2).sum(axis=2) for fold in range(FOLDS)]
    return np.stack([_means(rest, smoothing)[0] for rest in others], axis=1)
