"""Hold numbers within bounds, and sort them into buckets."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from noria.core import ConfigError
from noria.pipelines.blocks import Blocks
from noria.pipelines.steps.statistics import quantiles
from noria.pipelines.steps.step import ByRow, Row, RowFunction, chosen, limits, listed, numeric, rounded


@dataclass(frozen=True)
class Clip:
    """Moves numbers outside of bounds to the bound.

    Attributes:
        columns: which; by default all numbers.
        low, high: the bounds; None for none.
        quantiles: the bounds as two quantiles of each column, such as (0.01, 0.99), in place of `low` and `high`.
    """

    columns: Sequence[str] | None = None
    low: float | None = None
    high: float | None = None
    quantiles: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if (self.quantiles is None) == (self.low is None and self.high is None):
            raise ConfigError("Clip needs bounds: low=, high=, or quantiles=(0.01, 0.99)")
        low, high = self.quantiles if self.quantiles is not None else (self.low, self.high)
        if low is not None and high is not None and not low <= high:
            raise ConfigError(f"Clip: the lower bound {low} is above the upper one {high}")
        if self.quantiles is not None and not 0 <= self.quantiles[0] <= self.quantiles[1] <= 1:
            raise ConfigError(f"Clip: quantiles={self.quantiles} are not from 0 to 1")

    def touched(self, schema: pl.Schema) -> tuple[str, ...]:
        return chosen(schema, self.columns, numeric(schema), "Clip")

    def fit(self, blocks: Blocks) -> FittedClip:
        names = self.touched(blocks.schema)
        if self.quantiles is None:
            return FittedClip(dict.fromkeys(names, (self.low, self.high)))
        found = quantiles(blocks, dict.fromkeys(names, self.quantiles))
        return FittedClip({name: (v[0], v[1]) if v else (None, None) for name, v in found.items()})

    def to_dict(self) -> dict[str, Any]:
        bounds = {"low": self.low, "high": self.high}
        return {
            "step": "Clip",
            "columns": listed(self.columns),
            **(bounds if self.quantiles is None else {"quantiles": list(self.quantiles)}),
        }


Bounds = tuple[float | None, float | None]


@dataclass(frozen=True)
class FittedClip(ByRow):
    """Clips by these bounds."""

    bounds: dict[str, Bounds]

    def apply(self, frame: pl.DataFrame) -> pl.DataFrame:
        return frame.with_columns(self._clipped(name, frame.schema[name]) for name in self.bounds)

    def _clipped(self, name: str, dtype: pl.DataType) -> pl.Expr:
        low, high = _bounds(self.bounds[name], dtype)
        made = pl.col(name)
        if low is not None:
            made = pl.when(pl.col(name) < low).then(pl.lit(low, dtype)).otherwise(made)
        if high is not None:
            made = pl.when(pl.col(name) > high).then(pl.lit(high, dtype)).otherwise(made)
        return made.alias(name)

    def row(self, schema: pl.Schema) -> RowFunction:
        bounds = [(name, *_bounds(found, schema[name])) for name, found in self.bounds.items()]

        def clip(row: Row) -> bool:
            for name, low, high in bounds:
                value = row[name]
                if value is not None:
                    if low is not None and value < low:
                        row[name] = low
                    if high is not None and value > high:
                        row[name] = high
            return True

        return clip

    def to_dict(self) -> dict[str, Any]:
        return {"step": "Clip", "bounds": {name: list(bounds) for name, bounds in self.bounds.items()}}

    @staticmethod
    def from_dict(state: dict[str, Any]) -> FittedClip:
        """The reverse of `to_dict`."""
        return FittedClip({name: (bounds[0], bounds[1]) for name, bounds in state["bounds"].items()})


def _float_bound(bound: float | None, dtype: pl.DataType) -> float | None:
    typed = None if bound is None else rounded(bound, dtype)
    return typed if typed is not None and math.isfinite(typed) else None


def _bounds(bounds: Bounds, dtype: pl.DataType) -> Bounds:
    """Bounds as values of the column's type, and none where that type has no value beyond them."""
    low, high = bounds
    if not dtype.is_integer():
        return _float_bound(low, dtype), _float_bound(high, dtype)
    least, greatest = limits(dtype)
    low = None if low is None or low <= least else min(math.ceil(low), greatest)
    high = None if high is None or high >= greatest else max(math.floor(high), least)
    return low, high


@dataclass(frozen=True)
class Bucket:
    """Replaces numbers by the number of their bucket, as float32. Missing stays missing.

    Attributes:
        columns: which; by default all numbers.
        edges: ascending; a value is in the bucket with as many edges at or below it: with (0, 10), -1 is in 0, 0 in 1,
            10 in 2.
        quantiles: how many buckets with the same number of rows, in place of `edges`.
    """

    columns: Sequence[str] | None = None
    edges: Sequence[float] | None = None
    quantiles: int | None = None

    def __post_init__(self) -> None:
        if (self.edges is None) == (self.quantiles is None):
            raise ConfigError("Bucket needs edges=(…) or quantiles=N")
        if self.edges is not None and (not self.edges or list(self.edges) != sorted(set(self.edges))):
            raise ConfigError(f"Bucket: edges={list(self.edges)} must ascend, and be at least one")
        if self.quantiles is not None and self.quantiles < 2:
            raise ConfigError(f"Bucket: quantiles={self.quantiles} must be at least 2")

    def touched(self, schema: pl.Schema) -> tuple[str, ...]:
        return chosen(schema, self.columns, numeric(schema), "Bucket")

    def fit(self, blocks: Blocks) -> FittedBucket:
        names = self.touched(blocks.schema)
        if self.edges is not None:
            return FittedBucket({name: [float(edge) for edge in self.edges] for name in names})
        count = self.quantiles or 2
        shares = [number / count for number in range(1, count)]
        found = quantiles(blocks, dict.fromkeys(names, shares))
        return FittedBucket({name: sorted(set(values)) for name, values in found.items()})

    def to_dict(self) -> dict[str, Any]:
        edges = None if self.edges is None else list(self.edges)
        return {"step": "Bucket", "columns": listed(self.columns), "edges": edges, "quantiles": self.quantiles}


@dataclass(frozen=True)
class FittedBucket(ByRow):
    """Sorts by these edges."""

    edges: dict[str, list[float]]

    def apply(self, frame: pl.DataFrame) -> pl.DataFrame:
        return frame.with_columns(self._bucket(frame[name], edges) for name, edges in self.edges.items())

    def _bucket(self, column: pl.Series, edges: list[float]) -> pl.Series:
        values = column.cast(pl.Float64)
        codes = np.searchsorted(np.array(edges, np.float64), values.fill_null(0.0).to_numpy(), side="right")
        return pl.Series(column.name, codes, pl.Float32).set(column.is_null(), None)

    def row(self, schema: pl.Schema) -> RowFunction:
        columns = list(self.edges.items())

        def bucket(row: Row) -> bool:
            for name, edges in columns:
                value = row[name]
                if value is not None:
                    row[name] = float(bisect_right(edges, float(value)))
            return True

        return bucket

    def to_dict(self) -> dict[str, Any]:
        return {"step": "Bucket", "edges": self.edges}

    @staticmethod
    def from_dict(state: dict[str, Any]) -> FittedBucket:
        """The reverse of `to_dict`."""
        return FittedBucket({name: list(edges) for name, edges in state["edges"].items()})
