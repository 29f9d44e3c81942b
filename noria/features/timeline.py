"""A timeline: events in the order of entity, time and arrival, in which a question is a range of rows.

Events are sorted once. What is asked (an entity, an instant, a window) is then a range of rows, found by two binary
searches. The batch path asks at each label's time, materialization asks for all entities at one instant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import polars as pl
from numpy.typing import NDArray

Positions = NDArray[np.int64]

_SPARSE = 4
"""Whole numbers are their own places in a table, if it has at most so many places for each row."""
_SHORT = 24
"""Rows up to which insertion is the fastest way to sort; more are merged from runs of so many."""


@dataclass(frozen=True)
class Numbering:
    """Entities by number, from 0.

    Attributes:
        size: numbers that there are; some may be nobody's.
        low: the id with the number 0, where ids are whole numbers that lie close together.
        table: else the ids by `number`, in the columns of the key.
    """

    size: int
    low: int | None
    table: pl.DataFrame | None

    @staticmethod
    def of(ids: pl.DataFrame) -> Numbering:
        """Number the ids that there are; none of them is missing."""
        if ids.width == 1 and ids.dtypes[0].is_integer() and len(ids):
            least, greatest = int(ids.to_series().min()), int(ids.to_series().max())  # type: ignore[arg-type]
            if greatest - least < _SPARSE * len(ids) + 1000:
                return Numbering(greatest - least + 1, least, None)
        table = ids.unique(maintain_order=True).with_row_index("__number__")
        return Numbering(len(table), None, table)

    def numbers(self, ids: pl.DataFrame) -> Positions:
        """Each id's number; -1 for what is nobody's."""
        if self.table is None:
            column = ids.to_series().cast(pl.Int64, strict=False)
            known = column.is_between(self.low, (self.low or 0) + self.size - 1).fill_null(value=False)
            return (column - self.low).set(~known, -1).fill_null(-1).to_numpy()
        names = self.table.columns[1:]
        # An id that doesn't fit into the key's type becomes missing, and is nobody's.
        fitting = [ids[name].cast(self.table.schema[name], strict=False) for name in names]
        joined = pl.DataFrame(fitting).join(self.table, on=names, how="left", maintain_order="left")
        return joined["__number__"].cast(pl.Int64).fill_null(-1).to_numpy()

    def ids(self, numbers: Positions, schema: pl.Schema) -> pl.DataFrame:
        """The ids that have these numbers."""
        if self.table is None:
            ((name, dtype),) = schema.items()
            return pl.DataFrame([pl.Series(name, numbers + (self.low or 0)).cast(dtype)])
        return self.table.drop("__number__").select(pl.all().gather(numbers))


@dataclass(frozen=True)
class Timeline:
    """Events in the order of entity, time and arrival.

    Attributes:
        frame: the rows, in the order of arrival.
        order: [rows] the positions of those rows in the order of entity, time and arrival.
        entities: the numbers of the entities.
        starts: [entities + 1] where each entity's rows begin in that order.
        times: [rows] event times in that order, microseconds.
    """

    frame: pl.DataFrame
    order: Positions
    entities: Numbering
    starts: Positions
    times: NDArray[np.int64]

    @staticmethod
    def of(events: pl.DataFrame, keys: Sequence[str], time: str | None) -> Timeline:
        """Sort events; those without an entity belong to nobody and are left out."""
        missing = [events[key].is_null() for key in keys if events[key].null_count()]
        if missing:
            events = events.filter(~pl.select(pl.any_horizontal(missing)).to_series())
        ids = events.select(keys)
        entities = Numbering.of(ids)
        times = np.zeros(len(events), np.int64) if time is None else events[time].dt.timestamp("us").to_numpy()
        starts, order = _group(entities.numbers(ids), entities.size)
        sorted_times = times[order]
        _sort_each(starts, order, sorted_times)
        return Timeline(events, order, entities, starts, sorted_times)

    def numbers(self, ids: pl.DataFrame) -> Positions:
        """Each id's number; -1 where there is no event of it."""
        return self.entities.numbers(ids)

    def before(self, numbers: Positions, at: NDArray[np.int64]) -> Positions:
        """For each question the end of the entity's rows with event times before `at`."""
        found: Positions = _search(self.starts, self.times, numbers, at)
        return found

    def begin(self, numbers: Positions) -> Positions:
        """Where the entity's rows begin; 0 for nobody's."""
        return self.starts[np.maximum(numbers, 0)] * (numbers >= 0)


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
def _group(numbers: Any, entities: Any) -> Any:
    """Where each entity's rows begin, and the rows by entity, each entity's as they arrived (a counting sort)."""
    starts = np.zeros(entities + 1, dtype=np.int64)
    for number in numbers:
        starts[number + 1] += 1
    for entity in range(entities):
        starts[entity + 1] += starts[entity]
    free = starts[:-1].copy()
    order = np.empty(len(numbers), dtype=np.int64)
    for row in range(len(numbers)):
        order[free[numbers[row]]] = row
        free[numbers[row]] += 1
    return starts, order


@numba.njit(cache=True, nogil=True)
def _sort_each(starts: Any, order: Any, times: Any) -> None:
    """Sort each entity's rows by time, in place; those of one time stay as they arrived."""
    spare_order, spare_times = np.empty(0, np.int64), np.empty(0, np.int64)
    for entity in range(len(starts) - 1):
        first, end = starts[entity], starts[entity + 1]
        is_sorted = True
        for i in range(first + 1, end):
            if times[i] < times[i - 1]:
                is_sorted = False
                break
        if is_sorted:
            continue
        for begin in range(first, end, _SHORT):  # insertion, run by run
            for i in range(begin + 1, min(begin + _SHORT, end)):
                time, row, at = times[i], order[i], i
                while at > begin and times[at - 1] > time:
                    times[at], order[at] = times[at - 1], order[at - 1]
                    at -= 1
                times[at], order[at] = time, row
        if end - first > _SHORT and len(spare_times) < end - first:
            spare_order, spare_times = np.empty(end - first, np.int64), np.empty(end - first, np.int64)
        width = _SHORT
        while width < end - first:  # merging: NumPy's own sort takes 4 s to compile
            for begin in range(first, end - width, 2 * width):
                _merge(times, order, spare_times, spare_order, begin, begin + width, min(begin + 2 * width, end))
            width *= 2


@numba.njit(cache=True, nogil=True)
def _merge(times: Any, order: Any, spare_times: Any, spare_order: Any, begin: Any, middle: Any, end: Any) -> None:
    """Two sorted runs that follow each other become one; of equal times those of the first run come first."""
    count = middle - begin
    for i in range(count):
        spare_times[i], spare_order[i] = times[begin + i], order[begin + i]
    left, right, at = 0, middle, begin
    while left < count:
        if right < end and times[right] < spare_times[left]:
            times[at], order[at] = times[right], order[right]
            right += 1
        else:
            times[at], order[at] = spare_times[left], spare_order[left]
            left += 1
        at += 1
