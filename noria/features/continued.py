"""Features over rows that go on from others, which are no longer there but in what was counted of them.

A count, a sum, an extreme over all time need no old rows; what they were is a total. `Continued` is the `Calculator`
over the rows that are left, with each feature's total before the first of them. Folding rows is asking for the totals
up to where the rows begin that stay. Rows come to totals in the order of time, by the very operations of a batch, so
that the numbers are the same to the bit; rows that come after later ones were folded may change the last one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria.core import Field
from noria.features import kernels
from noria.features.definitions import Feature
from noria.features.group import FeatureGroup
from noria.features.timeline import Positions, Timeline
from noria.features.windows import Calculator, Questions
from noria.pipelines.dtypes import polars_type

_SUMS = ("sum", "mean")
_TOTALS = ("count", "min", "max", "first", "std", "decayed_sum")
_NEVER_FOLDED = ("distinct", "top_k")

Total = list[pl.Series]
"""What is known of a feature's folded rows, [entities] each: of `count` n; of `sum` and `mean` n, the sum, and what
rounding took from it; of `min` and `max` the value; of `first` time and value; of `std` n, the mean and the squared
distances from it; of `decayed_sum` the sum and as of when it is, the time first."""


def totalled(feature: Feature) -> bool:
    """Whether the feature needs a total of the rows that were folded: sums do in windows too, since those are
    differences of sums over all time."""
    return feature.kind in _SUMS or (feature.kind in _TOTALS and feature.window is None)


def column_types(group: FeatureGroup, name: str) -> list[pl.DataType]:
    """The types of a feature's total."""
    feature, whole, real = group.features[name], pl.Int64(), pl.Float64()
    if feature.kind == "count":
        return [whole]
    if feature.kind in _SUMS:
        kind = whole if feature.kind == "sum" and group.types()[name].startswith("int") else real
        return [whole, kind, kind]
    if feature.kind == "std":
        return [whole, real, real]
    if feature.kind == "decayed_sum":
        return [whole, real]
    value = polars_type(Field(name, group.types()[name]))
    return [whole, value] if feature.kind == "first" else [value]


