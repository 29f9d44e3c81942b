"""Turn categories into numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from noria.core import ConfigError, allowed
from noria.pipelines.steps.step import chosen, textual

METHODS = ("ordinal", "onehot")


@dataclass(frozen=True)
class Encode:
    """Replaces text by numbers.

    Attributes:
        columns: which; by default all text.
        method: `ordinal`: the category's place among the fitted ones in alphabetical order, as float32; a category
            that wasn't there when fitting is -1, a missing one -2. `onehot`: a column of 0 and 1 for each category,
            named `column=category`; unseen and missing ones are all zeros.
        max_categories: with more, only the most frequent ones are kept; the others count as unseen.
    """

    columns: Sequence[str] | None = None
    method: str = "ordinal"
    max_categories: int = 1000

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ConfigError(f"Encode: unknown method {self.method!r}", hint=allowed(METHODS, self.method))
        if self.max_categories < 1:
            raise ConfigError(f"Encode: max_categories={self.max_categories} must be at least 1")

    def fit(self, frame: pl.DataFrame) -> FittedEncode:
        names = chosen(frame, self.columns, textual(frame), "Encode")
        return FittedEncode(self.method, {name: self._categories(frame[name]) for name in names})

    def _categories(self, column: pl.Series) -> list[str]:
        counts = column.drop_nulls().value_counts().sort(["count", column.name], descending=[True, False])
        return sorted(counts[column.name].head(self.max_categories).to_list())

    def to_dict(self) -> dict[str, Any]:
        columns = None if self.columns is None else list(self.columns)
        return {"step": "Encode", "columns": columns, "method": self.method, "max_categories": self.max_categories}


@dataclass(frozen=True)
class FittedEncode:
    """Encodes by these categories."""

    method: str
    categories: dict[str, list[str]]

    def apply(self, frame: pl.DataFrame) -> pl.DataFrame:
        if self.method == "ordinal":
            return frame.with_columns(self._ordinal(name, values) for name, values in self.categories.items())
        columns: list[pl.Expr] = []
        for name in frame.columns:
            values = self.categories.get(name)
            columns += [pl.col(name)] if values is None else [self._indicator(name, value) for value in values]
        return frame.select(columns) if columns else frame

    def _ordinal(self, name: str, values: list[str]) -> pl.Expr:
        if not values:
            return pl.when(pl.col(name).is_null()).then(-2.0).otherwise(-1.0).cast(pl.Float32).alias(name)
        codes = pl.col(name).replace_strict(values, list(range(len(values))), default=-1, return_dtype=pl.Float32)
        return pl.when(pl.col(name).is_null()).then(pl.lit(-2, pl.Float32)).otherwise(codes).alias(name)

    def _indicator(self, name: str, value: str) -> pl.Expr:
        return (pl.col(name) == value).fill_null(value=False).cast(pl.Float32).alias(f"{name}={value}")

    def to_dict(self) -> dict[str, Any]:
        return {"step": "Encode", "method": self.method, "categories": self.categories}

    @staticmethod
    def from_dict(state: dict[str, Any]) -> FittedEncode:
        """The reverse of `to_dict`."""
        return FittedEncode(state["method"], {name: list(values) for name, values in state["categories"].items()})
