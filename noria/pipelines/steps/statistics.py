"""Statistics over blocks: the same to the bit whoever works on which block, in memory that doesn't grow with them.

Each block gives a small summary, and summaries are combined in the blocks' order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria.pipelines.blocks import Blocks

_COLLECT = 1_000_000
"""Values that are gathered and sorted, once so few can hold the ones that are looked for."""
_BITS = 16


@dataclass(frozen=True)
class Moments:
    """Of a column's values: how many, their mean, the sum of squared distances from it, the least and the greatest."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    least: float = float("inf")
    greatest: float = float("-inf")

    def __add__(self, other: Moments) -> Moments:
        """Chan, Golub and LeVeque (1979), Updating formulae and a pairwise algorithm for computing sample variances."""
        if not self.count or not other.count:
            return self if self.count else other
        count, delta = self.count + other.count, other.mean - self.mean
        least, greatest = min(self.least, other.least), max(self.greatest, other.greatest)
        mean = least if least == greatest else self.mean + delta * other.count / count
        squares = self.squares + other.squares + delta * delta * self.count * other.count / count
        return Moments(count, mean, squares, least, greatest)

    @property
    def deviation(self) -> float:
        """The standard deviation of the population; exactly 0 for equal values."""
        if not self.count or self.least == self.greatest:
            return 0.0
        return float(np.sqrt(self.squares / self.count))


def moments(blocks: Blocks, names: Sequence[str]) -> dict[str, Moments]:
    """The moments of columns of numbers."""
    found = dict.fromkeys(names, Moments())
    for part in blocks.map(partial(_moments, tuple(names))):
        found = {name: found[name] + part[name] for name in names}
    return found


def known(column: pl.Series) -> NDArray[np.float64]:
    """The values of a column of numbers as float64, without missing ones and NaN."""
    values = column.drop_nulls().cast(pl.Float64).to_numpy()
    return values[~np.isnan(values)] if column.dtype.is_float() else values


def _moments(names: tuple[str, ...], frame: pl.DataFrame, block: int) -> dict[str, Moments]:
    return {name: _moments_of(known(frame[name])) for name in names}


def _moments_of(values: NDArray[np.float64]) -> Moments:
    if not len(values):
        return Moments()
    least, greatest = float(values.min()), float(values.max())
    with np.errstate(over="ignore"):  # numbers beyond 1e154 have no variance that a float could hold
        mean = least if least == greatest else float(values.mean())
        if not np.isfinite(mean):
            mean = float((values / len(values)).sum())
        distance = values - mean
        return Moments(len(values), mean, float(np.dot(distance, distance)), least, greatest)


def value_counts(blocks: Blocks, names: Sequence[str]) -> dict[str, pl.DataFrame]:
    """For each column its values, missing ones too, with their `count`, in the order of the values."""
    parts = blocks.map(partial(_value_counts, tuple(names)))
    return {name: _added([part[name] for part in parts], name, blocks.schema[name]) for name in names}


def _value_counts(names: tuple[str, ...], frame: pl.DataFrame, block: int) -> dict[str, pl.DataFrame]:
    return {name: frame.select(pl.col(name)).group_by(name).agg(pl.len().cast(pl.Int64).alias("")) for name in names}


def _added(parts: list[pl.DataFrame], name: str, dtype: pl.DataType) -> pl.DataFrame:
    empty = pl.DataFrame(schema={name: dtype, "": pl.Int64})
    whole = pl.concat([empty, *parts]).group_by(name).agg(pl.col("").sum()).sort(name)
    return whole.select(pl.col(name).alias("value"), pl.col("").alias("count"))