class Continued(Calculator):
    """A `Calculator` over rows before which others were folded.

    Args:
        line: the rows that are left; every entity has some.
        group: whose features are computed.
        totals: what was folded, by feature.
    """

    def __init__(self, line: Timeline, group: FeatureGroup, totals: dict[str, Total]) -> None:
        super().__init__(line)
        # By identity, as the calculator is asked: two features may be equal but for their conditions.
        self._totals = {id(group.features[name]): total for name, total in totals.items()}

    def compute(self, feature: Feature, questions: Questions, dtype: pl.DataType) -> pl.Series:
        before = self._totals.get(id(feature))
        if before is None:
            return super().compute(feature, questions, dtype)
        if feature.window is not None:
            return self._windowed(feature, questions, dtype, before)
        total = self.total(feature, questions, dtype)
        if feature.kind == "count" or feature.kind in ("min", "max"):
            return total[0].cast(dtype)
        if feature.kind == "first":
            return total[1].cast(dtype)
        if feature.kind == "decayed_sum":
            age = questions.at - total[0].fill_null(0).to_numpy()
            return total[1] * pl.Series(np.exp2(-age / feature.half_life_micros))
        many = total[0]
        if feature.kind == "std":
            made = pl.Series(np.sqrt(np.maximum(total[2].to_numpy(), 0.0) / many.replace(0, 1).to_numpy()))
        else:
            made = total[1] + total[2]
            made = made / many.replace(0, 1) if feature.kind == "mean" else made
        return made.cast(dtype).set(many == 0, None)

    def total(self, feature: Feature, questions: Questions, dtype: pl.DataType) -> Total:
        """A feature's total over all rows before the questions' ends, and those that were folded."""
        before = [part.gather(questions.numbers) for part in self._totals[id(feature)]]
        selected = self._selected(feature)
        begin, end = selected.range(self._start(None, questions), questions.ends)
        some = pl.Series(end - begin)
        if feature.kind == "count":
            return [before[0] + some]
        if feature.kind in _SUMS:
            prefix, lost = self._sums(feature, dtype)
            at = end + questions.numbers
            return [before[0] + some, pl.Series(prefix[at]), pl.Series(lost[at])]
        if feature.kind == "decayed_sum":
            decayed, times = self._decayed(feature, selected)
            last = np.maximum(end - 1, 0)
            none = some == 0
            return [_either(before[0], times, last, none), _either(before[1], decayed, last, none)]
        if feature.kind == "std":
            return _spread(before, some, *self._spread(feature, questions))
        now = super().compute(feature, questions, dtype)
        if feature.kind == "first":
            times = self._once(self._times, selected)
            mine = pl.Series(times[np.minimum(begin, max(len(times) - 1, 0))] if len(times) else begin)
            later = (before[0].is_not_null() & (before[0] <= mine)) | (some == 0)
            return [before[0].zip_with(later, mine), before[1].zip_with(later, now)]
        pick = pl.min_horizontal if feature.kind == "min" else pl.max_horizontal
        return [pl.select(pick(before[0].alias("a"), now.alias("b"))).to_series()]

    def fading(self, feature: Feature, questions: Questions) -> tuple[pl.Series, pl.Series]:
        if id(feature) not in self._totals:
            return super().fading(feature, questions)
        time, value = self.total(feature, questions, pl.Float64())
        return value, time

    def _windowed(self, feature: Feature, questions: Questions, dtype: pl.DataType, before: Total) -> pl.Series:
        start, end = self._selected(feature).range(self._start(feature.window_micros, questions), questions.ends)
        prefix, lost = self._sums(feature, dtype)
        made = kernels.sums(prefix, lost, questions.numbers, start, end)
        made = made / np.where(end == start, 1, end - start) if feature.kind == "mean" else made
        return pl.Series(made).cast(dtype).set(pl.Series(end == start), None)

    def _sums(self, feature: Feature, dtype: pl.DataType) -> Any:
        selected = self._selected(feature)
        restarts = self._once(self._restarts, selected)
        return kernels.prefixes(
            self._values(selected, dtype), restarts, *(part.to_numpy() for part in self._totals[id(feature)][1:])
        )

    def _decayed(self, feature: Feature, selected: Any) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        restarts, times = self._once(self._restarts, selected), self._once(self._times, selected)
        total = self._totals.get(id(feature))
        if total is None:
            return super()._decayed(feature, selected)
        since = total[0].fill_null(np.iinfo(np.int64).min).to_numpy()
        made: tuple[NDArray[np.float64], NDArray[np.int64]] = kernels.decayed(
            self._values(selected, pl.Float64()), times, restarts, feature.half_life_micros,
            since, total[1].fill_null(0.0).to_numpy(),
        )  # fmt: skip
        return made

    def _spread(self, feature: Feature, questions: Questions) -> tuple[pl.Series, pl.Series]:
        """Mean and squared distances of the rows that are left."""
        mean, std = (
            super(Continued, self).compute(replace(feature, kind=kind), questions, pl.Float64())
            for kind in ("mean", "std")
        )
        begin, end = self._selected(feature).range(self._start(None, questions), questions.ends)
        return mean.fill_null(0.0), std.fill_null(0.0) ** 2 * pl.Series(end - begin)


def keep_from(group: FeatureGroup, calculator: Continued, line: Timeline, oldest: NDArray[np.int64]) -> Positions:
    """For each entity its first row that can't be folded.

    Args:
        group: whose features are computed.
        calculator: over the rows.
        line: the rows; every entity has some.
        oldest: [entities] rows from this time on stay.
    """
    numbers = np.arange(line.entities.size)
    begin, end = line.starts[:-1], line.starts[1:]
    cut = np.minimum(line.before(numbers, oldest), end - 1)  # the newest one says when it was
    for feature in group.features.values():
        if feature.window is not None or feature.kind == "derived":
            continue
        if feature.kind in _NEVER_FOLDED:
            return begin
        if feature.kind in ("latest", "last"):
            cut = np.minimum(cut, calculator.newest_selected(feature, begin, end))
    return cut


def _either(before: pl.Series, values: NDArray[Any], places: Positions, none: pl.Series) -> pl.Series:
    now = pl.Series(values[places] if len(values) else np.zeros(len(places), values.dtype))
    return before.zip_with(none, now)


def _spread(before: Sequence[pl.Series], some: pl.Series, mean: pl.Series, squares: pl.Series) -> Total:
    """Two parts' deviations as one's (Chan, Golub, LeVeque, *Updating formulae and a pairwise algorithm*, 1979)."""
    many = before[0] + some
    share = some / many.replace(0, 1)
    shift = mean - before[1]
    return [many, before[1] + shift * share, before[2] + squares + shift * shift * before[0] * share]
