"""Drift: how far the rows of today have moved from those that a model learned from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria.core import ConfigError, DataError, allowed

MODERATE, LARGE = 0.1, 0.25
"""The usual reading of a population stability index: below 0.1 stable, above 0.25 a shift that needs a look."""

_BINS = 10
_SMOOTHING = 0.5  # rows added to each bin, so that an empty one doesn't make the index infinite
_MISSING = "\0missing"


@dataclass(frozen=True)
class ColumnDrift:
    """One column's population stability index and the shares of missing values before and now."""

    column: str
    psi: float
    missing_before: float
    missing_now: float

    @property
    def drifted(self) -> bool:
        """Whether the index is above `LARGE`."""
        return self.psi > LARGE


@dataclass(frozen=True)
class _Distribution:
    edges: NDArray[np.float64] | None
    values: tuple[str, ...]
    counts: NDArray[np.float64]


@dataclass(frozen=True)
class DriftMonitor:
    """Compares frames with a reference by the population stability index.

    PSI = Σ (q - p) · ln(q / p) over bins, with p the reference's share of a bin and q today's (Siddiqi, *Credit Risk
    Scorecards*, 2006). Numbers are binned by the reference's deciles, other types by value; missing is a bin.

    >>> monitor = DriftMonitor.of(pl.DataFrame({"x": range(1000)}))
    >>> [c.drifted for c in monitor.compare(pl.DataFrame({"x": range(1000)}))]
    [False]
    >>> [c.drifted for c in monitor.compare(pl.DataFrame({"x": range(800, 1800)}))]
    [True]
    """

    reference: dict[str, _Distribution]

    @staticmethod
    def of(frame: pl.DataFrame, columns: Sequence[str] | None = None) -> DriftMonitor:
        """Remember how a frame's columns are distributed (all of them by default).

        Raises:
            DataError: the frame is empty.
            ConfigError: a column doesn't exist.
        """
        if frame.is_empty():
            raise DataError("an empty frame can't be a reference for drift")
        names = list(columns) if columns is not None else frame.columns
        for name in names:
            _check(name, frame)
        return DriftMonitor({name: _distribution(frame[name]) for name in names})

    def compare(self, frame: pl.DataFrame) -> list[ColumnDrift]:
        """Each column's drift, the largest first.

        Raises:
            DataError: the frame is empty.
            ConfigError: it lacks a column of the reference.
        """
        if frame.is_empty():
            raise DataError("an empty frame has no distribution to compare")
        for name in self.reference:
            _check(name, frame)
        found = [_compare(name, before, frame[name]) for name, before in self.reference.items()]
        return sorted(found, key=lambda column: -column.psi)


def _check(name: str, frame: pl.DataFrame) -> None:
    if name not in frame.columns:
        raise ConfigError(f"there is no column {name!r} to compare", hint=allowed(frame.columns, name), field=name)


def _distribution(column: pl.Series) -> _Distribution:
    if column.dtype.is_numeric():
        numbers = column.drop_nulls().cast(pl.Float64).drop_nans().to_numpy()
        inner = np.unique(np.quantile(numbers, np.linspace(0, 1, _BINS + 1)[1:-1])) if len(numbers) else np.zeros(0)
        empty = _Distribution(inner, (), np.zeros(0))
    else:
        empty = _Distribution(
            None, tuple(sorted({_MISSING, *column.drop_nulls().cast(pl.String).unique()})), np.zeros(0)
        )
    return _Distribution(empty.edges, empty.values, _counts(empty, column))


def _counts(bins: _Distribution, column: pl.Series) -> NDArray[np.float64]:
    """Rows in each bin; the last two: values unknown to the reference (never numbers), and missing ones."""
    if bins.edges is not None:
        numbers = column.cast(pl.Float64).fill_nan(None)
        known = numbers.drop_nulls().to_numpy()
        inside = np.bincount(np.searchsorted(bins.edges, known, side="right"), minlength=len(bins.edges) + 1)
        return np.append(inside, [0, numbers.null_count()]).astype(np.float64)
    counted = dict(column.cast(pl.String).fill_null(_MISSING).value_counts().iter_rows())
    known_counts = [counted.get(value, 0) for value in bins.values if value != _MISSING]
    missing = counted.get(_MISSING, 0)
    return np.array([*known_counts, len(column) - sum(known_counts) - missing, missing], dtype=np.float64)


def _compare(name: str, before: _Distribution, column: pl.Series) -> ColumnDrift:
    now = _counts(before, column)
    p = (before.counts + _SMOOTHING) / (before.counts + _SMOOTHING).sum()
    q = (now + _SMOOTHING) / (now + _SMOOTHING).sum()
    psi = float(np.sum((q - p) * np.log(q / p)))
    return ColumnDrift(name, psi, float(before.counts[-1] / before.counts.sum()), float(now[-1] / now.sum()))
