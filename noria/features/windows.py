"""Exact aggregates over windows that end at arbitrary instants, without one group-by for each window.

Over ranges of a timeline's rows, counts, sums and means come from prefix sums, extremes from a sparse table (Bender,
Farach-Colton, *The LCA Problem Revisited*, 2000), the last n from the range's end; what has to be counted by value
slides along each entity's rows. Batch and materialization ask the same code, so that both give the same number.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import arro3.core
import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria.core import ConfigError
from noria.features import kernels
from noria.features.definitions import Feature
from noria.features.timeline import Positions, Timeline
from noria.pipelines.steps.expression_rows import computed


@dataclass(frozen=True)
class Questions:
    """What is asked of a timeline.

    Attributes:
        numbers: [questions] entities; -1 for one without events.
        at: [questions] instants, microseconds.
        ends: [questions] the ends of the entities' rows before the instants; or earlier, if only those rows count.
        starts: where each window begins, once it is known.
    """

    numbers: Positions
    at: NDArray[np.int64]
    ends: Positions
    starts: dict[int | None, Positions] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class _Selected:
    """The rows of a timeline that count for a feature.

    Attributes:
        rows: their positions in the timeline's frame, in the timeline's order.
        rank: [rows + 1] how many of them come before each of the timeline's rows; None if all count.
        column: their values, in the frame's order; None for `count`.
    """

    rows: Positions
    rank: Positions | None
    column: pl.Series | None

    def range(self, start: Positions, end: Positions) -> tuple[Positions, Positions]:
        """A range of the timeline's rows as one of the selected."""
        return (start, end) if self.rank is None else (self.rank[start], self.rank[end])

    def values(self) -> pl.Series:
        """The selected values in the timeline's order."""
        assert self.column is not None
        return _taken(self.column, self.rows)


