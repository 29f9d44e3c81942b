"""Bring numbers to one scale."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from noria.core import ConfigError, allowed
from noria.pipelines.blocks import Blocks
from noria.pipelines.steps.statistics import Moments, moments, quantiles
from noria.pipelines.steps.step import ByRow, Row, RowFunction, chosen, listed, numeric

METHODS = ("standard", "minmax", "robust", "log")


@dataclass(frozen=True)
class Normalize:
    """Shifts and scales numbers, to float64.

    Attributes:
        columns: which; by default all numbers.
        method: `standard`: (x - mean) / standard deviation (of the population); `minmax`: (x - min) / (max - min);
            `robust`: (x - median) / (third quartile - first quartile); `log`: ln(1 + x), missing for x <= -1.

    A column that is constant becomes 0. Missing stays missing.
    """

    columns: Sequence[str] | None = None
    method: str = "standard"

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ConfigError(f"Normalize: unknown method {self.method!r}", hint=allowed(METHODS, self.method))

    def touched(self, schema: pl.Schema) -> tuple[str, ...]:
        return chosen(schema, self.columns, numeric(schema), "Normalize")

    def fit(self, blocks: Blocks) -> FittedNormalize | FittedLog:
        names = self.touched(blocks.schema)
        if self.method == "log":
            return FittedLog(names)
        if self.method == "robust":
            found = quantiles(blocks, dict.fromkeys(names, (0.25, 0.5, 0.75)))
            return FittedNormalize({name: _scale(v[1], v[2] - v[0]) if v else (0.0, 1.0) for name, v in found.items()})
        return FittedNormalize({name: self._scale(m) for name, m in moments(blocks, names).items()})

    def _scale(self, found: Moments) -> tuple[float, float]:
        if not found.count:
            return 0.0, 1.0
        if self.method == "standard":
            return _scale(found.mean, found.deviation)
        width = found.greatest - found.least
        if math.isinf(width):  # 1 / width is still a float
            return found.least, 0.5 / (found.greatest / 2 - found.least / 2)
        return _scale(found.least, width)

    def to_dict(self) -> dict[str, Any]:
        return {"step": "Normalize", "columns": listed(self.columns), "method": self.method}


def _scale(shift: float, width: float) -> tuple[float, float]:
    # A width that is beyond floats would make the factor 0, and what is as far away as that NaN: infinity times 0.
    factor = 1.0 / min(width, sys.float_info.max) if width > 0 else 1.0
    # Polars takes -0.0 for nothing to subtract, which it isn't for x = -0.0.
    return shift + 0.0, factor if math.isfinite(factor) else 1.0


@dataclass(frozen=True)
class FittedNormalize(ByRow):
    """For each column what is subtracted, and what the difference is multiplied by.

    Multiplied, not divided: Polars divides a long column by multiplying with the reciprocal, and a single value
    properly, so that a row alone would differ from the batch in its last bit.
    """

    scales: dict[str, tuple[float, float]]

    def apply(self, frame: pl.DataFrame) -> pl.DataFrame:
        return frame.with_columns(
            ((pl.col(name).cast(pl.Float64) - shift) * factor).alias(name)
            for name, (shift, factor) in self.scales.items()
        )

    def row(self, schema: pl.Schema) -> RowFunction:
        scales = [(name, shift, factor) for name, (shift, factor) in self.scales.items()]

        def scale(row: Row) -> bool:
            for name, shift, factor in scales:
                value = row[name]
                if value is not None:
                    row[name] = (value - shift) * factor
            return True

        return scale

    def to_dict(self) -> dict[str, Any]:
        return {"step": "Normalize", "scales": {name: list(scale) for name, scale in self.scales.items()}}

    @staticmethod
    def from_dict(state: dict[str, Any]) -> FittedNormalize | FittedLog:
        """The reverse of `to_dict`."""
        if "log" in state:
            return FittedLog(tuple(state["log"]))
        return FittedNormalize({name: (scale[0], scale[1]) for name, scale in state["scales"].items()})


@dataclass(frozen=True)
class FittedLog(ByRow):
    """Takes logarithms of 1 + x."""

    columns: tuple[str, ...]

    def apply(self, frame: pl.DataFrame) -> pl.DataFrame:
        values = [pl.col(name).cast(pl.Float64) for name in self.columns]
        return frame.with_columns(pl.when(value > -1.0).then(value.log1p()) for value in values)

    def row(self, schema: pl.Schema) -> RowFunction:
        columns = self.columns

        def log(row: Row) -> bool:
            for name in columns:
                value = row[name]
                if value is not None:
                    row[name] = math.log1p(value) if value > -1.0 else None
            return True

        return log

    def to_dict(self) -> dict[str, Any]:
        return {"step": "Normalize", "log": list(self.columns)}