def quantiles(blocks: Blocks, wanted: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """Exact quantiles of columns, interpolated between neighbours as NumPy does it; empty for a column without values.

    The values are mapped to integers of the same order, and narrowed down by the counts of their leading bits, until so
    few are left that they can be gathered.
    """
    parts = blocks.map(partial(_counts, tuple(wanted)))
    counts = {name: sum(part[name] for part in parts) for name in wanted}
    ranks: dict[str, set[int]] = {}
    for name, shares in wanted.items():
        places = [share * (counts[name] - 1) for share in shares] if counts[name] else []
        ranks[name] = {rank for place in places for rank in (int(place), min(int(place) + 1, counts[name] - 1))}
    values = _ordered(blocks, ranks, counts)
    found: dict[str, list[float]] = {}
    for name, shares in wanted.items():
        found[name] = []
        for share in shares if counts[name] else ():
            place = share * (counts[name] - 1)
            low = values[name, int(place)]
            high = values[name, min(int(place) + 1, counts[name] - 1)]
            found[name].append(low if low == high else low + (high - low) * (place - int(place)))
    return found


def _counts(names: tuple[str, ...], frame: pl.DataFrame, block: int) -> dict[str, int]:
    return {name: len(known(frame[name])) for name in names}


@dataclass(frozen=True)
class _Range:
    """Values of a column whose leading bits are these; `below` values come before them."""

    name: str
    bits: int
    prefix: int
    below: int
    count: int


def _ordered(blocks: Blocks, ranks: Mapping[str, set[int]], counts: Mapping[str, int]) -> dict[tuple[str, int], float]:
    """The values at ranks, from 0, in ascending order."""
    found: dict[tuple[str, int], float] = {}
    ranges = {_Range(name, 0, 0, 0, counts[name]): set(places) for name, places in ranks.items() if places}
    while ranges:
        ready = {r: places for r, places in ranges.items() if r.count <= _COLLECT or r.bits == 64}
        for (r, places), values in zip(ready.items(), _collected(blocks, list(ready)), strict=True):
            found |= {(r.name, place): float(values[min(place - r.below, len(values) - 1)]) for place in places}
        wide = {r: places for r, places in ranges.items() if r not in ready}
        ranges = {}
        if wide:
            for (r, places), histogram in zip(wide.items(), _histograms(blocks, list(wide)), strict=True):
                ends = r.below + np.cumsum(histogram)
                for place in places:
                    digit = int(np.searchsorted(ends, place, side="right"))
                    below = int(ends[digit] - histogram[digit])
                    narrow = _Range(r.name, r.bits + _BITS, (r.prefix << _BITS) | digit, below, int(histogram[digit]))
                    ranges.setdefault(narrow, set()).add(place)
    return found


def _histograms(blocks: Blocks, ranges: list[_Range]) -> list[NDArray[np.int64]]:
    parts = blocks.map(partial(_histogram, ranges))
    return [np.sum([part[number] for part in parts], axis=0) for number in range(len(ranges))]


def _histogram(ranges: list[_Range], frame: pl.DataFrame, block: int) -> list[NDArray[np.int64]]:
    made = []
    for r in ranges:
        keys = _in_range(frame, r)[1]
        digits = (keys >> np.uint64(64 - r.bits - _BITS)) & np.uint64((1 << _BITS) - 1)
        made.append(np.bincount(digits.astype(np.int64), minlength=1 << _BITS))
    return made


def _collected(blocks: Blocks, ranges: list[_Range]) -> list[NDArray[np.float64]]:
    if not ranges:
        return []
    parts = blocks.map(partial(_collect, ranges))
    return [np.sort(np.concatenate([part[number] for part in parts])) for number in range(len(ranges))]


def _collect(ranges: list[_Range], frame: pl.DataFrame, block: int) -> list[NDArray[np.float64]]:
    # With all bits known, all values are equal: one is enough.
    return [_in_range(frame, r)[0][: 1 if r.bits == 64 else None] for r in ranges]


def _in_range(frame: pl.DataFrame, r: _Range) -> tuple[NDArray[np.float64], NDArray[np.uint64]]:
    values = known(frame[r.name]) + 0.0  # -0.0 and 0.0 are one value
    bits = values.view(np.uint64)
    sign = np.uint64(1 << 63)
    keys = np.where(bits & sign, ~bits, bits | sign)  # negative numbers grow downwards
    if not r.bits:
        return values, keys
    mine = (keys >> np.uint64(64 - r.bits)) == np.uint64(r.prefix)
    return values[mine], keys[mine]