class Calculator:
    """Computes features over one timeline; what several of them need is computed once."""

    def __init__(self, line: Timeline) -> None:
        self._line = line
        self._kept: dict[Any, Any] = {}

    def ask(self, numbers: Positions, at: NDArray[np.int64]) -> Questions:
        """Questions by entity and instant."""
        return Questions(numbers, at, self._line.before(numbers, at))

    def newest(self, questions: Questions) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """The times of the newest events, and whether there are any."""
        return _at(self._line.times, questions.ends - 1), questions.ends > self._line.begin(questions.numbers)

    def compute(self, feature: Feature, questions: Questions, dtype: pl.DataType) -> pl.Series:
        """One feature's values; see `noria.features.definitions` for what each kind means."""
        selected = self._selected(feature)
        start, end = selected.range(self._start(feature.window_micros, questions), questions.ends)
        empty = end == start
        if feature.kind == "count":
            return pl.Series(end - start, dtype=pl.Int64)
        if feature.kind in ("latest", "first"):
            row = _at(selected.rows, end - 1 if feature.kind == "latest" else start)
            assert selected.column is not None
            return selected.column.gather(pl.Series(row).set(pl.Series(empty), None)).cast(dtype)
        if feature.kind == "last":
            return _last(selected, start, end, feature.n or 1, dtype)
        if feature.kind in ("distinct", "top_k"):
            return self._counted(feature, selected, questions, start, end, dtype)
        if feature.kind in ("min", "max"):
            values = self._once(_numbers_of, selected)
            made = kernels.extreme(values, start, end, feature.kind)
        else:
            made = self._summed(feature, selected, questions, start, end, dtype)
        return pl.Series(made).cast(dtype).set(pl.Series(empty), None)

    def fading(self, feature: Feature, questions: Questions) -> tuple[pl.Series, pl.Series]:
        """A decayed sum as of its newest value, before it fades from there on, and that value's time."""
        selected = self._selected(feature)
        start, end = selected.range(self._start(None, questions), questions.ends)
        decayed, times = self._decayed(feature, selected)
        empty = pl.Series(end == start)
        return pl.Series(_at(decayed, end - 1)).set(empty, None), pl.Series(_at(times, end - 1)).set(empty, None)

    def newest_selected(self, feature: Feature, begin: Positions, end: Positions) -> Positions:
        """Of each range of the timeline's rows that of the oldest of the newest n values, 1 for `latest`; the last row
        where there is no value."""
        selected = self._selected(feature)
        first, after = selected.range(begin, end)
        oldest = np.maximum(after - (feature.n or 1), first)
        if selected.rank is None:
            return oldest
        places = np.flatnonzero(np.diff(selected.rank))
        return np.where(after > first, _at(places, oldest), end - 1)

    def _selected(self, feature: Feature) -> _Selected:
        found: _Selected = self._once(self._select, feature.column, feature.where, _skips_missing(feature))
        return found

    def _values(self, selected: _Selected, dtype: pl.DataType) -> NDArray[Any]:
        found: NDArray[Any] = self._once(_integers_of if dtype.is_integer() else _floats_of, selected)
        return found

    def _decayed(self, feature: Feature, selected: _Selected) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """At each value the decayed sum up to it, and as of when that is."""
        restarts, times = self._once(self._restarts, selected), self._once(self._times, selected)
        found: tuple[NDArray[np.float64], NDArray[np.int64]] = self._once(
            _decayed, self._values(selected, pl.Float64()), times, restarts, feature.half_life_micros
        )
        return found

    def _start(self, window: int | None, questions: Questions) -> Positions:
        if window not in questions.starts:
            line, numbers = self._line, questions.numbers
            begin = line.begin(numbers) if window is None else line.before(numbers, questions.at - window)
            # Where some rows don't count, a window may begin after the last that does.
            questions.starts[window] = np.minimum(begin, questions.ends)
        return questions.starts[window]

    def _once(self, work: Any, *what: Any) -> Any:
        """The result of `work(*what)`, worked out once. Columns and expressions, which can't be keys, are told apart by
        their identity; they are kept, so that it stays theirs."""
        key = (
            getattr(work, "__func__", work),  # a bound method would hold this object, and all of it, in a circle
            *(("is", one) if isinstance(one, (str, bool, int, type(None))) else ("at", id(one)) for one in what),
        )
        if key not in self._kept:
            self._kept[key] = (work(*what), what)
        return self._kept[key][0]

    def _select(self, column: str | None, where: pl.Expr | None, skip_missing: bool) -> _Selected:
        line = self._line
        series = None if column is None else line.frame[column]
        if series is not None and series.dtype.is_float() and not series.is_finite().all():
            series = series.set(~series.is_finite(), None)  # one NaN or infinity would spoil all sums after it
        counts = None
        if where is not None:
            counts = self._once(_holds, line, where)
        if skip_missing and series is not None and series.null_count():
            known = series.is_not_null()
            counts = known if counts is None else counts & known
        if counts is None:
            return _Selected(line.order, None, series)
        mask = counts.to_numpy()[line.order]
        rank = np.zeros(len(mask) + 1, dtype=np.int64)
        np.cumsum(mask, out=rank[1:])
        return _Selected(line.order[mask], rank, series)

    def _summed(
        self, feature: Feature, selected: _Selected, questions: Questions, start: Positions, end: Positions,
        dtype: pl.DataType,
    ) -> NDArray[Any]:  # fmt: skip
        restarts = self._once(self._restarts, selected)
        numbers = questions.numbers
        if feature.kind == "decayed_sum":
            decayed, times = self._decayed(feature, selected)
            made: NDArray[Any] = kernels.decay(decayed, times, numbers, end, questions.at, feature.half_life_micros)
        elif feature.kind == "std":
            made = kernels.spread(self._values(selected, pl.Float64()), restarts, numbers, start, end)
        else:
            prefix, lost = self._once(_prefixes, self._values(selected, dtype), restarts)
            made = kernels.sums(prefix, lost, numbers, start, end)
        return made / np.where(end == start, 1, end - start) if feature.kind == "mean" else made

    def _restarts(self, selected: _Selected) -> Positions:
        return self._line.starts if selected.rank is None else selected.rank[self._line.starts]

    def _times(self, selected: _Selected) -> NDArray[np.int64]:
        return self._line.times if selected.rank is None else self._line.times[np.diff(selected.rank) > 0]

    def _counted(
        self, feature: Feature, selected: _Selected, questions: Questions, start: Positions, end: Positions,
        dtype: pl.DataType,
    ) -> pl.Series:  # fmt: skip
        codes, values = self._once(_codes, selected)
        # An entity's questions in the order of time: then a window of one length never goes back.
        order = np.lexsort((questions.at, questions.numbers))
        if feature.kind == "distinct":
            return pl.Series(kernels.distinct(codes, len(values), order, questions.numbers, start, end))
        offsets, found = kernels.top(codes, len(values), order, questions.numbers, start, end, feature.n or 1)
        return _lists(values.cast(dtype).gather(found), offsets, dtype)


