"""Exact aggregates over windows that end at arbitrary instants, without one group-by for each window.

Events are sorted once by entity, time and arrival. A question (entity, t) is then a range of rows, found by two binary
searches; counts, sums and means come from prefix sums, extremes from a sparse table (Bender, Farach-Colton, *The LCA
Problem Revisited*, 2000), the last n from the range's end. The batch path asks at each label's time, materialization
asks for all entities at one instant: the same code, so that both give the same number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria.features.definitions import Feature

Positions = NDArray[np.int64]


@dataclass(frozen=True)
class Timeline:
    """Events in the order of entity, time and arrival.

    Attributes:
        frame: the rows, in the order of arrival.
        order: [rows] the positions of those rows in the order of entity, time and arrival.
        entities: id to the entity's number; columns `id` and `number`.
        starts: [entities + 1] where each entity's rows begin in that order.
        times: [rows] event times in that order, microseconds.
    """

    frame: pl.DataFrame
    order: Positions
    entities: pl.DataFrame
    starts: Positions
    times: NDArray[np.int64]

    @staticmethod
    def of(events: pl.DataFrame, entity: str, time: str | None) -> Timeline:
        """Sort events; those without an entity belong to nobody and are left out."""
        events = events.filter(pl.col(entity).is_not_null())
        ids = events[entity]
        entities = pl.DataFrame({"id": ids.unique(maintain_order=True)}).with_row_index("number")
        number = _numbers(ids, entities)
        if time is None:
            times = np.zeros(len(events), dtype=np.int64)
        else:
            times = events[time].dt.timestamp("us").to_numpy().astype(np.int64)
        starts, order = _group(number, np.argsort(times, kind="stable"), len(entities))
        return Timeline(events, order, entities, starts, times[order])

    def numbers(self, ids: pl.Series) -> Positions:
        """Each id's number; -1 where there is no event of it."""
        # An id that doesn't fit into the entity's type becomes missing, and is nobody's.
        return _numbers(ids.cast(self.entities["id"].dtype, strict=False), self.entities)


def _numbers(ids: pl.Series, entities: pl.DataFrame) -> Positions:
    joined = ids.alias("id").to_frame().join(entities, on="id", how="left", maintain_order="left")
    return joined["number"].cast(pl.Int64).fill_null(-1).to_numpy()


def ranges(
    line: Timeline, numbers: Positions, at: NDArray[np.int64], window: int | None
) -> tuple[Positions, Positions]:
    """For each question the rows [start, end) with event times in [at - window, at)."""
    lowest = np.full(len(at), np.iinfo(np.int64).min) if window is None else at - window
    return _search(line.starts, line.times, numbers, lowest), _search(line.starts, line.times, numbers, at)


def compute(
    line: Timeline, feature: Feature, numbers: Positions, start: Positions, end: Positions, dtype: pl.DataType
) -> pl.Series:
    """One feature's values for ranges of rows; see `Feature` for what each kind means."""
    if feature.kind == "count" or feature.column is None:
        return pl.Series(end - start, dtype=pl.Int64)
    column = line.frame[feature.column]
    if column.dtype.is_float():  # NaN and infinity are no values: one of them would spoil all sums after it
        column = column.set(~column.is_finite(), None)
    if feature.kind == "latest":
        rows = pl.Series(_at(line.order, end - 1)).set(pl.Series(end == start), None)
        return column.gather(rows).cast(dtype)
    column = column.gather(line.order)
    known = np.concatenate([[0], np.cumsum(column.is_not_null().to_numpy())]).astype(np.int64)
    present = column.drop_nulls()
    first, after = known[start], known[end]  # the same ranges among the values that aren't missing
    if feature.kind == "last":
        return _last(present, first, after, feature.n or 1, dtype)
    empty = after == first
    if feature.kind in ("min", "max"):
        values = _extreme(present.to_numpy(), first, after, feature.kind)
    else:
        exact = np.int64 if dtype.is_integer() else np.float64
        values = _sums(present.to_numpy().astype(exact), known[line.starts], numbers, first, after)
        if feature.kind == "mean":
            values = values / np.where(empty, 1, after - first)
    return pl.Series(values).cast(dtype).set(pl.Series(empty), None)


