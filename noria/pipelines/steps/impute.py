"""Fill missing values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import polars as pl

from noria.core import ConfigError, allowed
from noria.pipelines.steps.step import chosen, numeric, textual

STRATEGIES = ("mean", "median", "most_frequent", "constant")


@dataclass(frozen=True)
class Impute:
    """Fills missing values with one value for each column.

    Attributes:
        columns: which; by default all numbers and text (with `mean` and `median`, text gets its most frequent value).
        strategy: `mean`, `median`, `most_frequent` (the smallest of several) or `constant`.
        value: the value of `constant`.

    A column without any value is filled with 0 or with empty text. Integers are filled with the rounded mean or median.
    """

    columns: Sequence[str] | None = None
    strategy: str = "median"
    value: float | str | None = None

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise ConfigError(f"Impute: unknown strategy {self.strategy!r}", hint=allowed(STRATEGIES, self.strategy))
        if (self.strategy == "constant") != (self.value is not None):
            raise ConfigError("Impute: a value goes with strategy='constant', and only with it", field="value")

    def fit(self, frame: pl.DataFrame) -> FittedImpute:
        suitable = [*numeric(frame), *textual(frame)]
        names = chosen(frame, self.columns, [name for name in frame.columns if name in suitable], "Impute")
        return FittedImpute({name: self._fill(frame[name]) for name in names})

    def _fill(self, column: pl.Series) -> float | int | str:
        text = column.dtype == pl.String
        if self.strategy == "constant" and self.value is not None:
            if isinstance(self.value, str) != text:
                raise ConfigError(f"Impute: {self.value!r} can't fill {column.name!r}, which is {column.dtype}")
            return self.value
        known = column.drop_nulls()
        if known.is_empty():
            return "" if text else 0
        if text or self.strategy == "most_frequent":
            return cast("float | str", known.mode().sort().first())
        middle = float(known.mean() if self.strategy == "mean" else known.median())  # type: ignore[arg-type]
        return round(middle) if column.dtype.is_integer() else middle

    def to_dict(self) -> dict[str, Any]:
        columns = None if self.columns is None else list(self.columns)
        return {"step": "Impute", "columns": columns, "strategy": self.strategy, "value": self.value}


@dataclass(frozen=True)
class FittedImpute:
    """Fills each column's gaps with its value."""

    fills: dict[str, float | int | str]

    def apply(self, frame: pl.DataFrame) -> pl.DataFrame:
        return frame.with_columns(
            pl.col(name).fill_null(pl.lit(fill, dtype=frame.schema[name])) for name, fill in self.fills.items()
        )

    def to_dict(self) -> dict[str, Any]:
        return {"step": "Impute", "fills": self.fills}

    @staticmethod
    def from_dict(state: dict[str, Any]) -> FittedImpute:
        """The reverse of `to_dict`."""
        return FittedImpute(dict(state["fills"]))