def _skips_missing(feature: Feature) -> bool:
    return feature.kind not in ("latest", "count")


def _holds(line: Timeline, where: pl.Expr) -> pl.Series:
    (found,) = computed(line.frame, {"": where})
    if found.dtype != pl.Boolean:
        raise ConfigError(f"where={where} is neither true nor false", hint='where=nr.col("price") > 0', field="where")
    return found.fill_null(value=False)


def _numbers_of(selected: _Selected) -> NDArray[Any]:
    values: NDArray[Any] = selected.values().to_numpy()  # nothing is missing among them
    return values


def _floats_of(selected: _Selected) -> NDArray[np.float64]:
    return _numbers_of(selected).astype(np.float64, copy=False)


def _integers_of(selected: _Selected) -> NDArray[np.int64]:
    return _numbers_of(selected).astype(np.int64, copy=False)


def _prefixes(values: NDArray[Any], restarts: Positions) -> Any:
    nothing = np.zeros(len(restarts) - 1, dtype=values.dtype)
    return kernels.prefixes(values, restarts, nothing, nothing)


def _decayed(values: NDArray[np.float64], times: Positions, restarts: Positions, half_life: int) -> Any:
    never = np.full(len(restarts) - 1, np.iinfo(np.int64).min)
    return kernels.decayed(values, times, restarts, half_life, never, np.zeros(len(never)))


def _codes(selected: _Selected) -> tuple[Positions, pl.Series]:
    """Each selected value as a number, and the values that these stand for."""
    values = selected.values().alias("value")
    different = values.unique(maintain_order=True)
    table = pl.DataFrame([different]).with_row_index("code")
    codes = pl.DataFrame([values]).join(table, on="value", how="left", maintain_order="left")["code"]
    return codes.cast(pl.Int64).to_numpy(), different


def _at(values: NDArray[Any], positions: Positions) -> NDArray[Any]:
    """The values at the positions; anything for a position that there isn't."""
    if not len(values):
        return np.zeros(len(positions), dtype=values.dtype)
    return values[np.clip(positions, 0, len(values) - 1)]


def _last(selected: _Selected, start: Positions, end: Positions, n: int, dtype: pl.DataType) -> pl.Series:
    lengths = np.minimum(end - start, n)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    back = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)  # 0 for the newest
    assert selected.column is not None
    values = _taken(selected.column, selected.rows[np.repeat(end, lengths) - 1 - back]).cast(dtype)
    return _lists(values, offsets, dtype)


def _taken(column: pl.Series, places: Positions) -> pl.Series:
    """`column.gather(places)`; of plain numbers by NumPy, which takes half the time."""
    if column.null_count() or not column.dtype.is_numeric():
        return column.gather(places)
    return pl.Series(column.name, np.take(column.to_numpy(), places))


def _lists(values: pl.Series, offsets: Positions, dtype: pl.DataType) -> pl.Series:
    """Values cut into lists at offsets, without a copy."""
    flat = arro3.core.Array.from_arrow(values.rechunk())
    return pl.Series(arro3.core.list_array(arro3.core.Array.from_numpy(offsets), flat)).cast(pl.List(dtype))
