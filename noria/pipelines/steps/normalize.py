"""Bring numbers to one scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from noria.core import ConfigError, allowed
from noria.pipelines.steps.step import chosen, numeric

METHODS = ("standard", "minmax")


@dataclass(frozen=True)
class Normalize:
    """Shifts and scales numbers, to float64.

    Attributes:
        columns: which; by default all numbers.
        method: `standard`: (x - mean) / standard deviation (of the population); `minmax`: (x - min) / (max - min).

    A column that is constant becomes 0. Missing stays missing.
    """

    columns: Sequence[str] | None = None
    method: str = "standard"

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ConfigError(f"Normalize: unknown method {self.method!r}", hint=allowed(METHODS, self.method))

    def fit(self, frame: pl.DataFrame) -> FittedNormalize:
        names = chosen(frame, self.columns, numeric(frame), "Normalize")
        return FittedNormalize({name: self._scale(frame[name].cast(pl.Float64).drop_nulls()) for name in names})

    def _scale(self, known: pl.Series) -> tuple[float, float]:
        if known.is_empty():
            return 0.0, 1.0
        if self.method == "standard":
            shift, width = float(known.mean()), float(known.std(ddof=0))  # type: ignore[arg-type]
        else:
            shift = float(known.min())  # type: ignore[arg-type]
            width = float(known.max()) - shift  # type: ignore[arg-type]
        return shift, 1.0 / width if width > 0 else 1.0

    def to_dict(self) -> dict[str, Any]:
        columns = None if self.columns is None else list(self.columns)
        return {"step": "Normalize", "columns": columns, "method": self.method}


@dataclass(frozen=True)
class FittedNormalize:
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

    def to_dict(self) -> dict[str, Any]:
        return {"step": "Normalize", "scales": {name: list(scale) for name, scale in self.scales.items()}}

    @staticmethod
    def from_dict(state: dict[str, Any]) -> FittedNormalize:
        """The reverse of `to_dict`."""
        return FittedNormalize({name: (scale[0], scale[1]) for name, scale in state["scales"].items()})
