"""Slices: parts of the rows that judge, so that a mean over all doesn't hide a group for which a model is bad."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from noria.core import ConfigError, allowed

if TYPE_CHECKING:
    import polars as pl

MISSING, OTHER = "(missing)", "(other)"
MOST_VALUES = 20
"""Of a column: the most frequent have a slice each, all others one together."""
MOST_COLUMNS = 12
_EVERY = {"day": ("1d", "%Y-%m-%d"), "week": ("1w", "%G-W%V"), "month": ("1mo", "%Y-%m"), "year": ("1y", "%Y")}


@dataclass(frozen=True)
class ByTime:
    """Slices by a column's instants.

    Attributes:
        every: `day`, `week` (from Monday on), `month` or `year`, in UTC.
        column: which; None for the labels' event time.
    """

    every: str
    column: str | None = None

    def __post_init__(self) -> None:
        if self.every not in _EVERY:
            raise ConfigError(f"slices by {self.every!r} aren't known", hint=allowed(_EVERY, self.every))


Slice: TypeAlias = "str | ByTime"


def by_day(column: str | None = None) -> ByTime:
    """A slice for each day (UTC) of an instant, by default the labels' event time."""
    return ByTime("day", column)


def by_week(column: str | None = None) -> ByTime:
    """A slice for each week."""
    return ByTime("week", column)


def by_month(column: str | None = None) -> ByTime:
    """A slice for each month."""
    return ByTime("month", column)


def column_of(one: Slice, time: str | None) -> str:
    """The column that a slice reads.

    Raises:
        ConfigError: it goes by the labels' event time, and they have none.
    """
    column = one if isinstance(one, str) else one.column or time
    if column is None:
        raise ConfigError(f"slices by {one} need an event time", hint='name a column: nr.by_month("ordered")')
    return column


@dataclass(frozen=True)
class Sliced:
    """Rows by the values of a column.

    Attributes:
        title: of the column.
        values: in the order in which they are shown.
        codes: [rows] the place in `values`.
    """

    title: str
    values: list[str]
    codes: NDArray[np.int64]


def sliced(frame: pl.DataFrame, declared: Sequence[Slice], inputs: Sequence[str], time: str | None) -> list[Sliced]:
    """Rows by the columns that were declared, or by default by those inputs that have few values, and by time.

    Args:
        frame: the rows that judge, with their inputs, entities and time.
        declared: by what to slice; nothing for the default.
        inputs: the columns that the default chooses from.
        time: the column with the event time.
    """
    if declared:
        return [_by(frame, one, time) for one in declared]
    few = [name for name in inputs if _has_few(frame[name])][:MOST_COLUMNS]
    found = [_by_values(name, frame[name]) for name in few]
    if time is not None:
        found.append(_by(frame, ByTime(_fitting(frame[time])), time))
    return [one for one in found if len(one.values) > 1]


def _by(frame: pl.DataFrame, one: Slice, time: str | None) -> Sliced:
    import polars as pl

    column = column_of(one, time)
    if isinstance(one, str):
        return _by_values(one, frame[one])
    step, form = _EVERY[one.every]
    if not frame.schema[column].is_temporal():
        raise ConfigError(
            f"slices by {one.every} need instants, and {column!r} is {frame.schema[column]}",
            hint=f"name a column with dates or timestamps, or slice by its values: slices=[{column!r}]",
            field="slices",
        )
    text = frame.select(pl.col(column).dt.truncate(step).dt.strftime(form)).to_series()
    return _coded(f"{one.every} of {column}", text, text.drop_nulls().unique().sort().to_list()[-MOST_VALUES:])


def _by_values(name: str, column: pl.Series) -> Sliced:
    import polars as pl

    if column.dtype.is_float() or (column.dtype.is_numeric() and column.n_unique() > MOST_VALUES):
        return _by_quarters(name, column)
    text = column.cast(pl.String)
    if column.dtype == pl.String:
        return _coded(name, text, text.drop_nulls().value_counts(sort=True)[text.name].to_list())
    return _coded(name, text, column.drop_nulls().unique().sort().cast(pl.String).to_list())


def _by_quarters(name: str, column: pl.Series) -> Sliced:
    """Numbers, in four parts with equally many rows."""
    import polars as pl

    numbers = column.cast(pl.Float64).fill_null(float("nan")).to_numpy()
    is_missing = np.isnan(numbers)
    if is_missing.all():
        return Sliced(name, [MISSING], np.zeros(len(numbers), np.int64))
    edges = np.unique(np.quantile(numbers[~is_missing], [0.25, 0.5, 0.75]))
    between = [f"{low:g} to {high:g}" for low, high in pairwise(edges)]
    values = [f"up to {edges[0]:g}", *between, f"over {edges[-1]:g}", *([MISSING] if is_missing.any() else [])]
    codes = np.where(is_missing, len(values) - 1, np.searchsorted(edges, numbers))
    return Sliced(name, values, codes.astype(np.int64))


def _coded(title: str, text: pl.Series, order: Sequence[str]) -> Sliced:
    """The first of `order` have a slice each."""
    there = set(text.unique().to_list())
    order = [value for value in order if value in there]
    kept = list(order[:MOST_VALUES])
    others = [OTHER] if len(there - {None}) > len(kept) else []
    values = [*kept, *others, *([MISSING] if None in there else [])]
    codes = text.replace_strict(kept, list(range(len(kept))), default=len(kept)).to_numpy().astype(np.int64)
    return Sliced(title, values, np.where(text.is_null().to_numpy(), len(values) - 1, codes))


def _has_few(column: pl.Series) -> bool:
    import polars as pl

    if not (column.dtype.is_integer() or column.dtype in (pl.Boolean, pl.String)):
        return False
    return 2 <= column.drop_nulls().n_unique() <= MOST_VALUES


def _fitting(times: pl.Series) -> str:
    """How long the slices of time are, so that there are a few of them."""
    first, last = times.min(), times.max()
    days = (last - first).total_seconds() / 86_400 if first is not None else 0.0  # type: ignore[operator,union-attr]
    return next(every for every, most in (("day", 14), ("week", 98), ("month", 1_100), ("year", 1e9)) if days <= most)