def newest(line: Timeline, end: Positions) -> NDArray[np.int64]:
    """The time of the newest event before each end; meaningless where there is none."""
    return _at(line.times, end - 1)


def _at(values: NDArray[np.int64], positions: Positions) -> NDArray[np.int64]:
    """The values at the positions; anything for a position that there isn't."""
    return values[np.maximum(positions, 0)] if len(values) else np.zeros(len(positions), dtype=np.int64)


def _last(present: pl.Series, first: Positions, after: Positions, n: int, dtype: pl.DataType) -> pl.Series:
    lengths = np.minimum(after - first, n)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    row = np.repeat(np.arange(len(lengths)), lengths)
    back = np.arange(offsets[-1]) - offsets[row]  # 0 for the newest
    values = present.gather(after[row] - 1 - back).cast(dtype)
    lists = pl.DataFrame({"row": row, "value": values}).group_by("row", maintain_order=True).agg("value")
    everyone = pl.DataFrame({"row": np.arange(len(lengths))}).join(lists, on="row", how="left", maintain_order="left")
    return everyone.select(pl.col("value").fill_null(pl.lit([], pl.List(dtype))))["value"]


def _extreme(values: NDArray[Any], first: Positions, after: Positions, kind: str) -> NDArray[Any]:
    """Minimum or maximum of each range by a sparse table; 0 for an empty range."""
    pick = np.minimum if kind == "min" else np.maximum
    length = after - first
    levels = np.where(length > 0, np.frexp(np.maximum(length, 1))[1] - 1, 0)
    result = np.zeros(len(first), dtype=values.dtype)
    table = values
    for level in range(int(levels.max(initial=0)) + 1):
        if level:
            half = 1 << (level - 1)
            table = pick(table[:-half], table[half:])
        mine = np.flatnonzero((levels == level) & (length > 0))
        result[mine] = pick(table[first[mine]], table[after[mine] - (1 << level)])
    return result


@numba.njit(cache=True, nogil=True)
def _search(starts: Any, times: Any, numbers: Any, at: Any) -> Any:
    """The first row of each entity whose time is not before `at`; the entity's end when there is none."""
    found = np.zeros(len(numbers), dtype=np.int64)
    for i in range(len(numbers)):
        if numbers[i] < 0:
            continue
        low, high = starts[numbers[i]], starts[numbers[i] + 1]
        while low < high:
            middle = (low + high) // 2
            if times[middle] < at[i]:
                low = middle + 1
            else:
                high = middle
        found[i] = low
    return found


@numba.njit(cache=True, nogil=True)
def _group(numbers: Any, by_time: Any, entities: Any) -> Any:
    """Where each entity's rows begin, and the rows by entity, each entity's in the order given (a counting sort)."""
    starts = np.zeros(entities + 1, dtype=np.int64)
    for number in numbers:
        starts[number + 1] += 1
    for entity in range(entities):
        starts[entity + 1] += starts[entity]
    free = starts[:-1].copy()
    order = np.empty(len(numbers), dtype=np.int64)
    for row in by_time:
        order[free[numbers[row]]] = row
        free[numbers[row]] += 1
    return starts, order


@numba.njit(cache=True, nogil=True)
def _sums(values: Any, restarts: Any, numbers: Any, first: Any, after: Any) -> Any:
    """Sums of ranges by prefix sums, each with what rounding took from it (Knuth's TwoSum), so that a window's small
    values aren't lost behind big ones before it; they start anew at each entity, so that none blurs another."""
    prefix = np.zeros(len(values) + len(restarts), dtype=values.dtype)
    lost = np.zeros(len(prefix), dtype=values.dtype)
    for entity in range(len(restarts) - 1):
        total = error = prefix[0] * 0
        for i in range(restarts[entity], restarts[entity + 1]):
            new = total + values[i]
            added = new - total
            error += (total - (new - added)) + (values[i] - added)
            total = new
            prefix[i + entity + 1] = total
            lost[i + entity + 1] = error
    result = np.zeros(len(first), dtype=values.dtype)
    for i in range(len(first)):
        if numbers[i] >= 0:
            a, b = first[i] + numbers[i], after[i] + numbers[i]
            result[i] = (prefix[b] - prefix[a]) + (lost[b] - lost[a])
    return result
