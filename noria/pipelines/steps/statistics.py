"""Statistics of numbers over blocks: the same to the bit whoever works on which block, in memory that doesn't grow.

Each block gives a small summary, and summaries are combined in the blocks' order. Where the blocks are cut changes sums
in their last bits (to 1e-12 of the values' spread) and nothing else. Missing values, NaN and infinity are left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria.pipelines.blocks import Blocks

_COLLECT = 1_000_000
"""Values that are gathered and sorted, once so few can hold the ones that are looked for."""
_BITS = 16
_TAME = 1e150
"""Up to its square a float holds sums of squares."""

Floats = NDArray[np.float64]
Keys = NDArray[np.uint64]


@dataclass(frozen=True)
class Moments:
    """Of a column's values: how many, their mean, the sum of squared distances from it, the least and the greatest.

    All but the count are of the values times `scale`, a power of two.
    """

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    least: float = math.inf
    greatest: float = -math.inf
    scale: float = 1.0

    def __add__(self, other: Moments) -> Moments:
        """Chan, Golub and LeVeque (1979), Updating formulae and a pairwise algorithm for computing sample variances."""
        if not self.count or not other.count:
            return self if self.count else other
        count, delta = self.count + other.count, other.mean - self.mean
        least, greatest = min(self.least, other.least), max(self.greatest, other.greatest)
        mean = least if least == greatest else self.mean + delta * (other.count / count)
        squares = self.squares + other.squares + delta * delta * (self.count * (other.count / count))
        return Moments(count, mean, squares, least, greatest, self.scale)

    @property
    def deviation(self) -> float:
        """The standard deviation of the population; exactly 0 for equal values."""
        if not self.count or self.least == self.greatest:
            return 0.0
        return math.sqrt(self.squares / self.count) / self.scale

    @property
    def better_scale(self) -> float:
        """By what huge or tiny values have to be multiplied, so that their squares are floats too."""
        if not self.count or self.least == self.greatest:
            return 1.0
        if max(abs(self.least), abs(self.greatest)) > _TAME:
            return 2.0**-600
        return 2.0**500 if self.greatest - self.least < 1 / _TAME else 1.0


def moments(blocks: Blocks, names: Sequence[str]) -> dict[str, Moments]:
    """The moments of columns of numbers."""
    found = _moments(blocks, dict.fromkeys(names, 1.0))
    scales = {name: m.better_scale for name, m in found.items() if m.better_scale != 1.0}
    scaled = _moments(blocks, scales) if scales else {}
    return found | {name: _with_ends_of(found[name], m) for name, m in scaled.items()}


def _with_ends_of(found: Moments, scaled: Moments) -> Moments:
    return Moments(
        found.count, scaled.mean / scaled.scale, scaled.squares, found.least, found.greatest, scale=scaled.scale
    )


def _moments(blocks: Blocks, scales: Mapping[str, float]) -> dict[str, Moments]:
    if not scales:
        return {}
    found = dict.fromkeys(scales, Moments())
    for part in blocks.map(partial(_moments_of_block, dict(scales))):
        found = {name: found[name] + part[name] for name in scales}
    return found


def known(column: pl.Series) -> Floats:
    """The finite values of a column of numbers as float64."""
    values: Floats = column.drop_nulls().cast(pl.Float64).to_numpy()
    return values[np.isfinite(values)] if column.dtype.is_float() else values


def _moments_of_block(scales: dict[str, float], frame: pl.DataFrame, block: int) -> dict[str, Moments]:
    return {name: _moments_of(known(frame[name]), scale) for name, scale in scales.items()}


def _moments_of(values: Floats, scale: float) -> Moments:
    if not len(values):
        return Moments(scale=scale)
    if scale != 1.0:
        values = values * scale
    least, greatest = float(values.min()), float(values.max())
    if least == greatest:
        return Moments(len(values), least, 0.0, least, greatest, scale)
    if max(abs(least), abs(greatest)) > _TAME:  # it will be scaled
        return Moments(len(values), 0.0, 0.0, least, greatest, scale)
    mean = min(max(float(np.add.reduce(values)) / len(values), least), greatest)
    distance = values - mean
    # No np.dot: its order of additions depends on the machine.
    return Moments(len(values), mean, float(np.add.reduce(distance * distance)), least, greatest, scale)


def quantiles(blocks: Blocks, wanted: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """Exact quantiles of columns, interpolated between neighbours as NumPy does it; empty for a column without values.

    The values are mapped to integers of the same order, and narrowed down by the counts of their leading bits, until so
    few are left that they can be gathered. A block is read two to four times, whatever the number of columns.
    """
    if not wanted:
        return {}
    tables = _counted(blocks, [_Range(name, 0, 0, 0) for name in wanted])
    counts = {r.name: int(histogram.sum()) for r, histogram in tables}
    places = {name: [share * (counts[name] - 1) for share in shares] for name, shares in wanted.items() if counts[name]}
    ranks = {
        name: {rank for place in found for rank in (int(place), min(int(place) + 1, counts[name] - 1))}
        for name, found in places.items()
    }
    values = _at(blocks, tables, ranks)
    return {
        name: [_between(values, name, place, counts[name] - 1) for place in places.get(name, [])] for name in wanted
    }


def _between(values: Mapping[tuple[str, int], float], name: str, place: float, last: int) -> float:
    low, high = values[name, int(place)], values[name, min(int(place) + 1, last)]
    part = place - int(place)
    if low == high or not part:
        return low
    step = (high - low) * part
    between = low + step if math.isfinite(step) else low * (1 - part) + high * part
    return min(max(between, low), high)


@dataclass(frozen=True)
class _Range:
    """Values of a column whose leading bits are these; `below` values come before them."""

    name: str
    bits: int
    prefix: int
    below: int


Histogram = NDArray[np.int64]
Tables = list[tuple[_Range, Histogram]]


def _at(blocks: Blocks, tables: Tables, ranks: Mapping[str, set[int]]) -> dict[tuple[str, int], float]:
    """The values at ranks, from 0, in ascending order; the tables say how many values have which leading bits."""
    found: dict[tuple[str, int], float] = {}
    wanted = {r: ranks.get(r.name, set()) for r, _ in tables}
    while wanted:
        narrowed: dict[_Range, tuple[int, set[int]]] = {}
        for r, histogram in tables:
            ends = r.below + np.cumsum(histogram)
            for place in wanted[r]:
                digit = int(np.searchsorted(ends, place, side="right"))
                count = int(histogram[digit])
                narrow = _Range(r.name, r.bits + _BITS, (r.prefix << _BITS) | digit, int(ends[digit]) - count)
                narrowed.setdefault(narrow, (count, set()))[1].add(place)
        known_now, few, many = _sorted_out(narrowed)
        found |= {(r.name, place): _value(r.prefix) for r in known_now for place in narrowed[r][1]}
        for r, values in zip(few, _collected(blocks, few), strict=True):
            found |= {(r.name, place): float(values[place - r.below]) for place in narrowed[r][1]}
        tables = _counted(blocks, many)
        wanted = {r: narrowed[r][1] for r in many}
    return found


def _sorted_out(ranges: Mapping[_Range, tuple[int, set[int]]]) -> tuple[list[_Range], list[_Range], list[_Range]]:
    """Ranges of one value, those whose values can be gathered now, and those that have to be narrowed further."""
    single = [r for r in ranges if r.bits == 64]
    few: list[_Range] = []
    many: list[_Range] = []
    left = _COLLECT
    for r in sorted((r for r in ranges if r.bits < 64), key=lambda r: ranges[r][0]):
        left -= ranges[r][0]
        (few if left >= 0 else many).append(r)
    return single, sorted(few, key=_name), sorted(many, key=_name)


def _name(r: _Range) -> str:
    return r.name


def _counted(blocks: Blocks, ranges: list[_Range]) -> Tables:
    """For each range how many of its values have which next bits."""
    if not ranges:
        return []
    parts = blocks.map(partial(_counts, ranges))
    tables = []
    for number, r in enumerate(ranges):
        histogram = np.zeros(1 << _BITS, np.int64)
        for part in parts:
            digits, counts = part[number]
            histogram[digits] += counts
        tables.append((r, histogram))
    return tables


def _counts(ranges: list[_Range], frame: pl.DataFrame, block: int) -> list[tuple[NDArray[np.uint16], Histogram]]:
    made = []
    for r, _, keys in _each(frame, ranges):
        digits = (keys >> np.uint64(64 - r.bits - _BITS)).astype(np.uint16)
        histogram = np.bincount(digits, minlength=1)
        present = np.flatnonzero(histogram)  # of 65,536 there are a few hundred
        made.append((present.astype(np.uint16), histogram[present]))
    return made


def _collected(blocks: Blocks, ranges: list[_Range]) -> list[Floats]:
    if not ranges:
        return []
    parts = blocks.map(partial(_collect, ranges))
    return [np.sort(np.concatenate([part[number] for part in parts])) for number in range(len(ranges))]


def _collect(ranges: list[_Range], frame: pl.DataFrame, block: int) -> list[Floats]:
    return [values for _, values, _ in _each(frame, ranges)]


def _each(frame: pl.DataFrame, ranges: list[_Range]) -> Iterator[tuple[_Range, Floats, Keys]]:
    """The values in each range, and their keys; a column's ranges follow each other or are few."""
    name, values, keys = "", np.empty(0), np.empty(0, np.uint64)
    for r in ranges:
        if r.name != name:
            name, values = r.name, known(frame[r.name]) + 0.0  # -0.0 and 0.0 are one value
            bits = values.view(np.uint64)
            keys = np.where(bits >> np.uint64(63), ~bits, bits | _SIGN)  # negative numbers grow downwards
        if not r.bits:
            yield r, values, keys
            continue
        mine = (keys >> np.uint64(64 - r.bits)) == np.uint64(r.prefix)
        yield r, values[mine], keys[mine]


_SIGN = np.uint64(1 << 63)


def _value(key: int) -> float:
    """The value with this key."""
    bits = key ^ (1 << 63) if key >> 63 else ~key & (2**64 - 1)
    return float(np.array([bits], np.uint64).view(np.float64)[0])
