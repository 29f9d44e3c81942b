"""Fill missing values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import polars as pl

from noria.core import ConfigError, allowed
from noria.pipelines.blocks import Blocks
from noria.pipelines.steps.categories import categories
from noria.pipelines.steps.statistics import moments, quantiles
from noria.pipelines.steps.step import ByRow, Row, RowFunction, chosen, limits, listed, numeric, rounded, textual

STRATEGIES = ("mean", "median", "most_frequent", "constant")
Fill = float | int | str


@dataclass(frozen=True)
class Impute:
    """Fills missing values with one value for each column.

    Attributes:
        columns: which; by default all numbers and text (with `mean` and `median`, text gets its most frequent value).
        strategy: `mean`, `median`, `most_frequent` (the smallest of several) or `constant`.
        value: the value of `constant`.
        indicator: whether to add a column `column=missing` of 0 and 1 for each column of which a fitted row has no
            value: that it is missing may tell something.

    A column without any value is filled with 0 or with empty text. Integers are filled with the rounded mean or median.
    """

    columns: Sequence[str] | None = None
    strategy: str = "median"
    value: float | str | None = None
    indicator: bool = False

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise ConfigError(f"Impute: unknown strategy {self.strategy!r}", hint=allowed(STRATEGIES, self.strategy))
        if (self.strategy == "constant") != (self.value is not None):
            raise ConfigError("Impute: a value goes with strategy='constant', and only with it", field="value")

    def touched(self, schema: pl.Schema) -> tuple[str, ...]:
        suitable = {*numeric(schema), *textual(schema)}
        return chosen(schema, self.columns, [name for name in schema if name in suitable], "Impute")

    def fit(self, blocks: Blocks) -> FittedImpute:
        schema = blocks.schema
        names = self.touched(schema)
        return FittedImpute(self._fills(blocks, names), self._gaps(blocks, names) if self.indicator else ())

    def _gaps(self, blocks: Blocks, names: tuple[str, ...]) -> tuple[str, ...]:
        """The columns with gaps."""
        parts = blocks.map(partial(_has_gaps, names))
        gaps = tuple(name for at, name in enumerate(names) if any(part[at] for part in parts))
        made = next((f"{name}=missing" for name in gaps if f"{name}=missing" in blocks.schema), None)
        if made is not None:
            raise ConfigError(f"Impute: there is a column {made!r} already", hint="rename it: nr.Rename", field=made)
        return gaps

    def _fills(self, blocks: Blocks, names: tuple[str, ...]) -> dict[str, Fill]:
        schema = blocks.schema
        texts = textual(schema)
        if self.strategy == "constant":
            return {name: self._constant(name, schema[name]) for name in names}
        by_count = [name for name in names if name in texts or self.strategy == "most_frequent"]
        fills = {name: found.top["value"].first() for name, found in categories(blocks, by_count, most=1).items()}
        rest = [name for name in names if name not in by_count]
        if self.strategy == "mean":
            fills |= {name: m.mean if m.count else None for name, m in moments(blocks, rest).items()}
        else:
            medians = quantiles(blocks, dict.fromkeys(rest, (0.5,)))
            fills |= {name: values[0] if values else None for name, values in medians.items()}
        return {name: _typed(fills[name], schema[name]) for name in names}

    def _constant(self, name: str, dtype: pl.DataType) -> Fill:
        value = self.value
        fits = isinstance(value, str) if dtype == pl.String else isinstance(value, (int, float))
        if value is None or not fits or (dtype.is_integer() and value != int(value)):
            raise ConfigError(f"Impute: {value!r} can't fill {name!r}, which is {dtype}", field=name)
        try:
            pl.Series([value], dtype=dtype)
        except (TypeError, OverflowError, pl.exceptions.PolarsError) as error:
            raise ConfigError(f"Impute: {value!r} can't fill {name!r}, which is {dtype}", field=name) from error
        return int(value) if dtype.is_integer() else value

    def to_dict(self) -> dict[str, Any]:
        plain = {"step": "Impute", "columns": listed(self.columns), "strategy": self.strategy, "value": self.value}
        return {**plain, "indicator": True} if self.indicator else plain


def _has_gaps(names: tuple[str, ...], frame: pl.DataFrame, block: int) -> list[bool]:
    return [frame[name].has_nulls() for name in names]


def _typed(value: Any, dtype: pl.DataType) -> Fill:
    if dtype == pl.String:
        return str(value) if value is not None else ""
    if value is None:
        return 0 if dtype.is_integer() else 0.0
    if dtype.is_integer():
        least, greatest = limits(dtype)
        return int(min(max(round(value), least), greatest))  # as a float the greatest int64 is one too many
    return rounded(value + 0.0, dtype)


@dataclass(frozen=True)
class FittedImpute(ByRow):
    """Fills each column's gaps with its value, and says of some where they were."""

    fills: dict[str, Fill]
    indicators: tuple[str, ...] = ()

    def apply(self, frame: pl.DataFrame) -> pl.DataFrame:
        filled = [pl.col(name).fill_null(pl.lit(fill, dtype=frame.schema[name])) for name, fill in self.fills.items()]
        gaps = [pl.col(name).is_null().cast(pl.Float32).alias(f"{name}=missing") for name in self.indicators]
        return frame.with_columns(*filled, *gaps)

    def row(self, schema: pl.Schema) -> RowFunction:
        fills = [
            (name, rounded(float(fill), schema[name]) if schema[name].is_float() else fill)
            for name, fill in self.fills.items()
        ]

        gaps = [(name, f"{name}=missing") for name in self.indicators]

        def impute(row: Row) -> bool:
            for name, made in gaps:
                row[made] = 1.0 if row[name] is None else 0.0
            for name, fill in fills:
                if row[name] is None:
                    row[name] = fill
            return True

        return impute

    def to_dict(self) -> dict[str, Any]:
        plain: dict[str, Any] = {"step": "Impute", "fills": self.fills}
        return {**plain, "indicators": list(self.indicators)} if self.indicators else plain

    @staticmethod
    def from_dict(state: dict[str, Any]) -> FittedImpute:
        """The reverse of `to_dict`."""
        return FittedImpute(dict(state["fills"]), tuple(state.get("indicators", ())))
